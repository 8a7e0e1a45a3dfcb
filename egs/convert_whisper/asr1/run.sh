#!/usr/bin/env bash
# Your recordings and a Whisper model -> a diffusion decoder made of that Whisper, and a page that shows what it wins.
#   ./run.sh --whisper_dir DIR --audio_dir DIR                        Whisper itself writes the transcripts
#   ./run.sh --whisper_dir DIR --audio_dir DIR --transcripts FILE     lines `name text` for all files, or for some
# The folder is searched with its subfolders; files of any length and format that soundfile reads. More: README.md
set -euo pipefail

words=() data_opts=""
while [ $# -gt 0 ]; do
    case "$1" in
    --audio_dir | --audio-dir) words+=(--corpus_dir) ;;
    --audio_dir=* | --audio-dir=*) words+=("--corpus_dir=${1#*=}") ;;
    --transcripts | --local_data_opts | --local-data-opts)
        [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
        set -- "$1=$2" "${@:3}"
        continue
        ;;
    --transcripts=*) data_opts+=" --transcripts '${1#*=}'" ;;
    --local_data_opts=* | --local-data-opts=*) data_opts+=" ${1#*=}" ;;
    *) words+=("$1") ;;
    esac
    shift
done

"$(dirname "${BASH_SOURCE[0]}")/asr.sh" \
    --train_set train --valid_set valid --test_sets test --stop_stage compare --lang en \
    --labels whisper --relabel rewrite --token_type whisper \
    --states_storage float16 --encoder_config conf/whisper_given.yaml \
    --ctc_config ../../../conf/train_ctc_draft.yaml --ctc_token_type unigram --ctc_nbpe 500 \
    --asr_config conf/train_converted.yaml --asr_tag converted --normalizer basic \
    --inference_config "conf/ar_whisper_alone.yaml conf/decode_accurate.yaml conf/decode_balanced.yaml conf/decode_fast.yaml" \
    --compare_to converted/ar_whisper_alone \
    --local_data_opts "$data_opts" --nj 2 --inference_nj 1 \
    -- ${words[@]+"${words[@]}"}
