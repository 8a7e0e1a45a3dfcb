"""Kaldi's text tables: one record a line: a key, a blank, the rest; UTF-8, sorted by bytes, LF at the end of each."""

import codecs
from collections import defaultdict
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


@dataclass
class Problems:
    """Complaints about one file, gathered by kind so that a defect on every line is one message."""

    path: Path
    _places: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, message: str, line: int | None = None, key: str | None = None) -> None:
        """Note one complaint; equal messages are merged and the places of the first few are listed."""
        place = f":{line}" if line else ""
        self._places[message].append(place + (f": {key}" if key else ""))

    def messages(self) -> list[str]:
        """One line a kind: `file:line: key: message (and N more: ...)`."""
        return [f"{self.path}{places[0]}: {message}{_others(places[1:])}" for message, places in self._places.items()]


def _others(places: list[str]) -> str:
    if not places:
        return ""
    shown = ", ".join(place.strip(": ") for place in places[: SHOWN - 1])
    return f" (and {len(places)} more: {shown}{', ...' if len(places) >= SHOWN else ''})"


def first_keys(keys: Iterable[str]) -> str:
    """The first five keys in order, for a message."""
    ordered = sorted(keys)
    return ", ".join(ordered[:SHOWN]) + (", ..." if len(ordered) > SHOWN else "")


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
            problems.add(f"key is already on line {seen[key]}; expected every key once", number, key)
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


def read_sentences(path: str | Path) -> list[str]:
    """The lines of a file of plain sentences (no keys). Raises UserError: not UTF-8 (file and line named)."""
    sentences = []
    for number, raw in enumerate(Path(path).read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        try:
            sentences.append(raw.decode("utf-8").strip())
        except UnicodeDecodeError as error:
            raise UserError(f"{path}:{number}: {_not_utf8(error)}") from None
    return sentences if sentences[-1] else sentences[:-1]


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"byte {error.object[error.start]:#04x} is not UTF-8; convert the file with iconv"


def parse_segment(value: str) -> Segment:
    """`recording start end` as a Segment; an end of -1 is the recording's end. Raises ValueError saying why not."""
    fields = value.split()
    if len(fields) != 3:
        raise ValueError(f"has {len(fields) + 1} fields; expected 4: utterance, recording, start and end in seconds")
    try:
        start, end = float(fields[1]), float(fields[2])
    except ValueError:
        raise ValueError(f"'{fields[1]} {fields[2]}' is not a start and an end in seconds") from None
    if not (0 <= start < float("inf")):
        raise ValueError(f"starts at {fields[1]} s; expected 0 or later")
    if end == -1:
        return Segment(fields[0], start, None)
    if not (start < end < float("inf")):
        raise ValueError(f"ends at {fields[2]} s but starts at {fields[1]} s; expected an end after the start")
    return Segment(fields[0], start, end)


def read_segments(path: str | Path) -> dict[str, Segment]:
    """A `segments` file as utterance -> Segment. Raises UserError with file, line and key."""
    segments = {}
    for number, (key, value) in enumerate(read_table(path).items(), start=1):
        try:
            segments[key] = parse_segment(value)
        except ValueError as error:
            raise UserError(f"{path}:{number}: {key}: {error}") from None
    return segments


def write_table(path: str | Path, table: Mapping[str, object]) -> None:
    """Write key -> value sorted by the bytes of the key (the C locale's order), whole or not at all."""
    with atomic_write(path) as file:
        for key in sorted(table):
            file.write(f"{key} {table[key]}".rstrip(" ") + "\n")
