#!/usr/bin/env bash
# The union of Kaldi data directories: combine_data.sh data/all data/train data/more
set -euo pipefail
exec python -m whisfusion_asr.bin.data combine "$@"
