"""Make a Kaldi directory of a folder of audio with a transcript file, or of a table of paths and texts."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from whisfusion_asr.data.kaldi_dir import DataTables, write_dir
from whisfusion_asr.data.tables import counted, first_keys, read_lines
from whisfusion_asr.errors import UserError

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".sph", ".w64")


@dataclass(frozen=True)
class Utterance:
    """A line of the user's table. `place`: file:line, for messages; start and end as written, "" for the whole file.

    text: None for an utterance without a transcript
    """

    place: str
    path: Path
    recording: str
    text: str | None
    name: str
    speaker: str | None = None
    start: str = ""
    end: str = ""


def from_folder(
    wavs: str | Path,
    transcripts: str | Path,
    out: str | Path,
    speaker_from: str = "utterance",
    channel: int | None = None,
) -> list[str]:
    """Write the data directory `out` of a folder of audio files and a file of lines `name text`.

    transcripts: the name is a file's path below `wavs`, its file name or its stem; it ends at the tab of the line, or
        where there is none, at the first blank
    speaker_from: "utterance" (unknown: each its own), "folder" (the name of the file's folder), or a regular expression
        whose first group is the speaker in the path below `wavs`
    channel: of recordings that have several; None = mean
    Returns warnings (audio without a transcript). Raises UserError with every line that cannot be used.
    """
    wavs, transcripts = Path(wavs), Path(transcripts)
    files = find_audio(wavs)
    utterances = of_lines(wavs, files, transcripts, speaker_from)
    write_utterances(out, utterances, channel)
    unused = sorted(map(str, set(files) - {utterance.path for utterance in utterances}))
    return [f"{wavs}: no transcript for {counted(len(unused), 'audio file')}: {first_keys(unused)}"] if unused else []


def find_audio(folder: Path) -> list[Path]:
    """The audio files of a folder and its subfolders, by their suffixes. Raises UserError: there is none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected one with audio files")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise UserError(f"{folder}: no audio file in this folder (suffixes looked for: {' '.join(SUFFIXES)})")
    return files


def of_lines(wavs: Path, files: Iterable[Path], transcripts: Path, speaker_from: str) -> list[Utterance]:
    """The utterances of a transcript file, each with the one of the audio files that it names.

    Raises UserError with every line that names none or several, or has no speaker.
    """
    named = _names(wavs, files)
    utterances, faults = [], []
    for number, line in enumerate(read_lines(transcripts), start=1):
        if not line.strip():
            continue
        place = f"{transcripts}:{number}"
        name, _, text = line.strip().partition("\t" if "\t" in line.strip() else " ")
        matches = named.get(name.strip(), [])
        if len(matches) != 1:
            what = f"several audio files: {first_keys(map(str, matches))}" if matches else f"no audio file in {wavs}"
            faults.append(f"{place}: '{name.strip()}': {what}; expected one (path, file name or stem)")
            continue
        try:
            utterances.append(of_file(place, wavs, matches[0], text, speaker_from))
        except UserError as error:
            faults.append(str(error))
    _raise_all(faults)
    return utterances


def of_file(place: str, wavs: Path, path: Path, text: str | None, speaker_from: str) -> Utterance:
    """A whole audio file as an utterance. Raises UserError: the rule finds no speaker in its path below `wavs`."""
    below = path.relative_to(wavs)
    speaker = _speaker(below, speaker_from)
    if speaker is None:
        raise UserError(f"{place}: --speaker_from '{speaker_from}' finds no speaker in '{below}'")
    return Utterance(place, path, _name(below), text, _name(below), speaker or None)


def _names(wavs: Path, files: Iterable[Path]) -> Mapping[str, list[Path]]:
    """What a transcript line may call a file -> the files so called."""
    named: dict[str, set[Path]] = defaultdict(set)
    for path in files:
        below = path.relative_to(wavs)
        for name in (str(below), str(below.with_suffix("")), path.name, path.stem):
            named[name].add(path)
    return {name: sorted(paths) for name, paths in named.items()}


def _speaker(below: Path, speaker_from: str) -> str | None:
    """The speaker of a path; "" for unknown, None when the rule finds none."""
    if speaker_from == "utterance":
        return ""
    if speaker_from == "folder":
        return below.parent.name or None
    try:
        match = re.search(speaker_from, str(below))
    except re.error as error:
        raise UserError(f"--speaker_from: '{speaker_from}' is no regular expression: {error}") from None
    return match[1] if match and match.re.groups else None


def _name(path: Path) -> str:
    """A file's path without its suffix as one word."""
    return "-".join(part for part in path.with_suffix("").parts if part != path.anchor)


def from_tsv(
    tsv: str | Path, out: str | Path, audio_root: str | Path | None = None, channel: int | None = None
) -> None:
    """Write the data directory `out` of a tab-separated table with a header.

    Columns: path and text; optional speaker, utt_id, and start with end (seconds; both empty = the whole file). Others
    are not read. Relative paths start at audio_root, or else at the folder of the table.
    Raises UserError with every line that cannot be used.
    """
    tsv = Path(tsv)
    root = Path(audio_root) if audio_root else tsv.parent
    lines = [line.rstrip("\r") for line in read_lines(tsv)]
    header = lines[0].split("\t") if lines else []
    if absent := {"path", "text"} - set(header):
        raise UserError(f"{tsv}:1: no column {' or '.join(sorted(absent))}; the header has: {', '.join(header)}")
    if ("start" in header) != ("end" in header):
        raise UserError(f"{tsv}:1: only one of the columns start and end; expected both or none")
    utterances, faults = [], []
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split("\t")
        if not line:
            continue
        if len(fields) != len(header):
            faults.append(f"{tsv}:{number}: {len(fields)} fields; the header has {len(header)}")
            continue
        row = dict(zip(header, map(str.strip, fields), strict=True))
        fault, utterance = _of_row(f"{tsv}:{number}", row, root)
        faults += [fault] if fault else []
        utterances.append(utterance)
    _raise_all(faults)
    write_utterances(out, utterances, channel)


def _of_row(place: str, row: Mapping[str, str], root: Path) -> tuple[str | None, Utterance]:
    """What is wrong with a row (or None), and its utterance."""
    path = root / row["path"]
    start, end = row.get("start", ""), row.get("end", "")
    fault = None
    if not row["path"] or not path.is_file():
        fault = f"{place}: '{path}': no such audio file (relative paths start at {root})"
    elif start or end:
        try:
            if not 0 <= float(start) < float(end):
                fault = f"{place}: start {start} and end {end}; expected 0 <= start < end in seconds"
        except ValueError:
            fault = f"{place}: start '{start}' and end '{end}'; expected two numbers of seconds, or both empty"
    recording = _name(Path(row["path"]))
    name = row.get("utt_id") or recording + (f"-{start}-{end}" if start else "")
    return fault, Utterance(place, path, recording, row["text"], name, row.get("speaker") or None, start, end)


def write_utterances(out: str | Path, utterances: list[Utterance], channel: int | None = None) -> None:
    """Write a data directory; `text` has a line for those that have a transcript.

    Keys are `speaker-name`: '-' sorts before letters and digits, so the order of speakers is that of utterances.
    Raises UserError: keys that are not distinct, no utterance.
    """
    tables: DataTables = {"wav.scp": {}, "text": {}, "utt2spk": {}}
    segmented = any(utterance.start for utterance in utterances)
    if segmented:
        tables["segments"] = {}
    places: dict[str, str] = {}
    faults = []
    for utterance in utterances:
        key, speaker = _key(utterance)
        recording = _safe(utterance.recording) if segmented else key
        if key in places:
            faults.append(f"{utterance.place}: utterance '{key}' is already at {places[key]}; expected every one once")
        elif (other := tables["wav.scp"].setdefault(recording, str(utterance.path))) != str(utterance.path):
            faults.append(f"{utterance.place}: '{utterance.path}' and '{other}' would both be recording '{recording}'")
        places.setdefault(key, utterance.place)
        if segmented:
            tables["segments"][key] = f"{recording} {utterance.start or 0} {utterance.end or -1}"
        if utterance.text is not None:
            tables["text"][key] = " ".join(utterance.text.split())
        tables["utt2spk"][key] = speaker
    _raise_all(faults)
    if not utterances:
        raise UserError(f"{out}: no utterance to write: the transcripts are empty")
    if not tables["text"]:
        del tables["text"]
    if channel is not None:
        tables["reco2channel"] = dict.fromkeys(tables["wav.scp"], str(channel))
    write_dir(out, tables)


def _key(utterance: Utterance) -> tuple[str, str]:
    """The utterance's key and its speaker."""
    name = _safe(utterance.name)
    if utterance.speaker is None:
        return name, name
    speaker = re.sub(r"[\x00-\x2d]", "_", _safe(utterance.speaker))  # nothing that sorts before the joining '-', nor it
    return (name if name.startswith(f"{speaker}-") else f"{speaker}-{name}"), speaker


def _safe(name: str) -> str:
    """A key: no white space, no slash."""
    return re.sub(r"[\s/]+", "_", name)


def _raise_all(faults: list[str]) -> None:
    if faults:
        raise UserError("\n".join(faults))
