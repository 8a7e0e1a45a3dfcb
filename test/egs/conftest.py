"""LibriSpeech in miniature: made-up parts, a mirror that serves them, and the recipe's local/data.sh."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

RECIPE = Path(__file__).resolve().parents[2] / "egs" / "librispeech" / "asr1"
SPEAKERS = """; a comment
;ID  |SEX| SUBSET           |MINUTES| NAME
1    | F | train-clean-5    | 25.03 | Kristin LeMoine
13   | M | train-clean-5    | 20.10 | |CBW|Simon
7    | F | dev-clean-2      |  8.05 | Anne
"""


class LibriSpeechData:
    """local/data.sh with its data directories and downloads in a folder of the test."""

    parts = {"train-a": ["1-10", "1-9", "13-5"], "train-b": ["1-11"], "dev-a": ["7-2"], "test-a": ["13-6"]}
    sets = {"train_960": ["train-a", "train-b"], "dev": ["dev-a"], "test_a": ["test-a"]}
    home = RECIPE

    def __init__(self, folder: Path) -> None:
        self.data, self.downloads = folder / "data", folder / "downloads"
        self.environment = os.environ | {"DATADIR": str(self.data), "PYTHON": sys.executable}

    def start(self, *options: object) -> subprocess.Popen:
        """The running command."""
        command = ["bash", "local/data.sh", "--download_dir", self.downloads, *options]
        return subprocess.Popen(
            [str(word) for word in command],
            cwd=RECIPE,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *options: object) -> str:
        """What a run that must succeed says."""
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
        """A file of a data directory: key -> rest of the line."""
        lines = (self.data / name).read_text().splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def check_sets(self, root: Path, suffix: str = ".flac") -> None:
        """The sets hold what `make_part` wrote below `root`."""
        assert sorted(os.listdir(self.data)) == sorted(self.sets)
        for name, parts in self.sets.items():
            chapters = {chapter: part for part in parts for chapter in self.parts[part]}
            keys = sorted(f"{chapter}-{number:04d}" for chapter in chapters for number in range(2))
            speakers = {key: key.rpartition("-")[0] for key in keys}
            audio = {k: f"{root / chapters[s] / s.replace('-', '/') / k}{suffix}" for k, s in speakers.items()}
            assert list(self.table(f"{name}/wav.scp").items()) == list(audio.items())
            assert self.table(f"{name}/text") == {k: f"THIS ISN'T {k.replace('-', ' OR ')}" for k in keys}
            assert list(self.table(f"{name}/utt2spk").items()) == list(speakers.items())
            utterances = {s: " ".join(f"{s}-{n:04d}" for n in range(2)) for s in sorted(chapters)}
            assert list(self.table(f"{name}/spk2utt").items()) == list(utterances.items())
            genders = {"1": "f", "13": "m", "7": "f"}
            assert self.table(f"{name}/spk2gender") == {s: genders[s.split("-")[0]] for s in utterances}

    def make_part(self, root: Path, part: str, suffix: str = ".flac") -> None:
        """Write a part in LibriSpeech's layout, two utterances a chapter; the text of an utterance names it."""
        for chapter in self.parts[part]:
            folder = root / part / chapter.replace("-", "/")
            folder.mkdir(parents=True)
            keys = [f"{chapter}-{number:04d}" for number in range(2)]
            for number, key in enumerate(keys):
                wave = np.random.RandomState(number).randn(1600) * 0.1
                soundfile.write(folder / f"{key}{suffix}", wave, 16000)
            lines = [f"{key} THIS ISN'T {key.replace('-', ' OR ')}\n" for key in keys]
            (folder / f"{chapter}.trans.txt").write_text("".join(lines))

    def make_corpus(self, root: Path, suffix: str = ".flac") -> None:
        """Write all parts and SPEAKERS.TXT."""
        for part in self.parts:
            self.make_part(root, part, suffix)
        (root / "SPEAKERS.TXT").write_text(SPEAKERS)


def pack(root: Path, part: str) -> bytes:
    """The archive of a part, as OpenSLR has it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path in (root / "SPEAKERS.TXT", root / part):
            tar.add(path, f"LibriSpeech/{path.name}")
    return buffer.getvalue()


@pytest.fixture
def libri(tmp_path):
    """The data stage of the LibriSpeech recipe."""
    return LibriSpeechData(tmp_path)


@pytest.fixture
def libri_folder(libri, tmp_path):
    """A LibriSpeech-shaped folder with four parts."""
    root = tmp_path / "corpus" / "LibriSpeech"
    libri.make_corpus(root)
    return root


@pytest.fixture
def libri_mirror(loopback, libri, libri_folder, tmp_path):
    """A server with the archives of the parts, and the options to use it."""
    lines = []
    for part, chapters in libri.parts.items():
        body = loopback.files[f"/12/{part}.tar.gz"] = pack(libri_folder, part)
        lines.append(f"{part}\t12\t{len(body)}\t{hashlib.md5(body).hexdigest()}\t{2 * len(chapters)}\n")
    (tmp_path / "parts.tsv").write_text("".join(lines))
    options = [
        "--mirror",
        f"{loopback.url}/12",
        "--part_list",
        tmp_path / "parts.tsv",
        "--parts",
        " ".join(libri.parts),
    ]
    return loopback, options
