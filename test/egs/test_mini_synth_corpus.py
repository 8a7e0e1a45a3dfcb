"""The corpus of egs/mini_synth as local/data.sh writes it, what interruptions do to it, and its errors."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

RECIPE = Path(__file__).parents[2] / "egs" / "mini_synth" / "asr1"

SMALL = (
    "--train_utts 12 --dev-utts 3 --test_utts 6 --text_sentences 30 --text_valid_sentences 5 --seed 5 --nj 1"
).split()


def data_sh(out: Path, *options: str, **environment: str) -> subprocess.Popen:
    """Start local/data.sh, as the stage runner does."""
    environment = {**os.environ, "DATADIR": str(out), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **environment}
    command = ["bash", str(RECIPE / "local" / "data.sh"), *options]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process."""
    stdout, stderr = process.communicate(timeout=120)
    return process.returncode, stdout, stderr


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every file and folder below with its inode, size and time: equal means that nothing was written."""
    stats = {str(path.relative_to(folder)): path.stat() for path in folder.rglob("*")}
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus made by local/data.sh."""
    out = tmp_path_factory.mktemp("corpus") / "data"
    code, _, stderr = finish(data_sh(out, *SMALL))
    assert code == 0, stderr
    return out


def table(path: Path) -> dict[str, str]:
    """A Kaldi table; its lines must be sorted and unique."""
    rows = [line.split(" ", 1) for line in path.read_text().splitlines()]
    assert [row[0] for row in rows] == sorted({row[0] for row in rows})
    return dict(rows)


def test_the_directories(corpus: Path) -> None:
    texts = []
    for name, size in (("train", 12), ("dev", 3), ("test", 6)):
        text, audio = table(corpus / name / "text"), table(corpus / name / "wav.scp")
        speakers = table(corpus / name / "utt2spk")
        assert len(text) == size and list(text) == list(audio) == list(speakers)
        assert all(key.startswith(f"{speaker}-") for key, speaker in speakers.items())
        assert list(speakers.values()) == sorted(speakers.values())
        inverse = {u: s for s, keys in table(corpus / name / "spk2utt").items() for u in keys.split()}
        assert inverse == speakers
        for path in audio.values():
            info = soundfile.info(path)
            assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
            assert 0.5 < info.duration < 15
        texts += text.values()
    for name, size in (("text_train", 30), ("text_valid", 5)):
        lines = (corpus / "local" / f"{name}.txt").read_text().splitlines()
        assert len(lines) == size
        texts += lines
    assert len(set(texts)) == len(texts) == 12 + 3 + 6 + 30 + 5
    voices_of = json.loads((corpus / "local" / "corpus.json").read_text())["voices"]
    assert set(table(corpus / "test" / "spk2utt")) == set(voices_of["test"])


def test_paths_are_relative_to_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # wherever it is called from
    code, _, stderr = finish(data_sh(Path(os.path.relpath(tmp_path / "data", RECIPE)), *SMALL))
    assert code == 0, stderr
    paths = table(tmp_path / "data" / "dev" / "wav.scp").values()
    assert all(not Path(path).is_absolute() and (RECIPE / path).is_file() for path in paths)


def test_the_same_command_again_writes_nothing(corpus: Path) -> None:
    before = snapshot(corpus)
    code, stdout, _ = finish(data_sh(corpus, *SMALL))
    assert code == 0 and "train: all 12 utterances are there already" in stdout
    assert snapshot(corpus) == before


def test_other_options_make_the_corpus_anew(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    subprocess.run(["cp", "-r", str(corpus), str(out)], check=True)
    code, stdout, _ = finish(data_sh(out, *SMALL, "--seed", "6"))
    assert code == 0 and "made with other options (seed)" in stdout
    assert (out / "train" / "text").read_text() != (corpus / "train" / "text").read_text()
    assert {Path(path).parents[3] for path in table(out / "train" / "wav.scp").values()} == {out}


def settled(folder: Path) -> dict[Path, tuple[int, int]]:
    """The audio files of a folder, with inode and time, as soon as none has been added for a second."""
    found: dict[Path, tuple[int, int]] | None = None
    while (now := {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.glob("*.wav")}) != found:
        found = now
        time.sleep(1.0)
    return now


def test_killed_and_run_again(tmp_path: Path) -> None:
    out = tmp_path / "data"
    options = ("--train_utts", "1000", "--dev_utts", "3", "--test_utts", "6", "--text_sentences", "10")
    process = data_sh(out, *options)
    audio = out / "local" / "audio" / "train"
    while len(list(audio.glob("*.wav"))) < 100:
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    made = settled(audio)  # its workers notice after the piece of work in hand
    assert 100 <= len(made) < 1000
    assert not (out / "train").exists()  # no directory before its audio is complete
    assert all(soundfile.info(path).duration > 0.5 for path in made)
    (audio / ".m1-00000.wav.1.tmp").write_bytes(b"half")

    code, stdout, stderr = finish(data_sh(out, *options))
    assert code == 0, stderr
    assert f"train: 1000 utterances ({len(made)} were there already)" in stdout
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in made} == made
    assert {path.name for path in audio.iterdir()} == {f"{key}.wav" for key in table(out / "train" / "text")}
    assert len(table(out / "train" / "wav.scp")) == 1000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--train_uts", "5"], ["--train_uts", "--train_utts"]),
        (["--dev_utts", "0"], ["--dev_utts", "at least 1"]),
        (["--nj", "two"], ["--nj", "'two'"]),
        (["--max_words", "4"], ["--max_words 4", "5 words"]),
    ],
)
def test_wrong_options(tmp_path: Path, options: list[str], words: list[str]) -> None:
    code, _, stderr = finish(data_sh(tmp_path / "data", *options))
    assert code == 2 and all(word in stderr for word in words)
    assert len(stderr.strip().splitlines()) == 1 and not (tmp_path / "data").exists()


def test_espeak_missing(tmp_path: Path) -> None:
    (tmp_path / "espeakng_loader.py").write_text("raise ImportError\n")
    code, _, stderr = finish(data_sh(tmp_path / "data", PYTHONPATH=str(tmp_path)))
    assert (code, stderr) == (
        2,
        "error: eSpeak NG is missing, mini_synth speaks with it: pip install espeakng-loader\n",
    )


def test_a_full_disk(tmp_path: Path) -> None:
    """A limit of 8 kB per file stands for the disk: tables and short texts fit, audio does not."""
    out = tmp_path / "data"
    script = f"ulimit -f 8; exec bash '{RECIPE / 'local' / 'data.sh'}' " + " ".join(SMALL)
    environment = {**os.environ, "DATADIR": str(out), "PYTHON": sys.executable}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert f"{out / 'local' / 'audio' / 'test'}: File too large" in done.stderr and "same command again" in done.stderr
    assert list((out / "local" / "audio" / "test").iterdir()) == [] and not (out / "test").exists()


def test_somebody_elses_data_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    code, _, stderr = finish(data_sh(tmp_path, *SMALL))
    assert code == 2 and f"{tmp_path / 'train'}: not made by this recipe" in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["train"]
