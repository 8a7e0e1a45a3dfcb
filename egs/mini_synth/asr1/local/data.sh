#!/usr/bin/env bash
# Write the corpus: synthetic speech, made on the spot. Result: ${DATADIR:-data}/{train,dev,test} and
# ${DATADIR:-data}/local/{text_train,text_valid}.txt. Options: local/data.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH="$PWD/../../..${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" local/synthesise.py --out "${DATADIR:-data}" "$@"
