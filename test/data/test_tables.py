"""Reading and writing Kaldi's text tables."""

from pathlib import Path

import pytest

from whisfusion_asr.data.tables import Segment, read_lines, read_segments, read_table, settle, write_table
from whisfusion_asr.errors import UserError


def test_value_is_the_rest_of_the_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("b  two  words\na\tone\nc\n")
    assert read_table(tmp_path / "text") == {"b": "two  words", "a": "one", "c": ""}


def test_written_in_byte_order(tmp_path: Path) -> None:
    write_table(tmp_path / "t", {"b": 1, "a_": 2, "a-": 3, "B": 4, "é": 5, "a": ""})
    assert (tmp_path / "t").read_text() == "B 4\na\na- 3\na_ 2\nb 1\né 5\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a 1\nb 2\na 3\n", r"t:3: a \(first: line 1\): key occurs a second time; expected every key once"),
        (b"a 1\r\n", r"t:1: ends with CR"),
        (b"\xef\xbb\xbfa 1\n", r"t:1: starts with a byte-order mark"),
        (b"a 1\nb 2", r"t:2: no newline at the end of the file"),
        (b"a 1\nb \xff\n", r"t:2: byte 0xff is not UTF-8; convert the file with iconv"),
        (b"a 1\n\nb 2\n", r"t:2: blank line"),
        (b" a 1\n", r"t:1: begins with a blank"),
    ],
)
def test_formal_problem_names_file_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / "t")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nope: no such file; expected a Kaldi table"):
        read_table(tmp_path / "nope")


def test_same_defect_on_many_lines_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"".join(b"k%d v\r\n" % number for number in range(9)))
    with pytest.raises(
        UserError, match=r"t:1: ends with CR .* \(and 8 more: line 2, line 3, line 4, line 5, \.\.\.\)$"
    ):
        read_table(tmp_path / "t")


def test_segments(tmp_path: Path) -> None:
    (tmp_path / "segments").write_text("a rec 0 1.5\nb rec 1.5 -1\n")
    assert read_segments(tmp_path / "segments") == {"a": Segment("rec", 0.0, 1.5), "b": Segment("rec", 1.5, None)}


@pytest.mark.parametrize("value", ["rec 2 1", "rec 1 1", "rec -1 2", "rec 0", "rec 0 1 A", "rec x 1", "rec 0 nan", ""])
def test_bad_segment(tmp_path: Path, value: str) -> None:
    (tmp_path / "segments").write_text(f"a rec 0 1\nb {value}\n")
    with pytest.raises(UserError, match=r"segments:2: b \(.*\): expected `utterance recording start end`"):
        read_segments(tmp_path / "segments")


def test_lines_of_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes("\ufeffone\r\n\r\ntwo\t\r\n".encode())
    assert read_lines(tmp_path / "f") == ["one", "", "two\t"]


def test_decided_change_is_finished_and_undecided_dropped(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    for folder in (".next", ".next.tmp"):
        (tmp_path / folder).mkdir()
    (tmp_path / ".next" / "a").write_text("new")
    (tmp_path / ".next.tmp" / "a").write_text("half")
    settle(tmp_path)
    assert (tmp_path / "a").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
