"""The dry run: commands to paste, and what they would write, download and need."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from whisfusion_asr.errors import UserError
from whisfusion_asr.recipe import stamps
from whisfusion_asr.recipe.estimates import Cost, total
from whisfusion_asr.recipe.options import Options
from whisfusion_asr.recipe.progress import clock
from whisfusion_asr.recipe.runner import why_run
from whisfusion_asr.recipe.stages import Stage
from whisfusion_asr.recipe.steps import Step, Steps

REFUSED = "would be refused: "


def describe(options: Options, stages: Sequence[Stage], steps: Steps) -> str:
    """A shell script that does what the stages would do; comments hold the rest."""
    lines = [f"cd {Path.cwd()}", ". ./path.sh", f"export DATADIR={options.datadir}"]
    made: set[str] = set()  # stages described so far: what they write will be there
    costs: list[Cost] = []
    for stage in stages:
        lines += ["", f"# Stage {stage.number} {stage.name}; typical time: {stage.time}"]
        if left_out := stage.left_out(steps):
            lines.append(f"# {left_out}")
        for step in stage.steps(steps):
            made.add(stage.name)
            reason = _reason(step, options.force)
            lines += _describe_step(step, reason, options.ngpu, made)
            costs += step.costs if reason and not reason.startswith(REFUSED) else ()
    free = shutil.disk_usage(".").free
    return "\n".join([*lines, "", f"# free on this disk: {free / 1e9:.0f} GB", f"# {total(costs, options.ngpu)}"])


def _reason(step: Step, force: bool) -> str:
    """Why a step would run, or would be refused; empty when it is up to date."""
    try:
        return why_run(step, stamps.read_stamp(step.stamp), stamps.make_stamp(step.title, step.settings, step.reads),
                       force)
    except UserError as error:
        return REFUSED + str(error).replace("\n", "\n#   ")


def _describe_step(step: Step, reason: str, ngpu: int, made: set[str]) -> Iterator[str]:
    old = stamps.read_stamp(step.stamp)
    yield f"# {step.title}: {reason or 'up to date'}"
    if not reason:
        return
    for path, writer in step.reads.items():
        if not path.is_file() and writer not in made:
            yield f"# needs {path}" + (f" of stage {writer}" if writer else "") + ", which is missing"
    yield from (f"# {line}" for line in step.told(ngpu))
    yield f"# writes: {' '.join(map(str, step.writes))}"
    if old and old.state == "done":
        yield f"# time: {clock(old.seconds)} last time"
    for job in step.jobs:
        log = f" > {job.log} 2>&1" if job.log and not job.count else ""
        if job.log:
            yield f"mkdir -p {job.log.parent}"
        yield job.shell() + log
