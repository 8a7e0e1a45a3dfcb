#!/usr/bin/env bash
# The CTC control of the preset mini: four conformer blocks on the same frozen states, trained and decoded alone.
#   ./run_ctc.sh --whisper_dir DIR
# Run run.sh first. In the preset mini_scratch, conf/decode_ctc.yaml is one of run.sh's own decodings.
exec "$(dirname "$0")/run.sh" --preset mini --stage train_decoder --stop_stage score \
    --ctc_token_type "" --ctc_config "" --token_type unigram --nbpe 500 \
    --asr_config conf/train_ctc_conformer_mini.yaml --inference_config ../../../conf/decode_ctc.yaml \
    "$@"
