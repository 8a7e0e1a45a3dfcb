"""Properties of data directories, tried on random ones."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from whisfusion_asr.data.fix import fix
from whisfusion_asr.data.kaldi_dir import DataTables, combine, read_dir, split, write_dir
from whisfusion_asr.data.validate import REQUIRED, validate
from whisfusion_asr.errors import UserError

QUICK = settings(max_examples=40, deadline=None)
LETTERS = "ab01ABé日_.-"
names = st.text(LETTERS, min_size=1, max_size=6)
texts = st.lists(st.text("abÄж日'", min_size=1, max_size=4), min_size=1, max_size=4).map(" ".join)


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audio") / "a b.wav"
    soundfile.write(path, np.full(3200, 0.1), 16000)
    return path


@st.composite
def directories(draw: st.DrawFn) -> DataTables:
    """Tables of a good directory; the audio's path is to be filled in for PATH."""
    keys = draw(st.lists(names, min_size=1, max_size=8, unique=True))
    tables: DataTables = {
        "wav.scp": dict.fromkeys(keys, "PATH"),
        "text": {key: draw(texts) for key in keys},
        "utt2spk": {key: draw(names) for key in keys},
    }
    if draw(st.booleans()):
        tables["segments"] = {key: f"{draw(st.sampled_from(keys))} {draw(st.sampled_from(('0 0.1', '0.05 -1')))}"
                              for key in keys}  # fmt: skip
        used = {value.split()[0] for value in tables["segments"].values()}
        tables["wav.scp"] = dict.fromkeys(used, "PATH")
    if draw(st.booleans()):
        tables["utt2lang"] = dict.fromkeys(keys, "en")
    return tables


def written(folder: str, tables: DataTables, wav: Path) -> Path:
    directory = Path(folder) / "data"
    write_dir(directory, {**tables, "wav.scp": dict.fromkeys(tables["wav.scp"], str(wav))})
    return directory


@QUICK
@given(tables=directories())
def test_write_read_fix_validate(tables: DataTables, wav: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = written(folder, tables, wav)
        before = read_dir(directory)
        assert validate(directory) == []
        assert fix(directory) == [f"{directory}: kept all {len(tables['text'])} utterances"]
        after = read_dir(directory)
        assert after.pop("utt2num_samples").keys() == tables["text"].keys()
        assert after == before


@settings(QUICK, max_examples=15)
@given(tables=directories(), data=st.data())
def test_combining_the_parts_gives_the_whole(tables: DataTables, data: st.DataObject, wav: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = written(folder, tables, wav)
        parts = split(directory, data.draw(st.integers(1, len(tables["text"]))))
        order = data.draw(st.permutations(parts))
        assert combine(Path(folder) / "all", order) == []
        assert read_dir(Path(folder) / "all") == read_dir(directory)


def drop_line(lines: list[str], index: int) -> list[str]:
    return lines[:index] + lines[index + 1 :]


def repeat_line(lines: list[str], index: int) -> list[str]:
    return lines[: index + 1] + lines[index:]


def drop_value(lines: list[str], index: int) -> list[str]:
    return [*lines[:index], lines[index].split(" ")[0] + "\n", *lines[index + 1 :]]


def change_key(lines: list[str], index: int) -> list[str]:
    return [*lines[:index], "!" + lines[index], *lines[index + 1 :]]


def windows_end(lines: list[str], index: int) -> list[str]:
    return [*lines[:index], lines[index][:-1] + "\r\n", *lines[index + 1 :]]


def cut_off(lines: list[str], index: int) -> list[str]:
    return [*lines[:index], lines[index][:-1]]


EDITS = (drop_line, repeat_line, drop_value, change_key, windows_end, cut_off)


@QUICK
@given(tables=directories(), data=st.data())
def test_broken_directory_is_told_and_mended(tables: DataTables, data: st.DataObject, wav: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = written(folder, tables, wav)
        path = directory / data.draw(st.sampled_from([*REQUIRED, *({"segments"} & tables.keys())]))
        lines = path.read_text().splitlines(keepends=True)
        edit = data.draw(st.sampled_from(EDITS))
        path.write_text("".join(edit(lines, data.draw(st.integers(0, len(lines) - 1)))), newline="")
        problems = validate(directory)
        assert any(problem.startswith(str(directory)) for problem in problems)
        try:
            fix(directory)
        except UserError as error:
            assert "no utterance remains" in str(error)
        else:
            assert validate(directory) == []
