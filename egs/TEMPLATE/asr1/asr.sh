#!/usr/bin/env bash
# Strict mode and environment for the stage runner; a recipe's run.sh calls it with its values and `-- "$@"`.
# Options: ./run.sh --help   Stages: ./run.sh --stage list   Commands only: ./run.sh --dry_run true
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")" # the recipe: this file is a link there, and links are not followed
../../../utils/install.sh            # returns at once when nothing is missing
. ./path.sh
if [ -f cmd.sh ]; then # where jobs run; without it on this machine
    . ./cmd.sh
fi

exec python3 -m whisfusion_asr.bin.recipe "$@"
