"""Kaldi data directories: read, write, filter, split, subset, combine; `validate` and `fix` have files of their own.

A directory is changed as a whole: the new files are gathered in `.next` inside it, then moved. What a kill leaves
behind is finished, or dropped, when the directory is read next (`tables.settle`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from whisfusion_asr.data.audio import SAMPLE_RATE
from whisfusion_asr.data.tables import (
    counted,
    first_keys,
    parse_segment,
    read_segments,
    read_table,
    settle,
    write_table,
)
from whisfusion_asr.data.validate import MADE_HERE, check_keys, check_recordings, invert, kind, scan, validate
from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write

__all__ = ["read_segments", "read_table", "validate", "write_table"]  # one place to import a directory's tools from

DataTables = dict[str, dict[str, str]]  # file name -> key -> value
CHOICES = ("spread", "first", "last", "shortest", "per_spk")


def read_dir(directory: str | Path) -> DataTables:
    """Every table of a directory. Raises UserError: a missing file, a formal problem, differing keys, no utterance."""
    tables = scan(directory)
    check_keys(tables)
    for problems in tables.problems.values():
        if messages := problems.messages():
            raise UserError(messages[0])
    return {name: {row.key: row.value for row in rows} for name, rows in tables.rows.items()}


def write_dir(directory: str | Path, tables: DataTables, notes: Mapping[str, str] | None = None) -> None:
    """Write tables, sorted, with `spk2utt` made of `utt2spk`; all files change together.

    notes: further files, name -> content
    Tables of an earlier content of the directory that are not among the new ones are removed.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    settle(directory)
    tables = {**tables, "spk2utt": invert(tables["utt2spk"].items())}
    gathered = directory / ".next.tmp"
    for name, table in tables.items():
        write_table(gathered / name, table)
    for name, content in (notes or {}).items():
        with atomic_write(gathered / name) as file:
            file.write(content)
    for path in list(directory.iterdir()):
        if path.is_file() and kind(path.name, False) and path.name not in tables:
            path.unlink()
    gathered.rename(directory / ".next")  # decided: from here on the new content is what counts
    settle(directory)


def select(tables: DataTables, utterances: Iterable[str]) -> DataTables:
    """The tables restricted to some utterances, with only the recordings and speakers that these need."""
    kept = set(utterances)
    segments = tables.get("segments")
    wanted = {"utterance": kept, "recording": kept, "speaker": {tables["utt2spk"][key] for key in kept}}
    if segments is not None:
        wanted["recording"] = {segment.recording for key in kept if (segment := parse_segment(segments[key]))}
    return {
        name: {key: value for key, value in table.items() if key in wanted[kind(name, segments is not None)]}
        for name, table in tables.items()
    }


def lengths(directory: str | Path) -> dict[str, int]:
    """Samples at 16 kHz by utterance: as `validate` left them in utt2num_samples, else by the headers of the audio."""
    tables = scan(directory)
    known = {row.key: int(row.value) for row in tables.rows.get("utt2num_samples", []) if row.value.isdecimal()}
    if known.keys() >= tables.keys("utt2spk"):
        return known
    num_samples = check_recordings(tables, decode=False)
    if messages := tables.problems["wav.scp"].messages():
        raise UserError(messages[0])
    return num_samples


def longest_first(directory: str | Path) -> list[tuple[str, int]]:
    """Utterances and their samples at 16 kHz: neighbours are of like length, and too long ones come first.

    A directory without transcripts will do.
    """
    return sorted(lengths(directory).items(), key=lambda pair: (-pair[1], pair[0]))


def filter_dir(directory: str | Path, min_seconds: float, max_seconds: float, max_loss: float) -> str:
    """Drop utterances that are too short, too long or without words; for train and valid sets, never for test sets.

    max_loss: share of the utterances above which nothing is dropped and a UserError is raised
    The dropped ones are listed in `dropped.tsv` (utterance, tab, reason), also those of earlier calls. Returns a line
    with the counts.
    """
    directory = Path(directory)
    tables = read_dir(directory)
    num_samples = lengths(directory)
    reasons = {
        key: reason
        for key in tables["utt2spk"]
        if (reason := _reason(tables["text"][key], num_samples[key] / SAMPLE_RATE, min_seconds, max_seconds))
    }
    kept = [key for key in tables["utt2spk"] if key not in reasons]
    counts = ", ".join(f"{count} {reason}" for reason, count in Counter(_sort(reasons.values())).items())
    if len(reasons) > max_loss * len(tables["utt2spk"]) or not kept:
        raise UserError(
            f"{directory}: {len(reasons)} of {len(tables['utt2spk'])} utterances would be dropped ({counts}; "
            f"{first_keys(reasons)}), more than the share {max_loss:g} allowed; look at the data or raise --max_loss"
        )
    tables["utt2num_samples"] = {key: str(num_samples[key]) for key in tables["utt2spk"]}
    dropped = {**_earlier_dropped(directory), **reasons}
    note = "".join(f"{key}\t{dropped[key]}\n" for key in sorted(dropped) if key not in set(kept))
    write_dir(directory, select(tables, kept), {"dropped.tsv": note})
    hours = sum(num_samples[key] for key in kept) / SAMPLE_RATE / 3600
    return f"{directory}: kept {len(kept)} of {len(kept) + len(reasons)} utterances, {hours:.2f} h" + (
        f"; dropped {counts} (see dropped.tsv)" if reasons else ""
    )


def _reason(text: str, seconds: float, min_seconds: float, max_seconds: float) -> str | None:
    if seconds < min_seconds:
        return f"too short: {seconds:.3f} s, expected {min_seconds:g} s or more"
    if seconds > max_seconds:
        return f"too long: {seconds:.3f} s, expected {max_seconds:g} s or less"
    return None if text else "empty text"


def _sort(reasons: Iterable[str]) -> list[str]:
    """The sort of each reason: its part before the numbers."""
    return [reason.partition(":")[0] for reason in reasons]


def _earlier_dropped(directory: Path) -> dict[str, str]:
    path = directory / "dropped.tsv"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return dict(line.split("\t", 1) for line in lines)


def split_keys(keys: Sequence[str], parts: int) -> list[list[str]]:
    """Consecutive chunks as Kaldi's split_scp.pl makes them: sizes differ by at most one, the first are the larger.

    Raises UserError: more parts than keys, or none.
    """
    if not 1 <= parts <= len(keys):
        raise UserError(
            f"{counted(len(keys), 'utterance')} cannot be split into {counted(parts, 'part')}; use 1 to {len(keys)}"
        )
    size, larger = divmod(len(keys), parts)
    starts = [part * size + min(part, larger) for part in range(parts + 1)]
    return [list(keys[start:end]) for start, end in zip(starts, starts[1:], strict=False)]


def split(directory: str | Path, parts: int, out: str | Path | None = None) -> list[Path]:
    """Write `parts` directories of consecutive utterances: `DIR/split<parts>/1` and so on (or `out/1` ...)."""
    tables = read_dir(directory)
    out = Path(out) if out else Path(directory) / f"split{parts}"
    chunks = split_keys(sorted(tables["utt2spk"]), parts)
    for number, chunk in enumerate(chunks, start=1):
        write_dir(out / str(number), select(tables, chunk))
    return [out / str(number) for number in range(1, parts + 1)]


def subset(directory: str | Path, out: str | Path, utterances: Iterable[str]) -> int:
    """Write a directory with some of the utterances; returns how many. Raises UserError: one is not there."""
    tables = read_dir(directory)
    wanted = set(utterances)
    if unknown := wanted - tables["utt2spk"].keys():
        raise UserError(
            f"{directory}/utt2spk: {counted(len(unknown), 'asked utterance')} not here: {first_keys(unknown)}"
        )
    if not wanted:
        raise UserError(f"{directory}: no utterance asked for")
    write_dir(out, select(tables, wanted))
    return len(wanted)


def choose(directory: str | Path, number: int, by: str = "spread") -> list[str]:
    """`number` utterances of a directory as Kaldi's subset_data_dir.sh chooses them.

    by: spread (evenly over the sorted list), first, last, shortest, per_spk (`number` of each speaker, spread)
    """
    tables = read_dir(directory)
    keys = sorted(tables["utt2spk"])
    if by == "per_spk":
        by_speaker = defaultdict(list)
        for key in keys:
            by_speaker[tables["utt2spk"][key]].append(key)
        return list(chain.from_iterable(_spread(group, min(number, len(group))) for group in by_speaker.values()))
    if not 1 <= number <= len(keys):
        raise UserError(f"{directory}: {number} utterances asked; it has {len(keys)}")
    if by == "shortest":
        num_samples = lengths(directory)
        return sorted(keys, key=lambda key: (num_samples[key], key))[:number]
    return {"first": keys[:number], "last": keys[-number:], "spread": _spread(keys, number)}[by]


def _spread(keys: Sequence[str], number: int) -> list[str]:
    return [keys[index * len(keys) // number] for index in range(number)]


def combine(out: str | Path, directories: Sequence[str | Path]) -> list[str]:
    """Write the union of directories. Returns a line for each table that is left out, because not all have it.

    Raises UserError: an utterance, recording or speaker that two directories describe differently.
    """
    sources = [read_dir(directory) for directory in directories]
    if any("segments" in tables for tables in sources):
        for tables in sources:
            tables.setdefault("segments", {key: f"{key} 0 -1" for key in tables["wav.scp"]})
    names = {name for tables in sources for name in tables} - {"spk2utt"}
    partial = {name for name in names if not _may_be_partial(name) and not all(name in tables for tables in sources)}
    united: DataTables = {name: {} for name in sorted(names - partial)}
    for directory, tables in zip(directories, sources, strict=True):
        for name in united.keys() & tables.keys():
            for key, value in tables[name].items():
                if united[name].setdefault(key, value) != value:
                    raise UserError(
                        f"{directory}/{name}: {key}: '{value}', but another of the directories says "
                        f"'{united[name][key]}'; make the keys different"
                    )
    write_dir(out, united)
    left_out = sorted(partial - set(MADE_HERE))
    return [f"{out}: {name} is left out, because not every directory has it" for name in left_out]


def _may_be_partial(name: str) -> bool:
    return name.startswith(("spk2", "reco2"))
