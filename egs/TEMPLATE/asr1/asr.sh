#!/usr/bin/env bash
# Strict mode and environment for the stage runner; a recipe's run.sh calls it with its values and `-- "$@"`.
# Options and stages: ./asr.sh --help, ./asr.sh --stage list
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")" # the recipe; this file is a link there, so links are not followed
. ./path.sh
. ./cmd.sh

exec python3 -m whisfusion_asr.bin.recipe "$@"
