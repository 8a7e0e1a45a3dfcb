#!/usr/bin/env bash
# Print spk2utt: utt2spk_to_spk2utt.sh data/train/utt2spk > data/train/spk2utt
set -euo pipefail
exec python -m whisfusion_asr.bin.data spk2utt "$@"
