"""A folder in LibriSpeech's layout, read part by part and written as data directories.

PART/READER/CHAPTER/READER-CHAPTER-NUMBER.flac (.wav, .ogg)
PART/READER/CHAPTER/READER-CHAPTER.trans.txt       lines `READER-CHAPTER-NUMBER TEXT`
SPEAKERS.TXT                                       lines `READER | SEX | SUBSET | MINUTES | NAME`, optional
"""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write

AUDIO = (".flac", ".wav", ".ogg")  # of two files with one name, the first in this order
SHOWN = 5  # problems in one message


@dataclass(frozen=True)
class Utterance:
    """One recording with its transcript; the speaker is `READER-CHAPTER`, as in Kaldi's and ESPnet's recipes."""

    key: str
    speaker: str
    audio: Path
    text: str

    @property
    def reader(self) -> str:
        """The speaker's number in SPEAKERS.TXT."""
        return self.speaker.partition("-")[0]


def find_root(folder: Path, parts: Iterable[str]) -> Path:
    """The folder that holds the parts: the given one, or its sub-folder `LibriSpeech`.

    raises UserError: a part is in neither
    """
    root = folder / "LibriSpeech" if (folder / "LibriSpeech").is_dir() else folder
    missing = [part for part in parts if not (root / part).is_dir()]
    if missing:
        held = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        raise UserError(
            f"{root}: no part {', '.join(missing)}; the folder holds {', '.join(held) or 'no parts at all'}: "
            "name its parts with --parts, or another folder with --librispeech_dir"
        )
    return root.resolve()


def read_part(folder: Path) -> list[Utterance]:
    """All utterances of a part, in the order of their names.

    raises UserError: audio without transcript, transcripts without audio, a malformed line, an empty part
    """
    utterances: list[Utterance] = []
    problems: list[str] = []
    for chapter in sorted(path for path in folder.glob("[!.]*/[!.]*") if path.is_dir()):
        _read_chapter(chapter, utterances, problems)
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError(f"{'; '.join(problems[:SHOWN])}{more}: extract or copy {folder} again")
    if not utterances:
        raise UserError(
            f"{folder}: no utterances; expected READER/CHAPTER/READER-CHAPTER.trans.txt and audio beside it"
        )
    return utterances


def _read_chapter(chapter: Path, utterances: list[Utterance], problems: list[str]) -> None:
    speaker = f"{chapter.parent.name}-{chapter.name}"
    transcript = chapter / f"{speaker}.trans.txt"
    audio = {path.stem: path for suffix in reversed(AUDIO) for path in chapter.glob(f"*{suffix}")}
    if not transcript.is_file():
        first = min(audio, default="none")
        problems.append(f"{transcript}: no such file, yet there are {len(audio)} audio files (first: {first})")
        return
    texts = read_transcript(transcript, speaker)
    for key, (line, text) in sorted(texts.items()):
        if key in audio:
            utterances.append(Utterance(key, speaker, audio[key], text))
        else:
            problems.append(f"{transcript}:{line}: {key} has no audio ({chapter / key}{{{','.join(AUDIO)}}})")
    for key in sorted(audio.keys() - texts.keys()):
        problems.append(f"{audio[key]}: no transcript of {key} in {transcript}")


def read_transcript(path: Path, speaker: str) -> dict[str, tuple[int, str]]:
    """Lines of a `.trans.txt`: utterance -> (line number, text).

    raises UserError: a line without text, of another chapter, for the second time, or not in UTF-8
    """
    texts: dict[str, tuple[int, str]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}: extract the part again") from None
    for number, line in enumerate(lines, 1):
        key, _, text = line.strip().partition(" ")
        if not key.startswith(f"{speaker}-") or not text.strip():
            raise UserError(f"{path}:{number}: {line!r}, expected `{speaker}-NUMBER TEXT`")
        if key in texts:
            raise UserError(f"{path}:{number}: {key} again, first in line {texts[key][0]}: remove one of the two")
        texts[key] = (number, " ".join(text.split()))
    return texts


def read_genders(root: Path) -> dict[str, str]:
    """Reader -> `f` or `m`, from SPEAKERS.TXT; empty where there is no such file.

    raises UserError: a malformed line
    """
    path = root / "SPEAKERS.TXT"
    if not path.is_file():
        return {}
    genders = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip() or line.startswith(";"):
            continue
        fields = [field.strip() for field in line.split("|", maxsplit=4)]  # a name may hold bars: `|CBW|Simon`
        if len(fields) < 2 or fields[1] not in ("F", "M"):
            raise UserError(f"{path}:{number}: {line!r}, expected `READER | F or M | SUBSET | MINUTES | NAME`")
        genders[fields[0]] = fields[1].lower()
    return genders


def write_set(folder: Path, utterances: Sequence[Utterance], genders: dict[str, str]) -> None:
    """Write wav.scp, text, utt2spk, spk2utt and, where every reader's is known, spk2gender; an older set is replaced.

    folder: appears only when it is whole
    raises UserError: an utterance twice
    """
    utterances = sorted(utterances, key=lambda utterance: utterance.key)
    for one, other in zip(utterances, utterances[1:], strict=False):
        if one.key == other.key:
            raise UserError(f"{folder}: {one.key} is in two parts: {one.audio} and {other.audio}")
    speakers: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        speakers.setdefault(utterance.speaker, []).append(utterance)
    tables = {
        "wav.scp": [f"{u.key} {u.audio}" for u in utterances],
        "text": [f"{u.key} {u.text}" for u in utterances],
        "utt2spk": [f"{u.key} {u.speaker}" for u in utterances],
        "spk2utt": [f"{speaker} {' '.join(u.key for u in its)}" for speaker, its in sorted(speakers.items())],
    }
    if all(u.reader in genders for u in utterances):
        tables["spk2gender"] = [f"{speaker} {genders[its[0].reader]}" for speaker, its in sorted(speakers.items())]
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    for name, lines in tables.items():
        with atomic_write(temporary / name) as file:
            file.writelines(f"{line}\n" for line in lines)
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)
