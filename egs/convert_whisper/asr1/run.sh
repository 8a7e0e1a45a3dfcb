#!/usr/bin/env bash
# Your recordings and a Whisper model -> a diffusion decoder made of that Whisper, and a page that shows what it wins.
#   ./run.sh --whisper_dir DIR --audio_dir DIR                        Whisper itself writes the transcripts
#   ./run.sh --whisper_dir DIR --audio_dir DIR --transcripts FILE     lines `name text` for all files, or for some
# The folder is searched with its subfolders; files of any length and format that soundfile reads. More: README.md
set -euo pipefail

words=()
while [ $# -gt 0 ]; do
    case "$1" in
    --audio_dir | --audio-dir) words+=(--corpus_dir) ;;
    --audio_dir=* | --audio-dir=*) words+=("--corpus_dir=${1#*=}") ;;
    --transcripts=*) words+=(--local_data_opts "--transcripts '${1#*=}'") ;;
    --transcripts)
        words+=(--local_data_opts "--transcripts '${2:?--transcripts needs a file}'")
        shift
        ;;
    *) words+=("$1") ;;
    esac
    shift
done

"$(dirname "${BASH_SOURCE[0]}")/asr.sh" \
    --train_set train --valid_set valid --test_sets test --stop_stage compare --lang en \
    --labels whisper --token_type whisper --states_storage float16 --encoder_config conf/whisper_given.yaml \
    --ctc_config ../../../conf/train_ctc_draft.yaml --ctc_token_type unigram --ctc_nbpe 500 \
    --asr_config conf/train_converted.yaml --asr_tag converted --normalizer basic \
    --inference_config "conf/ar_whisper_alone.yaml conf/decode_accurate.yaml conf/decode_balanced.yaml conf/decode_fast.yaml" \
    --compare_to converted/ar_whisper_alone \
    --nj 2 --inference_nj 1 \
    -- ${words[@]+"${words[@]}"}
