#!/usr/bin/env bash
# The CTC control of this recipe: the frozen encoder's own greedy output, decoded and scored. No decoder is trained.
# Run run.sh first (its stages 0 to 2 are used as they are). With the encoder's own training finished:
#   ./run.sh --stage parts --stop_stage parts --text_config "" --encoder_tag encoder_finished \
#       --encoder_args "--max_epoch 26" && ./run_ctc.sh --feats_type raw --asr_tag encoder_finished
exec "$(dirname "$0")/run.sh" --stage decode \
    --asr_config conf/train_encoder.yaml --asr_tag "" --inference_config ../../../conf/decode_ctc.yaml \
    "$@"
