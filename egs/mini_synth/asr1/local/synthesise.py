"""Write the mini_synth corpus: sentences of grammar.py, spoken by the voices of voices.py, as Kaldi directories.

Each utterance's voice conditions and noise are drawn from (seed, utterance id), so they depend neither on the number of
processes nor on what was interrupted. (eSpeak's own samples differ a little from call to call: see espeak.py.)
Finished files are never touched again: an interrupted run goes on where it stopped, a finished one has nothing to do.
Other options than those the folder was made with start the corpus anew.
"""

import argparse
import io
import json
import multiprocessing
import random
import shutil
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import espeak
import grammar
import numpy as np
import soundfile
import soxr
import voices

from whisfusion_asr.bin.arguments import command_parser
from whisfusion_asr.errors import UserError, exits_cleanly
from whisfusion_asr.files import atomic_write

CORPUS_VERSION = 1  # raise it when the same options give another corpus
SAMPLE_RATE = 16000
ACCENTS = ("en-us", "en", "en-gb-x-rp")
CHUNK = 25  # utterances per piece of work, 0.1 to 0.5 s
PATIENCE = 120  # seconds without any finished piece until the processes count as hung
ATTEMPTS = 3
SPOKEN = ("test", "dev", "train")
WRITTEN = ("text_train", "text_valid")
TABLES = ("text", "utt2spk", "spk2utt", "wav.scp")  # wav.scp last: a directory that has it is complete


@dataclass(frozen=True)
class Utterance:
    """One utterance to be spoken into a file."""

    name: str
    speaker: str
    text: str
    path: Path
    seed: int


class Conditions(NamedTuple):
    """How an utterance is spoken and recorded."""

    accent: str
    rate: int  # words per minute
    pitch: int  # 0 to 100, 50 is the voice's own
    pitch_range: int
    lead: float  # seconds of silence before and after
    tail: float
    pink: bool  # noise colour, otherwise white
    snr: float  # dB, speech power (silence excluded) over noise power
    gain: float  # dB
    noise_seed: int


def draw_conditions(name: str, seed: int) -> Conditions:
    """The conditions of utterance `name`, a function of (seed, name) alone."""
    rng = random.Random(f"{seed} {name}")
    return Conditions(
        accent=rng.choice(ACCENTS),
        rate=rng.randint(140, 200),
        pitch=rng.randint(30, 70),
        pitch_range=rng.randint(30, 70),
        lead=rng.uniform(0.05, 0.2),
        tail=rng.uniform(0.05, 0.2),
        pink=rng.random() < 0.5,
        snr=rng.uniform(15, 35),
        gain=rng.uniform(-12, 6),
        noise_seed=rng.getrandbits(64),
    )


def noise(samples: int, pink: bool, seed: int) -> np.ndarray:
    """Noise (samples,) float32 of power 1: white, or pink (power falling with 1 / frequency)."""
    generator = np.random.default_rng(seed)
    if not pink:
        return generator.standard_normal(samples, dtype=np.float32)
    length = 1 << (samples - 1).bit_length()  # an FFT of an awkward length would cost most of the time
    spectrum = np.fft.rfft(generator.standard_normal(length, dtype=np.float32))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0
    wave = np.fft.irfft(spectrum, length)[:samples].astype(np.float32)
    return wave / np.sqrt(np.mean(wave**2))


def record(speech: np.ndarray, conditions: Conditions) -> np.ndarray:
    """Put speech (S,) int16 at eSpeak's rate into a noisy room: (S',) float32 at 16 kHz, within -1 to 1."""
    clean = soxr.resample(speech.astype(np.float32) / 32768, espeak.SAMPLE_RATE, SAMPLE_RATE)
    power = float(np.mean(clean**2))
    padding = [round(seconds * SAMPLE_RATE) for seconds in (conditions.lead, conditions.tail)]
    wave = np.pad(clean, padding)
    level = np.sqrt(power / 10 ** (conditions.snr / 10))
    wave = wave + level * noise(len(wave), conditions.pink, conditions.noise_seed)
    gain = 10 ** (conditions.gain / 20)
    peak = float(np.max(np.abs(wave)))
    return (wave * min(gain, 0.99 / peak)).astype(np.float32)  # as loud as drawn, or as loud as fits


def speak(utterance: Utterance) -> np.ndarray:
    """The recording (S,) float32 of an utterance."""
    how = draw_conditions(utterance.name, utterance.seed)
    speech = espeak.speaker().speak(utterance.text, how.accent, utterance.speaker, how.rate, how.pitch, how.pitch_range)
    if not speech.any():
        raise UserError(f"eSpeak NG was silent for {utterance.name}, '{utterance.text}': reinstall espeakng-loader")
    return record(speech, how)


def write_audio(utterance: Utterance) -> None:
    """Speak an utterance into its file, which appears only when it is whole.

    16-bit WAV, not FLAC: a file is read several times, which takes a third of the time for 1.4 times the disk.
    Not flushed to the disk before it is renamed: for thousands of small files that would cost more than the synthesis.
    """
    data = io.BytesIO()
    soundfile.write(data, speak(utterance), SAMPLE_RATE, subtype="PCM_16", format="WAV")
    temporary = utterance.path.with_name(f".{utterance.path.name}.tmp")
    try:
        temporary.write_bytes(data.getvalue())
        temporary.replace(utterance.path)
    finally:
        temporary.unlink(missing_ok=True)


def write_chunk(utterances: list[Utterance]) -> int:
    """Speak several utterances (the work of a process of the pool); returns their number."""
    for utterance in utterances:
        write_audio(utterance)
    return len(utterances)


def ignore_interrupt() -> None:
    """Leave Ctrl-C to the parent, which ends the pool: one message instead of one trace per process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def write_all(utterances: list[Utterance], nj: int, label: str) -> None:
    """Speak what has no file yet, in `nj` processes; a pool that hangs is replaced."""
    for _ in range(ATTEMPTS):
        missing = [utterance for utterance in utterances if not utterance.path.exists()]
        if not missing:
            print(f"{label}: all {len(utterances)} utterances are there already", flush=True)
            return
        chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
        progress = Progress(label, len(utterances), len(utterances) - len(missing))
        # spawn: a forked process would inherit a started eSpeak with its threads
        with multiprocessing.get_context("spawn").Pool(min(nj, len(chunks)), ignore_interrupt) as pool:
            results = pool.imap_unordered(write_chunk, chunks)
            try:
                for _ in chunks:
                    progress.add(results.next(PATIENCE))
                progress.finish()
                return
            except multiprocessing.TimeoutError:
                print(f"{label}: no utterance in {PATIENCE} s, starting the processes again", flush=True)
    raise UserError(f"{label}: eSpeak NG hung {ATTEMPTS} times; run the same command again, finished files are kept")


class Progress:
    """Lines such as `train: 2400 of 8000 utterances, 38 s, about 88 s left`, at most one in ten seconds."""

    def __init__(self, label: str, total: int, done: int) -> None:
        self.label, self.total, self.done = label, total, done
        self.kept = done
        self.start = self.last = time.monotonic()

    def add(self, count: int) -> None:
        """Count finished utterances, and say so when it is time."""
        self.done += count
        now = time.monotonic()
        if now - self.last >= 10:
            self.last = now
            left = (now - self.start) * (self.total - self.done) / (self.done - self.kept)
            print(
                f"{self.label}: {self.done} of {self.total} utterances, {now - self.start:.0f} s, "
                f"about {left:.0f} s left",
                flush=True,
            )

    def finish(self) -> None:
        """Say what was made."""
        kept = f" ({self.kept} were there already)" if self.kept else ""
        print(f"{self.label}: {self.total} utterances{kept}, {time.monotonic() - self.start:.0f} s", flush=True)


def plan(name: str, sentences: list[str], speakers: list[str], folder: Path, seed: int) -> list[Utterance]:
    """The utterances of a set, sorted by name; the voices take turns, so each speaks equally often."""
    utterances = []
    for index, text in enumerate(sentences):
        speaker = speakers[index % len(speakers)]
        key = f"{speaker}-{index:05d}"
        utterances.append(Utterance(key, speaker, text, folder / name / f"{key}.wav", seed))
    return sorted(utterances, key=lambda utterance: utterance.name)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file that appears only when it is whole."""
    with atomic_write(path) as file:
        file.writelines(f"{line}\n" for line in lines)


def write_tables(folder: Path, utterances: list[Utterance]) -> None:
    """Write the Kaldi directory of a set unless it is there (later steps may have filtered it: leave it alone)."""
    if all((folder / table).exists() for table in TABLES):
        return
    by_speaker: dict[str, list[str]] = {}
    for utterance in utterances:
        by_speaker.setdefault(utterance.speaker, []).append(utterance.name)
    content = {
        "text": [f"{u.name} {u.text}" for u in utterances],
        "utt2spk": [f"{u.name} {u.speaker}" for u in utterances],
        "spk2utt": [f"{speaker} {' '.join(names)}" for speaker, names in sorted(by_speaker.items())],
        "wav.scp": [f"{u.name} {u.path}" for u in utterances],
    }
    for table in TABLES:
        write_lines(folder / table, content[table])


def start_or_continue(out: Path, recipe: dict[str, Any]) -> None:
    """Leave a corpus made after the same recipe as it is; empty the folder of one made after another."""
    kept_recipe = out / "local" / "corpus.json"
    if kept_recipe.exists():
        before = json.loads(kept_recipe.read_text(encoding="utf-8"))
        if before == recipe:
            for leftover in (out / "local" / "audio").glob("*/.*.tmp"):  # of a killed run
                leftover.unlink(missing_ok=True)
            return
        changed = ", ".join(key for key in recipe if before.get(key) != recipe[key])
        print(f"{out}: made with other options ({changed}), making the corpus anew", flush=True)
        for folder in (*(out / name for name in SPOKEN), out / "local" / "audio"):
            if folder.exists():
                shutil.rmtree(folder)
        for name in WRITTEN:
            (out / "local" / f"{name}.txt").unlink(missing_ok=True)
    elif taken := [name for name in SPOKEN if (out / name).exists()]:
        raise UserError(f"{out / taken[0]}: not made by this recipe; remove it or set DATADIR to another folder")
    # written after the emptying: killed in the middle of it, the next run empties the rest
    with atomic_write(kept_recipe) as file:
        json.dump(recipe, file, indent=1)


def make_corpus(out: Path, sizes: dict[str, int], seed: int, nj: int, max_words: int = grammar.MAX_WORDS) -> None:
    """Write the whole corpus into `out`; what is there already is kept.

    sizes: number of utterances or sentences of each set of SPOKEN and WRITTEN; max_words: of a sentence
    """
    shares = voices.share_out([voices.read_variant(path) for path in espeak.variant_files().values()])
    # the voices too: another release of eSpeak NG may bring others
    start_or_continue(
        out, {"version": CORPUS_VERSION, "seed": seed, "max_words": max_words, **sizes, "voices": shares}
    )
    sets = grammar.draw_sets(sizes, seed, max_words)
    for name in WRITTEN:
        if not (out / "local" / f"{name}.txt").exists():
            write_lines(out / "local" / f"{name}.txt", sets[name])
    for name in SPOKEN:
        utterances = plan(name, sets[name], shares[name], out / "local" / "audio", seed)
        utterances[0].path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_all(utterances, nj, name)
        except OSError as error:
            raise UserError(
                f"{utterances[0].path.parent}: {error.strerror or error}. 8,600 utterances take 0.9 GB; "
                "make room and run the same command again, finished files are kept"
            ) from error
        write_tables(out / name, utterances)


def positive(text: str) -> int:
    """A whole number of at least 1, for options that count something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Parse the options and make the corpus."""
    parser = command_parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder for train, dev, test and local")
    parser.add_argument("--train_utts", type=positive, default=8000, help="training utterances (8,000 are 7.4 hours)")
    parser.add_argument("--dev_utts", type=positive, default=200, help="utterances of the dev voices")
    parser.add_argument("--test_utts", type=positive, default=400, help="utterances of the test voices")
    parser.add_argument("--text_sentences", type=positive, default=40000, help="sentences for the text-only model")
    parser.add_argument("--text_valid_sentences", type=positive, default=500, help="the same, held out")
    parser.add_argument("--max_words", type=positive, default=grammar.MAX_WORDS, help="of a sentence, at least 5")
    parser.add_argument("--seed", type=int, default=0, help="of texts, voices, rates and noise")
    parser.add_argument("--nj", type=positive, default=2, help="processes")
    args = parser.parse_args(argv)
    if args.max_words < 5:
        parser.error(f"--max_words {args.max_words}: there are too few different sentences of fewer than 5 words")
    sizes = {
        "train": args.train_utts,
        "dev": args.dev_utts,
        "test": args.test_utts,
        "text_train": args.text_sentences,
        "text_valid": args.text_valid_sentences,
    }
    make_corpus(args.out, sizes, args.seed, args.nj, args.max_words)


if __name__ == "__main__":
    main()
