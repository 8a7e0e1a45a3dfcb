"""Decode one set with a trained experiment.

    whisfusion decode --exp_dir exp/mini_synth --config conf/decode_pdd.yaml --data_dir data/test \\
        --states_dir dump/states/test --out exp/mini_synth/decode_pdd/test

In several processes at once: each with `--num_jobs N --job J` writes its part, one with `--merge true` then joins them.
"""

import random
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from whisfusion_asr import __version__
from whisfusion_asr.api import Speech2Text, Utterance
from whisfusion_asr.bin.arguments import (
    add_draft_options,
    add_encoder_option,
    add_job_options,
    add_model_options,
    add_running_options,
    boolean,
    command_parser,
    jobs_to_do,
    running_options,
)
from whisfusion_asr.config import apply_overrides, read_yaml
from whisfusion_asr.data.audio import AudioTable
from whisfusion_asr.data.kaldi_dir import read_table
from whisfusion_asr.data.languages import read_languages
from whisfusion_asr.data.states import StatesTable
from whisfusion_asr.decoding.output import Transcript, merge_parts, write_part
from whisfusion_asr.decoding.settings import DecodingSettings, sampler_keys
from whisfusion_asr.errors import UserError, exits_cleanly
from whisfusion_asr.models.flash import used_attentions
from whisfusion_asr.report.environment import cpu_model

SAMPLE_RATE = 16000
CONTROLS = (None, "shuffled_states")


def read_settings(path: str, overrides: list[str]) -> tuple[DecodingSettings, str | None]:
    """Decoding settings of a YAML with single keys overridden, defaults filled in, and its control experiment.

    A sampler of another name keeps those options of the file that it knows. Raises UserError for keys that nobody
    reads.
    """
    conf, own = read_yaml(path), apply_overrides({}, overrides)
    if own.get("sampler", conf.get("sampler")) != conf.get("sampler"):
        known = sampler_keys(own["sampler"])
        conf["sampler_conf"] = {k: v for k, v in (conf.get("sampler_conf") or {}).items() if k in known}
        conf.pop("budget", None)
    conf = apply_overrides(conf, overrides)
    control = conf.pop("control", None)
    if control not in CONTROLS:
        raise UserError(f"{path}: control: {control!r} is unknown; expected shuffled_states or nothing")
    try:
        return DecodingSettings.of(conf, "a decoding YAML"), control
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


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


def utterances(speech2text: Speech2Text, source: dict[str, str], args: Any) -> Iterator[Utterance]:
    """The keys of `source`, longest first: neighbours need little padding, and too long a batch shows at once.

    In a model of several languages each has the one that args.lang names, else that of the directory's utt2lang.
    """
    languages = read_languages(args.data_dir) if speech2text.tokenizer.languages and not speech2text.lang else {}
    samples = {key: int(n) for key, n in read_table(Path(args.data_dir) / "utt2num_samples").items()}
    inputs = StatesTable(args.states_dir) if args.states_dir else AudioTable(args.data_dir)
    for number, key in enumerate(sorted(source, key=lambda key: (-samples[source[key]], key))):
        heard = source[key]
        if args.states_dir:
            found = speech2text.utterance(key, inputs[heard], samples[heard] / SAMPLE_RATE)
        else:
            if not number:
                speech2text.encode(key, inputs[heard])  # a first call is slow: it is in nobody's time
            found = speech2text.encode(key, inputs[heard])
        yield replace(found, language=languages.get(key))


def transcripts(keys: list[str], args: Any, settings: DecodingSettings, control: str | None) -> Iterator[Transcript]:
    """Decode the keys of one job."""
    source = audio_source(sorted(read_table(Path(args.data_dir) / "utt2spk")), control)
    options = {"trace": args.trace, "word_times": args.word_times, "lang": args.lang, "running": running_options(args)}
    options |= {"encoder_dir": args.encoder_dir} if args.encoder_dir else {}
    if args.draft_dir:
        options |= {"draft_dir": args.draft_dir, "draft_model": args.draft_model}
    if args.model:
        speech2text = Speech2Text.from_pretrained(args.model, args.device, inference=settings, **options)
    else:
        speech2text = Speech2Text(args.exp_dir, args.model_file, settings, device=args.device, **options)
    mine = utterances(speech2text, {key: source[key] for key in keys}, args)
    yield from told(speech2text.decode_many(warmed_up(speech2text, mine)), len(keys))


def warmed_up(speech2text: Speech2Text, mine: Iterator[Utterance]) -> Iterator[Utterance]:
    """The utterances, the first of them decoded once before: what only a first call costs is in nobody's time."""
    for utterance in mine:
        next(speech2text.decode_many([utterance]))
        yield utterance
        break
    yield from mine


def told(found: Iterable[Transcript], count: int) -> Iterator[Transcript]:
    """The transcripts as they come, with a line of progress every few seconds."""
    start = last = time.monotonic()
    for number, transcript in enumerate(found, 1):
        yield transcript
        if (now := time.monotonic()) - last > 5:
            last = now
            left = (now - start) / number * (count - number)
            print(f"{number} of {count} utterances, about {left:.0f} s left", flush=True)


def conditions(device: str, running: Mapping[str, str]) -> dict[str, Any]:
    """What this process runs on and how, and the most memory it has held, its libraries included, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    found = {"processor": cpu_model(), "threads": torch.get_num_threads(), "peak_memory_mib": round(peak, 1),
             "dtype": running.get("quantize", "float32"), "warm_up": "1 utterance", **running}
    if attention := used_attentions():
        found["attention"] = ", ".join(attention)
    if torch.device(device).type == "cuda":
        gpu = torch.cuda.max_memory_allocated(device) / 2**20
        found |= {"gpu": torch.cuda.get_device_name(device), "peak_gpu_memory_mib": round(gpu, 1)}
    return found


def arguments() -> Any:
    """The command's options."""
    parser = command_parser(__doc__)
    add_model_options(parser)
    parser.add_argument("--model_file", default="valid.loss.ave.pth", help="weights inside exp_dir")
    add_encoder_option(parser)
    add_draft_options(parser)
    parser.add_argument("--config", required=True, help="decoding YAML: sampler, sampler_conf, engine_conf, ...")
    parser.add_argument("--inference_args", default="", help="overrides, e.g. 'sampler_conf.candidates=5'")
    parser.add_argument("--data_dir", required=True, help="Kaldi directory of the set")
    parser.add_argument("--states_dir", help="its dumped states; without it the audio is encoded on the fly")
    parser.add_argument("--lang", help="language to write, for a model of several; default: utt2lang of the set")
    parser.add_argument("--out", required=True, help="decode directory")
    add_job_options(parser)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    add_running_options(parser)
    parser.add_argument("--trace", type=boolean, default=False, help="keep every pass's canvases in candidates.jsonl")
    parser.add_argument("--word_times", type=boolean, default=False, help="start and end of words")
    return parser


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Decode one job's utterances, all, or none, and merge the jobs."""
    args = arguments().parse_args(argv)
    out = Path(args.out)
    jobs, joined = jobs_to_do(args)
    settings, control = read_settings(args.config, args.inference_args.split())
    keys = sorted(read_table(Path(args.data_dir) / "utt2spk"))
    for job in jobs:
        found = transcripts(keys[job - 1 :: args.num_jobs], args, settings, control)
        write_part(out, job, found, lambda: conditions(args.device, running_options(args)))
    if joined:
        model = {"model": args.model} if args.model else {"exp_dir": args.exp_dir, "model_file": args.model_file}
        model |= {name: getattr(args, name) for name in ("states_dir", "encoder_dir") if getattr(args, name)}
        if args.draft_dir:
            model |= {"draft_dir": args.draft_dir, "draft_model": args.draft_model}
        tokens = settings.batch_tokens(torch.device(args.device).type)
        place = {**model, "device": args.device,
                 "batch": "1 utterance" if tokens == 1 else f"{tokens} slots and frames",
                 "version": __version__, "torch": torch.__version__}
        asked = {name: value for name, value in (("control", control), ("lang", args.lang)) if value}
        totals = merge_parts(out, args.num_jobs, keys, {**settings.as_conf(), **asked, **place})
        print(f"{out}: {totals['utterances']} utterances, RTF {totals['rtf']}, flags {totals['flags']}")


if __name__ == "__main__":
    main()
