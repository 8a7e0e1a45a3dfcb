#!/usr/bin/env bash
# Values of this recipe. What follows on the command line wins: ./run.sh --stage 5 --inference_nj 8
set -euo pipefail

"$(dirname "${BASH_SOURCE[0]}")/asr.sh" \
    --train_set train \
    --valid_set valid \
    --test_sets test \
    --token_type unigram \
    --nbpe 500 \
    --encoder_config conf/encoder_ctc.yaml \
    --text_config conf/train_text.yaml \
    --adapter_config conf/train_adapter.yaml \
    --asr_config conf/train_decoder.yaml \
    --inference_config conf/decode_pdd.yaml \
    -- "$@"
