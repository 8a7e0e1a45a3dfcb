#!/usr/bin/env bash
# The non-autoregressive control of this recipe: ESPnet's own Mask-CTC on the same frozen states with the same tokens, by
# espnet2.bin.asr_train and asr_inference_maskctc.
# Run run.sh first (its stages 0 to 2 are used as they are).
exec "$(dirname "$0")/run.sh" --asr_task espnet_maskctc \
    --text_config "" --adapter_config "" \
    --asr_config conf/train_maskctc.yaml --asr_tag mini_synth_maskctc \
    --inference_config ../../../conf/decode_maskctc.yaml \
    "$@"
