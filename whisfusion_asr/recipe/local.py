"""Runs jobs on this machine, or through a `run.pl`-like command."""

import os
import subprocess
import time
from pathlib import Path

from whisfusion_asr.recipe.jobs import Job, Marks, logged_code, quoted, raise_failed, submit_words
from whisfusion_asr.recipe.processes import Processes
from whisfusion_asr.recipe.progress import EpochWatcher, Progress


def run_local(job: Job, numbers: list[int], processes: Processes, marks: Marks | None) -> None:
    """Run on this machine: an array's jobs side by side, one a device or a core."""
    waiting, running = list(numbers), dict[int, tuple[subprocess.Popen, float]]()
    codes: dict[int, int] = {}
    slots = _slots(job)
    progress = Progress(job.name, job.epochs or job.count, "epochs" if job.epochs else "jobs")
    epochs = EpochWatcher(job.log_of(1), progress) if job.epochs else None
    if marks:
        progress.update(job.count - len(numbers))
    while running or waiting and not any(codes.values()):  # after a failure only what runs is awaited
        while waiting and len(running) < slots and not any(codes.values()):
            number = waiting.pop(0)
            running[number] = _start_local(job, number, slots, processes), time.monotonic()
        time.sleep(0.02)
        for number, (child, start) in list(running.items()):
            if (code := processes.poll(child)) is None:
                continue
            del running[number]
            codes[number] = code
            _close_log(job.log_of(number), code, time.monotonic() - start)
            if code == 0 and marks:
                marks.set(number)
                progress.update(job.count - len(waiting) - len(running))
        if epochs:
            epochs.look()
    progress.close()
    raise_failed(job, codes)


def _start_local(job: Job, number: int, slots: int, processes: Processes) -> subprocess.Popen:
    log = job.log_of(number)
    with open(log, "wb") as file:
        header = f"# {quoted(job.words_of(number))}\n# Started at {time.ctime()}\n#\n"
        file.write(header.encode())
        file.flush()
        return processes.start(job.words_of(number), file, environment(job, number, slots))


def _close_log(log: Path, code: int, seconds: float) -> None:
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"# Accounting: time={seconds:.0f} threads=1\n")
        file.write(f"# Ended (code {code}) at {time.ctime()}, elapsed time {seconds:.0f} seconds\n")


def run_command(job: Job, numbers: list[int], processes: Processes, marks: Marks | None) -> None:
    """Hand over to a command of cmd.sh that takes `[options] [JOB=1:N] log command...` as run.pl does."""
    # Such a command knows only whole ranges, so an array with missing jobs runs as a whole.
    array = [f"JOB=1:{job.count}"] if job.count else []
    gpu = ["--gpu", str(job.gpus_each)] if job.gpus else []
    code = processes.wait(processes.start([*submit_words(job), *gpu, *array, str(job.log), *job.words]))
    if code:
        codes = {number: logged_code(job.log_of(number)) for number in job.numbers}
        raise_failed(job, {n: c or 0 for n, c in codes.items()} if any(codes.values()) else {1: code})
    for number in job.numbers if marks else ():
        marks.set(number)


def _slots(job: Job) -> int:
    words = [word.replace("-", "_") for word in submit_words(job)]
    if "__max_jobs_run" in words[:-1]:
        return int(words[words.index("__max_jobs_run") + 1])
    return min(len(job.numbers), len(_devices(job)) if job.gpus and job.count else _cpus())


def environment(job: Job, number: int, slots: int) -> dict[str, str]:
    """Threads and devices of one job on this machine."""
    threads = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(max(1, _cpus() // slots))}
    if not job.gpus:
        return threads | {"CUDA_VISIBLE_DEVICES": ""}
    devices = _devices(job)
    return threads | ({"CUDA_VISIBLE_DEVICES": devices[(number - 1) % len(devices)]} if job.count else {})


def _devices(job: Job) -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[: job.gpus] if visible else [str(device) for device in range(job.gpus)]


def _cpus() -> int:
    return len(os.sched_getaffinity(0))
