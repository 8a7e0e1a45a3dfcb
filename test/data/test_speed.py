"""Speed perturbation: what is heard, the tables of the copies, errors."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisfusion_asr.bin.data import main
from whisfusion_asr.data.audio import SAMPLE_RATE, AudioTable
from whisfusion_asr.data.kaldi_dir import read_dir
from whisfusion_asr.data.speed import change_speed, perturb_speed
from whisfusion_asr.data.validate import validate
from whisfusion_asr.errors import UserError

Edit = Callable[[str, str, str], None]


def tone(frequency: float, samples: int) -> np.ndarray:
    """A sine wave (S,) at 16 kHz."""
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(samples) / SAMPLE_RATE)).astype(np.float32)


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1, 2.0])
def test_a_tone_is_played_faster(factor: float) -> None:
    """x(t) becomes x(factor t): shorter by the factor, and as much higher."""
    changed = change_speed(tone(440, 16000), factor)
    assert len(changed) == round(16000 / factor)
    wanted = tone(440 * factor, len(changed))
    assert np.abs(changed - wanted)[800:-800].max() < 5e-3


@given(st.integers(0, 3000), st.sampled_from([0.5, 0.9, 1.0, 1.1, 1.25, 2.0]))
def test_length_and_range(samples: int, factor: float) -> None:
    square = np.sign(tone(300, samples)) if samples else np.zeros(0, np.float32)  # overshoots when it is resampled
    changed = change_speed(square, factor)
    assert abs(len(changed) - samples / factor) <= 1
    assert np.abs(changed).max(initial=0.0) <= 1.0


def test_copies_beside_the_directory_itself(good_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "train_sp"
    assert perturb_speed(good_dir, out, [0.9, 1.0, 1.1], nj=2) == []
    tables = read_dir(out)
    assert len(tables["utt2spk"]) == 9 and tables["utt2spk"]["sp0.9-ann-2"] == "sp0.9-ann"
    assert tables["text"]["sp1.1-bob-1"] == tables["text"]["bob-1"] == "THREE"
    assert tables["wav.scp"]["ann-1"] == read_dir(good_dir)["wav.scp"]["ann-1"]
    assert validate(out) == []
    audio, own = AudioTable(out), AudioTable(good_dir)
    for factor in (0.9, 1.1):
        wanted = change_speed(own["bob-1"], factor)
        assert np.abs(audio[f"sp{factor}-bob-1"] - wanted).max() <= 2**-15  # 16 bit
    assert np.array_equal(audio["bob-1"], own["bob-1"])


def test_segments_become_files(good_dir: Path, tmp_path: Path) -> None:
    """And the directory itself keeps its own."""
    recording = good_dir.parent / "wavs" / "bob-1.wav"
    (good_dir / "wav.scp").write_text(f"r {recording}\n")
    (good_dir / "segments").write_text("ann-1 r 0 0.5\nann-2 r 0.5 1.5\nbob-1 r 1.5 2\n")
    perturb_speed(good_dir, tmp_path / "out", [1.0, 0.5])
    tables = read_dir(tmp_path / "out")
    assert tables["segments"]["ann-2"] == "r 0.5 1.5" and tables["segments"]["sp0.5-ann-2"] == "sp0.5-ann-2 0 -1"
    assert len(AudioTable(tmp_path / "out")["sp0.5-ann-2"]) == 32000
    assert validate(tmp_path / "out") == []


def test_further_tables_follow(good_dir: Path, tmp_path: Path) -> None:
    (good_dir / "utt2lang").write_text("ann-1 en\nann-2 en\nbob-1 de\n")
    (good_dir / "spk2gender").write_text("ann f\nbob m\n")
    (good_dir / "utt2dur").write_text("ann-1 0.5\nann-2 1\nbob-1 2\n")
    lines = perturb_speed(good_dir, tmp_path / "out", [1.1, 1.0])
    tables = read_dir(tmp_path / "out")
    assert tables["utt2lang"]["sp1.1-bob-1"] == "de" and tables["spk2gender"]["sp1.1-bob"] == "m"
    assert "utt2dur" not in tables
    assert lines == [f"{tmp_path}/out: utt2dur is left out, because not every directory has it"]


@pytest.mark.parametrize(("factors", "named"), [([1.0, 0.9, 0.9], "0.9"), ([0.1], "0.1"), ([9.0], "9"), ([-1.0], "-1")])
def test_factors_that_are_none(good_dir: Path, tmp_path: Path, factors: list[float], named: str) -> None:
    with pytest.raises(UserError, match=f"speed factor {named}: expected different numbers from 0.5 to 2"):
        perturb_speed(good_dir, tmp_path / "out", factors)
    assert not (tmp_path / "out").exists()


def test_broken_audio_is_named_and_nothing_is_taken_for_finished(
    good_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the command line: one line, exit code 2, no data directory."""
    (good_dir.parent / "wavs" / "ann-2.wav").write_bytes(b"RIFF....")
    with pytest.raises(SystemExit) as end:
        main(["perturb_speed", str(good_dir), str(tmp_path / "out"), "--factors", "0.9", "1"])
    error = capsys.readouterr().err
    assert end.value.code == 2 and "ann-2" in error and "wav.scp" in error and error.count("\n") == 1
    assert not (tmp_path / "out" / "text").exists()
