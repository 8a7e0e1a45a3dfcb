#!/usr/bin/env bash
# LibriSpeech. Default: the published system on 960 hours (61 GB, downloaded by stage 0). Stage 1 fetches its parts from
# the Hugging Face hub: Whisper-small, Llama's tokens, SMDM's text network.
#   ./run.sh --dry_run true                           what each stage downloads, writes and runs, with hours and GB
#   ./run.sh --librispeech_dir DIR                    an unpacked LibriSpeech, nothing is downloaded by stage 0
#   ./run.sh --whisper_dir DIR --tokenizer_model FILE --smdm FILE      the parts from this machine, no hub at all
#   ./run.sh --smdm "" --text_config conf/train_text.yaml --token_type unigram --nbpe 5000      a text network of our own
#   ./run.sh --preset whisfusion_v2                   a decoder from scratch on Whisper-large-v3, after the second version
#   ./run.sh --preset mini --librispeech_dir DIR --whisper_dir DIR
#       a LibriSpeech-shaped folder with parts train-mini, dev-mini, test-mini: a small Whisper's decoder is adapted, CPU
#   ./run.sh --preset mini_long ...                   the same at three speeds, drafts by a second copy of the decoder, 2 h
#   ./run.sh --preset mini_scratch ...                the same speech, a small decoder that begins with random weights
# sets: train_960 281241 960.9, dev 5567 10.5, test_clean 2620 5.4, test_other 2939 5.1
set -euo pipefail

"$(dirname "${BASH_SOURCE[0]}")/asr.sh" \
    --train_set train_960 --valid_set dev --test_sets "test_clean test_other" --lang en \
    --token_type llama \
    --smdm nieshen/SMDM:mdm_safetensors/mdm-170M-100e18-rsl-0.01.safetensors \
    --encoder_config conf/whisper_small.yaml \
    --adapter_config conf/train_whisfusion_small_adapter.yaml \
    --asr_config conf/train_whisfusion_small_decoder.yaml \
    --inference_config ../../../conf/decode_pdd_accurate.yaml \
    --nj 8 --inference_nj 8 \
    -- "${@/#--librispeech[-_]dir/--corpus_dir}"
