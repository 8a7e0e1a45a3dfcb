"""Kaldi's text tables: one record a line: a key, a blank, the rest; UTF-8, sorted by bytes, LF at the end of each."""

import codecs
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write

BLANKS = " \t"  # what separates fields; any other white space belongs to the value
SHOWN = 5  # examples a message lists


class Row(NamedTuple):
    """A line of a table: its number (from 1), key, and the rest of the line without surrounding blanks."""

    line: int
    key: str
    value: str


class Segment(NamedTuple):
    """A piece of a recording; start and end in seconds, end None = to the end of the recording."""

    recording: str
    start: float
    end: float | None


class Complaint(NamedTuple):
    """A place of a file that breaks a rule; detail: the value that does."""

    line: int | None
    key: str | None
    detail: str


@dataclass
class Problems:
    """Complaints about one file, gathered by rule so that a defect on every line is one message."""

    path: Path
    complaints: dict[str, list[Complaint]] = field(default_factory=dict)

    def add(self, rule: str, line: int | None = None, key: str | None = None, detail: str = "") -> None:
        """Note a place that breaks a rule; `rule` says what is wrong, what was expected and how to mend it."""
        self.complaints.setdefault(rule, []).append(Complaint(line, key, detail))

    def keys(self) -> set[str]:
        """Every key that was complained about."""
        return {place.key for places in self.complaints.values() for place in places if place.key is not None}

    def messages(self) -> list[str]:
        """One line a rule: `file:line: key (detail): rule (and 3 more: line 7: key, ...)`."""
        return [_message(self.path, rule, places) for rule, places in self.complaints.items()]


def _message(path: Path, rule: str, places: list[Complaint]) -> str:
    first, *others = places
    where = f"{path}:{first.line}" if first.line else str(path)
    if first.key:
        where += f": {first.key}" + (f" ({first.detail})" if first.detail else "")
    if not others:
        return f"{where}: {rule}"
    shown = [f"line {place.line}" + (f": {place.key}" if place.key else "") for place in others[: SHOWN - 1]]
    return f"{where}: {rule} (and {len(others)} more: {', '.join(shown)}{', ...' if len(others) >= SHOWN else ''})"


def first_keys(keys: Iterable[str]) -> str:
    """The first five keys in order, for a message."""
    ordered = sorted(keys)
    return ", ".join(ordered[:SHOWN]) + (", ..." if len(ordered) > SHOWN else "")


def counted(number: int, noun: str) -> str:
    """ "1 key", "2 keys"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def scan_table(path: str | Path) -> tuple[list[Row], Problems]:
    """Every row of a table that can be read, and every formal problem of the file.

    Formal: encoding, byte-order mark, CR, missing final newline, blank line, leading blank, repeated key. The order of
    keys and the values are left to the caller.
    """
    path = Path(path)
    problems = Problems(path)
    if not path.is_file():
        problems.add("no such file; expected a Kaldi table (a key, a blank, a value on each line)")
        return [], problems
    content = path.read_bytes()
    if content.startswith(codecs.BOM_UTF8):
        content = content[len(codecs.BOM_UTF8) :]
        problems.add("starts with a byte-order mark; expected plain UTF-8", 1)
    lines = content.split(b"\n")
    if lines[-1]:
        problems.add("no newline at the end of the file; the last line may be cut off", len(lines))
    else:
        lines.pop()
    return _rows(lines, problems), problems


def _rows(lines: list[bytes], problems: Problems) -> list[Row]:
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for number, raw in enumerate(lines, start=1):
        if raw.endswith(b"\r"):
            problems.add("ends with CR (0x0D), a Windows line end; expected LF alone", number)
        try:
            text = raw.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            problems.add(_not_utf8(error), number)
            continue
        if not text.strip(BLANKS):
            problems.add("blank line; expected a key and a value", number)
            continue
        if text[0] in BLANKS:
            problems.add("begins with a blank; expected the key in the first column", number)
        key, _, value = text.strip(BLANKS).replace("\t", " ").partition(" ")
        if key in seen:
            problems.add("key occurs a second time; expected every key once", number, key, f"first: line {seen[key]}")
        seen.setdefault(key, number)
        rows.append(Row(number, key, value.strip(BLANKS)))
    return rows


def read_table(path: str | Path) -> dict[str, str]:
    """A table as key -> value ("" for a key alone on its line), in the order of the file.

    Tabs become blanks. Raises UserError for the first formal problem (file, line and key named).
    """
    rows, problems = scan_table(path)
    if messages := problems.messages():
        more = f" [{len(messages) - 1} more problems: run utils/validate_data_dir.sh]" if len(messages) > 1 else ""
        raise UserError(messages[0] + more)
    return {row.key: row.value for row in rows}


def read_lines(path: str | Path) -> list[str]:
    """The lines of a file that is no Kaldi table; CR and byte-order mark are taken off.

    Raises UserError: not UTF-8 (file and line named).
    """
    lines = []
    for number, raw in enumerate(Path(path).read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        try:
            lines.append(raw.decode("utf-8").rstrip("\r"))
        except UnicodeDecodeError as error:
            raise UserError(f"{path}:{number}: {_not_utf8(error)}") from None
    return lines if lines[-1] else lines[:-1]


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"byte {error.object[error.start]:#04x} is not UTF-8; convert the file with iconv"


def parse_segment(value: str) -> Segment | None:
    """`recording start end` as a Segment (an end of -1: the recording's end), or None when it is not one."""
    fields = value.split()
    try:
        recording, start, end = fields[0], float(fields[1]), float(fields[2])
    except (IndexError, ValueError):
        return None
    if len(fields) != 3 or not 0 <= start < float("inf"):
        return None
    if end == -1:
        return Segment(recording, start, None)
    return Segment(recording, start, end) if start < end < float("inf") else None


SEGMENT_RULE = "expected `utterance recording start end` with 0 <= start < end in seconds (end -1: the recording's end)"


def read_segments(path: str | Path) -> dict[str, Segment]:
    """A `segments` file as utterance -> Segment. Raises UserError with file, line and key."""
    segments = {}
    for number, (key, value) in enumerate(read_table(path).items(), start=1):
        segment = parse_segment(value)
        if segment is None:
            raise UserError(f"{path}:{number}: {key} ({value}): {SEGMENT_RULE}")
        segments[key] = segment
    return segments


def format_table(table: Mapping[str, object]) -> str:
    """The content of a table's file: key -> value, sorted by the bytes of the key (the C locale's order)."""
    return "".join(f"{key} {table[key]}".rstrip(" ") + "\n" for key in sorted(table))


def write_table(path: str | Path, table: Mapping[str, object]) -> None:
    """Write a table, whole or not at all."""
    with atomic_write(path) as file:
        file.write(format_table(table))


def settle(directory: str | Path) -> None:
    """Finish a change of a directory that was interrupted after it was decided; drop one that was not.

    New files are gathered in `.next.tmp`; when it is called `.next` they are complete and only have to be moved.
    """
    decided = Path(directory) / ".next"
    shutil.rmtree(decided.with_name(".next.tmp"), ignore_errors=True)
    if decided.is_dir():
        for path in sorted(decided.iterdir()):
            path.replace(decided.parent / path.name)
        decided.rmdir()
