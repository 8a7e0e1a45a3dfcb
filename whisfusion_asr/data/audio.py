"""Audio as 16 kHz mono float32, of any format that libsndfile reads (wav, flac, ogg opus/vorbis, mp3) or a pipe."""

import io
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from whisfusion_asr.data.tables import read_segments, read_table
from whisfusion_asr.errors import UserError

SAMPLE_RATE = 16000
CANCELLED = 1e-2  # the mean of the channels is 40 dB below the channels: they cancel, no speech is left
KEPT = 60.0  # seconds of a forward-only file that a next piece may begin before the end of the last one
OVERSHOOT = 0.5  # seconds that a segment may reach past the audio's end, as in Kaldi: rounded times; it is cut there

Source = str | Path | BinaryIO


def load_audio(
    source: Source,
    start: float | None = None,
    end: float | None = None,
    rate: int = SAMPLE_RATE,
    channel: int | None = None,
) -> np.ndarray:
    """Waveform (S,) float32 at `rate` Hz of a file, of a command's output (`cmd |`) or of an open binary file.

    start, end: seconds; the piece is cut at the file's own rate, then resampled
    channel: index from 0; None = mean of all channels
    A file without samples gives (0,). Raises UserError: unreadable or broken audio, samples that are not finite, a
    piece outside the audio, a missing channel, channels whose mean is silence.
    """
    with _named(source):
        audio, own_rate = load_unresampled(source, start, end, channel)
    return np.ascontiguousarray(resample(audio, own_rate, rate))


def load_unresampled(
    source: Source, start: float | None = None, end: float | None = None, channel: int | None = None
) -> tuple[np.ndarray, int]:
    """As `load_audio`, at the file's own rate: waveform (S,) float32, rate. Its UserErrors do not name the source."""
    with _open(source) as file:
        first, last = piece_bounds(file.frames, file.samplerate, start, end)
        return _waveform(_read(file, first, last), channel), file.samplerate


class Recording:
    """One recording of which pieces are read, best in order: it stays open, and in bounded memory.

    An mp3 can only be decoded from its beginning. What was decoded last is kept, so that pieces in order, which may
    overlap by KEPT seconds, cost one pass over the file and not one each.
    """

    def __init__(self, source: Source) -> None:
        with _named(source):
            self._source, self._file = source, _open_forward(source)
        self._held, self._held_from = np.zeros((0, self._file.channels), np.float32), 0

    @property
    def duration(self) -> float:
        """Seconds, by the header."""
        return self._file.frames / self._file.samplerate

    def piece(self, start: float | None = None, end: float | None = None, channel: int | None = None) -> np.ndarray:
        """The same as `load_audio` gives, and raises, for a piece in seconds."""
        rate = self._file.samplerate
        with _named(self._source):
            first, last = piece_bounds(self._file.frames, rate, start, end)
            samples = self._forward(first, last) if _only_forward(self._file) else _read(self._file, first, last)
            return np.ascontiguousarray(resample(_waveform(samples, channel), rate))

    def _forward(self, first: int, last: int) -> np.ndarray:
        """Samples (S, channels) of a file that is decoded in order."""
        if first < self._held_from:  # what is asked for was let go: once more from the beginning
            if not isinstance(self._source, str | Path):
                self._source.seek(0)
            self._file, self._held, self._held_from = _open_forward(self._source), self._held[:0], 0
        kept = round(KEPT * self._file.samplerate)
        while (end := self._held_from + len(self._held)) < last:
            more = _next_samples(self._file, min(kept, last - end))
            if not len(more):
                break
            spare = max(0, min(first, end) - kept - self._held_from)
            self._held, self._held_from = np.concatenate((self._held[spare:], more)), self._held_from + spare
        return self._held[first - self._held_from : last - self._held_from]


def count_samples(source: Source, start: float | None = None, end: float | None = None) -> int:
    """Samples at 16 kHz of a piece by the header of its file; nothing is decoded (a pipe is run)."""
    with _open(source) as file:
        first, last = piece_bounds(file.frames, file.samplerate, start, end)
        return resampled_length(last - first, file.samplerate)


def piece_bounds(frames: int, rate: int, start: float | None, end: float | None) -> tuple[int, int]:
    """First sample and end sample of a piece in seconds. Raises UserError: it lies outside the audio."""
    first = round((start or 0.0) * rate)
    last = frames if end is None else round(end * rate)
    if last > frames + OVERSHOOT * rate or (start is not None and first >= min(last, frames)):
        raise UserError(f"piece from {start or 0:g} s to {'the end' if end is None else f'{end:g} s'} asked, "
                        f"but the audio ends at {frames / rate:.2f} s")  # fmt: skip
    return first, min(last, frames)


def resampled_length(samples: int, rate: int, wanted: int = SAMPLE_RATE) -> int:
    """Number of samples after resampling: samples * wanted / rate, rounded half up."""
    return (2 * samples * wanted + rate) // (2 * rate)


def resample(audio: np.ndarray, rate: int, wanted: int = SAMPLE_RATE) -> np.ndarray:
    """Convert a waveform (S,) float32 from one rate to another: linear phase, no delay, `resampled_length` samples."""
    if rate == wanted or not len(audio):
        return audio
    length = resampled_length(len(audio), rate, wanted)
    converted = soxr.resample(audio, rate, wanted, quality="HQ")[:length]
    return np.pad(converted, (0, length - len(converted)))


def is_pipe(source: object) -> bool:
    """Whether a wav.scp entry is a command whose output is the audio (`cmd |`)."""
    return isinstance(source, str) and source.rstrip().endswith("|")


def run_pipe(source: str) -> bytes:
    """What the command of a `cmd |` entry prints. Raises UserError: it fails or prints nothing."""
    done = subprocess.run(
        source.strip().removesuffix("|"), shell=True, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it printed nothing"]
        raise UserError(f"the command ended with status {done.returncode}: {said[-1]}")
    return done.stdout


@contextmanager
def _named(source: Source) -> Iterator[None]:
    """Errors inside begin with the source, if it has a name."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{source}: {error}" if isinstance(source, str | Path) else str(error)) from None


def _open(source: Source) -> soundfile.SoundFile:
    try:
        if is_pipe(source):
            return soundfile.SoundFile(io.BytesIO(run_pipe(source)))
        if isinstance(source, str | Path) and not Path(source).is_file():
            raise UserError("no such audio file (a relative path starts at the current directory)")
        return soundfile.SoundFile(source)
    except soundfile.LibsndfileError as error:
        raise UserError(f"not readable as audio: {error.error_string}") from None


def _open_forward(source: Source) -> soundfile.SoundFile:
    """As `_open`; soundfile jumps to where it stands after every read, which an mp3 that is read in parts must not."""
    file = _open(source)
    if _only_forward(file):
        file.seekable = lambda: False
    return file


def _only_forward(file: soundfile.SoundFile) -> bool:
    """libsndfile's mp3 decoder gives other samples after a jump: such a file is read from its beginning."""
    return file.format in ("MPEG", "MP3")


def _read(file: soundfile.SoundFile, first: int, last: int) -> np.ndarray:
    """Samples first to last of all channels, of a file at its beginning if it goes only forward: (S, channels)."""
    jump = 0 if _only_forward(file) else first
    return _next_samples(file, last - jump, jump)[first - jump :]


def _next_samples(file: soundfile.SoundFile, count: int, jump: int | None = None) -> np.ndarray:
    """The next samples of all channels, or those from sample `jump` on; fewer at the file's end: (S, channels)."""
    try:
        if jump is not None and jump != file.tell():
            file.seek(jump)
        return file.read(count, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise UserError(f"broken audio: {error.error_string}") from None


def _waveform(samples: np.ndarray, channel: int | None) -> np.ndarray:
    """One channel, or the mean, of (S, channels); checked to hold only numbers."""
    audio = _to_mono(samples, channel)
    if not np.isfinite(audio).all():
        bad = np.flatnonzero(~np.isfinite(audio))
        raise UserError(f"{len(bad)} samples are NaN or infinite, the first is {bad[0]}; write the file again")
    return audio


def _to_mono(audio: np.ndarray, channel: int | None) -> np.ndarray:
    """One channel of (S, channels), or the mean of all for None."""
    channels = audio.shape[1]
    if channel is not None:
        if not 0 <= channel < channels:
            raise UserError(f"channel {channel} asked, but the audio has {channels}, counted from 0")
        return audio[:, channel]
    if channels == 1 or not len(audio):
        return audio[:, 0]
    mono = audio.mean(axis=1)
    loudest = np.sqrt(np.square(audio).mean(axis=0)).max()
    if np.sqrt(np.square(mono).mean()) < CANCELLED * loudest:
        raise UserError(
            f"the mean of the {channels} channels is silence, they cancel each other; choose a channel "
            "(in a data directory: a line `recording 0` in reco2channel)"
        )
    return mono


class AudioTable(Mapping[str, np.ndarray]):
    """Utterance -> 16 kHz waveform (S,) of a Kaldi directory, read from `wav.scp` (and `segments`) when asked for.

    Relative paths of wav.scp start at the current directory, as in Kaldi. `reco2channel` (`recording index`) names the
    channel of a recording that has several; without it their mean is taken.
    """

    def __init__(self, data_dir: str | Path) -> None:
        data_dir = Path(data_dir)
        self._scp = data_dir / "wav.scp"
        self._sources = read_table(self._scp)
        segments, channels = data_dir / "segments", data_dir / "reco2channel"
        self._segments = read_segments(segments) if segments.exists() else None
        self._channels = read_channels(channels) if channels.exists() else {}
        self._recording: tuple[str, Recording] | None = None
        for key, segment in (self._segments or {}).items():
            if segment.recording not in self._sources:
                raise UserError(f"{segments}: {key}: recording '{segment.recording}' is not in {self._scp}")

    def __getitem__(self, key: str) -> np.ndarray:
        """Waveform (S,) float32. Raises UserError as `load_audio`, with wav.scp, key and file named."""
        recording, start, end = (key, None, None) if self._segments is None else self._segments[key]
        source = self._sources[recording]
        try:
            if self._segments is None:
                return load_audio(source, channel=self._channels.get(recording))
            return self._opened(source).piece(start, end, self._channels.get(recording))
        except UserError as error:
            raise UserError(f"{self._scp}: {key}: {error}") from None

    def _opened(self, source: str) -> Recording:
        """The recording of a row of segments, kept open: a pipe runs once, and an mp3 is decoded once for all."""
        if self._recording is None or self._recording[0] != source:
            self._recording = (source, Recording(io.BytesIO(run_pipe(source)) if is_pipe(source) else source))
        return self._recording[1]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_recording": None}

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources if self._segments is None else self._segments)

    def __len__(self) -> int:
        return len(self._sources if self._segments is None else self._segments)


def read_channels(path: str | Path) -> dict[str, int]:
    """`reco2channel` as recording -> channel index from 0. Raises UserError with file, line and key."""
    channels = {}
    for number, (key, value) in enumerate(read_table(path).items(), start=1):
        if not value.isdecimal():
            raise UserError(f"{path}:{number}: {key} ({value}): expected a channel index: 0, 1, ...")
        channels[key] = int(value)
    return channels
