"""Downloads that resume, are checked, and appear under their name only when they are whole.

The bytes go to `NAME.part`; a broken connection or a killed process leaves it there, and the next attempt asks the
server for the rest. Only a file of the expected size and checksum is renamed to NAME.
"""

import fcntl
import hashlib
import http.client
import math
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from whisfusion_asr.errors import UserError

BLOCK = 1 << 20
PASSING = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses worth another attempt


class _Interrupted(Exception):
    """The transfer broke off; another attempt at the same address may go on."""


class _Refused(Exception):
    """This address will not give the file."""


@dataclass(frozen=True)
class Expected:
    """What is known of a file beforehand; unknown values are None.

    size: bytes; md5, sha256: hexadecimal
    """

    size: int | None = None
    md5: str | None = None
    sha256: str | None = None

    @property
    def has_checksum(self) -> bool:
        """Whether the content can be verified: otherwise the rest of an earlier download cannot be trusted."""
        return bool(self.md5 or self.sha256)

    def complaint(self, path: str | Path) -> str | None:
        """What is wrong with a file, or None if it is as expected."""
        size = Path(path).stat().st_size
        if self.size is not None and size != self.size:
            return f"{size} bytes, expected {self.size}"
        for name, wanted in (("md5", self.md5), ("sha256", self.sha256)):
            if wanted:
                found = checksum(path, name)
                if found != wanted.lower():
                    return f"{name.upper()} {found}, expected {wanted}"
        return None


@dataclass(frozen=True)
class Patience:
    """attempts: in vain one after the other before an address is given up; pause: seconds before the second, doubled
    for each further one; timeout: seconds without a byte that count as a broken connection
    """

    attempts: int = 5
    pause: float = 1.0
    timeout: float = 60.0


UNKNOWN = Expected()
PATIENT = Patience()


def download(
    urls: str | Sequence[str], path: str | Path, expected: Expected = UNKNOWN, patience: Patience = PATIENT
) -> Path:
    """Fetch a file from the first of several addresses that gives it whole.

    urls: http(s) addresses of the same file, in order of preference
    path: where it appears; present already, it is only checked
    raises UserError: no address gave the expected file, a wrong file lies at `path`, too little disk space, or another
        process is at the same download
    """
    path, urls = Path(path), [urls] if isinstance(urls, str) else list(urls)
    for url in urls:
        if not re.match("https?://", url):
            raise UserError(f"{url}: expected an address that begins with http:// or https://")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _part_file(path) as part:
        if path.exists():
            if complaint := expected.complaint(path):
                raise UserError(f"{path}: {complaint}: delete it or move it away and run the same command again")
            return path
        problems = []
        for url in urls:
            problem = _from_one_address(url, part, expected, patience)
            if problem is None:
                os.fsync(part.fileno())
                os.replace(part.name, path)
                return path
            problems.append(f"{url}: {problem}")
    raise UserError(
        f"{path}: not downloaded ({'; '.join(problems)}): run the same command again to go on, try another mirror, or "
        "put the file there by hand"
    )


def checksum(path: str | Path, name: str) -> str:
    """Hexadecimal checksum of a file; name: `md5`, `sha256`, or another of hashlib's."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()


def require_space(folder: str | Path, needed: int, what: str) -> None:
    """Refuse to begin what would fill the disk.

    folder: where it would be written, there already or not; needed: bytes; what: named in the message
    raises UserError: less is free in `folder`
    """
    place = Path(folder).absolute()
    free = shutil.disk_usage(next(p for p in (place, *place.parents) if p.exists())).free
    if needed > free:
        raise UserError(
            f"{folder}: {what} needs {readable_size(needed)}, {readable_size(free)} are free: make room or choose a "
            "folder on another disk"
        )


def readable_size(count: float) -> str:
    """A number of bytes for people: 337926286 -> '337.9 MB'."""
    if count < 1000:
        return f"{count:.0f} B"
    power = min(int(math.log10(count) / 3), 4)
    return f"{count / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


class Progress:
    """How far a transfer is, on one line of a terminal or as a line of a log every half minute.

    what: named in the line; total: bytes in all (None: unknown); done: bytes there before the start
    """

    def __init__(self, what: str, total: int | None, done: int = 0, stream: IO[str] | None = None) -> None:
        self.what, self.total, self.first, self.done = what, total, done, done
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.period = 0.5 if self.terminal else 30.0
        self.start = self.shown = time.monotonic()

    def update(self, done: int) -> None:
        """Say how many bytes are there by now; shown when the last line is old enough."""
        self.done = done
        if time.monotonic() - self.shown >= self.period:
            self.show()

    def show(self) -> None:
        """Write the line now."""
        self.shown = time.monotonic()
        line = self.line()
        print(
            f"\r{line:<79}" if self.terminal else line, file=self.stream, end="" if self.terminal else "\n", flush=True
        )

    def line(self) -> str:
        """For example `x.tar.gz: 1.2 GB of 6.4 GB (19 %), 12.3 MB/s, 7:04 left`."""
        rate = (self.done - self.first) / max(time.monotonic() - self.start, 1e-6)
        text = f"{self.what}: {readable_size(self.done)}"
        if self.total:
            text += f" of {readable_size(self.total)} ({100 * self.done // self.total} %)"
        text += f", {readable_size(rate)}/s"
        if self.total and rate > 0:
            minutes, seconds = divmod(int((self.total - self.done) / rate), 60)
            text += f", {minutes}:{seconds:02d} left"
        return text

    def close(self) -> None:
        """Write the last state of a transfer that took long enough to be shown; leave the terminal's line."""
        if time.monotonic() - self.start >= self.period:
            self.show()
            if self.terminal:
                print(file=self.stream)


@contextmanager
def _part_file(path: Path) -> Iterator[IO[bytes]]:
    """The open `.part` file of a download, locked against a second process (the lock dies with its holder)."""
    # Unbuffered: what has arrived is in the file if the process is killed, and nothing is left to write on closing.
    with open(path.with_name(path.name + ".part"), "ab", buffering=0) as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{part.name}: another process is downloading this file: wait until it is done") from None
        try:
            yield part
        finally:
            if _size(part) == 0 or path.exists():
                Path(part.name).unlink(missing_ok=True)


def _from_one_address(url: str, part: IO[bytes], expected: Expected, patience: Patience) -> str | None:
    """Complete the part file from one address, in as many attempts as bring it forward.

    returns: None when it is whole and as expected, or else the reason
    """
    resumed = _size(part) > 0
    failures, farthest = 0, 0
    while True:
        try:
            _fetch_rest(url, part, expected, patience.timeout)
        except _Refused as error:
            return str(error)
        except _Interrupted as error:
            # A server that breaks every connection gets us there if it resumes, but not if it starts anew each time.
            failures = 0 if _size(part) > farthest else failures + 1
            farthest = max(farthest, _size(part))
            if failures == patience.attempts:
                return str(error)
            time.sleep(min(patience.pause * 2 ** max(0, failures - 1), 60.0))
            continue
        complaint = expected.complaint(part.name)
        if complaint is None:
            return None
        part.truncate(0)
        if not resumed:
            return complaint
        resumed = False  # the fault may lie in what an earlier run left: once more from the start


def _fetch_rest(url: str, part: IO[bytes], expected: Expected, timeout: float) -> None:
    """One request: append to the part file what it lacks, or write it anew where the server cannot resume.

    raises _Interrupted, _Refused
    """
    if not expected.has_checksum or (expected.size is not None and _size(part) > expected.size):
        part.truncate(0)
    start = _size(part)
    if start and start == expected.size:
        return
    request = urllib.request.Request(url, headers={"User-Agent": "whisfusion-asr"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    response = _open(request, start, timeout)
    if response is None:
        return
    with response:
        start = _first_byte(response, start)
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        if total is not None and expected.size is not None and total != expected.size:
            raise _Refused(f"serves {total} bytes, expected {expected.size}")
        part.truncate(start)
        if total is not None:
            require_space(Path(part.name).parent, total - start, Path(part.name).stem)
        _copy(response, part, Progress(Path(part.name).stem, total, start))
    if total is not None and _size(part) < total:
        raise _Interrupted(f"the connection broke at byte {_size(part)} of {total}")


def _open(request: urllib.request.Request, start: int, timeout: float) -> http.client.HTTPResponse | None:
    """Send the request and sort its failures into passing ones and final ones.

    returns: None where the server has nothing from byte `start` on: the file is there, whole or wrong
    """
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        reason = f"HTTP {error.code} {error.reason}"
        error.close()
        if error.code == 416 and start:
            return None
        raise (_Interrupted if error.code in PASSING else _Refused)(reason) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(str(getattr(error, "reason", error)) or type(error).__name__) from None


def _first_byte(response: http.client.HTTPResponse, start: int) -> int:
    """Where the answer begins: at `start`, as asked, or at 0 where the server ignores the wish and sends all of it.

    raises _Refused: it holds yet another piece
    """
    if response.status == 200:
        return 0
    found = response.headers.get("Content-Range", "")
    if not found.startswith(f"bytes {start}-"):
        raise _Refused(f"asked for bytes from {start}, the server answered '{found}'")
    return start


def _copy(response: http.client.HTTPResponse, part: IO[bytes], progress: Progress) -> None:
    """Append what the server sends, as it comes; an end that is too early is the caller's to see."""
    try:
        while block := _receive(response, progress.done):
            rest = memoryview(block)
            try:
                while rest:
                    rest = rest[part.write(rest) :]
            except OSError as error:  # full disk, quota, limit
                where = f"{part.name}: cannot be written at byte {progress.done} ({error.strerror})"
                raise UserError(f"{where}: make room and run the same command again") from None
            progress.update(progress.done + len(block))
    finally:
        progress.close()


def _receive(response: http.client.HTTPResponse, done: int) -> bytes:
    try:
        return response.read1(BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(f"the connection broke at byte {done} ({error})") from None


def _size(part: IO[bytes]) -> int:
    return os.fstat(part.fileno()).st_size
