#!/usr/bin/env bash
# Start a recipe: egs/TEMPLATE/asr1/setup.sh egs/<corpus>/asr1
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: $0 egs/<corpus>/asr1" >&2
    exit 2
fi
template="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
case "$1" in
    */*) ;;
    *) set -- "./$1" ;;
esac
mkdir -p "$1"
cd "$1"
if [ ! ../../TEMPLATE/asr1 -ef "${template}" ]; then
    echo "error: $1 must lie beside the template, as in ${template%/TEMPLATE/asr1}/<corpus>/asr1" >&2
    exit 2
fi
if [ -e run.sh ]; then
    echo "error: $1/run.sh exists; this recipe has been set up before" >&2
    exit 2
fi
cp -r "${template}"/{run.sh,cmd.sh,db.sh,conf,local} .
ln -sf ../../TEMPLATE/asr1/asr.sh ../../TEMPLATE/asr1/path.sh .
echo "Made $1. Next: set the corpus in db.sh, write local/data.sh, set values in run.sh, then ./run.sh"
