"""Decoding, pieces, channels, resampling."""

import csv
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from whisfusion_asr.data.audio import AudioTable, Recording, count_samples, load_audio, resample, resampled_length
from whisfusion_asr.data.validate import inspect
from whisfusion_asr.errors import UserError

RATE = 16000


def tone(frequency: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    """A sine wave (S,) float32."""
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 11025, 16001, 22050, 32000, 44100, 48000, 96000])
def test_a_tone_stays_the_same_tone(rate: int) -> None:
    converted, wanted = resample(tone(440, rate), rate), tone(440, RATE)
    inside = slice(800, 7200)  # both ends ring, since the tone begins and stops at once
    assert len(converted) == resampled_length(round(rate * 0.5), rate)
    assert np.abs(converted[: len(wanted)][inside] - wanted[inside]).max() < 2e-3


def test_what_16_khz_cannot_hold_is_removed() -> None:
    assert np.abs(resample(tone(10000, 44100), 44100)[800:7200]).max() < 1e-3


@pytest.mark.parametrize("rate", [8000, 11025, 32000, 44100, 48000])
@pytest.mark.parametrize("samples", [0, 1, 2, 3, 1001])
def test_length_is_known_from_the_header(tmp_path: Path, rate: int, samples: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(samples), rate)
    assert len(load_audio(tmp_path / "a.wav")) == count_samples(tmp_path / "a.wav") == resampled_length(samples, rate)


def test_length_is_rounded_half_up() -> None:
    pairs = ((1, 44100, 0), (2, 44100, 1), (3, 32000, 2), (1, 11025, 1), (5, 11025, 7), (480000, 48000, 160000))
    assert [resampled_length(samples, rate) for samples, rate, _ in pairs] == [length for *_, length in pairs]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_piece_equals_slice_of_the_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, RATE), RATE)
    whole = load_audio(path)
    np.testing.assert_array_equal(load_audio(path, 0.25, 0.75), whole[4000:12000])
    np.testing.assert_array_equal(load_audio(path, 0.5), whole[8000:])


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_a_recording_gives_the_pieces_of_its_file(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order with overlaps, far ahead, and back behind what is kept."""
    monkeypatch.setattr("whisfusion_asr.data.audio.KEPT", 0.5)
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 6 * RATE), RATE)
    whole, source = load_audio(path), Recording(path)
    assert source.duration == 6.0
    for start, end in ((0.0, 1.0), (0.75, 1.5), (1.25, 1.75), (4.5, 5.0), (4.25, 6.0), (0.5, 1.0), (None, None)):
        piece = source.piece(start, end)
        np.testing.assert_array_equal(piece, whole[round((start or 0) * RATE) : round((end or 6) * RATE)])
        assert len(source._held) <= 2.6 * RATE or end is None, "no more than a piece and what is kept"
    with open(path, "rb") as file:
        opened = Recording(file)
        np.testing.assert_array_equal(opened.piece(1.0, 2.0), whole[RATE : 2 * RATE])
        np.testing.assert_array_equal(opened.piece(0.0, 0.5), whole[: RATE // 2])


def test_pieces_in_order_decode_an_mp3_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, decoded = tmp_path / "a.mp3", []
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 20 * RATE), RATE)
    read = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda self, count, **how: decoded.append(count) or
                        read(self, count, **how))
    source = Recording(path)
    for start in range(0, 18):
        source.piece(start, start + 2)
    assert sum(decoded) <= 20 * RATE


def test_a_recording_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.mp3: no such audio file"):
        Recording(tmp_path / "nowhere.mp3")
    soundfile.write(tmp_path / "a.wav", tone(440, RATE, 1.0), RATE)
    with pytest.raises(UserError, match=r"a.wav: piece from 3 s to the end asked, but the audio ends at 1.00 s"):
        Recording(tmp_path / "a.wav").piece(3.0)


def test_piece_slightly_past_the_end_is_cut_there(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(440, RATE, 1.0), RATE)
    assert len(load_audio(tmp_path / "a.wav", 0.5, 1.4)) == 8000


@pytest.mark.parametrize(("start", "end"), [(0.5, 1.6), (1.0, None), (2.0, 3.0)])
def test_piece_outside_the_audio(tmp_path: Path, start: float, end: float | None) -> None:
    soundfile.write(tmp_path / "a.wav", tone(440, RATE, 1.0), RATE)
    with pytest.raises(UserError, match=r"a\.wav: piece from .* asked, but the audio ends at 1\.00 s"):
        load_audio(tmp_path / "a.wav", start, end)


def test_channels(tmp_path: Path) -> None:
    left, right = tone(440, RATE), tone(1000, RATE)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), RATE, "FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav"), (left + right) / 2, atol=1e-7)
    np.testing.assert_array_equal(load_audio(tmp_path / "a.wav", channel=1), right)
    with pytest.raises(UserError, match="channel 2 asked, but the audio has 2, counted from 0"):
        load_audio(tmp_path / "a.wav", channel=2)


def test_channels_that_cancel_ask_for_a_choice(tmp_path: Path) -> None:
    left = tone(440, RATE)
    soundfile.write(tmp_path / "a.wav", np.stack([left, -left], axis=1), RATE)
    with pytest.raises(UserError, match=r"mean of the 2 channels is silence.*choose a channel.*reco2channel"):
        load_audio(tmp_path / "a.wav")
    assert np.abs(load_audio(tmp_path / "a.wav", channel=0)).max() > 0.4


def test_silence_in_all_channels_is_no_fault(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((100, 2)), RATE)
    assert not load_audio(tmp_path / "a.wav").any()


def test_samples_that_are_no_numbers(tmp_path: Path) -> None:
    audio = tone(440, RATE)
    audio[[7, 9]] = np.nan, np.inf
    soundfile.write(tmp_path / "a.wav", audio, RATE, "FLOAT")
    with pytest.raises(UserError, match="a.wav: 2 samples are NaN or infinite, the first is 7"):
        load_audio(tmp_path / "a.wav")


def test_pipe_and_open_file(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(440, RATE), RATE)
    np.testing.assert_array_equal(load_audio(f"cat {path} |"), load_audio(path))
    np.testing.assert_array_equal(load_audio(io.BytesIO(path.read_bytes())), load_audio(path))


def test_pipe_of_unknown_length(tmp_path: Path) -> None:
    """sox and sph2pipe cannot know the length when they write the header of a pipe."""
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(440, RATE), RATE)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\x7f"
    path.write_bytes(content)
    assert len(load_audio(f"cat {path} |")) == 8000


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("false |", r"false \|: the command ended with status 1"),
        ("no_such_program x |", "status 127: .*no_such_program.*not found"),
        ("true |", "status 0: it printed nothing"),
        ("echo text |", "not readable as audio"),
        ("nowhere.wav", r"nowhere.wav: no such audio file \(a relative path starts at the current directory\)"),
    ],
)
def test_unreadable_source(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_audio(source)


def test_table_reads_utterances(good_dir: Path) -> None:
    table = pickle.loads(pickle.dumps(AudioTable(good_dir)))
    assert {key: len(table[key]) for key in table} == {"ann-1": 8000, "ann-2": 16000, "bob-1": 32000}


def test_table_reads_segments_and_channels(good_dir: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    stereo = np.stack([tone(440, RATE, 1.0), tone(1000, RATE, 1.0)], axis=1)
    soundfile.write(tmp_path / "stereo.wav", stereo, RATE, "FLOAT")
    (good_dir / "wav.scp").write_text(f"rec echo run >> {runs}; cat {tmp_path}/stereo.wav |\n")
    (good_dir / "segments").write_text("ann-1 rec 0 0.25\nann-2 rec 0.25 0.5\nbob-1 rec 0.5 -1\n")
    (good_dir / "reco2channel").write_text("rec 1\n")
    table = AudioTable(good_dir)
    np.testing.assert_array_equal(np.concatenate([table[key] for key in table]), stereo[:, 1])
    assert runs.read_text() == "run\n", "the pipe of a recording runs once for a row of segments"
    assert len(pickle.dumps(table)) < 10000, "a reader process gets paths, not audio"


def test_table_names_the_place(good_dir: Path) -> None:
    (good_dir / "wav.scp").write_text("ann-1 nowhere.wav\n")
    with pytest.raises(UserError, match=r"data/wav.scp: ann-1: nowhere.wav: no such audio file"):
        AudioTable(good_dir)["ann-1"]


def test_table_with_a_segment_of_no_recording(good_dir: Path) -> None:
    (good_dir / "segments").write_text("ann-1 rec 0 1\n")
    with pytest.raises(UserError, match=r"segments: ann-1: recording 'rec' is not in .*wav.scp"):
        AudioTable(good_dir)


REFUSED = {  # libsndfile decodes them, but they hold no usable speech
    "speech_antiphase.flac": "mean of the 2 channels is silence",
    "speech_nan_float32.wav": "10 samples are NaN or infinite",
}


def test_every_hard_case_does_what_its_manifest_says(shared_data: Path) -> None:
    edge = shared_data / "edge"
    with open(edge / "manifest.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(rows) == 46
    for row in rows:
        path = edge / row["file"]
        if row["decode"] == "error" or row["file"] in REFUSED:
            with pytest.raises(UserError, match=f"{row['file']}: .*{REFUSED.get(row['file'], 'audio')}"):
                load_audio(path)
            continue
        info = soundfile.info(path)
        assert (info.samplerate, info.channels) == (int(row["sample_rate"]), int(row["channels"])), row["file"]
        audio = load_audio(path)
        wanted = resampled_length(int(row["frames"]), int(row["sample_rate"]))
        assert (audio.shape, audio.dtype) == ((wanted,), np.float32), row["file"]
        assert np.isfinite(audio).all(), row["file"]


def test_one_clip_in_many_forms_is_one_waveform(shared_data: Path) -> None:
    edge = shared_data / "edge"
    plain = load_audio(edge / "speech_16k.wav")
    exact, lossy = 1e-3, 0.3  # a shift by a single sample would give 0.31 or more
    forms = dict.fromkeys(("speech_pcm24.wav", "speech_float32.wav"), exact)
    forms |= dict.fromkeys(("speech_vorbis.ogg", "speech_16k.mp3", "speech_48k_opus.ogg", "speech_8k_ulaw.wav"), lossy)
    for name, tolerance in forms.items():
        other = load_audio(edge / name)
        relative = np.sqrt(np.square(other - plain).mean() / np.square(plain).mean())
        assert relative < tolerance, (name, relative)
    np.testing.assert_allclose(load_audio(edge / "speech_left_only.flac", channel=0), plain, atol=1e-4)
    np.testing.assert_allclose(load_audio(edge / "speech_antiphase.flac", channel=0), plain, atol=1e-4)


def test_validator_reports_all_hard_cases_at_once(shared_data: Path, tmp_path: Path) -> None:
    files = sorted(path for path in (shared_data / "edge").iterdir() if path.suffix != ".tsv")
    for name, value in (("wav.scp", str), ("text", lambda _: "WORD"), ("utt2spk", lambda path: path.name)):
        (tmp_path / name).write_text("".join(f"{path.name} {value(path)}\n" for path in files))
    findings = inspect(tmp_path)
    report = "\n".join(findings.problems)
    bad = {"broken_truncated.flac", "broken_header_only.ogg", "broken_text.wav", "broken_empty.flac"}
    bad |= {*REFUSED, "zero_samples.wav"}
    assert {path.name for path in files if path.name in report} == bad
    assert findings.num_samples.keys() == {path.name for path in files} - bad
