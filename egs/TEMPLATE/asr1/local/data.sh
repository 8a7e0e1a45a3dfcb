#!/usr/bin/env bash
# Makes ${DATADIR}/{train,valid,test} of the corpus; the runner validates and filters them afterwards.
# Works again after an interruption. For the dry run say here what is fetched, if anything:
#   # downloads: 6.3 GB from https://...
set -euo pipefail
. ./db.sh

if [ ! -d "${CORPUS}" ]; then
    echo "error: db.sh: CORPUS='${CORPUS}' is no directory; set it to the folder with wav/ and transcripts.txt" >&2
    exit 2
fi
python3 -m whisfusion_asr.bin.data from_folder \
    --wavs "${CORPUS}/wav" --transcripts "${CORPUS}/transcripts.txt" --out "${DATADIR}/all"
