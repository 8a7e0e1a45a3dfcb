#!/usr/bin/env bash
# Some utterances of a Kaldi data directory: subset_data_dir.sh [--first] data/train 100 data/train_100
set -euo pipefail
exec python -m whisfusion_asr.bin.data subset "$@"
