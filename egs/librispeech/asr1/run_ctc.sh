#!/usr/bin/env bash
# The CTC control of the preset mini: the head that drafts for the decoder, decoded and scored alone. Run run.sh first.
#   ./run_ctc.sh --whisper_dir DIR
# In the preset mini_scratch, conf/decode_ctc.yaml is one of run.sh's own decodings.
exec "$(dirname "$0")/run.sh" --preset mini --stage decode --stop_stage score \
    --ctc_token_type "" --ctc_config "" --token_type unigram --nbpe 500 \
    --asr_config conf/train_ctc_draft_mini.yaml --asr_tag train_whisper_mini_en_whisper_ctc \
    --inference_config ../../../conf/decode_ctc.yaml \
    "$@"
