"""Whisper's transcripts as labels: which are trusted, what a directory looks like afterwards, the command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from whisfusion_asr.bin import label, score
from whisfusion_asr.data.kaldi_dir import read_dir
from whisfusion_asr.data.text_form import TextForm
from whisfusion_asr.errors import UserError
from whisfusion_asr.labels import LabelRules, unlabelled, write_labels

FORM = TextForm("lower", "remove")


def record(key: str, text: str, sure: float = -0.2, ratio: float = 1.1, silent: float | None = 0.1,
           flags: tuple[str, ...] = ()) -> dict[str, Any]:  # fmt: skip
    """What a label needs of a line of candidates.jsonl."""
    found = {"mean_log_prob": sure, "compression_ratio": ratio, "no_speech": silent, "tokens": [1, 2]}
    return {"utt_id": key, "text": text, "flags": list(flags), "candidates": [found]}


def write_data(folder: Path, texts: dict[str, str | None], seconds: float = 0.5) -> Path:
    """A directory of noises; None: without a transcript."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for key in texts:
        soundfile.write(folder / f"{key}.wav", 0.3 * rng.normal(size=int(16000 * seconds)), 16000)
    tables = {"wav.scp": {key: folder / f"{key}.wav" for key in texts}, "utt2spk": {key: key for key in texts},
              "text": {key: text for key, text in texts.items() if text is not None}}
    for name, table in tables.items():
        if table:
            (folder / name).write_text("".join(f"{key} {value}\n" for key, value in table.items()))
    return folder


@pytest.mark.parametrize(("change", "reason"), [
    ({}, None),
    ({"sure": -1.0, "ratio": 2.4, "silent": 0.6}, None),
    ({"sure": -1.01}, "unsure: mean log-probability -1.01, expected -1 or more"),
    ({"ratio": 2.5}, "repetitive: compression ratio 2.50, expected 2.4 or less"),
    ({"silent": 0.7}, "no speech: probability 0.70, expected 0.6 or less"),
    ({"silent": None}, None),
    ({"flags": ("canvas_full",)}, "no end: 2 tokens without an end of the text"),
])  # fmt: skip
def test_a_transcript_is_trusted_within_whispers_own_thresholds(change: dict, reason: str | None) -> None:
    assert LabelRules().of_transcript(record("a", "words", **change)) == reason


def test_lengths_that_whisper_does_not_hear() -> None:
    rules = LabelRules()
    assert rules.of_length(30.0) is None and rules.of_length(30.1).startswith("too long: 30.100 s, expected 30 s")
    assert rules.of_length(0.05).startswith("too short")
    with pytest.raises(UserError, match="max_seconds 31: expected 0 to 30"):
        LabelRules(max_seconds=31)


def test_a_directory_is_completed_and_the_dropped_are_listed(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", {"a": "KEPT AS IT IS", "b": None, "c": None, "d": None, "e": None})
    assert unlabelled(data) == {"b", "c", "d", "e"}
    heard = [record("b", " It's 3 o'clock, well-known."), record("c", "so so so", ratio=3.0), record("d", "...")]
    line = write_labels(data, {"e": "too long: 31.000 s, expected 30 s or less"}, heard, LabelRules(), FORM)
    assert read_dir(data)["text"] == {"a": "KEPT AS IT IS", "b": "it's 3 o'clock well known"}
    assert sorted(read_dir(data)["wav.scp"]) == ["a", "b"] and unlabelled(data) == set()
    assert (data / "dropped.tsv").read_text() == (
        "c\trepetitive: compression ratio 3.00, expected 2.4 or less\nd\tempty text\n"
        "e\ttoo long: 31.000 s, expected 30 s or less\n"
    )
    assert (data / "labelled").read_text() == "b -0.20000\n"
    assert line == (f"{data}: labelled 1 utterance of 4; dropped 1 too long, 1 repetitive, 1 empty text "
                    "(see dropped.tsv)")  # fmt: skip


def test_transcripts_are_replaced_on_request(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", {"a": "MINE", "b": None})
    assert unlabelled(data, replace=True) == {"a", "b"}
    write_labels(data, {}, [record("a", "Heard."), record("b", "this")], LabelRules(), FORM)
    assert read_dir(data)["text"] == {"a": "heard", "b": "this"}


def test_transcripts_are_rewritten_on_request_and_then_never_dropped(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", {"a": "MINE IT IS", "b": None, "c": "SO SO", "d": "UNHEARD", "e": None})
    heard = [record("a", "Mine, it was."), record("b", "This!"), record("c", "So so so", ratio=3.0)]
    refused = {"d": "too short: 0.050 s", "e": "too short: 0.050 s"}
    line = write_labels(data, refused, heard, LabelRules(), TextForm(), lambda given, _: given.lower())
    assert read_dir(data)["text"] == {"a": "mine it is", "b": "This!", "c": "so so", "d": "UNHEARD"}
    assert (data / "dropped.tsv").read_text() == "e\ttoo short: 0.050 s\n"
    assert (data / "labelled").read_text() == "b -0.20000\n"  # of the others nobody but the corpus is the author
    assert line == f"{data}: labelled 1 utterance of 2; rewrote 3; dropped 1 too short (see dropped.tsv)"


def test_nothing_left_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", {"a": None})
    with pytest.raises(UserError, match=r"no transcript can be trusted \(1 unsure\)"):
        write_labels(data, {}, [record("a", "what", sure=-3.0)], LabelRules(), FORM)
    assert not (data / "text").exists()


def test_three_files_are_labelled_by_the_command(toy_whisper: Path, tmp_path: Path) -> None:
    """One of three has a transcript, one is too short; a random Whisper never ends, so its text is asked to be short.

    What it writes cannot be trusted, which is what the rules are for: without them it becomes the transcript.
    """
    data = write_data(tmp_path / "data", {"a": "mine", "b": None, "c": None})
    soundfile.write(data / "c.wav", np.zeros(800), 16000)
    words = ["--data_dir", data, "--whisper_dir", toy_whisper, "--out", tmp_path / "out", "--min_mean_log_prob", "-99",
             "--max_compression", "99"]
    label.main([str(word) for word in (*words, "--job", "1")])
    assert unlabelled(data) == {"b", "c"}
    heard = tmp_path / "out/logdir/output.1/candidates.jsonl"
    (line,) = [json.loads(line) for line in heard.read_text().splitlines()]
    heard.write_text(json.dumps(line | {"text": " Said so.", "flags": []}) + "\n")
    label.main([str(word) for word in (*words, "--merge", "true")])
    assert read_dir(data)["text"] == {"a": "mine", "b": "Said so."}
    assert (data / "dropped.tsv").read_text().startswith("c\ttoo short: 0.050 s")
    (tmp_path / "hyp").write_text("a mine\nb said no\n")
    score.main([str(word) for word in ("--ref", data / "text", "--hyp", tmp_path / "hyp", "--out", tmp_path / "score")])
    assert json.loads((tmp_path / "score/summary.json").read_text())["labelled"] == 1


def test_the_command_rewrites(toy_whisper: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", {"a": "SAID SO MISTER BELL"})
    words = ["--data_dir", data, "--whisper_dir", toy_whisper, "--out", tmp_path / "out", "--relabel", "rewrite"]
    words = [str(word) for word in (*words, "--normalizer", "whisper_en")]
    label.main([*words, "--job", "1"])
    heard = tmp_path / "out/logdir/output.1/candidates.jsonl"
    heard.write_text(json.dumps(json.loads(heard.read_text()) | {"text": " Said no, Mr. Bell."}) + "\n")
    label.main([*words, "--merge", "true"])
    assert read_dir(data)["text"] == {"a": "Said so, Mr. Bell."}


def test_what_has_transcripts_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = write_data(tmp_path / "data", {"a": "mine"})
    label.main(["--data_dir", str(data), "--whisper_dir", "none", "--out", str(tmp_path / "out")])
    assert "every utterance has a transcript, nothing to label" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
