"""Fixtures of several rooms."""

import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


class Loopback(ThreadingHTTPServer):
    """A web server on this machine, as bad as a test wants it.

    files: path -> content; asked: (path, Range header or None) of every request so far
    breaks_after: bytes after which each connection is cut; ignores_range: always sends the whole file
    statuses: HTTP errors for the next requests; pace: seconds of rest after every 16 kB
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.breaks_after: int | None = None
        self.ignores_range = False
        self.statuses: list[int] = []
        self.pace = 0.0
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Loopback

    def do_GET(self) -> None:
        server, wish = self.server, self.headers.get("Range")
        server.asked.append((self.path, wish))
        body = server.files.get(self.path)
        if server.statuses or body is None:
            return self.send_error(server.statuses.pop(0) if server.statuses else 404)
        start = int(wish.removeprefix("bytes=").rstrip("-")) if wish and not server.ignores_range else 0
        if start and start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        self._send(body[start:][: server.breaks_after])

    def _send(self, body: bytes) -> None:
        for first in range(0, len(body), 1 << 14):
            try:
                self.wfile.write(body[first : first + (1 << 14)])
            except OSError:  # the client was killed
                return
            time.sleep(self.server.pace)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """A running Loopback, asked without any proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Loopback() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real corpora and hard cases: $WHISFUSION_SHARED, or `shared/data` in or above the repository."""
    named = os.environ.get("WHISFUSION_SHARED")
    places = [Path(named)] if named else [folder / "shared" / "data" for folder in (ROOT, *ROOT.parents)]
    for place in places:
        if place.is_dir():
            return place
    pytest.skip(f"no folder shared/data in or above {ROOT.name}; set WHISFUSION_SHARED to run this test")
