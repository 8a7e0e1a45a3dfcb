"""Stage 0 of the LibriSpeech recipe: local/data.sh on small made-up parts, through its command line."""

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs" / "librispeech" / "asr1"
SPEAKERS = """; a comment
;ID  |SEX| SUBSET           |MINUTES| NAME
1    | F | train-clean-5    | 25.03 | Kristin LeMoine
13   | M | train-clean-5    | 20.10 | |CBW|Simon
7    | F | dev-clean-2      |  8.05 | Anne
"""
PARTS = {"train-a": ["1-10", "1-9", "13-5"], "train-b": ["1-11"], "dev-a": ["7-2"], "test-a": ["13-6"]}
SETS = {"train_960": ["train-a", "train-b"], "dev": ["dev-a"], "test_a": ["test-a"]}


def make_part(root: Path, part: str, suffix: str = ".flac", utterances: int = 2) -> None:
    """Write a part in LibriSpeech's layout; the text of an utterance names it."""
    for chapter in PARTS[part]:
        folder = root / part / chapter.replace("-", "/")
        folder.mkdir(parents=True)
        keys = [f"{chapter}-{number:04d}" for number in range(utterances)]
        for number, key in enumerate(keys):
            wave = np.random.RandomState(number).randn(1600) * 0.1
            soundfile.write(folder / f"{key}{suffix}", wave, 16000)
        lines = [f"{key} THIS ISN'T {key.replace('-', ' OR ')}\n" for key in keys]
        (folder / f"{chapter}.trans.txt").write_text("".join(lines))


@pytest.fixture
def corpus(tmp_path):
    """A LibriSpeech-shaped folder with four parts."""
    root = tmp_path / "corpus" / "LibriSpeech"
    for part in PARTS:
        make_part(root, part)
    (root / "SPEAKERS.TXT").write_text(SPEAKERS)
    return root


def pack(root: Path, part: str) -> bytes:
    """The archive of a part, as OpenSLR has it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path in (root / "SPEAKERS.TXT", root / part):
            tar.add(path, f"LibriSpeech/{path.name}")
    return buffer.getvalue()


class Recipe:
    """local/data.sh with the data directories and downloads in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self.data, self.downloads = folder / "data", folder / "downloads"
        self.environment = os.environ | {"DATADIR": str(self.data), "PYTHON": sys.executable}

    def start(self, *options: object) -> subprocess.Popen:
        command = ["bash", "local/data.sh", "--download_dir", self.downloads, *options]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [str(word) for word in command], cwd=RECIPE, env=self.environment, stdout=pipe, stderr=pipe, text=True
        )

    def run(self, *options: object) -> str:
        process = self.start(*options)
        out, error = process.communicate()
        assert process.returncode == 0, error
        return out + error

    def fails(self, *options: object) -> str:
        """The one line of a run that must fail."""
        process = self.start(*options)
        _, error = process.communicate()
        assert process.returncode == 2 and error.startswith("error: ") and error.count("\n") == 1, error
        return error

    def table(self, name: str) -> dict[str, str]:
        lines = (self.data / name).read_text().splitlines()
        return dict(line.split(" ", 1) for line in lines)


@pytest.fixture
def recipe(tmp_path):
    return Recipe(tmp_path)


@pytest.fixture
def served(loopback, corpus, tmp_path):
    """A mirror with the parts, and the options to use it."""
    lines = []
    for part in PARTS:
        body = loopback.files[f"/12/{part}.tar.gz"] = pack(corpus, part)
        lines.append(f"{part}\t12\t{len(body)}\t{hashlib.md5(body).hexdigest()}\t{2 * len(PARTS[part])}\n")
    (tmp_path / "parts.tsv").write_text("".join(lines))
    options = ["--mirror", f"{loopback.url}/12", "--part_list", tmp_path / "parts.tsv", "--parts", " ".join(PARTS)]
    return loopback, options


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path -> content of all files; an absolute path to the downloads is cut down."""
    files = (path for path in folder.rglob("*") if path.is_file())
    strip = f"{folder}/".encode()
    return {str(path.relative_to(folder)): path.read_bytes().replace(strip, b"") for path in files}


def check_sets(recipe: Recipe, root: Path, suffix: str = ".flac") -> None:
    """The sets hold what `make_part` wrote."""
    assert sorted(os.listdir(recipe.data)) == sorted(SETS)
    for name, parts in SETS.items():
        chapters = {chapter: part for part in parts for chapter in PARTS[part]}
        keys = sorted(f"{chapter}-{number:04d}" for chapter in chapters for number in range(2))
        speakers = {key: key.rpartition("-")[0] for key in keys}
        audio = {k: f"{root / chapters[s] / s.replace('-', '/') / k}{suffix}" for k, s in speakers.items()}
        assert list(recipe.table(f"{name}/wav.scp").items()) == list(audio.items())
        assert recipe.table(f"{name}/text") == {k: f"THIS ISN'T {k.replace('-', ' OR ')}" for k in keys}
        assert list(recipe.table(f"{name}/utt2spk").items()) == list(speakers.items())
        utterances = {s: " ".join(f"{s}-{n:04d}" for n in range(2)) for s in sorted(chapters)}
        assert list(recipe.table(f"{name}/spk2utt").items()) == list(utterances.items())
        genders = {"1": "f", "13": "m", "7": "f"}
        assert recipe.table(f"{name}/spk2gender") == {s: genders[s.split("-")[0]] for s in utterances}


def test_download_over_connections_that_break(served, recipe):
    server, options = served
    server.breaks_after = len(server.files["/12/train-b.tar.gz"]) * 2 // 3
    recipe.run(*options)
    check_sets(recipe, recipe.downloads / "LibriSpeech")
    assert any(wish for _, wish in server.asked)
    before, asked = contents(recipe.data), len(server.asked)
    assert "nothing to download" in recipe.run(*options)
    assert len(server.asked) == asked and contents(recipe.data) == before


def test_killed_at_any_moment_and_run_again(served, recipe, tmp_path):
    server, options = served
    undisturbed = Recipe(tmp_path / "undisturbed")
    undisturbed.run(*options)
    chance = random.Random(0)
    server.pace, killed = 0.1, 0
    for part in PARTS:
        process = recipe.start(*options)
        folder = recipe.downloads / "LibriSpeech" / part
        while not folder.exists() and process.poll() is None:  # the next part is under way
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for whole in (recipe.downloads / "LibriSpeech").glob("*/.complete"):
            left, right = contents(whole.parent), contents(undisturbed.downloads / "LibriSpeech" / whole.parent.name)
            assert left == right
    server.pace = 0.0
    recipe.run(*options)
    assert killed > 0
    assert contents(tmp_path / "data") == {
        name: body.replace(f"{undisturbed.downloads}".encode(), f"{recipe.downloads}".encode())
        for name, body in contents(undisturbed.data).items()
    }
    assert contents(recipe.downloads) == contents(undisturbed.downloads)


def test_remains_of_a_killed_run_are_not_taken_over(served, recipe):
    _, options = served
    for rest in (recipe.downloads / ".test-a.unpacking/LibriSpeech/test-a", recipe.data / ".dev.tmp"):
        rest.mkdir(parents=True)
        (rest / "junk").touch()
    recipe.run(*options)
    check_sets(recipe, recipe.downloads / "LibriSpeech")
    assert not list(recipe.downloads.rglob("junk")) + list(recipe.data.rglob("junk"))


def test_killed_while_downloading_goes_on_where_it_was(served, recipe):
    server, options = served
    server.files["/12/dev-a.tar.gz"] += bytes(300_000)  # what follows the end of a gzip archive does not matter
    options = [*options, "--parts", "dev-a"]
    edit_list(options, "dev-a", server.files["/12/dev-a.tar.gz"])
    server.pace = 0.02
    part = recipe.downloads / "dev-a.tar.gz.part"
    process = recipe.start(*options)
    while not (part.exists() and part.stat().st_size > 100_000):
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not (recipe.downloads / "dev-a.tar.gz").exists() and not recipe.data.exists()
    held = part.stat().st_size
    recipe.run(*options)
    assert server.asked[-1] == ("/12/dev-a.tar.gz", f"bytes={held}-")
    assert len(recipe.table("dev/text")) == 2


def edit_list(options: list, part: str, body: bytes, md5: str | None = None) -> None:
    """Give the part list the size and MD5 (or `md5`) of another archive."""
    path = options[options.index("--part_list") + 1]
    lines = [line for line in path.read_text().splitlines() if not line.startswith(f"{part}\t")]
    lines.append(f"{part}\t12\t{len(body)}\t{md5 or hashlib.md5(body).hexdigest()}\t-")
    path.write_text("\n".join(lines))


def test_wrong_file_on_the_server(served, recipe):
    server, options = served
    body = server.files["/12/dev-a.tar.gz"]
    server.files["/12/dev-a.tar.gz"] = body[:-1] + b"?"
    error = recipe.fails(*options)
    assert "dev-a.tar.gz: MD5 " in error and f"expected {hashlib.md5(body).hexdigest()}" in error and "mirror" in error
    assert not (recipe.downloads / "LibriSpeech" / "dev-a").exists() and not recipe.data.exists()


def test_part_that_the_mirror_has_not(served, recipe):
    server, options = served
    del server.files["/12/test-a.tar.gz"]
    assert "/12/test-a.tar.gz: HTTP 404 Not Found): " in recipe.fails(*options)
    assert not recipe.data.exists()


@pytest.mark.parametrize("cut", [0.5, 0.99])
def test_damaged_archive(served, recipe, cut):
    server, options = served
    body = server.files["/12/dev-a.tar.gz"]
    server.files["/12/dev-a.tar.gz"] = body = body[: int(cut * len(body))]
    edit_list(options, "dev-a", body)
    assert "dev-a.tar.gz: cannot be unpacked (" in recipe.fails(*options, "--parts", "dev-a")
    assert os.listdir(recipe.downloads) == ["dev-a.tar.gz"]


def test_archive_that_leaves_its_folder(served, recipe, tmp_path):
    server, options = served
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo("LibriSpeech/../../../evil")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    server.files["/12/dev-a.tar.gz"] = buffer.getvalue()
    edit_list(options, "dev-a", buffer.getvalue())
    assert "dev-a.tar.gz: cannot be unpacked (" in recipe.fails(*options, "--parts", "dev-a")
    assert not list(tmp_path.rglob("evil"))


def test_archive_of_another_part(served, recipe):
    server, options = served
    server.files["/12/dev-a.tar.gz"] = body = server.files["/12/test-a.tar.gz"]
    edit_list(options, "dev-a", body)
    assert "dev-a.tar.gz: holds no LibriSpeech/dev-a" in recipe.fails(*options, "--parts", "dev-a")


def test_archives_are_removed_if_wished(served, recipe):
    _, options = served
    recipe.run(*options)
    assert len(list(recipe.downloads.glob("*.tar.gz"))) == 4
    recipe.run(*options, "--remove-archive", "true")
    assert os.listdir(recipe.downloads) == ["LibriSpeech"]


def test_part_unpacked_by_others_is_not_taken_for_whole(served, recipe):
    _, options = served
    (recipe.downloads / "LibriSpeech" / "dev-a").mkdir(parents=True)
    error = recipe.fails(*options)
    assert "LibriSpeech/dev-a: not unpacked by this recipe" in error and "--librispeech_dir" in error


def test_disk_too_small(served, recipe):
    server, options = served
    path = options[options.index("--part_list") + 1]
    path.write_text(path.read_text() + f"dev-huge\t12\t{10**18}\t-\t-\n")
    error = recipe.fails(*options, "--parts", "dev-a dev-huge")
    assert "LibriSpeech (dev-a, dev-huge) needs 2000000.0 TB" in error
    assert server.asked == [] and not recipe.downloads.exists()


def test_dry_run_says_and_does_nothing(served, recipe):
    server, options = served
    said = recipe.run(*options, "--dry_run", "true")
    assert "to download: train-a, train-b, dev-a, test-a (" in said
    assert f"{recipe.data}/train_960: train-a + train-b\n" in said
    assert server.asked == [] and not recipe.downloads.exists() and not recipe.data.exists()


@pytest.mark.parametrize("suffix", [".flac", ".wav", ".ogg"])
@pytest.mark.parametrize("inside", [True, False])
def test_folder_that_is_there(recipe, tmp_path, suffix, inside):
    root = tmp_path / "elsewhere" / "LibriSpeech"
    for part in PARTS:
        make_part(root, part, suffix)
    (root / "SPEAKERS.TXT").write_text(SPEAKERS)
    recipe.run("--librispeech_dir", root if inside else root.parent, "--parts", " ".join(PARTS))
    check_sets(recipe, root, suffix)
    assert not recipe.downloads.exists()


def test_parts_and_sets_are_options(recipe, corpus):
    parts = ["--train_parts", "train-b", "--valid_parts", "dev-a test-a", "--test_parts", "dev-a train-a"]
    recipe.run("--librispeech_dir", corpus, *parts, "--train_set", "train_b", "--valid_set", "valid")
    counts = {path.parent.name: len(path.read_text().splitlines()) for path in recipe.data.glob("*/text")}
    assert counts == {"train_b": 2, "valid": 4, "dev_a": 2, "train_a": 6}


def test_older_set_is_replaced(recipe, corpus):
    (recipe.data / "dev").mkdir(parents=True)
    (recipe.data / "dev" / "segments").write_text("of another corpus")
    recipe.run("--librispeech_dir", corpus, "--parts", " ".join(PARTS))
    check_sets(recipe, corpus)
    assert not (recipe.data / "dev" / "segments").exists()


def test_speakers_file_is_optional(recipe, corpus):
    (corpus / "SPEAKERS.TXT").unlink()
    recipe.run("--librispeech_dir", corpus, "--parts", "dev-a")
    assert sorted(os.listdir(recipe.data / "dev")) == ["spk2utt", "text", "utt2spk", "wav.scp"]
    (corpus / "SPEAKERS.TXT").write_text("7 | X | dev-clean | 8.0 | Anne\n")
    assert "SPEAKERS.TXT:1: '7 | X |" in recipe.fails("--librispeech_dir", corpus, "--parts", "dev-a")


def test_part_of_another_size_than_the_release(recipe, corpus):
    (corpus / "dev-a").rename(corpus / "dev-clean")
    said = recipe.run("--librispeech_dir", corpus, "--parts", "dev-clean")
    assert f"warning: {corpus}/dev-clean: 2 utterances, the release has 2703" in said


def lose_audio(chapter: Path) -> str:
    (chapter / "7-2-0001.flac").unlink()
    return f"{chapter}/7-2.trans.txt:2: 7-2-0001 has no audio ({chapter}/7-2-0001{{.flac,.wav,.ogg}})"


def lose_line(chapter: Path) -> str:
    (chapter / "7-2.trans.txt").write_text("7-2-0000 A\n")
    return f"{chapter}/7-2-0001.flac: no transcript of 7-2-0001 in {chapter}/7-2.trans.txt"


def lose_transcript(chapter: Path) -> str:
    (chapter / "7-2.trans.txt").unlink()
    return f"{chapter}/7-2.trans.txt: no such file, yet there are 2 audio files (first: 7-2-0000)"


def lose_text(chapter: Path) -> str:
    (chapter / "7-2.trans.txt").write_text("7-2-0000 A\n7-2-0001 \n")
    return f"{chapter}/7-2.trans.txt:2: '7-2-0001 ', expected `7-2-NUMBER TEXT`"


def mix_chapters(chapter: Path) -> str:
    (chapter / "7-2.trans.txt").write_text("7-2-0000 A\n7-3-0001 B\n")
    return f"{chapter}/7-2.trans.txt:2: '7-3-0001 B', expected `7-2-NUMBER TEXT`"


def repeat_line(chapter: Path) -> str:
    (chapter / "7-2.trans.txt").write_text("7-2-0000 A\n7-2-0001 B\n7-2-0000 C\n")
    return f"{chapter}/7-2.trans.txt:3: 7-2-0000 again, first in line 1"


def break_encoding(chapter: Path) -> str:
    (chapter / "7-2.trans.txt").write_bytes(b"7-2-0000 CAF\xc9\n")
    return f"{chapter}/7-2.trans.txt: not UTF-8 at byte 12"


def empty_part(chapter: Path) -> str:
    for path in chapter.iterdir():
        path.unlink()
    chapter.rmdir()
    return "dev-a: no utterances; expected READER/CHAPTER/READER-CHAPTER.trans.txt"


DEFECTS = [lose_audio, lose_line, lose_transcript, lose_text, mix_chapters, repeat_line, break_encoding, empty_part]


@pytest.mark.parametrize("spoil", DEFECTS)
def test_defects_of_a_part(recipe, corpus, spoil):
    message = spoil(corpus / "dev-a" / "7" / "2")
    assert message in recipe.fails("--librispeech_dir", corpus, "--parts", " ".join(PARTS))
    assert not recipe.data.exists()


def test_all_defects_are_counted(recipe, corpus):
    for path in corpus.glob("train-a/*/*/*.flac"):
        path.unlink()
    error = recipe.fails("--librispeech_dir", corpus, "--parts", "train-a")
    assert error.count("has no audio") == 5 and "; and 1 more: extract or copy" in error


def test_utterance_in_two_parts(recipe, corpus):
    make_part(corpus / "copy", "train-b")
    (corpus / "copy" / "train-b").rename(corpus / "train-c")
    error = recipe.fails("--librispeech_dir", corpus, "--parts", "train-b train-c")
    assert "1-11-0000 is in two parts: " in error and "train-c/1/11/1-11-0000.flac" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--parts", "train-clean-10"], "unknown part train-clean-10; did you mean train-clean-100?"),
        (["--parts", "train-clean-5 other"], "--parts: other would be in no set: name it in --train_parts"),
        (["--parts", ""], "no part is named"),
        (["--parts", "train-clean-5 dev-clean-2", "--train_set", "dev"], "two sets have the same name (dev, dev)"),
        (["--librispeech_dir", "/nowhere"], "/nowhere: no part train-clean-100, "),
        (["--librispeech_dri", "x"], "unknown option --librispeech_dri; did you mean --librispeech_dir?"),
    ],
)
def test_wrong_options(recipe, options, message):
    assert message in recipe.fails(*options)


def test_list_of_parts_is_the_release():
    lines = [line for line in (RECIPE / "local" / "parts.tsv").read_text().splitlines() if not line.startswith("#")]
    rows = {line.split("\t")[0]: line.split("\t") for line in lines}
    assert all(len(row) == 5 and len(row[3]) == 32 for row in rows.values())
    train = ["train-clean-100", "train-clean-360", "train-other-500"]
    assert sum(int(rows[part][4]) for part in train) == 281_241
    assert sum(int(rows[part][2]) for part in train) == 6387309499 + 23049477885 + 30593501606


SHARED = Path(os.environ.get("WHISFUSION_SHARED_DATA", ROOT.parent / "shared" / "data")) / "LibriSpeech"


@pytest.mark.skipif(
    not SHARED.is_dir(), reason="no LibriSpeech subset: set WHISFUSION_SHARED_DATA to its parent folder"
)
def test_real_subset(recipe):
    parts = ["--parts", "train-mini dev-mini test-mini", "--train_set", "train", "--valid_set", "dev"]
    recipe.run("--librispeech_dir", SHARED, *parts)
    recipe.run("--librispeech_dir", SHARED, "--train_parts", "flac-mini", "--valid_parts", "", "--test_parts", "")
    for ours, theirs in {"train": "train", "dev": "dev", "test_mini": "test", "train_960": "flac"}.items():
        lists = SHARED / "lists" / theirs
        assert (recipe.data / ours / "text").read_bytes() == (lists / "text").read_bytes()
        wavs = [line.replace(" ", f" {SHARED.resolve()}/", 1) for line in open(lists / "wav.scp")]
        assert (recipe.data / ours / "wav.scp").read_text() == "".join(wavs)
        readers = dict(line.split() for line in open(lists / "utt2spk"))
        speakers = recipe.table(f"{ours}/utt2spk")
        assert {key: speaker.partition("-")[0] for key, speaker in speakers.items()} == readers
        genders = dict(line.split() for line in open(lists / "spk2gender"))
        assert {s.partition("-")[0]: g for s, g in recipe.table(f"{ours}/spk2gender").items()} == genders
