"""The validator: a good directory passes, each defect is told with file, line and key, all of them at once."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from whisfusion_asr.data.validate import inspect, validate
from whisfusion_asr.errors import UserError

Edit = Callable[[str, str, str], None]


def test_good_directory(good_dir: Path) -> None:
    findings = inspect(good_dir)
    assert findings.problems == findings.warnings == []
    assert findings.num_samples == {"ann-1": 8000, "ann-2": 16000, "bob-1": 32000}
    assert inspect(good_dir, check_audio=False) == findings


def test_good_directory_with_optional_tables(good_dir: Path, edit: Edit) -> None:
    (good_dir / "segments").write_text("ann-1 rec 0 0.5\nann-2 rec 0.5 1\nbob-1 rec 1 -1\n")
    (good_dir / "wav.scp").write_text(f"rec {good_dir.parent}/wavs/bob-1.wav\n")
    (good_dir / "spk2gender").write_text("ann f\nbob m\n")
    (good_dir / "utt2dur").write_text("ann-1 0.5\nann-2 0.5\nbob-1 1\n")
    (good_dir / "reco2channel").write_text("rec 0\n")
    (good_dir / "spk2utt").unlink()
    findings = inspect(good_dir)
    assert findings.problems == []
    assert findings.num_samples == {"ann-1": 8000, "ann-2": 8000, "bob-1": 16000}


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("text", "ann-2 TWO WORDS", "ann-2", r"data/text:2: ann-2: no words; mend .* --allow_empty_text true"),
        ("text", "TWO WORDS", "TWO\u00a0WORDS", r"text:2: ann-2 \(.*\): white space other than a blank"),
        ("text", "TWO", "TW\x07O", r"text:2: ann-2 \(.*\): control characters"),
        ("text", "TWO", "<s>", r"text:2: ann-2 \(<s> WORDS\): one of the words <s> </s> #0"),
        ("text", "THREE\n", "THREE", r"text:3: no newline at the end"),
        ("text", "ONE\n", "ONE\r\n", r"text:1: ends with CR"),
        ("text", "ann-1", "\ufeffann-1", r"text:1: starts with a byte-order mark"),
        ("text", "ONE", "\udcff", r"text:1: byte 0xff is not UTF-8"),
        ("text", "ann-2 TWO WORDS\n", "", r"text: without 1 key of utt2spk: ann-2; add them, or mend"),
        ("text", "bob-1", "bob-2", r"text:3: bob-2: key is not in utt2spk"),
        ("text", "ann-2 TWO", "ann-1 TWO", r"text:2: ann-1 \(first: line 1\): key occurs a second time"),
        ("text", "ann-1 ONE\nann-2 TWO", "ann-2 ONE\nann-1 TWO", r"text:2: ann-1: not in the order of LC_ALL=C sort"),
        (
            "utt2spk",
            "ann-2 ann",
            "ann-2 ann x",
            r"utt2spk:2: ann-2 \(ann x\): expected 2 fields: utterance and speaker",
        ),
        ("utt2spk", "ann-2 ann", "ann-2", r"utt2spk:2: ann-2: expected 2 fields"),
        ("spk2utt", "ann-1 ann-2", "ann-1", r"spk2utt:1: ann: not the inverse of utt2spk"),
        ("spk2utt", "bob bob-1\n", "", r"spk2utt: without 1 speaker of utt2spk: bob"),
        ("wav.scp", "wavs/ann-2.wav", "wavs/gone.wav", r"wav.scp:2: ann-2 \(.*gone.wav\): no such audio file"),
        ("wav.scp", "ann-1 /", "ann-1 ~/", r"wav.scp:1: ann-1 \(~.*\): begins with ~"),
    ],
)
def test_defect_is_told(good_dir: Path, edit: Edit, name: str, old: str, new: str, message: str) -> None:
    edit(name, old, new)
    assert re.search(message, "\n".join(validate(good_dir)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "segments",
            "ann-1 ann-1 0 0.5\nann-2 ann-2 1 0.5\nbob-1 bob-1 0 2\n",
            r"segments:2: ann-2 \(ann-2 1 0.5\): exp",
        ),
        ("segments", "ann-1 ann-1 0 1.2\nann-2 ann-2 0 1\nbob-1 bob-1 0 2\n", r"segments:1: ann-1 .*ends at 0.50 s"),
        (
            "segments",
            "ann-1 ann-1 0 0.5\nann-2 bob-1 0 1\nbob-1 bob-1 0 2\n",
            r"wav.scp:2: ann-2: key is not in segments",
        ),
        (
            "segments",
            "ann-1 ann-1 0 0.5\nann-2 ann-2 0 1\nbob-1 bo 0 2\n",
            r"wav.scp: without 1 key of segments: bo;",
        ),
        ("spk2gender", "ann F\nbob m\n", r"spk2gender:1: ann \(F\): expected m or f"),
        ("spk2gender", "carl m\n", r"spk2gender:1: carl: key is not in utt2spk"),
        ("utt2dur", "ann-1 0.5\nann-2 0\nbob-1 2\n", r"utt2dur:2: ann-2 \(0\): expected a number of seconds above 0"),
        ("utt2lang", "ann-1 en\n", r"utt2lang: without 2 keys of utt2spk: ann-2, bob-1"),
        ("reco2channel", "bob-1 2\n", r"wav.scp:3: bob-1 .*channel 2 asked, but the audio has 1"),
        ("reco2channel", "bob-1 A\n", r"reco2channel:1: bob-1 \(A\): expected a channel index"),
    ],
)
def test_defect_of_an_optional_table(good_dir: Path, name: str, content: str, message: str) -> None:
    (good_dir / name).write_text(content)
    assert re.search(message, "\n".join(validate(good_dir)))


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(0), "no samples; expected some audio"),
        (np.full(9, np.nan), "9 samples are NaN or infinite"),
        (np.array([[0.5, -0.5]] * 9), "the mean of the 2 channels is silence"),
    ],
)
def test_defect_of_the_audio(good_dir: Path, audio: np.ndarray, message: str) -> None:
    soundfile.write(good_dir.parent / "wavs" / "ann-2.wav", audio, 16000, "FLOAT")
    (problem,) = validate(good_dir)
    assert problem.startswith(f"{good_dir}/wav.scp:2: ann-2 (")
    assert message in problem


def test_all_problems_at_once(good_dir: Path, edit: Edit) -> None:
    edit("text", "ann-1 ONE", "ann-1")
    edit("text", "THREE\n", "THREE")
    edit("utt2spk", "bob-1 bob", "bob-1 bob x")
    edit("wav.scp", "wavs/ann-2.wav", "wavs/gone.wav")
    (good_dir / "spk2utt").unlink()
    problems = validate(good_dir)
    assert [problem.split(": ")[0].rpartition("/")[2] for problem in problems] == [
        "text:3", "text:1", "utt2spk:3", "wav.scp:2",
    ]  # fmt: skip


def test_missing_files(good_dir: Path) -> None:
    for name in ("text", "wav.scp"):
        (good_dir / name).unlink()
    assert [problem.split(";")[0] for problem in validate(good_dir)] == [
        f"{good_dir}/text: no such file", f"{good_dir}/wav.scp: no such file",
    ]  # fmt: skip
    with pytest.raises(
        UserError, match="nowhere: no such directory; expected a Kaldi data directory with wav.scp, text"
    ):
        validate(good_dir.parent / "nowhere")


def test_empty_directory_of_files(good_dir: Path) -> None:
    for name in ("text", "wav.scp", "utt2spk", "spk2utt"):
        (good_dir / name).write_text("")
    assert validate(good_dir) == [f"{good_dir}/utt2spk: no utterance in this directory"]


def test_empty_text_is_allowed_when_asked(good_dir: Path, edit: Edit) -> None:
    edit("text", "ann-2 TWO WORDS", "ann-2")
    findings = inspect(good_dir, allow_empty_text=True)
    assert findings.problems == []
    assert findings.warnings == [f"{good_dir}/text: 1 utterance without words: ann-2"]


def test_warnings_of_speakers(good_dir: Path) -> None:
    (good_dir / "spk2utt").unlink()
    (good_dir / "utt2spk").write_text("ann-1 zoe\nann-2 ann\nbob-1 bob\n")
    findings = inspect(good_dir)
    assert findings.problems == []
    assert "not sorted by speaker when sorted by utterance; make the speaker a prefix" in findings.warnings[0]
    (good_dir / "utt2spk").write_text("ann-1 x\nann-2 x\nbob-1 x\n")
    assert "only one speaker" in inspect(good_dir).warnings[0]
