"""Runs a job where cmd.sh says."""

from collections.abc import Callable
from pathlib import Path

from whisfusion_asr.errors import UserError
from whisfusion_asr.recipe.jobs import Job, JobError, Marks, meaning, quoted, submit_words
from whisfusion_asr.recipe.local import environment, run_command, run_local
from whisfusion_asr.recipe.processes import Processes
from whisfusion_asr.recipe.slurm import run_slurm

Backend = Callable[[Job, list[int], Processes, Marks | None], None]
_BUILT_IN: dict[str, Backend] = {"local": run_local, "run.pl": run_local, "slurm": run_slurm, "slurm.pl": run_slurm}


def run_job(job: Job, processes: Processes, identity: str) -> None:
    """Run a command or an array to its end; raises JobError when any part of it failed.

    identity: what the result depends on; jobs of an array that are marked done with the same one are not repeated.
    """
    if job.log is None:
        code = processes.wait(processes.start(job.words, env=environment(job, 1, 1)))
        if code:
            told = code == 2  # by the command, on the terminal that it shares with us
            raise JobError("" if told else f"{quoted(job.words)}\nended with {meaning(code)}", code)
        return
    job.log.parent.mkdir(parents=True, exist_ok=True)
    marks = Marks(job, identity) if job.count else None
    numbers = marks.missing() if marks else [1]
    if marks and numbers and len(numbers) < job.count:
        print(f"{job.name}: {job.count - len(numbers)} of {job.count} jobs were done before", flush=True)
    if not job.count:
        _rotate(job.log)
    for number in numbers:
        job.log_of(number).unlink(missing_ok=True)
    if numbers:
        _backend(job)(job, numbers, processes, marks)


def _backend(job: Job) -> Backend:
    name = Path(submit_words(job)[0]).name
    backend = _BUILT_IN.get(name, run_command)
    if job.nodes > 1 and backend is not run_slurm:
        raise UserError("--num_nodes: more than one machine needs Slurm; set cmd_backend=slurm in cmd.sh")
    return backend


def _rotate(log: Path) -> None:
    """Keep the logs of earlier calls as train.1.log, train.2.log, ..., the newest first, as ESPnet does."""
    for number in range(9, 0, -1):
        older = log.with_name(f"{log.stem}.{number}{log.suffix}")
        newer = log.with_name(f"{log.stem}.{number - 1}{log.suffix}") if number > 1 else log
        if newer.exists():
            newer.replace(older)
