#!/usr/bin/env bash
# The outside control: ESPnet's own hybrid CTC/attention model from the audio, by espnet2.bin.asr_train and
# asr_inference (beam 5, CTC weight 0.3). Its tokens are 5,000 pieces of the transcripts, ESPnet's usual number here.
#   ./run_espnet.sh --ngpu 4 --librispeech_dir DIR
#   ./run_espnet.sh --preset mini_scratch --whisper_dir DIR --feats_type states --encoder_config conf/whisper_mini.yaml \
#       --nbpe 500 --asr_config conf/train_espnet_mini.yaml      on a CPU, from the states of the frozen Whisper
exec "$(dirname "$0")/run.sh" --asr_task espnet \
    --feats_type raw --encoder_config "" --ctc_config "" --text_config "" --adapter_config "" \
    --smdm "" --token_type unigram --nbpe 5000 \
    --asr_config conf/train_espnet.yaml --asr_tag librispeech_espnet --inference_model valid.acc.ave.pth \
    --inference_config ../../../conf/decode_espnet.yaml \
    "$@"
