#!/usr/bin/env bash
# Write ${DATADIR:-data}/{train,valid,test} of a folder of recordings. Options: local/data.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH="$PWD/../../..${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" local/prepare.py --data_dir "${DATADIR:-data}" "$@"
