#!/usr/bin/env bash
# Writes ${DATADIR}/{train,valid,test}; the runner validates them and filters train and valid afterwards.
# It may run again at any time. If it downloads, a comment `# downloads: 6 GB from URL` is shown by --dry_run.
set -euo pipefail
. ./db.sh
if [ "${1:-}" = --corpus_dir ]; then
    CORPUS=$2
fi
if [ ! -d "${CORPUS}" ]; then
    echo "error: CORPUS='${CORPUS}' is no folder; set it in db.sh, or give --corpus_dir DIR" >&2
    exit 2
fi

# A folder wav/ and a file transcripts.txt with lines `name text`. A table with columns path and text (and speaker,
# start, end) is read by `data from_tsv --tsv FILE --out DIR` instead.
all="${DATADIR}/local/all"
python3 -m whisfusion_asr.bin.data from_folder \
    --wavs "${CORPUS}/wav" --transcripts "${CORPUS}/transcripts.txt" --out "${all}"

# Every tenth utterance tests and another tenth validates. Better where it is known: sets without common speakers.
for set in train valid test; do
    awk -v set="${set}" '{ part = NR % 10 == 0 ? "test" : NR % 10 == 5 ? "valid" : "train" } part == set { print $1 }' \
        "${all}/utt2spk" >"${all}.${set}"
    python3 -m whisfusion_asr.bin.data subset --utt_list "${all}.${set}" "${all}" "${DATADIR}/${set}"
done
