#!/usr/bin/env bash
# Check a Kaldi data directory: validate_data_dir.sh data/train
set -euo pipefail
exec python -m whisfusion_asr.bin.data validate "$@"
