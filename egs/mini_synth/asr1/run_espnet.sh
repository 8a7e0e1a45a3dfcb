#!/usr/bin/env bash
# The outside control of this recipe: ESPnet's own hybrid CTC/attention model, trained from the same audio with the same
# tokens by espnet2.bin.asr_train, decoded by asr_inference (beam 5, CTC weight 0.3).
# Run run.sh first (its stage 0 and the tokens of its stage 1 are used as they are).
exec "$(dirname "$0")/run.sh" --asr_task espnet \
    --feats_type raw --encoder_config "" --text_config "" --adapter_config "" \
    --asr_config conf/train_espnet.yaml --asr_tag mini_synth_espnet --inference_model valid.acc.ave.pth \
    --inference_config ../../../conf/decode_espnet.yaml \
    "$@"
