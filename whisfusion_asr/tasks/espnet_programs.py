"""ESPnet's own recognition programs on this package's data directories: the controls that it does not write itself.

Front end, model, losses, trainer and search are ESPnet's. Added are checks of what its readers would misread, this
package's optimiser under the name `muon`, the counts of parameters in the log, and the time that a decoding takes.
"""

import argparse
import importlib
import logging
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import nn

from whisfusion_asr.tasks import choices  # noqa: F401  (first: makes espnet2 importable, and registers ours)

# isort: split
from espnet2.tasks.abs_task import optim_classes
from espnet2.tasks.asr import ASRTask

from whisfusion_asr.data.audio import SAMPLE_RATE
from whisfusion_asr.data.tables import read_table
from whisfusion_asr.errors import UserError
from whisfusion_asr.training.groups import build_optimizer, inventory
from whisfusion_asr.training.muon import Muon


class ControlTask(ASRTask):
    """ASRTask whose `optim: muon` has the parameter groups that Muon needs; it logs the counts of parameters.

    A class of its own, not a change of ASRTask: the processes of a distributed training import it by its name.
    """

    @classmethod
    def build_optimizers(cls, args: argparse.Namespace, model: nn.Module) -> list[torch.optim.Optimizer]:
        """ESPnet's optimiser, or Muon over the groups of `training.groups`."""
        for part, trainable, frozen in inventory(model):
            logging.info(f"{part}: {trainable:,} trainable, {frozen:,} frozen parameters")
        if optim_classes.get(args.optim) is Muon:
            return [build_optimizer(Muon, args.optim_conf, model)]
        return super().build_optimizers(args, model)


def run_program(name: str, words: Sequence[str]) -> list[float]:
    """Run espnet2.bin.NAME with its own options: asr_train, asr_inference or asr_inference_maskctc.

    Returns the seconds of each utterance of an inference, none for a training. They hold front end, encoder and search
    of one utterance at a time, neither loading nor reading of audio.
    raises UserError: audio that ESPnet would not read, or would take for something else
    """
    for path, kind in _tables(words):
        if kind == "sound":
            check_sound(path)
    if name == "asr_train":
        ControlTask.main(cmd=list(words))
        return []
    program = importlib.import_module(f"espnet2.bin.{name}")
    call, seconds = timed(program.Speech2Text.__call__)
    program.Speech2Text.__call__ = call
    program.main(list(words))
    return seconds


def _tables(words: Sequence[str]) -> list[tuple[Path, str]]:
    """(path, type) of every data file that the options name."""
    names = [f"{role}data_path_and_name_and_type" for role in ("", "train_", "valid_")]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in names:
        parser.add_argument(f"--{name}", action="append", default=[])
    known, _ = parser.parse_known_args(list(words))
    triples = [triple.split(",") for name in names for triple in getattr(known, name)]
    return [(Path(triple[0]), triple[-1]) for triple in triples]


def check_sound(wav_scp: Path) -> None:
    """Raise UserError where ESPnet's data type `sound` reads something else than this package: it takes files only.

    Of the sampling rates only that of the first file is read.
    """
    remedy = "ESPnet's programs read whole audio files: write one for each utterance"
    segments = wav_scp.with_name("segments")
    if segments.exists():
        raise UserError(f"{segments}: utterances are parts of recordings; {remedy}")
    table = read_table(wav_scp)
    for key, place in table.items():
        if place.endswith("|"):
            raise UserError(f"{wav_scp}: {key} is a command; {remedy}")
    for place in list(table.values())[:1]:
        rate = soundfile.info(place).samplerate
        if rate != SAMPLE_RATE:
            raise UserError(f"{place}: sampled at {rate} Hz, which ESPnet would take for {SAMPLE_RATE}; convert it")


def timed(call: Callable[..., Any]) -> tuple[Callable[..., Any], list[float]]:
    """A function that notes the seconds of every call, and the list where it does.

    The first call is made twice, and its second time counts: what only a first call costs is no utterance's.
    """
    seconds: list[float] = []

    @wraps(call)
    def noting(*args: Any, **kwargs: Any) -> Any:
        if not seconds:
            call(*args, **kwargs)
        start = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - start)

    return noting, seconds
