"""A folder of recordings of any length, with or without transcripts, as data directories for several sets."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from whisfusion_asr.data.audio import SAMPLE_RATE, count_samples, load_audio
from whisfusion_asr.data.imports import Utterance, find_audio, of_file, of_lines, write_utterances
from whisfusion_asr.data.tables import counted, first_keys
from whisfusion_asr.errors import UserError

LONGEST = 30.0  # seconds that Whisper hears at once
PAUSE = 0.3  # seconds over which loudness is averaged: a cut falls into the middle of the quietest such stretch


def write_sets(
    wavs: str | Path, transcripts: str | Path | None, out: str | Path, shares: Mapping[str, float],
    speaker_from: str = "utterance",
) -> list[str]:
    """Write a data directory OUT/<set> for each set, whole files in one set each, always in the same.

    transcripts: file of lines `name text` as `from_folder` takes it, for all files or some; None: none
    shares: set -> share of the files; what they leave is the first set's. The others take files with a transcript as
        long as there are some.
    Files of more than 30 s are cut at quiet places. Returns warnings: files that cannot be read or used. Raises
    UserError: no audio, too few files for the sets, a transcript line that names no file.
    """
    wavs = Path(wavs)
    files = find_audio(wavs)
    known = {} if transcripts is None else {each.path: each for each in of_lines(wavs, files, Path(transcripts),
                                                                                 speaker_from)}
    utterances, warnings = {}, []
    for path in files:
        try:
            utterances[path] = _pieces(wavs, path, known.get(path), speaker_from)
        except UserError as error:
            warnings.append(f"{path}: left out: {error}")
    chosen = choose_sets([str(path.relative_to(wavs)) for path in utterances], shares,
                         [str(path.relative_to(wavs)) for path in utterances if path in known])
    for name, members in chosen.items():
        write_utterances(Path(out) / name, [each for member in members for each in utterances[wavs / member]])
    if known and (silent := [str(path) for path in utterances if path not in known]):
        warnings.append(f"{transcripts}: no line for {counted(len(silent), 'audio file')}: {first_keys(silent)}")
    return warnings


def choose_sets(names: Sequence[str], shares: Mapping[str, float], preferred: Sequence[str]) -> dict[str, list[str]]:
    """Names by set. Their order is that of a hash, so that it says nothing and a new name moves few of the others.

    shares: set -> share, at least one name each; the first set has the rest. preferred: go to the other sets first.
    Raises UserError: fewer names than sets.
    """
    rest, *others = shares
    if len(names) < len(shares):
        raise UserError(f"{counted(len(names), 'audio file')} for the {len(shares)} sets {', '.join(shares)}; "
                        "each set needs one of its own")  # fmt: skip
    first = set(preferred)
    order = sorted(names, key=lambda name: (name not in first, hashlib.sha256(name.encode()).digest()))
    chosen: dict[str, list[str]] = {}
    for name in others:
        size = min(max(1, round(shares[name] * len(names))), len(order) - (len(shares) - 1 - len(chosen)))
        chosen[name], order = sorted(order[:size]), order[size:]
    return {rest: sorted(order), **chosen}


def _pieces(wavs: Path, path: Path, known: Utterance | None, speaker_from: str) -> list[Utterance]:
    """The utterances of a file: itself, or its pieces. Raises UserError: unreadable, or long with a transcript."""
    seconds = count_samples(path) / SAMPLE_RATE
    whole = known or of_file(str(path), wavs, path, None, speaker_from)
    if seconds <= LONGEST:
        return [whole]
    if known:
        raise UserError(f"{seconds:.1f} s with one transcript; Whisper takes at most {LONGEST:g} s: cut file and text, "
                        "or leave its line out")  # fmt: skip
    cuts = [0.0, *quiet_cuts(load_audio(path)), seconds]
    return [replace(whole, name=f"{whole.name}-{round(start * 100):07d}", start=f"{start:.2f}", end=f"{end:.2f}")
            for start, end in zip(cuts, cuts[1:], strict=False)]


def quiet_cuts(audio: np.ndarray, longest: float = LONGEST) -> list[float]:
    """Seconds at which to cut a waveform (S,) of 16 kHz into pieces of at most `longest` seconds.

    Each cut is the middle of the quietest 0.3 s in the second half of what one piece may hold.
    """
    step = SAMPLE_RATE // 100  # cuts on whole hundredths of a second, as they are written
    frames = len(audio) // step
    power = np.square(audio[: frames * step].reshape(frames, step), dtype=np.float64).mean(1)
    width, most = round(PAUSE * 100), int(longest * 100)
    loudness = np.convolve(power, np.ones(width), "same")  # (frames,), centred
    cuts, start = [], 0
    while len(audio) > (start + most) * step:
        low, high = start + most // 2, start + most - width // 2
        start = low + int(loudness[low:high].argmin())
        cuts.append(start / 100)
    return cuts
