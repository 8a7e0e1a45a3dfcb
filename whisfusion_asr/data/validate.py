"""Every problem of a Kaldi data directory, with file, line and key: formal, between files, and in the audio itself."""

import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from whisfusion_asr.data.audio import Source, count_samples, is_pipe, load_unresampled, resampled_length, run_pipe
from whisfusion_asr.data.tables import (
    SEGMENT_RULE,
    Problems,
    Row,
    counted,
    first_keys,
    parse_segment,
    scan_table,
    settle,
)
from whisfusion_asr.errors import UserError

REQUIRED = ("wav.scp", "text", "utt2spk")
MADE_HERE = ("utt2num_samples",)  # written anew by `validate`, so never wrong input
ILLEGAL_WORDS = {"<s>", "</s>", "#0"}  # Kaldi's: symbols of its graphs
MEND = "mend the directory with utils/fix_data_dir.sh"


@dataclass
class Findings:
    """What is known of a directory: problems (must be mended), warnings, and samples at 16 kHz by utterance."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    num_samples: dict[str, int] = field(default_factory=dict)


@dataclass
class Tables:
    """The tables of a directory as they can be read, with the problems of each."""

    directory: Path
    rows: dict[str, list[Row]]
    problems: dict[str, Problems]

    def keys(self, name: str) -> set[str]:
        """Keys of a table; empty when there is none."""
        return {row.key for row in self.rows.get(name, [])}


def kind(name: str, segmented: bool) -> str | None:
    """What the keys of a file are: "utterance", "recording" or "speaker"; None for a file that is no table of ours."""
    if name == "wav.scp" or name.startswith("reco2"):
        return "recording" if segmented else "utterance"
    if name in ("text", "segments", "feats.scp") or name.startswith("utt2"):
        return "utterance"
    return "speaker" if name.startswith("spk2") else None


def scan(directory: str | Path) -> Tables:
    """Read every table of a directory, required ones also when they are missing."""
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; expected a Kaldi data directory with {', '.join(REQUIRED)}")
    settle(directory)
    present = {path.name for path in directory.iterdir() if path.is_file() and kind(path.name, False)}
    scanned = {name: scan_table(directory / name) for name in sorted(present | set(REQUIRED))}
    return Tables(
        directory,
        {name: rows for name, (rows, _) in scanned.items()},
        {name: problems for name, (_, problems) in scanned.items()},
    )


def validate(directory: str | Path, check_audio: bool = True) -> list[str]:
    """Every problem of a directory, one line each; an empty list for a good one. See `inspect`."""
    return inspect(directory, check_audio).problems


def inspect(
    directory: str | Path, check_audio: bool = True, allow_empty_text: bool = False, num_threads: int = 4
) -> Findings:
    """Check a directory.

    check_audio: decode every recording; False reads the headers only
    allow_empty_text: an utterance without words is a warning (test sets), not a problem
    Raises UserError: no such directory.
    """
    tables = scan(directory)
    findings = Findings()
    check_order(tables)
    check_values(tables, allow_empty_text)
    check_keys(tables)
    findings.num_samples = check_recordings(tables, check_audio, num_threads)
    findings.warnings = _warnings(tables, allow_empty_text)
    findings.problems = [line for problems in tables.problems.values() for line in problems.messages()]
    return findings


def check_order(tables: Tables) -> None:
    """Keys are sorted by bytes (str compares code points: the same order in UTF-8)."""
    for name, rows in tables.rows.items():
        for before, row in zip(rows, rows[1:], strict=False):
            if row.key < before.key:
                tables.problems[name].add(f"not in the order of LC_ALL=C sort; {MEND}", row.line, row.key)


def check_values(tables: Tables, allow_empty_text: bool = False) -> None:
    """Each value has the form that its file asks for."""
    for name, rows in tables.rows.items():
        checks = _VALUE_CHECKS.get(name, ())
        for row in rows:
            if name == "text" and allow_empty_text and not row.value:
                continue
            for holds, rule in checks:
                if not holds(row.value):
                    tables.problems[name].add(rule, row.line, row.key, row.value[:60])
                    break


def _is_printable(text: str) -> bool:
    return not any(unicodedata.category(letter) == "Cc" for letter in text)


def _has_plain_blanks(text: str) -> bool:
    return not any(letter.isspace() and letter != " " for letter in text)


def _is_positive(value: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", value) is not None and float(value) > 0


_VALUE_CHECKS: dict[str, tuple[tuple[Callable[[str], bool], str], ...]] = {
    "wav.scp": (
        (bool, "no audio named; expected `key path` or `key command |`"),
        (lambda value: not value.startswith("~"), "begins with ~; expected a path that every program understands"),
    ),
    "text": (
        (bool, f"no words; {MEND}, or allow them in a test set with --allow_empty_text true"),
        (_has_plain_blanks, f"white space other than a blank (such as U+00A0); {MEND}"),
        (_is_printable, f"control characters; {MEND}"),
        (lambda value: not ILLEGAL_WORDS & set(value.split()), "one of the words <s> </s> #0, which Kaldi reserves"),
    ),
    "utt2spk": ((lambda value: len(value.split()) == 1, "expected 2 fields: utterance and speaker"),),
    "segments": ((lambda value: parse_segment(value) is not None, SEGMENT_RULE),),
    "spk2gender": ((lambda value: value in ("m", "f"), "expected m or f"),),
    "utt2lang": ((lambda value: len(value.split()) == 1, "expected 2 fields: utterance and language"),),
    "utt2dur": ((_is_positive, "expected a number of seconds above 0"),),
    "reco2dur": ((_is_positive, "expected a number of seconds above 0"),),
    "reco2channel": ((str.isdecimal, "expected a channel index: 0, 1, ..."),),
}


def check_keys(tables: Tables) -> None:
    """All files speak of the same utterances, recordings and speakers; spk2utt is the inverse of utt2spk."""
    utterances = tables.keys("utt2spk") or tables.keys("text") or tables.keys("wav.scp")
    segmented = "segments" in tables.rows
    recordings = {segment.recording for row in tables.rows.get("segments", []) if (segment := parse_segment(row.value))}
    speakers = {row.value for row in tables.rows["utt2spk"]}
    if not utterances:
        tables.problems["utt2spk"].add("no utterance in this directory")
    for name in tables.rows:
        table_kind = kind(name, segmented)
        if name in MADE_HERE or name == "spk2utt":
            continue
        if table_kind == "speaker":
            _compare(tables, name, speakers, "utt2spk", may_lack=True)
        elif table_kind == "recording":
            _compare(tables, name, recordings, "segments", may_lack=name != "wav.scp")
        else:
            _compare(tables, name, utterances, "utt2spk", may_lack=name.startswith("reco2"))
    if "spk2utt" in tables.rows:
        _check_inverse(tables)


def _compare(tables: Tables, name: str, wanted: set[str], source: str, may_lack: bool) -> None:
    problems = tables.problems[name]
    if not problems.path.is_file():
        return
    missing = wanted - tables.keys(name)
    if missing and not may_lack:
        problems.add(f"without {counted(len(missing), 'key')} of {source}: {first_keys(missing)}; add them, or {MEND}")
    for row in tables.rows[name]:
        if row.key not in wanted:
            problems.add(f"key is not in {source}; add it there, or {MEND}", row.line, row.key)


def invert(utt2spk: Iterable[tuple[str, str]]) -> dict[str, str]:
    """`spk2utt` of (utterance, speaker) pairs: speaker -> its utterances in order, separated by blanks."""
    utterances = defaultdict(list)
    for utterance, speaker in sorted(utt2spk):
        utterances[speaker].append(utterance)
    return {speaker: " ".join(keys) for speaker, keys in utterances.items()}


def _check_inverse(tables: Tables) -> None:
    inverse = invert((row.key, row.value) for row in tables.rows["utt2spk"])
    problems = tables.problems["spk2utt"]
    rule = "not the inverse of utt2spk; delete the file (it is made again), or " + MEND
    for row in tables.rows["spk2utt"]:
        if " ".join(row.value.split()) != inverse.get(row.key):
            problems.add(rule, row.line, row.key)
    if missing := inverse.keys() - tables.keys("spk2utt"):
        problems.add(f"without {counted(len(missing), 'speaker')} of utt2spk: {first_keys(missing)}; {MEND}")


class Piece(NamedTuple):
    """An utterance of a recording, with its line in the file that defines it; times in seconds."""

    utterance: str
    line: int
    start: float | None
    end: float | None


def check_recordings(tables: Tables, decode: bool = True, num_threads: int = 4) -> dict[str, int]:
    """Read all audio, note what is wrong with it, and count the samples of every good utterance at 16 kHz."""
    pieces = _pieces(tables)
    channels = {row.key: int(row.value) for row in tables.rows.get("reco2channel", []) if row.value.isdecimal()}
    recordings = [row for row in tables.rows["wav.scp"] if row.value and not row.value.startswith("~")]

    def measure(row: Row) -> tuple[str | None, dict[Piece, int | str]]:
        return _measure(row.value, pieces[row.key], channels.get(row.key), decode)

    num_samples: dict[str, int] = {}
    with ThreadPoolExecutor(num_threads) as pool:  # decoding leaves Python's lock
        for row, (fault, counts) in zip(recordings, pool.map(measure, recordings), strict=True):
            if fault:
                tables.problems["wav.scp"].add(fault, row.line, row.key, row.value)
            for piece, count in counts.items():
                if isinstance(count, str):
                    place = tables.problems["segments" if "segments" in tables.rows else "wav.scp"]
                    place.add(count, piece.line, piece.utterance, row.value)
                else:
                    num_samples[piece.utterance] = count
    return num_samples


def _pieces(tables: Tables) -> Mapping[str, list[Piece]]:
    """Recording -> its utterances."""
    pieces = defaultdict(list)
    if "segments" not in tables.rows:
        for row in tables.rows["wav.scp"]:
            pieces[row.key].append(Piece(row.key, row.line, None, None))
    for row in tables.rows.get("segments", []):
        if segment := parse_segment(row.value):
            pieces[segment.recording].append(Piece(row.key, row.line, segment.start, segment.end))
    return pieces


def _measure(
    source: str, pieces: list[Piece], channel: int | None, decode: bool
) -> tuple[str | None, dict[Piece, int | str]]:
    """What is wrong with a whole recording (or None), and of each piece its samples or what is wrong with it."""
    counts: dict[Piece, int | str] = {}
    try:
        output = run_pipe(source) if is_pipe(source) else None
        count_samples(_opened(source, output))
    except UserError as error:
        return str(error), counts
    for piece in pieces:
        try:
            counts[piece] = _count(_opened(source, output), piece, channel, decode) or "no samples; expected some audio"
        except UserError as error:
            counts[piece] = str(error)
    return None, counts


def _opened(source: str, output: bytes | None) -> Source:
    return source if output is None else io.BytesIO(output)


def _count(source: Source, piece: Piece, channel: int | None, decode: bool) -> int:
    if not decode:
        return count_samples(source, piece.start, piece.end)
    audio, rate = load_unresampled(source, piece.start, piece.end, channel)
    return resampled_length(len(audio), rate)


def _warnings(tables: Tables, allow_empty_text: bool) -> list[str]:
    directory, rows = tables.directory, tables.rows["utt2spk"]
    warnings = []
    speakers = [row.value for row in sorted(rows, key=lambda row: row.key)]
    if len(rows) > 1 and len(set(speakers)) == 1:
        warnings.append(
            f"{directory}/utt2spk: only one speaker; where speakers are unknown, use the utterance as speaker"
        )
    if speakers != sorted(speakers):
        warnings.append(
            f"{directory}/utt2spk: not sorted by speaker when sorted by utterance; make the speaker a prefix of the "
            "utterance, joined by '-'"
        )
    empty = [row.key for row in tables.rows["text"] if not row.value]
    if empty and allow_empty_text:
        warnings.append(f"{directory}/text: {counted(len(empty), 'utterance')} without words: {first_keys(empty)}")
    return warnings
