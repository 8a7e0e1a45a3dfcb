#!/usr/bin/env bash
# The original Whisper as the control of this recipe: greedy, left to right, 30 s windows with all their states. Decodes
# and scores the test sets; needs stage 0 of run.sh. No part is trained.
#   ./run_whisper.sh --preset mini --whisper_dir DIR
# Whisper writes punctuation and digits: compare under a normaliser that undoes both, all systems under the same one,
#   ./run.sh --preset mini --whisper_dir DIR --normalizer whisper_en --stage score --stop_stage compare
exec "$(dirname "$0")/run.sh" --stage decode --stop_stage score --normalizer whisper_en \
    --asr_config "" --asr_tag whisper_original --inference_config ../../../conf/ar_whisper.yaml \
    "$@"
