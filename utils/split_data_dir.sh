#!/usr/bin/env bash
# Split a Kaldi data directory into data/train/split4/{1..4}: split_data_dir.sh data/train 4
set -euo pipefail
exec python -m whisfusion_asr.bin.data split "$@"
