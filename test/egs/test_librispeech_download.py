"""Stage 0 of the LibriSpeech recipe: parts fetched from a mirror on this machine, which may be a bad one."""

import hashlib
import io
import os
import random
import signal
import tarfile
import time
from pathlib import Path

import pytest


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path -> content of all files."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_download_over_connections_that_break(libri_mirror, libri):
    server, options = libri_mirror
    server.breaks_after = len(server.files["/12/train-b.tar.gz"]) * 2 // 3
    libri.run(*options)
    libri.check_sets(libri.downloads / "LibriSpeech")
    assert any(wish for _, wish in server.asked)
    before, asked = contents(libri.data), len(server.asked)
    assert "nothing to download" in libri.run(*options)
    assert len(server.asked) == asked and contents(libri.data) == before


def test_killed_at_any_moment_and_run_again(libri_mirror, libri, tmp_path):
    server, options = libri_mirror
    undisturbed = type(libri)(tmp_path / "undisturbed")
    undisturbed.run(*options)
    chance = random.Random(0)
    server.pace, killed = 0.1, 0
    for part in libri.parts:
        process = libri.start(*options)
        folder = libri.downloads / "LibriSpeech" / part
        while not folder.exists() and process.poll() is None:  # the next part is under way
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for whole in (libri.downloads / "LibriSpeech").glob("*/.complete"):
            left, right = contents(whole.parent), contents(undisturbed.downloads / "LibriSpeech" / whole.parent.name)
            assert left == right
    server.pace = 0.0
    libri.run(*options)
    assert killed > 0
    assert contents(libri.data) == {
        name: body.replace(f"{undisturbed.downloads}".encode(), f"{libri.downloads}".encode())
        for name, body in contents(undisturbed.data).items()
    }
    assert contents(libri.downloads) == contents(undisturbed.downloads)


def test_remains_of_a_killed_run_are_not_taken_over(libri_mirror, libri):
    _, options = libri_mirror
    for rest in (libri.downloads / ".test-a.unpacking/LibriSpeech/test-a", libri.data / ".dev.tmp"):
        rest.mkdir(parents=True)
        (rest / "junk").touch()
    libri.run(*options)
    libri.check_sets(libri.downloads / "LibriSpeech")
    assert not list(libri.downloads.rglob("junk")) + list(libri.data.rglob("junk"))


def test_killed_while_downloading_goes_on_where_it_was(libri_mirror, libri):
    server, options = libri_mirror
    server.files["/12/dev-a.tar.gz"] += bytes(300_000)  # what follows the end of a gzip archive does not matter
    options = [*options, "--parts", "dev-a"]
    edit_list(options, "dev-a", server.files["/12/dev-a.tar.gz"])
    server.pace = 0.02
    part = libri.downloads / "dev-a.tar.gz.part"
    process = libri.start(*options)
    while not (part.exists() and part.stat().st_size > 100_000):
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not (libri.downloads / "dev-a.tar.gz").exists() and not libri.data.exists()
    held = part.stat().st_size
    libri.run(*options)
    assert server.asked[-1] == ("/12/dev-a.tar.gz", f"bytes={held}-")
    assert len(libri.table("dev/text")) == 2


def edit_list(options: list, part: str, body: bytes) -> None:
    """Give the part list the size and MD5 of another archive."""
    path = options[options.index("--part_list") + 1]
    lines = [line for line in path.read_text().splitlines() if not line.startswith(f"{part}\t")]
    lines.append(f"{part}\t12\t{len(body)}\t{hashlib.md5(body).hexdigest()}\t-")
    path.write_text("\n".join(lines))


def test_wrong_file_on_the_server(libri_mirror, libri):
    server, options = libri_mirror
    body = server.files["/12/dev-a.tar.gz"]
    server.files["/12/dev-a.tar.gz"] = body[:-1] + b"?"
    error = libri.fails(*options)
    assert "dev-a.tar.gz: MD5 " in error and f"expected {hashlib.md5(body).hexdigest()}" in error and "mirror" in error
    assert not (libri.downloads / "LibriSpeech" / "dev-a").exists() and not libri.data.exists()


def test_part_that_the_mirror_has_not(libri_mirror, libri):
    server, options = libri_mirror
    del server.files["/12/test-a.tar.gz"]
    assert "/12/test-a.tar.gz: HTTP 404 Not Found): " in libri.fails(*options)
    assert not libri.data.exists()


@pytest.mark.parametrize("cut", [0.5, 0.99])
def test_damaged_archive(libri_mirror, libri, cut):
    server, options = libri_mirror
    body = server.files["/12/dev-a.tar.gz"]
    server.files["/12/dev-a.tar.gz"] = body = body[: int(cut * len(body))]
    edit_list(options, "dev-a", body)
    assert "dev-a.tar.gz: cannot be unpacked (" in libri.fails(*options, "--parts", "dev-a")
    assert os.listdir(libri.downloads) == ["dev-a.tar.gz"]


def test_archive_that_leaves_its_folder(libri_mirror, libri, tmp_path):
    server, options = libri_mirror
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo("LibriSpeech/../../../evil")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    server.files["/12/dev-a.tar.gz"] = buffer.getvalue()
    edit_list(options, "dev-a", buffer.getvalue())
    assert "dev-a.tar.gz: cannot be unpacked (" in libri.fails(*options, "--parts", "dev-a")
    assert not list(tmp_path.rglob("evil"))


def test_archive_of_another_part(libri_mirror, libri):
    server, options = libri_mirror
    server.files["/12/dev-a.tar.gz"] = body = server.files["/12/test-a.tar.gz"]
    edit_list(options, "dev-a", body)
    assert "dev-a.tar.gz: holds no LibriSpeech/dev-a" in libri.fails(*options, "--parts", "dev-a")


def test_archives_are_removed_if_wished(libri_mirror, libri):
    _, options = libri_mirror
    libri.run(*options)
    assert len(list(libri.downloads.glob("*.tar.gz"))) == 4
    libri.run(*options, "--remove-archive", "true")
    assert os.listdir(libri.downloads) == ["LibriSpeech"]


def test_part_unpacked_by_others_is_not_taken_for_whole(libri_mirror, libri):
    _, options = libri_mirror
    (libri.downloads / "LibriSpeech" / "dev-a").mkdir(parents=True)
    error = libri.fails(*options)
    assert "LibriSpeech/dev-a: not unpacked by this recipe" in error and "--librispeech_dir" in error


def test_disk_too_small(libri_mirror, libri):
    server, options = libri_mirror
    path = options[options.index("--part_list") + 1]
    path.write_text(path.read_text() + f"dev-huge\t12\t{10**18}\t-\t-\n")
    error = libri.fails(*options, "--parts", "dev-a dev-huge")
    assert "LibriSpeech (dev-a, dev-huge) needs 2000000.0 TB" in error
    assert server.asked == [] and not libri.downloads.exists()


def test_dry_run_says_and_does_nothing(libri_mirror, libri):
    server, options = libri_mirror
    said = libri.run(*options, "--dry_run", "true")
    assert "to download: train-a, train-b, dev-a, test-a (" in said
    assert f"{libri.data}/train_960: train-a + train-b\n" in said
    assert server.asked == [] and not libri.downloads.exists() and not libri.data.exists()
