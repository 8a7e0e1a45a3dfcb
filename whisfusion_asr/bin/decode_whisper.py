"""Decode one set with the original Whisper, left to right: the system that a converted one is compared with.

    whisfusion decode_whisper --whisper_dir downloads/whisper-base --data_dir data/test --out exp/ar/ar_whisper/test

It always hears 30 s windows with all their states. Each job writes its part, --merge true joins the parts. The result
is a decode directory as that of `decode`, with the seconds of encoder and decoder apart.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers

from whisfusion_asr import __version__
from whisfusion_asr.bin.arguments import boolean, command_parser
from whisfusion_asr.bin.decode import conditions, told
from whisfusion_asr.config import apply_overrides, read_yaml
from whisfusion_asr.decoding.conf import options_from
from whisfusion_asr.decoding.output import merge_parts, write_part
from whisfusion_asr.errors import UserError, exits_cleanly
from whisfusion_asr.original import OriginalSettings, longest_first, transcripts


def arguments() -> Any:
    """The command's options."""
    parser = command_parser(__doc__)
    parser.add_argument("--whisper_dir", required=True, help="folder of the Whisper model, Hugging Face's layout")
    parser.add_argument("--config", help="YAML as conf/ar_whisper.yaml; without it greedy, English, 8 at a time")
    parser.add_argument("--inference_args", default="", help="overrides, e.g. 'num_beams=5 language=de'")
    parser.add_argument("--data_dir", required=True, help="Kaldi directory of the set; transcripts are not needed")
    parser.add_argument("--out", required=True, type=Path, help="decode directory")
    parser.add_argument("--num_jobs", type=int, default=1)
    parser.add_argument("--job", type=int, default=1, help="1 to num_jobs")
    parser.add_argument("--merge", type=boolean, default=False, help="join the parts instead of decoding")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser


def read_settings(path: str | None, overrides: list[str]) -> OriginalSettings:
    """Settings of a YAML with single keys overridden. Raises UserError for a key or value that means nothing here."""
    conf = apply_overrides(read_yaml(path) if path else {}, overrides)
    return options_from(OriginalSettings, conf, path or "--inference_args")


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Decode one job's utterances, or merge all jobs."""
    args = arguments().parse_args(argv)
    settings = read_settings(args.config, args.inference_args.split())
    if not Path(args.whisper_dir).is_dir():
        raise UserError(f"--whisper_dir {args.whisper_dir}: no such folder; give a complete Whisper model")
    chosen = longest_first(args.data_dir)
    if args.merge:
        _merge(args, settings, [key for key, _ in chosen])
        return
    mine = chosen[args.job - 1 :: args.num_jobs]
    model = settings.model(args.whisper_dir, args.device)
    found = transcripts(model, args.whisper_dir, args.data_dir, mine, settings.batch_size)
    write_part(args.out, args.job, told(found, len(mine)),
               lambda: conditions(args.device) | {"search": model.search, "cpu_seconds": model.cpu_seconds})


def _merge(args: Any, settings: OriginalSettings, keys: list[str]) -> None:
    many = settings.batch_size > 1
    place = {"whisper_dir": args.whisper_dir, "device": args.device, "context": "30 s window, all states",
             "sampler": f"{settings.num_beams} beams" if settings.num_beams > 1 else "greedy",
             "batch": f"{settings.batch_size} utterances" if many else "1 utterance", "dtype": settings.precision,
             "version": __version__, "torch": torch.__version__, "transformers": transformers.__version__}
    totals = merge_parts(args.out, args.num_jobs, keys, asdict(settings) | place)
    seconds = totals["seconds"]
    print(f"{args.out}: {totals['utterances']} utterances, RTF {totals['rtf']}, encoder {seconds['encode']} s, "
          f"decoder {seconds['decode']} s, flags {totals['flags']}")


if __name__ == "__main__":
    main()
