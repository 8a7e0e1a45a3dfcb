"""A small good Kaldi directory to break."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE = 16000


@pytest.fixture
def good_dir(tmp_path: Path) -> Path:
    """Three utterances of two speakers, 0.5, 1 and 2 s of noise, all tables in order."""
    wavs = tmp_path / "wavs"
    wavs.mkdir()
    for name, seconds in (("ann-1", 0.5), ("ann-2", 1.0), ("bob-1", 2.0)):
        noise = np.random.default_rng(len(name)).uniform(-0.5, 0.5, int(seconds * RATE))
        soundfile.write(wavs / f"{name}.wav", noise, RATE)
    data = tmp_path / "data"
    data.mkdir()
    (data / "wav.scp").write_text("".join(f"{key} {wavs / key}.wav\n" for key in ("ann-1", "ann-2", "bob-1")))
    (data / "text").write_text("ann-1 ONE\nann-2 TWO WORDS\nbob-1 THREE\n")
    (data / "utt2spk").write_text("ann-1 ann\nann-2 ann\nbob-1 bob\n")
    (data / "spk2utt").write_text("ann ann-1 ann-2\nbob bob-1\n")
    return data


@pytest.fixture
def edit(good_dir: Path) -> Callable[[str, str, str], None]:
    """Replace a piece of text in a file of the good directory; the piece must be there."""

    def edit(name: str, old: str, new: str) -> None:
        content = (good_dir / name).read_text()
        assert old in content
        (good_dir / name).write_bytes(content.replace(old, new, 1).encode("utf-8", "surrogateescape"))

    return edit
