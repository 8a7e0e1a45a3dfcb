"""Folders of recordings: sets by whole files, cuts at quiet places, what cannot be used is told."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from whisfusion_asr.data.recordings import choose_sets, quiet_cuts, write_sets
from whisfusion_asr.data.tables import read_table
from whisfusion_asr.errors import UserError

RATE = 16000
SHARES = {"train": 1.0, "valid": 0.2, "test": 0.1}
NAMES = [f"talk{number}" for number in range(20)]


def noise(seconds: float, *pauses: float) -> np.ndarray:
    """Noise with a pause of 0.4 s around each of the given seconds."""
    wave = 0.3 * np.random.default_rng(0).normal(size=round(seconds * RATE)).astype(np.float32)
    for pause in pauses:
        wave[round((pause - 0.2) * RATE) : round((pause + 0.2) * RATE)] *= 0.01
    return wave


def test_cuts_fall_into_the_pauses_of_the_second_half() -> None:
    cuts = quiet_cuts(noise(70, 5, 22, 41, 66))  # 5 s is too early for a first cut, 66 s too late for a second one
    assert cuts == pytest.approx([22, 41], abs=0.06)
    assert quiet_cuts(noise(30)) == []
    assert len(quiet_cuts(np.zeros(31 * RATE, np.float32))) == 1


@pytest.mark.parametrize("seconds", [30.01, 31.0, 59.99, 95.3])
def test_no_piece_is_longer_than_a_window(seconds: float) -> None:
    cuts = [0.0, *quiet_cuts(noise(seconds)), seconds]
    lengths = [end - start for start, end in zip(cuts, cuts[1:], strict=False)]
    assert max(lengths) <= 30 and min(lengths) > 0 and all(length >= 14.8 for length in lengths[:-1])


def test_sets_are_by_name_and_stay_as_they_are() -> None:
    chosen = choose_sets(NAMES, SHARES, [])
    assert {name: len(members) for name, members in chosen.items()} == {"train": 14, "valid": 4, "test": 2}
    assert sorted(sum(chosen.values(), [])) == sorted(NAMES)
    assert choose_sets(NAMES[::-1], SHARES, []) == chosen != choose_sets([f"x{name}" for name in NAMES], SHARES, [])
    more = choose_sets([*NAMES, "new"], SHARES, [])
    assert sum(name in more[where] for where, names in chosen.items() for name in names) >= 18


def test_files_with_a_transcript_test_and_validate() -> None:
    chosen = choose_sets(NAMES, SHARES, NAMES[:7])
    assert set(chosen["valid"] + chosen["test"]) <= set(NAMES[:7])
    few = choose_sets(NAMES, SHARES, NAMES[:3])
    assert set(NAMES[:3]) <= set(few["valid"] + few["test"])
    assert choose_sets(["a", "b", "c"], SHARES, []).keys() == SHARES.keys()
    with pytest.raises(UserError, match="2 audio files for the 3 sets train, valid, test"):
        choose_sets(["a", "b"], SHARES, [])


def test_a_folder_becomes_data_directories(tmp_path: Path) -> None:
    wavs = tmp_path / "wavs"
    (wavs / "deep").mkdir(parents=True)
    for number in range(4):
        soundfile.write(wavs / "deep" / f"a{number}.flac", noise(1), RATE)
    soundfile.write(wavs / "long.wav", noise(40, 20), RATE)
    soundfile.write(wavs / "known_long.wav", noise(31), RATE)
    (wavs / "broken.ogg").write_text("none")
    (tmp_path / "text").write_text("a0 one two\na1 three\nknown_long four\n")
    warnings = write_sets(wavs, tmp_path / "text", tmp_path / "data", SHARES)
    assert [line.partition(":")[0] for line in warnings[:2]] == [f"{wavs}/broken.ogg", f"{wavs}/known_long.wav"]
    assert "not readable as audio" in warnings[0] and "31.0 s with one transcript" in warnings[1]
    assert "no line for 3 audio files" in warnings[2]
    texts = {name: read_table(tmp_path / "data" / name / "text") for name in ("valid", "test")}
    assert {key: text for each in texts.values() for key, text in each.items()} == {
        "deep-a0": "one two", "deep-a1": "three"}  # fmt: skip
    train = tmp_path / "data/train"
    assert not (train / "text").exists() and sorted(read_table(train / "utt2spk")) == [
        "deep-a2", "deep-a3", "long-0000000", "long-0002000"]  # fmt: skip
    segments = read_table(train / "segments")
    assert segments["long-0000000"] == "long 0.00 20.00" and segments["long-0002000"] == "long 20.00 40.00"
    assert segments["deep-a2"] == "deep-a2 0 -1"


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder; expected one with audio files"):
        write_sets(tmp_path / "none", None, tmp_path / "data", SHARES)
