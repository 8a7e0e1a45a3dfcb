"""What is to be run: one command or an array `JOB=1:N` of them, its logs, and what its failure says."""

import hashlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from whisfusion_asr.files import atomic_write

_TAIL = 20  # lines of a failed job's log that are shown
_STATUS = re.compile(r"\(code (\d+)\)|with status (\d+)")
_SAFE = re.compile(r"[\w@%+=:,./-]+")


class JobError(Exception):
    """A command failed; `exit_code` is 2 for the user's mistake, 1 for ours.

    The message is empty where the command itself has told the user what is wrong.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = 2 if exit_code == 2 else 1


@dataclass(frozen=True)
class Job:
    """One command. With `count` it is an array: JOB in the log name and in every word stands for 1 to count.

    log: file of its output; None for a short command that speaks to the terminal
    submit: variable of cmd.sh that says how to run it (train_cmd, cuda_cmd, decode_cmd); only for commands with a log
    gpus: devices of this machine; each job of an array gets one of them, a training all. 0 is the CPU
    epochs: how many a training will do, for the progress line
    """

    words: tuple[str, ...]
    log: Path | None = None
    count: int = 0
    submit: str = "train_cmd"
    gpus: int = 0
    nodes: int = 1
    epochs: int = 0

    @property
    def name(self) -> str:
        """Short name, as in the log's file name."""
        return self.log.name.split(".")[0] if self.log else " ".join(self.words[:4])

    @property
    def numbers(self) -> range:
        """Numbers of the jobs; a single command is number 1."""
        return range(1, max(self.count, 1) + 1)

    def words_of(self, number: int) -> list[str]:
        """The words with JOB replaced, textually as run.pl does."""
        return [word.replace("JOB", str(number)) for word in self.words] if self.count else list(self.words)

    def log_of(self, number: int) -> Path:
        """Log of one job."""
        assert self.log is not None
        return self.log.with_name(self.log.name.replace("JOB", str(number))) if self.count else self.log

    @property
    def gpus_each(self) -> int:
        """Devices that one job asks a queue for."""
        return min(self.gpus, 1) if self.count else self.gpus

    def shell(self) -> str:
        """The command as it can be pasted into a shell."""
        text = quoted(self.words)
        if not self.count:
            return text
        return f"for JOB in $(seq {self.count}); do {text.replace('JOB', '${JOB}')}; done"


def quoted(words: Sequence[str]) -> str:
    """Words for a shell, double quotes where needed: variables put in later still expand."""
    return " ".join(w if _SAFE.fullmatch(w) else '"' + re.sub(r'([\\"$`])', r"\\\1", w) + '"' for w in words)


@dataclass(frozen=True)
class Marks:
    """`<name>.N.done` beside the logs: which jobs of an array have ended well, and with what they were made."""

    job: Job
    identity: str

    def missing(self) -> list[int]:
        """Numbers of the jobs that are still to do; logs and marks of a larger earlier array are removed."""
        self._forget_larger()
        return [n for n in self.job.numbers if not (p := self._path(n)).is_file() or p.read_text() != self._content()]

    def clear(self) -> None:
        """Forget all: the jobs of a step that starts anew."""
        for number in self.job.numbers if self.job.log else ():
            self._path(number).unlink(missing_ok=True)

    def set(self, number: int) -> None:
        """Note that a job has ended well."""
        with atomic_write(self._path(number)) as file:
            file.write(self._content())

    def _path(self, number: int) -> Path:
        return self.job.log_of(number).with_suffix(".done")

    def _content(self) -> str:
        return hashlib.sha256(repr((self.identity, self.job.words)).encode()).hexdigest()

    def _forget_larger(self) -> None:
        log = self.job.log
        if log is None or not log.parent.is_dir():
            return
        name = re.compile(re.escape(log.stem).replace("JOB", r"(\d+)") + r"\.(log|done)")
        for path in log.parent.iterdir():
            if (match := name.fullmatch(path.name)) and int(match[1]) > self.job.count:
                path.unlink()


def submit_words(job: Job) -> list[str]:
    """The command of cmd.sh that runs the job, with its options."""
    return shlex.split(os.environ.get(job.submit, "")) or ["local"]


def logged_code(log: Path) -> int | None:
    """Exit code that the end of a log reports, in run.pl's or slurm.pl's words."""
    found = [match for line in _last_lines(log, 10) if (match := _STATUS.search(line))]
    return int(found[-1][1] or found[-1][2]) if found else None


def raise_failed(job: Job, codes: Mapping[int, int]) -> None:
    """Raise JobError when any code is not 0: with the mistake that the first failing log names, or else its end."""
    failed = sorted(number for number, code in codes.items() if code)
    if not failed:
        return
    log, code = job.log_of(failed[0]), codes[failed[0]]
    many = f" ({len(failed)} of {job.count} jobs failed)" if job.count else ""
    lines = _last_lines(log, _TAIL)
    if code == 2 and (mistake := _mistake(lines)):
        raise JobError(f"{mistake}; {job.name}{many}, log: {log}", code)
    tail = "\n".join(lines)
    raise JobError(f"{tail}\n{job.name} ended with {meaning(code)}{many}; log: {log}", code)


def _mistake(lines: Sequence[str]) -> str:
    """What a command has said of the user's mistake: its last `error: ...`, with the lines that belong to it."""
    starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    said = lines[starts[-1] :] if starts else []
    return "\n".join(line for line in said if not line.startswith("#")).removeprefix("error: ")


def _last_lines(log: Path, count: int) -> list[str]:
    if not log.is_file():
        return []
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 65536))
        return file.read().decode("utf-8", errors="replace").splitlines()[-count:]


def meaning(code: int) -> str:
    """An exit code in words."""
    if code in (-9, 137):
        return "exit code 137: killed, perhaps for lack of memory (fewer jobs: --nj, --inference_nj)"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
