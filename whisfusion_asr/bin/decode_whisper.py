"""Decode one set with the original Whisper, left to right: the system that a converted one is compared with.

    whisfusion decode_whisper --whisper_dir downloads/whisper-base --data_dir data/test --out exp/ar/ar_whisper/test

It always hears 30 s windows with all their states. The result is a decode directory as that of `decode`, with the
seconds of encoder and decoder apart; --num_jobs, --job and --merge share the work out as there.
"""

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers

from whisfusion_asr import __version__
from whisfusion_asr.bin.arguments import add_original_options, command_parser, jobs_to_do
from whisfusion_asr.bin.decode import conditions, told
from whisfusion_asr.config import apply_overrides, read_yaml
from whisfusion_asr.data.kaldi_dir import longest_first
from whisfusion_asr.decoding.conf import options_from
from whisfusion_asr.decoding.output import merge_parts, write_part
from whisfusion_asr.errors import UserError, exits_cleanly
from whisfusion_asr.original import OriginalSettings, transcripts


def read_settings(path: str | None, overrides: list[str]) -> OriginalSettings:
    """Settings of a YAML with single keys overridden. Raises UserError for a key or value that means nothing here."""
    conf = apply_overrides(read_yaml(path) if path else {}, overrides)
    return options_from(OriginalSettings, conf, path or "--inference_args")


def write_job(args: Namespace, job: int, chosen: list[tuple[str, int]]) -> None:
    """Transcribe one job's share of the utterances, `(key, samples)`, and write its part."""
    settings = read_settings(args.config, args.inference_args.split())
    if not Path(args.whisper_dir).is_dir():
        raise UserError(f"--whisper_dir {args.whisper_dir}: no such folder; give a complete Whisper model")
    mine = chosen[job - 1 :: args.num_jobs]
    model = settings.model(args.whisper_dir, args.device)
    found = transcripts(model, args.whisper_dir, args.data_dir, mine, settings.batch_size)

    def ran_on() -> dict[str, Any]:
        told_by_all = conditions(args.device, {"dtype": settings.precision})
        return told_by_all | described(args, settings) | {"search": model.search, "cpu_seconds": model.cpu_seconds}

    write_part(args.out, job, told(found, len(mine)), ran_on)


def described(args: Namespace, settings: OriginalSettings) -> dict[str, Any]:
    """What meta.json tells of the model and its search."""
    one = settings.batch_size == 1
    return asdict(settings) | {
        "whisper_dir": args.whisper_dir, "device": args.device, "context": "30 s window, all states",
        "sampler": "greedy" if settings.num_beams == 1 else f"{settings.num_beams} beams",
        "batch": "1 utterance" if one else f"{settings.batch_size} utterances",
        "version": __version__, "torch": torch.__version__, "transformers": transformers.__version__,
    }  # fmt: skip


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Decode one job's utterances, all, or none, and merge the jobs."""
    parser = command_parser(__doc__)
    add_original_options(parser)
    args = parser.parse_args(argv)
    jobs, joined = jobs_to_do(args)
    chosen = longest_first(args.data_dir)
    for job in jobs:
        write_job(args, job, chosen)
    if not joined:
        return
    totals = merge_parts(args.out, args.num_jobs, [key for key, _ in chosen], {})
    seconds = totals["seconds"]
    print(f"{args.out}: {totals['utterances']} utterances, RTF {totals['rtf']}, encoder {seconds['encode']} s, "
          f"decoder {seconds['decode']} s, flags {totals['flags']}")


if __name__ == "__main__":
    main()
