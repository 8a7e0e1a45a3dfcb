"""Mend a Kaldi data directory: what can be mended is, what cannot is dropped, and every loss is told."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from whisfusion_asr.data.kaldi_dir import DataTables, select, write_dir
from whisfusion_asr.data.tables import Problems, Row, counted, first_keys, format_table, parse_segment
from whisfusion_asr.data.validate import (
    MADE_HERE,
    REQUIRED,
    Tables,
    check_order,
    check_recordings,
    check_values,
    invert,
    kind,
    scan,
)
from whisfusion_asr.errors import UserError


def fix(
    directory: str | Path, check_audio: bool = True, allow_empty_text: bool = False, num_threads: int = 4
) -> list[str]:
    """Make a directory pass `validate`; returns lines that say what was found and which file lost which keys.

    Files are sorted, cleaned of formal faults and cut to the utterances that all of them have; a value or an audio that
    `validate` refuses costs its utterance. The former files go to `DIR/.backup`.
    Raises UserError: a required file is missing, or no utterance remains (with the reasons); nothing is changed then.
    """
    directory = Path(directory)
    found = scan(directory)
    if absent := [name for name in REQUIRED if not (directory / name).is_file()]:
        raise UserError(f"{directory}: {', '.join(absent)} missing; nothing to mend it from")
    check_order(found)
    report = [f"found: {message}" for problems in found.problems.values() for message in problems.messages()]
    clean, told = _clean(found)
    check_values(clean, allow_empty_text)
    num_samples = check_recordings(clean, check_audio, num_threads)
    told += [f"dropped: {message}" for problems in clean.problems.values() for message in problems.messages()]
    tables = {
        name: {row.key: row.value for row in rows if row.key not in clean.problems[name].keys()}
        for name, rows in clean.rows.items()
    }
    everyone = {key for name in _judges(tables) for key in clean.keys(name)}
    kept, losses = _common(directory, tables, everyone)
    report += told + losses
    if not kept:
        raise UserError(f"{directory}: no utterance remains of {len(everyone)}: {'; '.join(report)}")
    mended = select(tables, kept)
    mended["utt2num_samples"] = {key: str(num_samples[key]) for key in kept}
    _back_up(directory, mended)
    write_dir(directory, mended)
    all_of_them = f"all {len(kept)}" if len(kept) == len(everyone) else f"{len(kept)} of {len(everyone)}"
    return [*report, f"{directory}: kept {all_of_them} utterances"]


def _clean(found: Tables) -> tuple[Tables, list[str]]:
    """Rows without repeated keys and with mended white space, sorted; what was decided between different values."""
    rows: dict[str, list[Row]] = {}
    told = []
    for name in sorted(found.rows.keys() - {"spk2utt", *MADE_HERE}):
        unique: dict[str, Row] = {}
        for row in found.rows[name]:
            first = unique.setdefault(row.key, row)
            if first.value != row.value:
                told.append(f"dropped: {found.directory}/{name}:{row.line}: {row.key}: differs from line {first.line}")
        ordered = sorted(unique.values(), key=lambda row: row.key)
        rows[name] = [row._replace(value=_plain(row.value)) for row in ordered] if name == "text" else ordered
    return Tables(found.directory, rows, {name: Problems(found.directory / name) for name in rows}), told


def _plain(text: str) -> str:
    """Words separated by single blanks; control characters and any other white space count as blanks."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text).split())


def _judges(tables: Mapping[str, object]) -> list[str]:
    """The tables that every utterance must be in."""
    segmented = "segments" in tables
    return [name for name in tables if kind(name, segmented) == "utterance" and not name.startswith("reco2")]


def _common(directory: Path, tables: DataTables, everyone: set[str]) -> tuple[set[str], list[str]]:
    """The utterances that all files have, and a line for each file that lacks some."""
    segmented = "segments" in tables
    kept = set(everyone)
    losses = []
    for name in _judges(tables):
        missing = everyone - tables[name].keys()
        if name == "segments":
            missing |= {key for key, value in tables[name].items() if _recording(value) not in tables["wav.scp"]}
        kept -= missing
        if missing:
            losses.append(
                f"{directory}/{name}: no good entry for {counted(len(missing), 'utterance')}: {first_keys(missing)}"
            )
    used = {_recording(tables["segments"][key]) for key in kept} if segmented else kept
    if unused := tables["wav.scp"].keys() - used if segmented else set():
        losses.append(
            f"{directory}/wav.scp: {counted(len(unused), 'recording')} without a segment: {first_keys(unused)}"
        )
    return kept, losses


def _recording(value: str) -> str | None:
    segment = parse_segment(value)
    return segment.recording if segment else None


def _back_up(directory: Path, mended: DataTables) -> None:
    """Copy the files that will change to `.backup`; a second `fix` that changes nothing leaves it alone."""
    new = {**mended, "spk2utt": invert(mended["utt2spk"].items())}
    for name, table in new.items():
        path = directory / name
        if path.is_file() and path.read_bytes() != format_table(table).encode():
            (directory / ".backup").mkdir(exist_ok=True)
            shutil.copy2(path, directory / ".backup" / name)
