"""The recipe that converts a Whisper: recordings in, the page with the dial out, with a random Whisper of width 16."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]
TEXT = "The cat, it saw a SMALL house."  # unlike what Whisper's labels are written as
OPTIONS = {
    "label_args": "--min_mean_log_prob -99 --max_compression 99", "nj": "1",
    "asr_args": "--max_epoch 1 --batch_size 4 --num_workers 0 --specaug_conf time_width=2",
    "ctc_token_type": "char",
    "inference_config": "conf/ar_whisper_alone.yaml conf/decode_accurate.yaml",
}


@pytest.fixture
def ending_whisper(toy_whisper: Path, tmp_path: Path) -> Path:
    """The toy Whisper with 160 places, and made to end: from the ninth on its decoder thinks of the end of the text."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    state = WhisperForConditionalGeneration.from_pretrained(toy_whisper).state_dict()
    config = WhisperConfig.from_pretrained(toy_whisper, max_target_positions=160)
    places = "model.decoder.embed_positions.weight"
    end = state["model.decoder.embed_tokens.weight"][config.eos_token_id]
    state[places] = state[places].repeat(4, 1)
    state[places][8:] += 30 * end / end.norm()
    model = WhisperForConditionalGeneration(config)
    model.load_state_dict(state)
    folder = tmp_path / "whisper"
    model.save_pretrained(folder)
    for name in ("generation_config.json", "tokenizer.json"):
        shutil.copy(toy_whisper / name, folder)
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """egs/convert_whisper/asr1 in a checkout that installs nothing."""
    root = tmp_path / "checkout"
    for name in ("conf", "egs/TEMPLATE", "egs/convert_whisper"):
        shutil.copytree(ROOT / name, root / name, symlinks=True)
    (root / "whisfusion_asr").symlink_to(ROOT / "whisfusion_asr")
    (root / "utils").mkdir()
    (root / "utils/install.sh").write_text("#!/bin/sh\n")
    (root / "utils/install.sh").chmod(0o755)
    return root / "egs/convert_whisper/asr1"


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Fourteen noises of a second, one of 40 s, and something that is no audio."""
    folder, rng = tmp_path / "recordings", np.random.default_rng(0)
    (folder / "more").mkdir(parents=True)
    for number in range(14):
        soundfile.write(folder / "more" / f"n{number:02d}.flac", 0.3 * rng.normal(size=16000 + 500 * number), 16000)
    soundfile.write(folder / "long.wav", 0.3 * rng.normal(size=40 * 8000), 8000)
    (folder / "broken.wav").write_text("no audio")
    return folder


def run(recipe: Path, folder: Path, *words: object) -> str:
    """Run the recipe with its directories below a folder; returns what it printed."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DATADIR")}
    path = {"VIRTUAL_ENV": sys.prefix, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    places = [word for name in ("data", "dump", "exp") for word in (f"--{name}dir", folder / name)]
    options = [word for name, value in OPTIONS.items() for word in (f"--{name}", value)]
    command = [str(word) for word in (recipe / "run.sh", *places, *options, *words)]
    done = subprocess.run(command, env=kept | path | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    return done.stdout + done.stderr


def test_recordings_become_a_model_and_its_page(
    recipe: Path, ending_whisper: Path, recordings: Path, tmp_path: Path
) -> None:
    pytest.importorskip("espnet2", reason="ESPnet is not installed")
    (tmp_path / "text").write_text("".join(f"n{number:02d} {TEXT}\n" for number in range(6)))
    given = {"--whisper_dir": ending_whisper, "--audio_dir": recordings, "--transcripts": tmp_path / "text"}
    told = run(recipe, tmp_path, *(word for pair in given.items() for word in pair))
    assert "broken.wav: left out: not readable as audio" in told
    texts = {name: (tmp_path / "data" / name / "text").read_text().splitlines() for name in ("train", "valid", "test")}
    # Known words test and validate, the latter as Whisper would write them.
    assert texts["test"] and all(line.endswith(TEXT) for line in texts["test"])
    words = [re.sub(r"[^a-z ]", "", line.split(" ", 1)[1].lower()) for line in texts["valid"]]
    assert words and set(words) == {re.sub(r"[^a-z ]", "", TEXT.lower())}
    assert sum(map(len, texts.values())) == 16
    assert len((tmp_path / "data/train/labelled").read_text().splitlines()) == 10
    segments = (tmp_path / "data/train/segments").read_text()
    assert segments.count(" long ") == 2
    page = (tmp_path / "exp/COMPARISON.md").read_text()
    assert "converted/ar_whisper_alone" in page and "converted/decode_accurate" in page and "encoder left out" in page
    assert "original Whisper wrote" not in page  # of the test set, no reference
    found = json.loads((tmp_path / "exp/COMPARISON.json").read_text())
    rows = {row["system"]: row for row in found["sets"]["test"]["systems"]}
    assert all(row["rtfx"] > 0 for row in rows.values())
    decoded = (tmp_path / "exp/converted/decode_accurate/test/candidates.jsonl").read_text().splitlines()
    heard = [(each["passes"], each["text"]) for each in map(json.loads, decoded)]
    # What the head that drafts takes for silence, the converted decoder is not asked about.
    assert heard and all(passes > 0 or not text for passes, text in heard)
    mean = sum(passes for passes, _ in heard) / len(heard)
    assert rows["converted/decode_accurate"]["passes"] == pytest.approx(mean, abs=0.06)
    assert rows["converted/ar_whisper_alone"]["passes"] > 0
    assert (tmp_path / "exp/comparison.png").stat().st_size > 5000
