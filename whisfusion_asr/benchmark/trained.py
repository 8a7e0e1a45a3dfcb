"""Decoding speed of a trained model on real states, where passes and early stops are those of real decoding.

Every configuration is decoded in float32 and in the other kinds of arithmetic that the device has. Beside the times
stand the word error rate with its interval, and against the same configuration in float32 its p-value and the share of
the tokens that differ.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisfusion_asr.api import SAMPLE_RATE, Speech2Text, Utterance
from whisfusion_asr.benchmark.harness import Measurement, Report, measure
from whisfusion_asr.config import read_yaml
from whisfusion_asr.data.states import StatesTable
from whisfusion_asr.data.tables import read_table
from whisfusion_asr.decoding.output import Transcript
from whisfusion_asr.decoding.settings import DecodingSettings
from whisfusion_asr.errors import UserError
from whisfusion_asr.scoring.align import align
from whisfusion_asr.scoring.compare import ScoredSet, compare_systems, scored_texts
from whisfusion_asr.scoring.error_rate import ErrorCounts, count_edits

REFERENCE = "reference"  # decoding/pdd.py, every row of every pass computed
NOTE = (f"{REFERENCE}: PDD as the paper has it, every row of every pass computed, on the trained model's canvas, one "
        "utterance at a time; the configurations decode in batches. RTFx without the encoder.")
ARITHMETIC: dict[str, dict[str, dict[str, str]]] = {
    "cpu": {"float32": {}, "bfloat16": {"dtype": "bfloat16"}, "int8": {"quantize": "int8"}},
    "cuda": {"float32": {}, "bfloat16": {"dtype": "bfloat16"}, "float16": {"dtype": "float16"}},
}


@dataclass(frozen=True)
class System:
    """A configuration in one arithmetic, and what it made of the utterances when it was last called."""

    name: str
    arithmetic: str
    speech2text: Speech2Text
    utterances: Sequence[Utterance]
    transcripts: list[Transcript]

    def __call__(self) -> None:
        self.transcripts[:] = self.speech2text.decode_many(self.utterances)


@dataclass(frozen=True)
class Texts:
    """Transcripts and speakers of a set, by utterance."""

    references: dict[str, str]
    speakers: dict[str, str]

    def scored(self, system: System) -> ScoredSet:
        """The system's transcripts, aligned."""
        found = {each.utt_id: each.text for each in system.transcripts}
        references = {key: self.references[key] for key in sorted(found)}
        return scored_texts(system.name, references, found, self.speakers)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of a benchmark with trained weights."""
    parser.add_argument("--exp_dir", help="trained model, to be measured in the place of random weights")
    parser.add_argument("--model_file", default="valid.loss.ave.pth", help="weights inside exp_dir")
    parser.add_argument("--data_dir", help="Kaldi directory of its utterances")
    parser.add_argument("--states_dir", help="their dumped states")
    parser.add_argument("--configs", nargs="+", default=[], help="decoding YAMLs, such as conf/decode_eb.yaml")
    parser.add_argument("--utterances", type=int, default=20, help="how many, evenly from the shortest to the longest")


def run(args: argparse.Namespace) -> Report:
    """Measure every configuration in every arithmetic. Raises UserError for options that are missing."""
    if not (args.data_dir and args.states_dir and args.configs) or args.utterances < 1:
        raise UserError("benchmark decode --exp_dir: name --data_dir, --states_dir and --configs, and --utterances "
                        "above 0")
    systems = [system for configuration in _configurations(args).items() for system in _systems(args, *configuration)]
    functions: dict[str, Callable[[], None]] = {f"{one.name} {one.arithmetic}": one for one in systems}
    slow = [key for key in functions if key.startswith(f"{REFERENCE} ")]
    found = measure(functions, args.warm_up, args.repeats, args.device, slow, args.slow_repeats)
    plain = {one.name: one for one in systems if one.arithmetic == "float32"}
    texts = Texts(*(read_table(Path(args.data_dir) / name) for name in ("text", "utt2spk")))
    rows = [_row(one, plain[one.name], found[f"{one.name} {one.arithmetic}"], texts) for one in systems]
    seconds = sum(utterance.duration for utterance in systems[0].utterances)
    settings = {name: value for name, value in vars(args).items() if name not in ("out", "what")}
    title = f"Decoding {len(systems[0].utterances)} utterances, {seconds:.1f} s of audio, with {args.exp_dir}"
    return Report(title, settings, rows, notes=[NOTE])


def _configurations(args: argparse.Namespace) -> dict[str, DecodingSettings]:
    """Name -> settings; the reference first, with as many candidates as the table of random weights has."""
    conf = {"candidates": args.candidates, "mask_ratios": args.mask_ratios}
    reference = {"sampler": "pdd_reference", "sampler_conf": conf}
    return {REFERENCE: DecodingSettings.of(reference),
            **{Path(path).stem: DecodingSettings.of(read_yaml(path), path) for path in args.configs}}


def _systems(args: argparse.Namespace, name: str, settings: DecodingSettings) -> list[System]:
    kinds = ARITHMETIC[args.device.partition(":")[0]]
    found: list[System] = []
    for arithmetic, running in kinds.items():
        if name == REFERENCE and running:
            continue
        model = Speech2Text(args.exp_dir, args.model_file, settings, device=args.device, running=running)
        utterances = found[0].utterances if found else _utterances(args, model)
        found.append(System(name, arithmetic, model, utterances, []))
    return found


def _utterances(args: argparse.Namespace, model: Speech2Text) -> list[Utterance]:
    """Some utterances of the set, longest first, as the decode stage takes them."""
    samples = {key: int(count) for key, count in read_table(Path(args.data_dir) / "utt2num_samples").items()}
    order, table = sorted(samples, key=lambda key: (-samples[key], key)), StatesTable(args.states_dir)
    count = min(args.utterances, len(order))
    keys = [order[number * len(order) // count] for number in range(count)]
    return [model.utterance(key, table[key], samples[key] / SAMPLE_RATE) for key in keys]


def _row(one: System, plain: System, measured: Measurement, texts: Texts) -> dict[str, Any]:
    count, tokens = len(one.transcripts), ErrorCounts()
    for found, wanted in zip(one.transcripts, plain.transcripts, strict=True):
        tokens += count_edits(align([*map(str, wanted.token_int)], [*map(str, found.token_int)]))
    compared = compare_systems(texts.scored(plain), texts.scored(one))
    rate = compared.b
    return {
        "configuration": one.name, "arithmetic": one.arithmetic, **measured.columns(),
        "RTFx": measured.rate(sum(utterance.duration for utterance in one.utterances)),
        "passes": sum(each.passes for each in one.transcripts) / count,
        "rows": sum(each.rows for each in one.transcripts) / count,
        "WER %": rate.percent, "95 % from": rate.by_utterance.low, "to": rate.by_utterance.high,
        "p against float32": compared.mapsswe.p_value, "tokens unlike float32's %": tokens.percent,
    }
