"""How far a step is and when it will be done: one updating line on a terminal, a line a tenth in a log."""

import re
import sys
import time
from pathlib import Path
from typing import TextIO

_EPOCH = re.compile(r"\b(\d+)epoch results:(?:.*?\[valid\].*?\bloss=([-+.\deE]+))?")


class Progress:
    """Counts finished units of a step; prints to standard error so that results on standard output stay clean."""

    def __init__(self, title: str, total: int, unit: str, stream: TextIO | None = None) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._first: int | None = None  # what was done before the first look says nothing about the speed
        self._start = 0.0
        self._shown = -1
        self._drawn = False

    def update(self, done: int, note: str = "") -> None:
        """Show that `done` of the units are finished."""
        if self._first is None:
            self._first, self._start = done, time.monotonic()
        tenth = 10 * done // max(self._total, 1)
        if done <= 0 and not self._terminal or not self._terminal and tenth == self._shown:
            return
        self._shown = tenth
        self._write(f"{self._title}: {done} of {self._total} {self._unit}{note and ', ' + note}{self._remaining(done)}")

    def close(self) -> None:
        """End the updating line of a terminal."""
        if self._drawn:
            self._stream.write("\n")
            self._stream.flush()

    def _remaining(self, done: int) -> str:
        fresh = done - (self._first or 0)
        if fresh <= 0 or done >= self._total:
            return ""
        return f", {clock((time.monotonic() - self._start) / fresh * (self._total - done))} left"

    def _write(self, line: str) -> None:
        self._stream.write(f"\r\033[K{line}" if self._terminal else f"{line}\n")
        self._stream.flush()
        self._drawn = self._terminal


class EpochWatcher:
    """Reads the new lines of a training log and shows the epochs that it reports."""

    def __init__(self, log: Path, progress: Progress) -> None:
        self._log, self._progress = log, progress
        self._offset = 0
        self._rest = ""

    def look(self) -> None:
        """Show what has been added since the last look."""
        try:
            with open(self._log, "rb") as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return
        self._offset += len(new)
        *lines, self._rest = (self._rest + new.decode("utf-8", errors="replace")).split("\n")
        for line in lines:
            if match := _EPOCH.search(line):
                self._progress.update(int(match[1]), f"validation loss {match[2]}" if match[2] else "")


def clock(seconds: float) -> str:
    """A duration as people say it: 42s, 12m, 3h05m."""
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes = round(seconds / 60)
    return f"{minutes}m" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"
