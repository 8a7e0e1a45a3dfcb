"""ESPnet's trainer with the seams closed: schedules that know their length, EMA, whole accumulation, safe resuming."""

import dataclasses
import datetime
import json
import logging
import math
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from whisfusion_asr.tasks.espnet_compat import CHECKPOINT, PREVIOUS_CHECKPOINT, is_curve, save_atomically

# isort: split
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.train.reporter import Reporter
from espnet2.train.trainer import Trainer

from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write
from whisfusion_asr.training.checkpoint import read_config, shorten
from whisfusion_asr.training.ema import EMA, Shadow
from whisfusion_asr.training.freeze import frozen_names, ready_made
from whisfusion_asr.training.precision import use_bfloat16
from whisfusion_asr.training.schedules import EpochCosine, RatioSchedule

FINISHED = "finished.json"


class Part:
    """The next `length` items of a running iterator."""

    def __init__(self, iterator: Iterator[Any], length: int) -> None:
        self.iterator, self.length = iterator, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.length):
            yield next(self.iterator)


class DiffusionTrainer(Trainer):
    """Trainer of DiffusionASRTask; every override ends in a call of the original."""

    @classmethod
    def run(
        cls,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        schedulers: Sequence[Any],
        train_iter_factory: AbsIterFactory,
        valid_iter_factory: AbsIterFactory,
        plot_attention_iter_factory: AbsIterFactory | None,
        trainer_options: Any,
        distributed_option: Any,
    ) -> None:
        """Train. Raises UserError for a frozen part without initial weights, or when the loss stopped being finite."""
        check_frozen_initialised(model)
        tell_lengths(schedulers, train_iter_factory, trainer_options)
        trainer_options = without_further_epochs(trainer_options)
        if (shadow := shadow_of(model)) is not None:
            shadow.restart(model)  # the initial weights were loaded after it was made
        if trainer_options.use_amp and not trainer_options.ngpu:
            use_bfloat16(model)
        super().run(
            model=model,
            optimizers=optimizers,
            schedulers=schedulers,
            train_iter_factory=train_iter_factory,
            valid_iter_factory=valid_iter_factory,
            plot_attention_iter_factory=plot_attention_iter_factory,
            trainer_options=trainer_options,
            distributed_option=distributed_option,
        )
        if not distributed_option.distributed or distributed_option.dist_rank == 0:
            write_outcome(Path(trainer_options.output_dir), trainer_options.best_model_criterion)

    @classmethod
    def train_one_epoch(cls, model: nn.Module, iterator: Any, options: Any, **others: Any) -> bool:
        """One epoch; returns whether no step was possible.

        ESPnet leaves the gradients of a last, incomplete accumulation to the next epoch (and loses them on resume).
        Here that rest is a step of its own, with the loss divided by its true size.
        """
        if not hasattr(iterator, "__len__"):
            if options.accum_grad > 1:
                raise UserError("accum_grad needs the number of batches per epoch: use iterator_type: sequence")
            return super().train_one_epoch(model=model, iterator=iterator, options=options, **others)
        whole = len(iterator) // options.accum_grad * options.accum_grad
        rest = len(iterator) - whole
        if not rest:
            return super().train_one_epoch(model=model, iterator=iterator, options=options, **others)
        batches, invalid = iter(iterator), True
        if whole:
            part = Part(batches, whole)
            invalid = super().train_one_epoch(model=model, iterator=part, options=options, **others)
        smaller = dataclasses.replace(options, accum_grad=rest)
        return super().train_one_epoch(model=model, iterator=Part(batches, rest), options=smaller, **others) and invalid

    @classmethod
    def validate_one_epoch(cls, model: nn.Module, **others: Any) -> None:
        """Validate, with the averaged weights where there are any."""
        inner = getattr(model, "module", model)
        shadow = shadow_of(inner)
        if shadow is None:
            super().validate_one_epoch(model=model, **others)
            return
        with shadow.in_place(inner):
            super().validate_one_epoch(model=model, **others)

    @staticmethod
    def resume(
        checkpoint: str | Path,
        model: nn.Module,
        reporter: Reporter,
        optimizers: Sequence[torch.optim.Optimizer],
        schedulers: Sequence[Any],
        scaler: Any,
        ngpu: int = 0,
        strict: bool = True,
    ) -> None:
        """Go on from a checkpoint, or from the one before it if that is damaged; mend what a crash left incomplete.

        Raises UserError when neither can be read.
        """
        checkpoint = Path(checkpoint)
        states = read_newest_state(checkpoint)  # on the CPU: two copies of a large state may not fit beside a model
        model.load_state_dict(states["model"], strict=strict)
        reporter.load_state_dict(states["reporter"])
        for optimizer, state in zip(optimizers, states["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        for scheduler, state in zip(schedulers, states["schedulers"], strict=True):
            if scheduler is not None:
                scheduler.load_state_dict(state)
        if scaler is not None and states["scaler"] is not None:
            scaler.load_state_dict(states["scaler"])
        if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
            mend_epoch_files(checkpoint.parent, reporter, states["model"])
        logging.info(f"Resumed after epoch {reporter.get_epoch()}")


def shadow_of(model: nn.Module) -> Shadow | None:
    """The model's averaged weights, if it keeps some."""
    shadow = getattr(model, EMA, None)
    return shadow if isinstance(shadow, Shadow) else None


def check_frozen_initialised(model: nn.Module) -> None:
    """Raise UserError for a frozen parameter that no init_param file set: it would stay random for ever."""
    frozen = frozen_names(model) & {name for name, _ in model.named_parameters()}
    blank = sorted(frozen - ready_made(model) - getattr(model, "initialised", set()))
    if blank:
        raise UserError(
            f"freeze_param: {shorten(blank)} would stay at random values; give the file that has them in init_param"
        )


def tell_lengths(schedulers: Sequence[Any], train_iter_factory: AbsIterFactory, options: Any) -> None:
    """Tell our schedules how many steps (epochs) the training has. Raises UserError if nobody knows."""
    for scheduler in schedulers:
        if isinstance(scheduler, EpochCosine):
            scheduler.set_total(options.max_epoch)
        elif isinstance(scheduler, RatioSchedule):
            try:
                batches = len(train_iter_factory.build_iter(1))
            except TypeError as error:
                raise UserError(
                    f"scheduler {type(scheduler).__name__} needs the number of batches per epoch: "
                    "use iterator_type: sequence"
                ) from error
            scheduler.set_total(options.max_epoch * math.ceil(batches / options.accum_grad))
            logging.info(f"{type(scheduler).__name__} over {scheduler.total} steps")


def without_further_epochs(options: Any) -> Any:
    """The options, with max_epoch lowered to what was reached if patience had already ended the training.

    A kill between the last epoch and the sign of completion must not make ESPnet train one epoch more.
    """
    checkpoint = Path(options.output_dir) / CHECKPOINT
    if options.patience is None or not options.resume or not checkpoint.exists():
        return options
    reporter = Reporter()
    reporter.load_state_dict(read_newest_state(checkpoint, mmap=True)["reporter"])
    if not reporter.check_early_stopping(options.patience, *options.early_stopping_criterion):
        return options
    return dataclasses.replace(options, max_epoch=reporter.get_epoch())


def read_state(path: Path, mmap: bool = False) -> dict[str, Any]:
    """A training state (checkpoint.pth): weights, optimisers, schedules and the reporter's plain numbers.

    mmap: leave the tensors on disk, for who wants the numbers only.
    """
    double = np.float64(0)
    plain = [datetime.timedelta, np.dtype, type(double.dtype), double.__reduce__()[0]]
    with torch.serialization.safe_globals(plain):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def read_newest_state(checkpoint: Path, mmap: bool = False) -> dict[str, Any]:
    """The checkpoint, or the previous one where it is cut off. Raises UserError when neither can be read."""
    for path in (checkpoint, checkpoint.with_name(PREVIOUS_CHECKPOINT)):
        try:
            return read_state(path, mmap)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            logging.warning(f"{path} cannot be read ({str(error).splitlines()[0][:100] if str(error) else 'empty'})")
    raise UserError(
        f"{checkpoint}: neither it nor {PREVIOUS_CHECKPOINT} can be read; start over with --resume false"
    )


def mend_epoch_files(output_dir: Path, reporter: Reporter, weights: dict[str, Any]) -> None:
    """Write the epoch file and links that a crash between ESPnet's saves left out."""
    epoch = reporter.get_epoch()
    if not (output_dir / f"{epoch}epoch.pth").exists():
        save_atomically(weights, output_dir / f"{epoch}epoch.pth")
    link(output_dir / "latest.pth", f"{epoch}epoch.pth")
    for phase, key, mode in read_config(output_dir)["best_model_criterion"]:
        if reporter.has(phase, key):
            link(output_dir / f"{phase}.{key}.best.pth", f"{reporter.get_best_epoch(phase, key, mode)}epoch.pth")


def link(path: Path, target: str) -> None:
    """Make `path` a symbolic link to `target`, whatever it was."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def write_outcome(output_dir: Path, criteria: Sequence[Sequence[str]]) -> None:
    """Write finished.json, the sign that the training is complete.

    Raises UserError: the last training loss is not finite, or a wanted averaged model is missing.
    """
    stats = read_state(output_dir / CHECKPOINT, mmap=True)["reporter"]
    epoch, history = stats["epoch"], stats["stats"]
    loss = float(history[epoch]["train"].get("loss", math.nan))
    if not math.isfinite(loss):
        raise UserError(f"{output_dir}: the training loss of epoch {epoch} is {loss}; lower the learning rate")
    for phase, key, _ in criteria:
        wanted = output_dir / f"{phase}.{key}.ave.pth"
        if not wanted.exists():
            known = ", ".join(sorted(history[epoch].get(phase, {})))
            raise UserError(f"{wanted} was not written: best_model_criterion asks for {phase} {key}, there is {known}")
    last = {
        phase: {key: float(value) for key, value in values.items() if is_curve(key)}
        for phase, values in history[epoch].items()
    }
    with atomic_write(output_dir / FINISHED) as file:
        json.dump({"epoch": epoch, "last": last}, file, indent=1)
        file.write("\n")
