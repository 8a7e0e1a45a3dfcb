"""Speed perturbation (Ko et al., Interspeech 2015): copies of a data directory that speak slower and faster."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from whisfusion_asr.data.audio import SAMPLE_RATE, AudioTable, resample
from whisfusion_asr.data.kaldi_dir import DataTables, combine, read_dir, split_keys, write_dir
from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write

SLOWEST, FASTEST = 0.5, 2.0  # outside of these it is a typing error and not speech


def perturb_speed(source: str | Path, out: str | Path, factors: Sequence[float], nj: int | None = None) -> list[str]:
    """Write the directory `out` with a copy of `source` for each factor; 1 stands for `source` as it is.

    factors: of the speed; 0.9 makes speech 1 / 0.9 times as long and its pitch 0.9 times as high
    Keys and speakers of a copy get Kaldi's prefix `sp0.9-`. Its audio lies in `out`/audio as FLAC of 16 kHz, 16 bit.
    nj: processes; None: one for each core. Returns a line for each table that not every copy has. Raises UserError: a
    factor that is none, `source` in want of mending, unreadable audio.
    """
    for number, factor in enumerate(factors):
        if not SLOWEST <= factor <= FASTEST or factor in factors[:number]:
            raise UserError(f"speed factor {factor:g}: expected different numbers from {SLOWEST:g} to {FASTEST:g}")
    out = Path(out)
    copies = [Path(source) if factor == 1 else _copy(Path(source), out, factor, nj) for factor in factors]
    return combine(out, copies)


def _copy(source: Path, out: Path, factor: float, nj: int | None) -> Path:
    """A data directory of one factor, beside the audio."""
    tables, prefix = read_dir(source), f"sp{factor:g}-"
    keys, folder = sorted(tables["utt2spk"]), out / "audio" / prefix.rstrip("-")
    parts = split_keys(keys, min(len(keys), nj or os.cpu_count() or 1))
    with ProcessPoolExecutor(len(parts)) as pool:
        written = list(pool.map(partial(_write_audio, AudioTable(source), folder, factor), parts))
    kept = {name for name in tables if name == "text" or name.startswith("utt2")} - {"utt2dur"} | {"spk2gender"}
    copied: DataTables = {
        name: {f"{prefix}{key}": f"{prefix}{value}" if name == "utt2spk" else value for key, value in table.items()}
        for name, table in tables.items()
        if name in kept
    }
    copied["wav.scp"] = {f"{prefix}{key}": str(folder / f"{key}.flac") for key in keys}
    copied["utt2num_samples"] = {f"{prefix}{key}": str(count) for part in written for key, count in part.items()}
    directory = folder / "data"
    write_dir(directory, copied)
    return directory


def _write_audio(audio: AudioTable, folder: Path, factor: float, keys: Sequence[str]) -> dict[str, int]:
    """Audio files of some utterances; returns their numbers of samples."""
    counts = {}
    for key in keys:
        changed = change_speed(audio[key], factor)
        with atomic_write(folder / f"{key}.flac", "wb") as file:
            soundfile.write(file, changed, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        counts[key] = len(changed)
    return counts


def change_speed(audio: np.ndarray, factor: float) -> np.ndarray:
    """A waveform (S,) played `factor` times as fast, as sox's `speed` does: (round(S / factor),), within -1 and 1."""
    played = resample(audio, round(SAMPLE_RATE * factor), SAMPLE_RATE)
    return np.clip(played, -1.0, 1.0)
