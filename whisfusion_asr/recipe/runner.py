"""Runs the chosen stages step by step: what is up to date is left alone, what was interrupted goes on."""

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from whisfusion_asr.errors import UserError
from whisfusion_asr.recipe import stamps
from whisfusion_asr.recipe.backends import run_job
from whisfusion_asr.recipe.jobs import JobError, Marks
from whisfusion_asr.recipe.lock import locked
from whisfusion_asr.recipe.options import Options
from whisfusion_asr.recipe.processes import Interrupted, Processes
from whisfusion_asr.recipe.progress import clock
from whisfusion_asr.recipe.records import write_records
from whisfusion_asr.recipe.stages import Stage, chosen_stages, find_stage
from whisfusion_asr.recipe.steps import WEIGHTS, Step, Steps

# Settings of a training that change what is shown, not what comes out.
_FREE = {"num_workers", "log_interval", "log_level", "num_att_plot", "use_matplotlib", "use_tensorboard"}


class Runner:
    """One call of a recipe. `argv` is its command line, for the records in experiment directories."""

    def __init__(self, options: Options, argv: Sequence[str]) -> None:
        self._options, self._argv = options, list(argv)
        self._stages = chosen_stages(options)
        self._steps = Steps(options)

    def run(self) -> int:
        """Run all stages; returns the exit code: 0, 1 after an internal failure, 2 for the user, 128 + signal."""
        _start_logging()
        os.environ["DATADIR"] = self._options.datadir  # for local/data.sh
        start = time.monotonic()
        if self._options.dry_run:
            from whisfusion_asr.recipe.dry_run import describe

            print(describe(self._options, self._stages, self._steps))
            return 0
        try:
            with Processes() as self._processes:
                for stage in self._stages:
                    self._run_stage(stage)
        except JobError as error:
            if str(error):
                print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        except Interrupted as error:
            print(f"error: {error}; the same command goes on from here", file=sys.stderr)
            return error.exit_code
        logging.info(f"Successfully finished. [elapsed={time.monotonic() - start:.0f}s]")
        return 0

    def _run_stage(self, stage: Stage) -> None:
        count = 0
        for count, step in enumerate(stage.steps(self._steps), 1):  # noqa: B007 - used after the loop
            self._run_step(stage, step)
        if left_out := stage.left_out(self._steps):
            logging.info(f"Stage {stage.number} {stage.name}: {left_out}")
        elif not count:
            logging.info(f"Stage {stage.number} {stage.name}: nothing to do with these options")
        if stage.name == "score":
            for line in result_lines(self._steps):
                print(line, flush=True)

    def _run_step(self, stage: Stage, step: Step) -> None:
        label = f"Stage {stage.number} {stage.name}: {step.title}"
        check_reads(step, self._options)
        new = stamps.make_stamp(step.title, step.settings, step.reads)
        if why_run(step, stamps.read_stamp(step.stamp), new, self._options.force):
            with locked(step.out, step.title):
                self._make(stage, step, new)
        else:
            logging.info(f"{label} is up to date")

    def _make(self, stage: Stage, step: Step, new: stamps.Stamp) -> None:
        """Run a step, unless another call has done it in the meantime."""
        label = f"Stage {stage.number} {stage.name}: {step.title}"
        old = stamps.read_stamp(step.stamp)
        reason = why_run(step, old, new, self._options.force)
        if not reason:
            logging.info(f"{label} is up to date")
            return
        logging.info(f"{label}: {reason}")
        for line in step.told(self._options.ngpu):
            logging.info(line)
        if self._options.force and step.training:
            _move_aside(step.out)
        if self._options.force or old is None or old.state != "running" or old.identity != new.identity:
            for job in step.jobs:
                Marks(job, new.identity).clear()
        self._execute(stage, step, new)
        logging.info(f"{label} is done in {clock(stamps.read_stamp(step.stamp).seconds)}")  # type: ignore[union-attr]

    def _execute(self, stage: Stage, step: Step, stamp: stamps.Stamp) -> None:
        start = time.monotonic()
        stamps.write_stamp(step.stamp, stamp)
        if step.record:
            write_records(step.record, self._argv, stage.number, self._options.seed)
        for job in step.jobs:
            run_job(job, self._processes, stamp.identity)
        missing = [str(path) for path in step.writes if not path.exists()]
        if missing:
            raise JobError(f"{step.title}: the commands ended well but did not write {', '.join(missing)}", 1)
        if step.keys:
            _check_keys(*step.keys)
        stamps.write_stamp(step.stamp, replace(stamp, state="done", seconds=round(time.monotonic() - start, 1)))


def why_run(step: Step, old: stamps.Stamp | None, new: stamps.Stamp, force: bool) -> str:
    """Why a step has to run, empty when it is up to date.

    Raises UserError when a changed setting would overwrite an experiment.
    """
    if force:
        return "again (--force true)"
    if old is None:
        return "starts"
    settings, others = stamps.changed_settings(old, new), stamps.changed_inputs(old, new)
    _protect(step, settings, others)
    changes = [f"{key}: {change}" for key, change in settings.items()] + others
    if changes:
        return "runs again, " + "; ".join(changes)
    if old.state != "done":
        return "goes on where it was interrupted"
    missing = [str(path) for path in step.writes if not path.exists()]
    return f"runs again, {missing[0]} is gone" if missing else ""


def _protect(step: Step, settings: dict[str, str], others: list[str]) -> None:
    if not any(any(step.out.glob(pattern)) for pattern in step.work):
        return
    kept = [f"{key}: {change}" for key, change in settings.items() if not (step.training and key in _FREE)]
    kept += others if step.training else []
    if kept:
        moved = f"; the old one becomes {_aside(step.out)}" if step.training else ""
        raise UserError(
            f"{step.out} was made otherwise:\n  " + "\n  ".join(kept) + f"\nGive the new one its own name"
            f" (--{step.tag} NAME) or redo it (--force true{moved})"
        )


def check_reads(step: Step, options: Options) -> None:
    """Raise UserError for an input that is missing or whose making was interrupted, with the stage that makes it."""
    for path, writer in step.reads.items():
        if not writer and not path.is_file():
            raise UserError(f"{path} is missing; {step.title} needs it")
        if not writer:
            continue
        stage = find_stage(writer, "stage")
        again = f"run --stage {stage.number} --stop_stage {stage.number}"
        if not path.is_file():
            raise UserError(f"{path} is missing; stage {stage.number} {stage.name} writes it: {again}")
        # A checkpoint that the user names may be taken from a training that is not over.
        named = path.name == options.inference_model != WEIGHTS
        if _interrupted(path) and not named and not (options.inference_model != WEIGHTS and path.name == "config.yaml"):
            raise UserError(f"{path} is not finished: stage {stage.number} {stage.name} was interrupted; {again}")


def _interrupted(path: Path) -> bool:
    found = (stamps.read_stamp(directory / stamps.NAME) for directory in (path.parent, path.parent.parent))
    return any(stamp is not None and stamp.state != "done" for stamp in found)


def _check_keys(reference: Path, output: Path) -> None:
    wanted, got = set(_keys(reference)), list(_keys(output))
    missing, extra = sorted(wanted - set(got)), sorted(set(got) - wanted)
    if missing or extra or len(got) != len(set(got)):
        raise JobError(
            f"{output} must have the {len(wanted)} keys of {reference}, each once, but has {len(got)} lines;"
            f" missing: {' '.join(missing[:5]) or '-'}; not wanted: {' '.join(extra[:5]) or '-'}",
            1,
        )


def _keys(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            if words := line.split(maxsplit=1):
                yield words[0]


def _move_aside(directory: Path) -> None:
    if directory.exists():
        new = _aside(directory)
        directory.rename(new)
        logging.info(f"The old {directory} is now {new}")


def _aside(directory: Path) -> Path:
    number = 1
    while (new := directory.with_name(f"{directory.name}.old-{number}")).exists():
        number += 1
    return new


def result_lines(steps: Steps) -> Iterator[str]:
    """Head and Sum/Avg line of every result, as ESPnet prints them, and the place of the table."""
    for config, name in steps.decoded():
        for kind in ("cer", "wer", "ter"):
            result = steps.layout.decoding(config, name) / f"score_{kind}" / "result.txt"
            if result.is_file():
                lines = result.read_text(encoding="utf-8").splitlines()
                yield f"{kind.upper()} of {result}"
                yield from [line for line in lines if "Avg" in line or "SPKR" in line][:2]
    yield f"All results: {steps.layout.model / 'RESULTS.md'}"


def _start_logging() -> None:
    logging.basicConfig(
        format="%(asctime)s (%(filename)s:%(lineno)d:%(funcName)s) %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
        level=logging.INFO,
        stream=sys.stdout,
    )
