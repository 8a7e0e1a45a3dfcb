"""Runs jobs through Slurm: one `sbatch` (an array for many jobs), with slurm.pl's command line, scripts and files."""

import os
import re
import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write
from whisfusion_asr.recipe.jobs import Job, JobError, Marks, logged_code, quoted, raise_failed, submit_words
from whisfusion_asr.recipe.processes import Processes
from whisfusion_asr.recipe.progress import EpochWatcher, Progress

_CONFIG = Path("conf/slurm.conf")
_TASK = "${SLURM_ARRAY_TASK_ID}"
_ASK_EVERY = 10  # looks at the done files between two calls of squeue
_GRACE = 15.0  # seconds that a done file may come later than the job's end (network file systems)

_SCRIPT = """\
#!/bin/bash
cd {cwd}
. ./path.sh
( echo '#' Running on `hostname`
  echo '#' Started at `date`
  set | grep SLURM | while read line; do echo "# $line"; done
  echo -n '# '; cat <<EOF
{command}
EOF
) >{log}
time1=`date +"%s"`
 ( {command} ) &>>{log}
ret=$?
sync || true
time2=`date +"%s"`
echo '#' Accounting: begin_time=$time1 >>{log}
echo '#' Accounting: end_time=$time2 >>{log}
echo '#' Accounting: time=$(($time2-$time1)) threads=1 >>{log}
echo '#' Finished at `date` with status $ret >>{log}
[ $ret -eq 137 ] && exit 100;
touch {done}
exit $[$ret ? 1 : 0]
## submitted with:
# {submitted}
"""


@dataclass
class SlurmConfig:
    """conf/slurm.conf: how options like `--gpu 1` become words of sbatch.

    Lines: `command sbatch ...`, `option name=* words with $0`, `option name=value words`, `default name=value`.
    """

    command: str = ""
    options: dict[tuple[str, str], str] = field(default_factory=dict)
    defaults: dict[str, str] = field(default_factory=dict)

    def words(self, chosen: dict[str, str], path: Path) -> list[str]:
        """Words of sbatch for the chosen options; raises UserError for one that the file does not describe."""
        words: list[str] = []
        for name, value in ({name: v for name, v in self.defaults.items() if name not in chosen} | chosen).items():
            text = self.options.get((name, value), self.options.get((name, "*")))
            if text is None:
                raise UserError(f"{path}: option {name} is not described there (or value {value!r} is not allowed)")
            words += shlex.split(text.replace("$0", value))
        return words


def read_slurm_config(path: Path) -> SlurmConfig:
    """Parse; raises UserError naming file and line."""
    if not path.is_file():
        raise UserError(f"{path} is missing; copy it from egs/TEMPLATE/asr1/conf and set your partitions")
    config = SlurmConfig()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = re.sub(r"\s*#.*", "", line)
        if match := re.fullmatch(r"command (.+)", line):
            config.command = match[1]
        elif match := re.fullmatch(r"option ([^=]+)=(\S+)\s*(.*)", line):
            config.options[match[1], match[2]] = match[3]
        elif match := re.fullmatch(r"default (\S+)=(\S+)", line):
            config.defaults[match[1]] = match[2]
        elif line:
            raise UserError(f"{path}:{number}: expected a line `command`, `option name=value` or `default name=value`")
    if not config.command:
        raise UserError(f"{path}: no line `command sbatch ...`")
    return config


def run_slurm(job: Job, numbers: list[int], processes: Processes, marks: Marks | None) -> None:
    """Submit, wait for all, read their status; raises JobError when any failed. An interrupt cancels the job."""
    assert job.log is not None
    queue = job.log.parent / "q"
    queue.mkdir(parents=True, exist_ok=True)
    base = queue / job.log.name.replace(".JOB", "").replace("JOB", "")
    _cancel_left_over(base)
    done = queue / f"done.{os.getpid()}"
    identifier = _submit(job, numbers, base, done)
    try:
        codes = _wait(job, numbers, done, identifier, marks)
    finally:
        _cancel_left_over(base)  # after all is done this only removes the note of the job's number
    raise_failed(job, codes)


def sbatch_words(job: Job, numbers: Sequence[int], base: Path) -> list[str]:
    """The command line that submits a job; `base` is the log of the queue itself."""
    name, given = job.name, _given(submit_words(job)[1:])
    path = Path(given.pop("config", _CONFIG))
    limit = given.pop("max_jobs_run", "")
    chosen = {"name": name, **given, "gpu": str(job.gpus_each)}
    if job.nodes > 1:
        chosen |= {"num_threads": str(max(job.gpus, 1)), "num_nodes": str(job.nodes)}
    config = read_slurm_config(path)
    array = ["--array", _ranges(numbers) + (f"%{limit}" if limit else "")] if job.count else []
    log = ["--open-mode=append", "-e", str(base), "-o", str(base)]
    return [*shlex.split(config.command), *config.words(chosen, path), *log, *array, str(Path.cwd() / _script(base))]


def _submit(job: Job, numbers: list[int], base: Path, done: Path) -> str:
    words = sbatch_words(job, numbers, base)
    command, log = _command(job), str(job.log)
    if job.count:
        command, log = command.replace("JOB", _TASK), log.replace("JOB", _TASK)
    values = {"cwd": quoted([str(Path.cwd())]), "command": command, "log": log, "submitted": quoted(words)}
    with atomic_write(_script(base)) as file:
        file.write(_SCRIPT.format(**values, done=f"{done}.{_TASK}" if job.count else done))
    for number in numbers:
        _done_file(job, done, number).unlink(missing_ok=True)
    try:
        answer = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise UserError(f"{words[0]}: command not found; is this a machine of the cluster? (cmd.sh)") from error
    found = re.search(r"Submitted batch job (\d+)", answer.stdout)
    if answer.returncode or not found:
        raise JobError(f"{quoted(words)}\nfailed: {(answer.stdout + answer.stderr).strip()}", 1)
    with atomic_write(_note(base)) as file:
        file.write(found[1])
    return found[1]


def _command(job: Job) -> str:
    if job.nodes == 1:
        return quoted(job.words)
    assert job.log is not None
    meeting = Path.cwd() / job.log.with_name(f".dist_init_{os.getpid()}_{time.time_ns()}")
    backend = () if job.gpus else ("--dist_backend", "gloo")
    launch = ("--dist_launcher", "slurm", "--dist_init_method", f"file://{meeting}", *backend)
    return quoted(["srun", "--export=ALL", *job.words, *launch])


def _wait(job: Job, numbers: list[int], done: Path, identifier: str, marks: Marks | None) -> dict[int, int]:
    assert job.log is not None
    codes: dict[int, int] = {}
    progress = Progress(job.name, job.epochs or job.count, "epochs" if job.epochs else "jobs")
    epochs = EpochWatcher(job.log, progress) if job.epochs else None
    if marks:
        progress.update(job.count - len(numbers))
    pause, looks, lost_since = 0.1, 0, None
    while waiting := [number for number in numbers if number not in codes]:
        for number in waiting:
            file = _done_file(job, done, number)
            if file.exists() and (code := logged_code(job.log_of(number))) is not None:
                codes[number] = code
                file.unlink()
                if marks and code == 0:
                    marks.set(number)
                    progress.update(job.count - len(numbers) + len(codes))
        if epochs:
            epochs.look()
        if len(codes) == len(numbers):
            break
        looks += 1
        if looks % _ASK_EVERY == 0 or lost_since:
            lost_since = None if _in_queue(identifier) else lost_since or time.monotonic()
            if lost_since and time.monotonic() - lost_since > _GRACE:
                codes |= {number: _lost(job, number, identifier) for number in numbers if number not in codes}
        time.sleep(pause)
        pause = min(pause * 1.2, 3.0)
    progress.close()
    return codes


def _in_queue(identifier: str) -> bool:
    return subprocess.run(["squeue", "-j", identifier], capture_output=True).returncode == 0


def _lost(job: Job, number: int, identifier: str) -> int:
    """A job that left the queue without a word: its log's status, or 1 with a note in the log."""
    code = logged_code(job.log_of(number))
    if code is None:
        with open(job.log_of(number), "a", encoding="utf-8") as file:
            file.write(f"# Slurm job {identifier} is gone and did not report its end: time limit? machine shut down?\n")
    return 1 if code is None else code


def _cancel_left_over(base: Path) -> None:
    """Cancel a job that an earlier or interrupted call left in the queue; it would write the same files as the next."""
    if not _note(base).is_file():
        return
    identifier = _note(base).read_text()
    if _in_queue(identifier):
        subprocess.run(["scancel", identifier], capture_output=True)
    _note(base).unlink()


def _given(words: list[str]) -> dict[str, str]:
    if len(words) % 2:
        raise UserError(f"cmd.sh: slurm {' '.join(words)}: expected pairs `--name value`")
    return {name.removeprefix("--").replace("-", "_"): value for name, value in zip(*[iter(words)] * 2, strict=True)}


def _ranges(numbers: Sequence[int]) -> str:
    """1,2,3,5 -> 1-3,5"""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    if len(numbers) == 1:
        return f"{numbers[0]}-{numbers[0]}"
    return ",".join(f"{a}-{b}" if a != b else str(a) for a, b in runs)


def _done_file(job: Job, done: Path, number: int) -> Path:
    return done.with_name(f"{done.name}.{number}") if job.count else done


def _script(base: Path) -> Path:
    return base.with_suffix(".sh")


def _note(base: Path) -> Path:
    return base.with_suffix(".jobid")
