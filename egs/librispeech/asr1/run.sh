#!/usr/bin/env bash
# LibriSpeech. Default: 960 hours with a frozen Whisper-small, downloaded by stage 0 (61 GB).
#   ./run.sh --librispeech_dir DIR                    an unpacked LibriSpeech, nothing is downloaded
#   ./run.sh --preset mini --librispeech_dir DIR --whisper_dir DIR
#       a LibriSpeech-shaped folder with parts train-mini, dev-mini, test-mini, a small Whisper, a small decoder: CPU
set -euo pipefail

"$(dirname "${BASH_SOURCE[0]}")/asr.sh" \
    --train_set train_960 --valid_set dev --test_sets "test_clean test_other" --lang en \
    --token_type unigram --nbpe 5000 \
    --encoder_config conf/whisper_small.yaml \
    --text_config conf/train_text.yaml \
    --adapter_config conf/train_adapter.yaml \
    --asr_config conf/train_decoder.yaml \
    --inference_config ../../../conf/decode_pdd_accurate.yaml \
    --nj 8 --inference_nj 8 \
    -- "${@/#--librispeech[-_]dir/--corpus_dir}"
