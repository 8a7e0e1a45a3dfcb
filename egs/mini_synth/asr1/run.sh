#!/usr/bin/env bash
# Speech made on the spot, a CTC encoder, a text diffusion model, both stages of Whisfusion, PDD, scores: 2 CPU cores.
#   ./run.sh                  everything            ./run.sh --stage list     what the stages are
#   ./run.sh --preset toy     the same in minutes   ./run.sh --stage decode --inference_args sampler_conf.candidates=15
exec "$(dirname "$0")/asr.sh" \
    --train_set train --valid_set dev --test_sets test --lang en \
    --token_type unigram --nbpe 300 --token_text data/local/text_train.txt \
    --text_data data/local/text_train.txt --text_valid data/local/text_valid.txt \
    --encoder_config conf/train_encoder.yaml \
    --text_config conf/train_text.yaml \
    --adapter_config conf/train_adapter.yaml \
    --asr_config conf/train_decoder.yaml --asr_tag mini_synth \
    --inference_config "../../../conf/decode_threshold_draft.yaml ../../../conf/decode_threshold.yaml
        ../../../conf/decode_pdd.yaml ../../../conf/decode_ctc.yaml ../../../conf/decode_shuffled.yaml" \
    --nj 2 --inference_nj 2 \
    -- "$@"
