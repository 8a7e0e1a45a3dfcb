"""Mending: the directory passes afterwards, the losses are told, the originals are kept."""

from collections.abc import Callable
from pathlib import Path

import pytest

from whisfusion_asr.data.fix import fix
from whisfusion_asr.data.tables import read_table
from whisfusion_asr.data.validate import validate
from whisfusion_asr.errors import UserError

Edit = Callable[[str, str, str], None]


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def test_good_directory_stays_as_it_is(good_dir: Path) -> None:
    before = content(good_dir)
    assert fix(good_dir) == [f"{good_dir}: kept all 3 utterances"]
    after = content(good_dir)
    assert after.pop("utt2num_samples") == b"ann-1 8000\nann-2 16000\nbob-1 32000\n"
    assert after == before
    assert not (good_dir / ".backup").exists()


def test_what_can_be_mended_costs_nothing(good_dir: Path, edit: Edit) -> None:
    edit("text", "ann-1 ONE\n", "")
    edit("text", "THREE\n", "TH\u00a0REE\x07\r\n\nann-1\tONE")
    edit("utt2spk", "ann-1 ann\n", "ann-1 ann\nann-1 ann\n")
    (good_dir / "spk2utt").write_text("wrong x\n")
    report = "\n".join(fix(good_dir))
    assert validate(good_dir) == []
    assert read_table(good_dir / "text") == {"ann-1": "ONE", "ann-2": "TWO WORDS", "bob-1": "TH REE"}
    assert (good_dir / "spk2utt").read_text() == "ann ann-1 ann-2\nbob bob-1\n"
    assert "kept all 3 utterances" in report
    assert "found: " in report and "text:2: ends with CR" in report


def test_what_cannot_be_mended_is_dropped_and_told(good_dir: Path, edit: Edit) -> None:
    edit("text", "ann-2 TWO WORDS", "ann-2")
    edit("wav.scp", "wavs/bob-1.wav", "wavs/gone.wav")
    (good_dir / "spk2gender").write_text("ann f\nbob m\n")
    report = "\n".join(fix(good_dir))
    assert validate(good_dir) == []
    assert list(read_table(good_dir / "text")) == ["ann-1"]
    assert read_table(good_dir / "spk2gender") == {"ann": "f"}
    for line in (
        "dropped: {}/text:2: ann-2: no words",
        "dropped: {}/wav.scp:3: bob-1 (",
        "{}/text: no good entry for 1 utterance: ann-2",
        "{}/wav.scp: no good entry for 1 utterance: bob-1",
        "{}: kept 1 of 3 utterances",
    ):
        assert line.format(good_dir) in report


def test_different_values_of_one_key_are_told(good_dir: Path, edit: Edit) -> None:
    edit("text", "ann-2 TWO", "ann-1 OTHER\nann-2 TWO")
    assert f"dropped: {good_dir}/text:2: ann-1: differs from line 1" in fix(good_dir)
    assert read_table(good_dir / "text")["ann-1"] == "ONE"


def test_segments(good_dir: Path) -> None:
    (good_dir / "segments").write_text("ann-1 ann-1 0 9\nann-2 ann-2 0 0.5\nann-3 gone 0 1\nbob-1 ann-2 0.5 -1\n")
    report = "\n".join(fix(good_dir))
    assert validate(good_dir) == []
    assert list(read_table(good_dir / "text")) == ["ann-2", "bob-1"]
    assert list(read_table(good_dir / "wav.scp")) == ["ann-2"]
    assert f"{good_dir}/segments: no good entry for 2 utterances: ann-1, ann-3" in report
    assert "wav.scp: 2 recordings without a segment: ann-1, bob-1" in report


def test_originals_are_kept_also_after_a_second_run(good_dir: Path, edit: Edit) -> None:
    edit("text", "ann-2 TWO WORDS\n", "")
    before = content(good_dir)
    fix(good_dir)
    after = content(good_dir)
    assert fix(good_dir) == [f"{good_dir}: kept all 2 utterances"]
    assert content(good_dir) == after
    assert content(good_dir / ".backup") == {name: before[name] for name in ("spk2utt", "utt2spk", "wav.scp")}


def test_nothing_left_is_an_error_with_reasons(good_dir: Path) -> None:
    (good_dir / "text").write_text("x ONE\n")
    before = content(good_dir)
    with pytest.raises(
        UserError, match=r"no utterance remains of 4: .*text: no good entry for 3 utterances: ann-1, ann-2"
    ):
        fix(good_dir)
    assert content(good_dir) == before


def test_missing_required_file(good_dir: Path) -> None:
    (good_dir / "utt2spk").unlink()
    with pytest.raises(UserError, match="data: utt2spk missing; nothing to mend it from"):
        fix(good_dir)


def test_empty_text_of_a_test_set(good_dir: Path, edit: Edit) -> None:
    edit("text", "ann-2 TWO WORDS", "ann-2")
    assert fix(good_dir, allow_empty_text=True) == [f"{good_dir}: kept all 3 utterances"]
