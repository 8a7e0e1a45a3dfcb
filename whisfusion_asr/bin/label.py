"""Let the original Whisper transcribe the utterances of a data directory that have no transcript.

    whisfusion label --data_dir data/train --whisper_dir downloads/whisper-base --out dump/labels/train

Completes data/train/text. What Whisper is unsure of, repeats, or takes for silence is dropped and listed in dropped.tsv
with the reason. OUT is a decode directory with what was heard. --num_jobs, --job and --merge share the work out as in
`decode`. A directory in which nothing is missing is left as it is, unless transcripts are replaced or rewritten.
"""

from argparse import ArgumentParser
from functools import partial

from whisfusion_asr.bin.arguments import add_original_options, command_parser, jobs_to_do
from whisfusion_asr.data.audio import SAMPLE_RATE
from whisfusion_asr.data.kaldi_dir import longest_first
from whisfusion_asr.data.rewriting import rewritten
from whisfusion_asr.data.text_form import CASES, PUNCTUATION, TextForm
from whisfusion_asr.decoding.output import merge_parts
from whisfusion_asr.errors import exits_cleanly
from whisfusion_asr.labels import LabelRules, unlabelled, write_labels
from whisfusion_asr.report.decoded import read_records
from whisfusion_asr.scoring.normalize import get_normalizer

RULES = {
    "min_mean_log_prob": "mean log-probability of a transcript's tokens",
    "max_compression": "zlib ratio of a transcript; repetitions compress well",
    "max_no_speech": "probability of Whisper's token for silence",
    "min_seconds": "shorter utterances are dropped",
    "max_seconds": "longer utterances are dropped; 30 is the most that Whisper hears at once",
}


def arguments() -> ArgumentParser:
    """The command's options."""
    parser = command_parser(__doc__)
    add_original_options(parser)
    for name, meaning in RULES.items():
        default = getattr(LabelRules, name)
        parser.add_argument(f"--{name}", type=float, default=default, help=f"{meaning} ({default:g})")
    parser.add_argument("--relabel", choices=("replace", "rewrite"), help="what has a transcript, too: replace it, or "
                        "rewrite its words as Whisper writes them, with its case, punctuation and digits")
    parser.add_argument("--normalizer", default="basic", help="rewrite: under which words are the same (basic)")
    parser.add_argument("--text_case", default="keep", choices=CASES, help="of the transcripts (keep)")
    parser.add_argument("--punctuation", default="keep", choices=PUNCTUATION, help="of the transcripts (keep)")
    return parser


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Transcribe one job's utterances, complete the directory of all jobs' transcripts, or both."""
    args = arguments().parse_args(argv)
    rules = LabelRules(**{name: getattr(args, name) for name in RULES})
    rewrite = partial(rewritten, normalizer=get_normalizer(args.normalizer)) if args.relabel == "rewrite" else None
    missing = unlabelled(args.data_dir, bool(args.relabel))
    if not missing:
        print(f"{args.data_dir}: every utterance has a transcript, nothing to label")
        return
    refused, chosen = _chosen(args.data_dir, missing, rules)
    jobs, joined = jobs_to_do(args)
    if chosen and jobs:
        from whisfusion_asr.bin.decode_whisper import write_job  # late: who has nothing to transcribe needs no torch

        for job in jobs:
            write_job(args, job, chosen)
    if joined:
        records = []
        if chosen:
            merge_parts(args.out, args.num_jobs, [key for key, _ in chosen], {})
            records = list(read_records(args.out / "candidates.jsonl"))
        form = TextForm(args.text_case, args.punctuation)
        print(write_labels(args.data_dir, refused, records, rules, form, rewrite))


def _chosen(data_dir: str, missing: set[str], rules: LabelRules) -> tuple[dict[str, str], list[tuple[str, int]]]:
    """Utterances that are not transcribed, with the reason, and the others with their samples, longest first."""
    refused, chosen = {}, []
    for key, samples in longest_first(data_dir):
        if key in missing:
            reason = rules.of_length(samples / SAMPLE_RATE)
            if reason:
                refused[key] = reason
            else:
                chosen.append((key, samples))
    return refused, chosen


if __name__ == "__main__":
    main()
