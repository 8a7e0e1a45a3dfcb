"""Audio as 16 kHz mono float32, of any format that libsndfile reads (wav, flac, ogg opus/vorbis, mp3) or a pipe."""

import io
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import soundfile
import soxr

from whisfusion_asr.data.tables import read_segments, read_table
from whisfusion_asr.errors import UserError

SAMPLE_RATE = 16000
# Mean of the channels this far below the channels themselves: they cancel, there is no speech left.
CANCELLED = 1e-2  # -40 dB
END_SLACK = 0.5  # seconds a segment may reach past the audio's end: rounding of hand-made times, cut at the end


def is_pipe(source: str | Path) -> bool:
    """Whether a wav.scp entry is a command whose output is the audio (`cmd |`)."""
    return str(source).rstrip().endswith("|")


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


def _open(source: str | Path) -> soundfile.SoundFile:
    """Open a path or the output of a pipe; UserError says what is wrong with it."""
    try:
        if is_pipe(source):
            return soundfile.SoundFile(io.BytesIO(_run_pipe(str(source).strip()[:-1].strip())))
        if not Path(source).is_file():
            raise UserError(f"{source}: no such audio file (a relative path starts at the current directory)")
        return soundfile.SoundFile(source)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{source}: not readable as audio: {error.error_string}") from None


def _run_pipe(command: str) -> bytes:
    done = subprocess.run(command, shell=True, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no output"]
        raise UserError(f"pipe '{command} |' ended with status {done.returncode}: {said[-1]}")
    return done.stdout


def _read_piece(file: soundfile.SoundFile, source: str | Path, start: float, end: float | None) -> np.ndarray:
    """Samples (S, channels) float32 from start to end seconds, at the file's own rate."""
    first = round(start * file.samplerate)
    last = None if end is None else round(end * file.samplerate)
    try:
        # libsndfile's mp3 seek restarts the decoder and gives other samples: read such a file from its beginning.
        skipped = first if file.format not in ("MPEG", "MP3") else 0
        if skipped:
            file.seek(min(skipped, file.frames))
        audio = file.read(-1 if last is None else last - skipped, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{source}: broken audio: {error.error_string}") from None
    audio = audio[first - skipped :]
    if end is not None and len(audio) < last - first - END_SLACK * file.samplerate or (start and not len(audio)):
        seconds = max(file.frames, 0) / file.samplerate
        raise UserError(f"{source}: piece of {start:g} to {end} s asked, but the audio ends at {seconds:.2f} s")
    return audio


def _to_mono(audio: np.ndarray, source: str | Path, channel: int | None) -> np.ndarray:
    """One channel of (S, channels), or their mean for None."""
    channels = audio.shape[1]
    if channel is not None:
        if not 0 <= channel < channels:
            raise UserError(f"{source}: channel {channel} asked; the audio has {channels} (counted from 0)")
        return audio[:, channel]
    if channels == 1:
        return audio[:, 0]
    mono = audio.mean(axis=1)
    if len(mono):
        loudest = np.sqrt(np.square(audio).mean(axis=0)).max()
        if np.sqrt(np.square(mono).mean()) < CANCELLED * loudest:
            raise UserError(
                f"{source}: the mean of its {channels} channels is silence (they are in anti-phase); "
                "choose one: channel 0, in a data directory a line `<recording> 0` in reco2channel"
            )
    return mono


def load_audio(
    source: str | Path,
    start: float | None = None,
    end: float | None = None,
    rate: int = SAMPLE_RATE,
    channel: int | None = None,
) -> np.ndarray:
    """Waveform (S,) float32 of a file, or of a command's output for `cmd |`, at `rate` Hz.

    start, end: seconds; the piece is cut at the file's own rate, then resampled
    channel: index from 0; None = mean of all channels
    A file without samples gives (0,). Raises UserError: unreadable or broken audio, non-finite samples, a piece outside
    the audio, a missing channel, channels whose mean is silence.
    """
    with _open(source) as file:
        audio = _to_mono(_read_piece(file, source, start or 0.0, end), source, channel)
        if not np.isfinite(audio).all():
            bad = np.flatnonzero(~np.isfinite(audio))
            raise UserError(f"{source}: {len(bad)} samples are NaN or infinite (the first: {bad[0]}); write it again")
        return np.ascontiguousarray(resample(audio, file.samplerate, rate))


def count_samples(source: str | Path, rate: int = SAMPLE_RATE) -> int:
    """Samples at `rate` Hz that the header of a file promises; nothing is decoded (a pipe is run)."""
    with _open(source) as file:
        return resampled_length(file.frames, file.samplerate, rate)


class AudioTable(Mapping[str, np.ndarray]):
    """Utterance -> 16 kHz waveform (S,) of a Kaldi directory, read from `wav.scp` (and `segments`) when asked for.

    Relative paths of wav.scp start at the current directory, as in Kaldi. `reco2channel` (`<recording> <index>`) names
    the channel of a recording that has several; without it their mean is taken.
    """

    def __init__(self, data_dir: str | Path) -> None:
        data_dir = Path(data_dir)
        self._scp = data_dir / "wav.scp"
        self._sources = read_table(self._scp)
        segments = data_dir / "segments"
        self._segments = read_segments(segments) if segments.exists() else None
        channels = data_dir / "reco2channel"
        self._channels = read_channels(channels) if channels.exists() else {}
        if self._segments is not None:
            for key, segment in self._segments.items():
                if segment.recording not in self._sources:
                    raise UserError(f"{segments}: {key}: recording '{segment.recording}' is not in {self._scp}")

    def __getitem__(self, key: str) -> np.ndarray:
        if self._segments is None:
            recording, start, end = key, None, None
        else:
            recording, start, end = self._segments[key]
        source = self._sources[recording]
        try:
            return load_audio(source, start, end, channel=self._channels.get(recording))
        except UserError as error:
            raise UserError(f"{self._scp}: {key}: {error}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources if self._segments is None else self._segments)

    def __len__(self) -> int:
        return len(self._sources if self._segments is None else self._segments)


def read_channels(path: str | Path) -> dict[str, int]:
    """`reco2channel` as recording -> channel index from 0. Raises UserError with file, line and key."""
    channels = {}
    for number, (key, value) in enumerate(read_table(path).items(), start=1):
        if not value.isdecimal():
            raise UserError(f"{path}:{number}: {key}: channel '{value}'; expected an index 0, 1, ...")
        channels[key] = int(value)
    return channels
