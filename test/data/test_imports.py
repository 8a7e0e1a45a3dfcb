"""Directories made of other people's files."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from whisfusion_asr.data.imports import from_folder, from_tsv
from whisfusion_asr.data.kaldi_dir import read_dir
from whisfusion_asr.data.validate import inspect
from whisfusion_asr.errors import UserError


@pytest.fixture
def wavs(tmp_path: Path) -> Path:
    for name in ("s1/a 1.wav", "s1/b.flac", "s13/a.wav", "s13/c.WAV"):
        (tmp_path / "wavs" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "wavs" / name, np.full(8000, 0.1), 8000)
    return tmp_path / "wavs"


def test_folder(wavs: Path, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes("\ufeffs1/a 1.wav\tone  two\r\ns13/a\tthree\r\n\r\nb\tfour".encode())
    warnings = from_folder(wavs, tmp_path / "t", tmp_path / "data", "folder")
    assert warnings == [f"{wavs}: no transcript for 1 audio file: {wavs}/s13/c.WAV"]
    tables = read_dir(tmp_path / "data")
    assert tables["text"] == {"s1-a_1": "one two", "s1-b": "four", "s13-a": "three"}
    assert tables["spk2utt"] == {"s1": "s1-a_1 s1-b", "s13": "s13-a"}
    findings = inspect(tmp_path / "data")
    assert findings.problems == findings.warnings == []
    assert findings.num_samples["s1-b"] == 16000


def test_folder_twice_gives_the_same(wavs: Path, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("b four\nc five\n")
    from_folder(wavs, tmp_path / "t", tmp_path / "data")
    once = read_dir(tmp_path / "data")
    from_folder(wavs, tmp_path / "t", tmp_path / "data")
    assert read_dir(tmp_path / "data") == once
    assert once["utt2spk"] == {"s1-b": "s1-b", "s13-c": "s13-c"}


def test_speaker_by_expression(wavs: Path, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("b four\nc five\n")
    from_folder(wavs, tmp_path / "t", tmp_path / "data", r"s(\d+)")
    assert read_dir(tmp_path / "data")["utt2spk"] == {"1-s1-b": "1", "13-s13-c": "13"}


@pytest.mark.parametrize(
    ("content", "speaker_from", "message"),
    [
        (
            "b four\nnone five\na x\n",
            "folder",
            r"t:2: 'none': no audio file in .*wavs; expected one \(path, file name or",
        ),
        ("s1/b four\ns1/b five\n", "folder", r"t:2: utterance 's1-b' is already at .*t:1"),
        ("b four\n", r"z(\d+)", r"t:1: --speaker_from 'z\(\\d\+\)' finds no speaker in 's1/b.flac'"),
        ("b four\n", "(", r"--speaker_from: '\(' is no regular expression"),
        ("b \xff\n", "folder", r"t:1: byte 0xff is not UTF-8"),
        ("", "folder", "no utterance to write: the transcripts are empty"),
    ],
)
def test_folder_with_bad_lines(wavs: Path, tmp_path: Path, content: str, speaker_from: str, message: str) -> None:
    (tmp_path / "t").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=message):
        from_folder(wavs, tmp_path / "t", tmp_path / "data", speaker_from)
    assert not (tmp_path / "data").exists()


def test_folder_with_several_files_of_a_name(wavs: Path, tmp_path: Path) -> None:
    soundfile.write(wavs / "s13" / "b.wav", np.zeros(10), 8000)
    (tmp_path / "t").write_text("b four\n")
    with pytest.raises(UserError, match=r"t:1: 'b': several audio files: .*s1/b.flac, .*s13/b.wav; expected one"):
        from_folder(wavs, tmp_path / "t", tmp_path / "data")


def test_folder_without_audio(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no audio file in this folder"):
        from_folder(tmp_path, tmp_path / "t", tmp_path / "data")


def test_tsv(wavs: Path, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_bytes(b"text\tpath\tspeaker\tmore\r\none\twavs/s1/b.flac\tKim-Lee\t\r\n"
                                     b"two\twavs/s13/a.wav\tKim\tx\r\n")  # fmt: skip
    from_tsv(tmp_path / "t.tsv", tmp_path / "data", channel=0)
    tables = read_dir(tmp_path / "data")
    assert tables["text"] == {"Kim-wavs-s13-a": "two", "Kim_Lee-wavs-s1-b": "one"}
    assert tables["utt2spk"] == {"Kim-wavs-s13-a": "Kim", "Kim_Lee-wavs-s1-b": "Kim_Lee"}
    assert tables["reco2channel"] == dict.fromkeys(tables["wav.scp"], "0")
    findings = inspect(tmp_path / "data")
    assert findings.problems == findings.warnings == []


def test_tsv_with_times(wavs: Path, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(
        "path\ttext\tstart\tend\tutt_id\ns1/b.flac\tone\t0\t0.25\tx\ns1/b.flac\ttwo\t0.25\t0.75\t\nc.WAV\tall\t\t\ty\n"
    )
    (wavs / "c.WAV").write_bytes((wavs / "s13" / "c.WAV").read_bytes())
    from_tsv(tmp_path / "t.tsv", tmp_path / "data", audio_root=wavs)
    tables = read_dir(tmp_path / "data")
    assert tables["segments"] == {"s1-b-0.25-0.75": "s1-b 0.25 0.75", "x": "s1-b 0 0.25", "y": "c 0 -1"}
    findings = inspect(tmp_path / "data")
    assert findings.problems == []
    assert findings.num_samples == {"s1-b-0.25-0.75": 8000, "x": 4000, "y": 16000}


HEADER = "path\ttext\tstart\tend\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file\ttext\na\tb\n", "t.tsv:1: no column path; the header has: file, text"),
        ("", "t.tsv:1: no column path or text"),
        ("path\ttext\tend\n", "t.tsv:1: only one of the columns start and end"),
        (HEADER + "b.wav\tone\t0\n", "t.tsv:2: 3 fields; the header has 4"),
        (HEADER + "gone.wav\tone\t\t\n", r"t.tsv:2: '.*gone.wav': no such audio file \(relative paths start at "),
        (HEADER + "b.flac\tone\t1\t1\n", "t.tsv:2: start 1 and end 1; expected 0 <= start < end in seconds"),
        (
            HEADER + "b.flac\tone\t1\t\n",
            "t.tsv:2: start '1' and end ''; expected two numbers of seconds, or both empty",
        ),
        (HEADER + "gone.wav\tone\t\t\n\nb.flac\tone\tx\t1\n", r"(?s)t.tsv:2: .*t.tsv:4: start 'x' and end '1'"),
        (HEADER + "b.flac\tone\t\t\nb.flac\tone\t\t\n", r"t.tsv:3: utterance 'b' is already at .*t.tsv:2"),
    ],
)
def test_tsv_with_bad_lines(wavs: Path, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "t.tsv").write_text(content)
    with pytest.raises(UserError, match=message):
        from_tsv(tmp_path / "t.tsv", tmp_path / "data", audio_root=wavs / "s1")


def test_tsv_with_two_files_of_one_name(wavs: Path, tmp_path: Path) -> None:
    soundfile.write(wavs / "s1" / "b.wav", np.zeros(8000), 8000)
    (tmp_path / "t.tsv").write_text(HEADER + "b.flac\tone\t0\t0.5\nb.wav\tone\t0.5\t1\n")
    with pytest.raises(UserError, match=r"t.tsv:3: '.*b.wav' and '.*b.flac' would both be recording 'b'"):
        from_tsv(tmp_path / "t.tsv", tmp_path / "data", audio_root=wavs / "s1")
