"""The controls of the recipes: what their scripts would run, seen in dry runs of a copy without data."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """egs/mini_synth/asr1 in a checkout that installs nothing."""
    root = tmp_path_factory.mktemp("controls")
    ours = subprocess.run(["git", "-C", ROOT, "ls-files", "egs", "conf"], capture_output=True, text=True, check=True)
    for name in ours.stdout.splitlines():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name, follow_symlinks=False)
    (root / "whisfusion_asr").symlink_to(ROOT / "whisfusion_asr")
    (root / "utils").mkdir()
    (root / "utils/install.sh").write_text("#!/bin/sh\n")
    (root / "utils/install.sh").chmod(0o755)
    return root / "egs/mini_synth/asr1"


def commands(recipe: Path, script: str, *words: str) -> list[str]:
    """Commands of a dry run."""
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "VIRTUAL_ENV": sys.prefix}
    done = subprocess.run([recipe / script, *words, "--dry_run", "true"], env=os.environ | path, capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if "whisfusion_asr.bin." in line]


def test_ctc_decodes_and_scores_the_encoder_alone(recipe: Path) -> None:
    found = commands(recipe, "run_ctc.sh")
    names = [line.split("whisfusion_asr.bin.")[1].split()[0] for line in found]
    assert names == ["decode", "decode", "score", "results"]
    assert "--exp_dir exp/train_encoder_en_unigram300 --model_file valid.loss.ave.pth" in found[0]
    assert "decode_ctc.yaml" in found[0] and "--states_dir dump/states/test" in found[0]


def test_autoregressive_starts_from_the_ctc_head_alone(recipe: Path) -> None:
    train, *decode = commands(recipe, "run_ar.sh", "--stage", "train_decoder", "--stop_stage", "decode")
    assert "--config conf/train_ar.yaml --output_dir exp/mini_synth_ar" in train
    assert train.count(".pth") == 1 and "exp/train_encoder_en_unigram300/valid.loss.ave.pth:ctc:ctc" in train
    assert [("decode_ar.yaml" in line, "decode_ar_beam5.yaml" in line) for line in decode[::2]] == [
        (True, False), (False, True)]  # fmt: skip


def test_the_comparison_takes_what_the_controls_left(recipe: Path) -> None:
    (compare,) = commands(recipe, "run_ar.sh", "--stage", "compare")
    systems = "mini_synth_ar/decode_ar=exp/mini_synth_ar/decode_ar "
    assert f"--systems {systems}mini_synth_ar/decode_ar_beam5=" in compare
    assert "--against mini_synth_ar/decode_ar --sets test" in compare


def test_the_original_whisper_hears_audio_and_is_scored_with_its_own_normaliser(recipe: Path) -> None:
    place = recipe.parents[1] / "librispeech/asr1"
    found = commands(place, "run_whisper.sh", "--preset", "mini", "--whisper_dir", "W")
    names = [line.split("whisfusion_asr.bin.")[1].split()[0] for line in found]
    assert names == ["decode_whisper", "decode_whisper", "score", "results"]
    decoded = "exp_mini/whisper_original/ar_whisper/test_mini"
    files = f"--config ../../../conf/ar_whisper.yaml --data_dir data_mini/test_mini --out {decoded}"
    assert f"--whisper_dir W {files}" in found[0]
    assert "--job ${JOB}" in found[0] and "--merge true" in found[1] and "states" not in found[0]
    assert f"--hyp {decoded}/text" in found[2] and "--normalizer whisper_en" in found[2]
    assert "--token_list" not in found[2]


def test_the_original_whisper_needs_a_folder(recipe: Path) -> None:
    script = recipe.parents[1] / "librispeech/asr1/run_whisper.sh"
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "VIRTUAL_ENV": sys.prefix}
    done = subprocess.run([script, "--preset", "mini"], env=os.environ | path, capture_output=True, text=True)
    assert done.returncode == 2 and "--whisper_dir is not set; stage decode needs it" in done.stderr
