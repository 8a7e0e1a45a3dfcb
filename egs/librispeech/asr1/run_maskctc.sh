#!/usr/bin/env bash
# The non-autoregressive control: ESPnet's own Mask-CTC from the audio, by espnet2.bin.asr_train and
# asr_inference_maskctc. Its tokens are 5,000 pieces of the transcripts, ESPnet's usual number here.
#   ./run_maskctc.sh --ngpu 4 --librispeech_dir DIR
#   ./run_maskctc.sh --preset mini_scratch --whisper_dir DIR --feats_type states --encoder_config conf/whisper_mini.yaml \
#       --nbpe 500 --asr_config conf/train_maskctc_mini.yaml      on a CPU, from the states of the frozen Whisper
exec "$(dirname "$0")/run.sh" --asr_task espnet_maskctc \
    --feats_type raw --encoder_config "" --ctc_config "" --text_config "" --adapter_config "" \
    --smdm "" --token_type unigram --nbpe 5000 \
    --asr_config conf/train_maskctc.yaml --asr_tag librispeech_maskctc \
    --inference_config ../../../conf/decode_maskctc.yaml \
    "$@"
