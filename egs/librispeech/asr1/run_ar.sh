#!/usr/bin/env bash
# The autoregressive control of the preset mini_scratch: same data, same Whisper states, same CTC count, the decoder made
# causal. Run run.sh first (its stages 0 to 3 are used as they are).
#   ./run_ar.sh --whisper_dir DIR
exec "$(dirname "$0")/run.sh" --preset mini_scratch \
    --text_config "" --adapter_config "" --asr_config conf/train_ar_mini.yaml --asr_tag librispeech_ar \
    --inference_config "../../../conf/decode_ar.yaml ../../../conf/decode_ar_beam5.yaml" \
    "$@"
