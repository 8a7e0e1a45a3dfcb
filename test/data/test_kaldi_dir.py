"""Filter, split, subset, combine."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from whisfusion_asr.data import kaldi_dir
from whisfusion_asr.data.kaldi_dir import choose, combine, filter_dir, read_dir, split, split_keys, subset
from whisfusion_asr.data.validate import validate
from whisfusion_asr.errors import UserError

Edit = Callable[[str, str, str], None]


def test_filter_drops_by_length_and_empty_text(good_dir: Path, edit: Edit) -> None:
    edit("text", "ann-2 TWO WORDS", "ann-2")
    line = filter_dir(good_dir, min_seconds=0.6, max_seconds=30, max_loss=0.7)
    assert line.endswith("kept 1 of 3 utterances, 0.00 h; dropped 1 too short, 1 empty text (see dropped.tsv)")
    assert list(read_dir(good_dir)["text"]) == ["bob-1"]
    assert (good_dir / "dropped.tsv").read_text() == (
        "ann-1\ttoo short: 0.500 s, expected 0.6 s or more\nann-2\tempty text\n"
    )
    assert (good_dir / "utt2num_samples").read_text() == "bob-1 32000\n"
    assert validate(good_dir) == []


def test_filter_again_changes_nothing(good_dir: Path) -> None:
    filter_dir(good_dir, 0.1, 1.5, 0.5)
    before = {path.name: path.read_bytes() for path in good_dir.iterdir()}
    assert "kept 2 of 2 utterances" in filter_dir(good_dir, 0.1, 1.5, 0.5)
    assert {path.name: path.read_bytes() for path in good_dir.iterdir()} == before
    assert before["dropped.tsv"] == b"bob-1\ttoo long: 2.000 s, expected 1.5 s or less\n"


def test_filter_refuses_a_large_loss(good_dir: Path) -> None:
    before = {path.name: path.read_bytes() for path in good_dir.iterdir()}
    with pytest.raises(
        UserError, match=r"1 of 3 utterances would be dropped \(1 too short; ann-1\), more than .* 0.05"
    ):
        filter_dir(good_dir, 0.6, 30, 0.05)
    assert {path.name: path.read_bytes() for path in good_dir.iterdir()} == before


def test_filter_that_is_killed_is_finished_later(good_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends after the first of the new files was moved."""
    calls = []

    def killed(*args: object) -> None:
        calls.append(args)
        if len(calls) > 1:
            raise KeyboardInterrupt
        os.replace(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", killed)
        filter_dir(good_dir, 0.6, 30, 0.5)
    assert validate(good_dir) == []
    assert list(read_dir(good_dir)["utt2spk"]) == ["ann-2", "bob-1"]


def test_filter_of_an_unchecked_directory(good_dir: Path, edit: Edit) -> None:
    edit("text", "ann-1 ONE\n", "")
    with pytest.raises(UserError, match="text: without 1 key of utt2spk: ann-1"):
        filter_dir(good_dir, 0.1, 30, 0.5)


@pytest.mark.parametrize(
    ("number", "parts", "sizes"), [(10, 3, [4, 3, 3]), (3, 3, [1, 1, 1]), (5, 1, [5]), (7, 4, [2, 2, 2, 1])]
)
def test_chunks_are_those_of_split_scp(number: int, parts: int, sizes: list[int]) -> None:
    keys = [str(key) for key in range(number)]
    chunks = split_keys(keys, parts)
    assert [len(chunk) for chunk in chunks] == sizes
    assert sum(chunks, []) == keys


@pytest.mark.parametrize("parts", [0, 4])
def test_chunk_is_never_empty(parts: int) -> None:
    with pytest.raises(UserError, match=f"3 utterances cannot be split into {parts} parts?; use 1 to 3 jobs"):
        split_keys(["a", "b", "c"], parts)


def test_split(good_dir: Path) -> None:
    parts = split(good_dir, 2)
    assert parts == [good_dir / "split2" / "1", good_dir / "split2" / "2"]
    assert [list(read_dir(part)["text"]) for part in parts] == [["ann-1", "ann-2"], ["bob-1"]]
    assert all(validate(part) == [] for part in parts)


def test_subset(good_dir: Path, tmp_path: Path) -> None:
    assert choose(good_dir, 2, "first") == ["ann-1", "ann-2"]
    assert choose(good_dir, 2, "last") == ["ann-2", "bob-1"]
    assert choose(good_dir, 1, "shortest") == ["ann-1"]
    assert choose(good_dir, 2) == ["ann-1", "ann-2"]
    assert choose(good_dir, 1, "per_spk") == ["ann-1", "bob-1"]
    subset(good_dir, tmp_path / "some", ["bob-1"])
    assert read_dir(tmp_path / "some")["spk2utt"] == {"bob": "bob-1"}
    assert validate(tmp_path / "some") == []
    with pytest.raises(UserError, match="4 utterances asked; it has 3"):
        choose(good_dir, 4)
    with pytest.raises(UserError, match="utt2spk: 1 asked utterance not here: carl"):
        subset(good_dir, tmp_path / "some", ["bob-1", "carl"])


def test_written_directory_has_no_table_of_an_earlier_one(good_dir: Path, tmp_path: Path) -> None:
    (good_dir / "utt2lang").write_text("ann-1 en\nann-2 en\nbob-1 en\n")
    subset(good_dir, tmp_path / "some", ["bob-1"])
    (good_dir / "utt2lang").unlink()
    (tmp_path / "some" / "notes.txt").write_text("mine")
    subset(good_dir, tmp_path / "some", ["ann-1"])
    assert {path.name for path in (tmp_path / "some").iterdir()} == {
        "wav.scp",
        "text",
        "utt2spk",
        "spk2utt",
        "notes.txt",
    }


def test_combine_with_and_without_segments(good_dir: Path, tmp_path: Path) -> None:
    subset(good_dir, tmp_path / "one", ["ann-1", "ann-2"])
    subset(good_dir, tmp_path / "two", ["bob-1"])
    (tmp_path / "two" / "segments").write_text("bob-1 bob-1 0 1\n")
    (tmp_path / "two" / "utt2lang").write_text("bob-1 en\n")
    lines = combine(tmp_path / "all", [tmp_path / "one", tmp_path / "two"])
    assert lines == [f"{tmp_path}/all: utt2lang is left out, because not every directory has it"]
    assert validate(tmp_path / "all") == []
    assert read_dir(tmp_path / "all")["segments"] == {
        "ann-1": "ann-1 0 -1", "ann-2": "ann-2 0 -1", "bob-1": "bob-1 0 1",
    }  # fmt: skip


def test_combine_refuses_a_contradiction(good_dir: Path, tmp_path: Path) -> None:
    subset(good_dir, tmp_path / "one", ["ann-1"])
    (tmp_path / "one" / "text").write_text("ann-1 OTHER\n")
    with pytest.raises(UserError, match=r"one/text: ann-1: 'OTHER', but another of the directories says 'ONE'"):
        combine(tmp_path / "all", [good_dir, tmp_path / "one"])


def test_one_place_to_import_from() -> None:
    assert all(hasattr(kaldi_dir, name) for name in kaldi_dir.__all__)
