#!/usr/bin/env bash
# The non-autoregressive control of this recipe: ESPnet's own Mask-CTC, trained from the same audio with the same tokens
# by espnet2.bin.asr_train, decoded by asr_inference_maskctc.
# Run run.sh first (its stage 0 and the tokens of its stage 1 are used as they are).
exec "$(dirname "$0")/run.sh" --asr_task espnet_maskctc \
    --feats_type raw --encoder_config "" --text_config "" --adapter_config "" \
    --asr_config conf/train_maskctc.yaml --asr_tag mini_synth_maskctc \
    --inference_config ../../../conf/decode_maskctc.yaml \
    "$@"
