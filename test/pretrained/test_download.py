"""Downloads against a web server on this machine that breaks, lies, or refuses."""

import fcntl
import hashlib
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from whisfusion_asr.errors import UserError
from whisfusion_asr.pretrained.download import Expected, Patience, Progress, checksum, download, readable_size

BODY = random.Random(0).randbytes(300_000)
RIGHT = Expected(len(BODY), hashlib.md5(BODY).hexdigest(), hashlib.sha256(BODY).hexdigest())
MD5_ONLY = Expected(md5=RIGHT.md5)
HASTY = Patience(attempts=3, pause=0.0, timeout=5.0)


@pytest.fixture
def server(loopback):
    """A server that has /x, and a wrong file as /wrong."""
    loopback.files = {"/x": BODY, "/wrong": BODY[:-1] + b"?"}
    return loopback


@pytest.fixture
def target(tmp_path):
    """Where the file shall appear."""
    return tmp_path / "new" / "x"


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def ranges(server) -> list[str | None]:
    return [wish for _, wish in server.asked]


@pytest.mark.parametrize("expected", [RIGHT, MD5_ONLY, Expected()])
def test_whole_file(server, target, expected):
    assert download(f"{server.url}/x", target, expected, HASTY) == target
    assert target.read_bytes() == BODY
    assert os.listdir(target.parent) == ["x"]


@pytest.mark.parametrize("expected", [RIGHT, MD5_ONLY])
def test_every_connection_breaks(server, target, expected):
    server.breaks_after = 40_000  # 8 connections, more than the attempts in vain
    download(f"{server.url}/x", target, expected, HASTY)
    assert target.read_bytes() == BODY
    assert ranges(server) == [None] + [f"bytes={n}-" for n in range(40_000, 300_000, 40_000)]


def test_goes_on_with_an_earlier_part(server, target):
    target.parent.mkdir()
    part_of(target).write_bytes(BODY[:123_456])
    download(f"{server.url}/x", target, RIGHT, HASTY)
    assert target.read_bytes() == BODY
    assert ranges(server) == ["bytes=123456-"]


@pytest.mark.parametrize(("expected", "asked"), [(RIGHT, []), (MD5_ONLY, [f"bytes={len(BODY)}-"])])
def test_part_that_is_whole_is_only_renamed(server, target, expected, asked):
    target.parent.mkdir()
    part_of(target).write_bytes(BODY)
    download(f"{server.url}/x", target, expected, HASTY)
    assert target.read_bytes() == BODY and ranges(server) == asked


@pytest.mark.parametrize("junk", [b"junk" * 10_000, b"junk" * 100_000], ids=["shorter", "longer"])
@pytest.mark.parametrize("expected", [RIGHT, MD5_ONLY])
def test_wrong_part_is_thrown_away(server, target, junk, expected):
    target.parent.mkdir()
    part_of(target).write_bytes(junk)
    download(f"{server.url}/x", target, expected, HASTY)
    assert target.read_bytes() == BODY
    assert ranges(server)[-1] is None


def test_part_without_checksum_is_not_trusted(server, target):
    target.parent.mkdir()
    part_of(target).write_bytes(b"junk")
    download(f"{server.url}/x", target, Expected(), HASTY)
    assert target.read_bytes() == BODY and ranges(server) == [None]


def test_server_without_resume(server, target):
    server.ignores_range = True
    target.parent.mkdir()
    part_of(target).write_bytes(BODY[:1000])
    download(f"{server.url}/x", target, RIGHT, HASTY)
    assert target.read_bytes() == BODY and ranges(server) == ["bytes=1000-"]


def test_server_without_resume_that_always_breaks_is_given_up(server, target):
    server.ignores_range, server.breaks_after = True, 50_000
    with pytest.raises(UserError, match=r"the connection broke at byte 50000 of 300000.*run the same command again"):
        download(f"{server.url}/x", target, RIGHT, HASTY)
    assert not target.exists()
    assert len(server.asked) == 1 + HASTY.attempts


def test_passing_failures_are_tried_again(server, target):
    server.statuses = [503, 429]
    download(f"{server.url}/x", target, RIGHT, HASTY)
    assert target.read_bytes() == BODY


def test_not_found(server, target):
    with pytest.raises(UserError, match=rf"^{target}: not downloaded \(.*/none: HTTP 404 Not Found\): .*mirror"):
        download(f"{server.url}/none", target, RIGHT, HASTY)
    assert os.listdir(target.parent) == [] and len(server.asked) == 1


def test_wrong_file(server, target):
    found = hashlib.md5(server.files["/wrong"]).hexdigest()
    with pytest.raises(UserError, match=f"/wrong: MD5 {found}, expected {RIGHT.md5}"):
        download(f"{server.url}/wrong", target, RIGHT, HASTY)
    assert os.listdir(target.parent) == []


def test_file_of_wrong_size_is_not_fetched_and_costs_no_part(server, target):
    server.files["/page"] = b"<html>please log in</html>"
    target.parent.mkdir()
    part_of(target).write_bytes(BODY[:1000])
    server.ignores_range = True
    with pytest.raises(UserError, match="serves 26 bytes, expected 300000"):
        download(f"{server.url}/page", target, RIGHT, HASTY)
    assert part_of(target).read_bytes() == BODY[:1000]


def test_mirrors_in_turn(server, target):
    gone = f"http://127.0.0.1:{server.server_port + 1 if server.server_port < 65535 else 1}"
    urls = [f"{gone}/x", f"{server.url}/none", f"{server.url}/wrong", f"{server.url}/x"]
    download(urls, target, RIGHT, HASTY)
    assert target.read_bytes() == BODY
    assert [path for path, _ in server.asked] == ["/none", "/wrong", "/x"]


def test_present_file_is_checked_and_not_fetched(server, target):
    target.parent.mkdir()
    target.write_bytes(BODY)
    download(f"{server.url}/x", target, RIGHT, HASTY)
    target.write_bytes(BODY[:-5])
    with pytest.raises(UserError, match=f"^{target}: 299995 bytes, expected 300000: delete it"):
        download(f"{server.url}/x", target, RIGHT, HASTY)
    assert target.read_bytes() == BODY[:-5] and server.asked == []


def test_full_disk_is_seen_beforehand(server, target, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=200_000))
    with pytest.raises(UserError, match=r"x needs 300.0 kB, 200.0 kB are free: make room"):
        download(f"{server.url}/x", target, RIGHT, HASTY)
    assert os.listdir(target.parent) == []


def test_full_disk_underway(server, target):
    """A part file that cannot grow: the limit of the process stands for the disk's."""
    code = (
        "import resource, signal, sys; from whisfusion_asr.errors import exits_cleanly\n"
        "from whisfusion_asr.pretrained import download as d\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))\n"
        "exits_cleanly(lambda: d.download(sys.argv[1], sys.argv[2]))()"
    )
    run = subprocess.run([sys.executable, "-c", code, f"{server.url}/x", target], capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.count("\n") == 1
    assert re.match(rf"error: {target}.part: cannot be written at byte \d+ \(File too large\): make room", run.stderr)
    assert not target.exists()


def test_second_process_is_refused(server, target):
    target.parent.mkdir()
    with open(part_of(target), "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"x\.part: another process is downloading"):
            download(f"{server.url}/x", target, RIGHT, HASTY)


def test_address_without_http(target):
    with pytest.raises(UserError, match="^ftp://x/y: expected an address that begins with http"):
        download("ftp://x/y", target)


def test_killed_and_run_again(server, target):
    server.pace = 0.01
    code = (
        "import sys; from whisfusion_asr.pretrained.download import *\n"
        "download(sys.argv[1], sys.argv[2], Expected(md5=sys.argv[3]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, f"{server.url}/x", target, RIGHT.md5])
    deadline = time.monotonic() + 30
    while not (part_of(target).exists() and part_of(target).stat().st_size > 50_000):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not target.exists()
    held = part_of(target).stat().st_size
    assert 50_000 < held < len(BODY)
    server.pace = 0.0
    download(f"{server.url}/x", target, MD5_ONLY, HASTY)
    assert target.read_bytes() == BODY
    assert ranges(server)[-1] == f"bytes={held}-"


def test_progress_in_a_log(monkeypatch):
    clock = iter([100.0, 101.0, 140.0, 140.0, 140.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    log = io.StringIO()
    progress = Progress("x.tar.gz", 3_000_000_000, done=1_000_000_000, stream=log)
    progress.update(1_100_000_000)  # after 1 s: too early for a line
    progress.update(1_400_000_000)  # after 40 s
    assert log.getvalue() == "x.tar.gz: 1.4 GB of 3.0 GB (46 %), 10.0 MB/s, 2:40 left\n"


def test_checksum_and_sizes(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert checksum(path, "md5") == "900150983cd24fb0d6963f7d28e17f72"
    assert re.match("ba7816bf8f01cfea", checksum(path, "sha256"))
    assert [readable_size(n) for n in (0, 999, 1000, 337926286, 30.6e9)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "337.9 MB",
        "30.6 GB",
    ]
