"""Decode one set with a trained experiment: each job writes its part, --merge true joins the parts.

    python -m whisfusion_asr.bin.decode --exp_dir exp/mini_synth --config conf/decode_pdd.yaml \\
        --data_dir data/test --states_dir dump/states/test --out exp/mini_synth/decode_pdd/test --num_jobs 2 --job 1
"""

import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from whisfusion_asr import __version__
from whisfusion_asr.api import Speech2Text, pdd_options
from whisfusion_asr.bin.arguments import boolean, command_parser
from whisfusion_asr.config import apply_overrides, read_yaml
from whisfusion_asr.data.audio import AudioTable
from whisfusion_asr.data.kaldi_dir import read_table
from whisfusion_asr.data.states import StatesTable
from whisfusion_asr.decoding.output import Transcript, merge_parts, write_part
from whisfusion_asr.errors import UserError, exits_cleanly

SAMPLE_RATE = 16000
CONFIG_KEYS = ("sampler", "sampler_conf", "control")


def read_settings(path: str, overrides: list[str]) -> dict[str, Any]:
    """Decoding settings of a YAML with single keys overridden, defaults filled in.

    Raises UserError for keys that nobody reads.
    """
    settings = apply_overrides(read_yaml(path), overrides)
    unknown = sorted(set(settings) - set(CONFIG_KEYS))
    if unknown:
        raise UserError(f"{path}: unknown key {', '.join(unknown)}; a decoding YAML knows {', '.join(CONFIG_KEYS)}")
    if settings.get("control") not in (None, "shuffled_states"):
        raise UserError(f"{path}: control: {settings['control']!r} is unknown; expected shuffled_states or nothing")
    if settings.setdefault("sampler", "pdd_reference") == "pdd_reference":
        settings["sampler_conf"] = asdict(pdd_options(settings.get("sampler_conf") or {}))
    return settings


def audio_source(keys: list[str], control: str | None) -> dict[str, str]:
    """Which utterance's audio each key is decoded from: its own, or in the control experiment a stranger's.

    A decoder that listens must fail on another utterance's states; one that only writes likely text will not.
    """
    if control is None:
        return {key: key for key in keys}
    if len(keys) < 2:
        raise UserError("control: shuffled_states needs at least two utterances")
    order = sorted(keys)
    random.Random(0).shuffle(order)
    return dict(zip(order, order[1:] + order[:1], strict=True))


def transcripts(keys: list[str], args: Any, settings: dict[str, Any]) -> Iterator[Transcript]:
    """Decode the keys of one job, with a line of progress every few seconds."""
    source = audio_source(sorted(read_table(Path(args.data_dir) / "utt2spk")), settings.get("control"))
    samples = {key: int(n) for key, n in read_table(Path(args.data_dir) / "utt2num_samples").items()}
    speech2text = Speech2Text(args.exp_dir, args.model_file, settings, device=args.device)
    inputs = StatesTable(args.states_dir) if args.states_dir else AudioTable(args.data_dir)
    start = last = time.monotonic()
    for number, key in enumerate(keys, 1):
        duration = samples[source[key]] / SAMPLE_RATE
        if args.states_dir:
            yield speech2text.decode_states(key, inputs[source[key]], duration)
        else:
            yield speech2text(inputs[source[key]], key)[0][3]
        if (now := time.monotonic()) - last > 5:
            last = now
            left = (now - start) / number * (len(keys) - number)
            print(f"{number} of {len(keys)} utterances, {left:.0f} s left", flush=True)


def arguments() -> Any:
    """The command's options."""
    parser = command_parser(__doc__)
    parser.add_argument("--exp_dir", required=True, help="experiment with config.yaml and weights")
    parser.add_argument("--model_file", default="valid.loss.ave.pth", help="weights inside exp_dir")
    parser.add_argument("--config", required=True, help="decoding YAML: sampler, sampler_conf, control")
    parser.add_argument("--inference_args", default="", help="overrides, e.g. 'sampler_conf.candidates=5'")
    parser.add_argument("--data_dir", required=True, help="Kaldi directory of the set")
    parser.add_argument("--states_dir", help="its dumped states; without it the audio is encoded on the fly")
    parser.add_argument("--out", required=True, help="decode directory")
    parser.add_argument("--num_jobs", type=int, default=1)
    parser.add_argument("--job", type=int, default=1, help="1 to num_jobs")
    parser.add_argument("--merge", type=boolean, default=False, help="join the parts instead of decoding")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Decode one job's utterances, or merge all jobs."""
    args = arguments().parse_args(argv)
    out, settings = Path(args.out), read_settings(args.config, args.inference_args.split())
    keys = sorted(read_table(Path(args.data_dir) / "utt2spk"))
    if args.merge:
        place = {"exp_dir": args.exp_dir, "model_file": args.model_file, "device": args.device,
                 "threads": torch.get_num_threads(), "version": __version__, "torch": torch.__version__}
        totals = merge_parts(out, args.num_jobs, keys, {**settings, **place})
        print(f"{out}: {totals['utterances']} utterances, RTF {totals['rtf']}, flags {totals['flags']}")
        return
    write_part(out, args.job, transcripts(keys[args.job - 1 :: args.num_jobs], args, settings))


if __name__ == "__main__":
    main()
