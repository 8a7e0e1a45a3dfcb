#!/usr/bin/env bash
# Values of this recipe; what follows on the command line wins, a preset lies between.
#   ./run.sh                  all stages        ./run.sh --stage list    what the stages are
#   ./run.sh --preset toy     a first try       ./run.sh --stage decode --stop_stage score --inference_tag second
set -euo pipefail

"$(dirname "${BASH_SOURCE[0]}")/asr.sh" \
    --train_set train --valid_set valid --test_sets test \
    --token_type unigram --nbpe 300 \
    --encoder_config conf/train_encoder.yaml \
    --text_config conf/train_text.yaml \
    --adapter_config conf/train_adapter.yaml \
    --asr_config conf/train_decoder.yaml \
    --inference_config "conf/decode_pdd.yaml conf/decode_ctc.yaml" \
    -- "$@"
