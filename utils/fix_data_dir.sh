#!/usr/bin/env bash
# Mend a Kaldi data directory, the former files go to .backup: fix_data_dir.sh data/train
set -euo pipefail
exec python -m whisfusion_asr.bin.data fix "$@"
