"""Child processes in groups of their own that never outlive the runner."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO

from whisfusion_asr.errors import UserError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE = 5.0  # seconds between asking children to end and killing them


class Interrupted(Exception):
    """The runner got a signal that asks it to end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class Processes:
    """Starts children; when the `with` block is left, or the runner dies in any way, all of them end."""

    def __enter__(self) -> "Processes":
        self._running: dict[int, subprocess.Popen] = {}
        self._starting, self._pending = False, 0
        self._handlers = {number: signal.signal(number, self._interrupt) for number in _SIGNALS}
        self._watchdog = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("watchdog.py")],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # an impatient second Ctrl-C must not leave children behind
        for number in (signal.SIGTERM, signal.SIGKILL):
            for group in self._running:
                _kill_group(group, number)
            end = time.monotonic() + _GRACE
            while self._running and time.monotonic() < end:
                self._running = {group: child for group, child in self._running.items() if child.poll() is None}
                time.sleep(0.02)
        self._end_watchdog()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def start(
        self, words: Sequence[str], log: IO[bytes] | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen:
        """Start a command; its output goes to `log`, or where the runner's goes."""
        self._starting = True  # a signal between the start and the entry below would leave a child nobody knows
        try:
            child = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT if log else None,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise UserError(f"{words[0]}: command not found; is utils/install.sh done?") from error
        else:
            self._running[child.pid] = child
            self._tell(f"+{child.pid}")
        finally:
            self._starting = False
        if self._pending:
            raise Interrupted(self._pending)
        return child

    def poll(self, child: subprocess.Popen) -> int | None:
        """Exit code of a child, None while it runs; what a failed one has started is ended too."""
        code = child.poll()
        if code is not None and child.pid in self._running:
            if code:
                _kill_group(child.pid, signal.SIGKILL)
            del self._running[child.pid]
            self._tell(f"-{child.pid}")
        return code

    def wait(self, child: subprocess.Popen) -> int:
        """Exit code of a child, after it has ended."""
        while (code := self.poll(child)) is None:
            time.sleep(0.02)
        return code

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self._starting:
            raise Interrupted(number)
        self._pending = number

    def _tell(self, line: str) -> None:
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.write(line + "\n")
        self._watchdog.stdin.flush()

    def _end_watchdog(self) -> None:
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.close()
        self._watchdog.wait()


def _kill_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return
