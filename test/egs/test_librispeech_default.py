"""The defaults of the LibriSpeech recipe: the published system from published parts, its costs told beforehand."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from whisfusion_asr.config import read_yaml
from whisfusion_asr.recipe.options import Options
from whisfusion_asr.recipe.settings import find_config

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs" / "librispeech" / "asr1"


def words_of_run_sh() -> list[str]:
    """The values that run.sh gives to asr.sh."""
    script = (RECIPE / "run.sh").read_text()
    values = script.partition('asr.sh"')[2].partition('-- "$')[0]
    return shlex.split(values.replace("\\\n", " "))


def stages_of(empty: Path, *words: str) -> dict[str, list[str]]:
    """Stage name -> lines of the dry run with these options beside the defaults, in directories that are empty."""
    places = [word for name in ("data", "dump", "exp") for word in (f"--{name}dir", str(empty / name))]
    words = (*words_of_run_sh(), "--", *words, *places, "--dry_run", "true")
    command = [sys.executable, "-m", "whisfusion_asr.bin.recipe", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=RECIPE, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stages: dict[str, list[str]] = {"": []}
    for line in done.stdout.splitlines():
        if line.startswith("# Stage "):
            stages[line.split()[3].rstrip(";")] = []
        next(reversed(stages.values())).append(line)
    return stages


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The dry run with all defaults."""
    return stages_of(tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="module")
def dry_run_v2(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The dry run of the second preset."""
    return stages_of(tmp_path_factory.mktemp("empty"), "--preset", "whisfusion_v2")


def test_every_option_is_one(dry_run):
    known = set(Options.__dataclass_fields__)
    assert {word.removeprefix("--") for word in words_of_run_sh() if word.startswith("--")} <= known
    assert list(dry_run) == ["", "data", "parts", "dump", "train_adapter", "train_decoder", "decode", "score"]


@pytest.mark.parametrize(
    ("stage", "lines"),
    [
        ("data", ["# downloads: 61 GB from openslr.org"]),
        ("parts", ["# downloads: TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T from",
                   ".bin.import_model --tokenizer", ".bin.import_encoder",
                   "# downloads: openai/whisper-small from the Hugging Face hub, 0.97 GB",
                   "# downloads: nieshen/SMDM:mdm_safetensors/", "0.88 GB", ".bin.import_model --smdm nieshen/SMDM:"]),
        ("dump", ["# disk: states of 960.9 hours of audio as ", "# disk: states of 5.1 hours", "hours at 100 TFLOP/s"]),
        ("train_adapter", ["# time: 80 epochs of 281,241 utterances, 29 hours", "train_whisfusion_small_adapter.yaml"]),
        ("train_decoder", ["# time: 30 epochs of 281,241 utterances, 13 hours", "train_whisfusion_small_decoder.yaml"]),
        ("decode", ["# time: 2,620 utterances, 15 candidates, 4 passes", "# time: 2,939 utterances"]),
        ("score", ["RESULTS.md"]),
    ],
)  # fmt: skip
def test_each_stage_tells_its_costs(dry_run, stage, lines):
    told = "\n".join(dry_run[stage])
    assert [line for line in lines if line not in told] == []


@pytest.mark.parametrize(
    ("stage", "lines"),
    [
        ("parts", ["--vocab_size 5000 --languages en ", "# downloads: openai/whisper-large-v3 from", "3.09 GB"]),
        # (960.9 h * 3600 s * 25 states + 281,241 * 8 of int8's scales) * 1280 bytes; 281,241 * 2.27e12 operations
        ("dump", ["# disk: states of 960.9 hours of audio as int8, about 114 GB", "# time: encoding, 1.8 hours at"]),
        ("train_adapter", ["conf/train_whisfusion_v2.yaml", "# time: 60 epochs of 281,241 utterances, 32 hours"]),
        ("train_decoder", ["conf/train_whisfusion_v2_decoder.yaml", "# time: 30 epochs of 281,241 utterances, 16 h"]),
        ("decode", ["# decode_pdd_mbr/test_clean", "--inference_args selection=mbr"]),
    ],
)  # fmt: skip
def test_each_stage_of_v2_tells_its_costs(dry_run_v2, stage, lines):
    told = "\n".join(dry_run_v2[stage])
    assert [line for line in lines if line not in told] == []
    assert "smdm" not in told.lower(), "the decoder starts from nothing"


def test_v2_reads_a_large_encoder_and_ends_with_high_masks(monkeypatch):
    monkeypatch.chdir(RECIPE)
    files = [f"conf/{name}.yaml" for name in ("whisper_large_v3", "train_whisfusion_v2", "train_whisfusion_v2_decoder")]
    encoder, first, second = (read_yaml(find_config(file)) for file in files)
    assert encoder["encoder_conf"]["model"] == "openai/whisper-large-v3"
    assert first["encoder_conf"]["size"] == second["encoder_conf"]["size"] == 1280
    assert first["model_conf"]["mask_ratio"] == [0.0, 1.0] and second["model_conf"]["mask_ratio"] == [0.7, 1.0]
    assert not first.get("freeze_param") and not second.get("freeze_param")


def test_the_two_stages_have_the_values_of_the_paper(monkeypatch):
    monkeypatch.chdir(RECIPE)
    files = [f"conf/train_whisfusion_small_{part}.yaml" for part in ("adapter", "decoder")]
    adapter, decoder = (read_yaml(find_config(file)) for file in files)
    for settings in (adapter, decoder):
        sizes = settings["decoder_conf"]
        assert (sizes["size"], sizes["num_blocks"], sizes["attention_heads"], sizes["ffn_size"]) == (768, 18, 12, 3072)
        assert settings["model_conf"]["canvas_conf"] == {"fit": "fixed", "margin": 4, "length": 256}
        assert settings["grad_clip"] == 0.5 and settings["optim"] == "adamw" and settings["use_amp"] is True
    assert adapter["model_conf"]["mask_ratio"] == [0.0, 1.0] and decoder["model_conf"]["mask_ratio"] == [0.7, 1.0]
    assert adapter["batch_size"] * adapter["accum_grad"] == 512 and decoder["batch_size"] * decoder["accum_grad"] == 256
    assert (adapter["max_epoch"], adapter["patience"], decoder["max_epoch"], decoder["patience"]) == (80, 8, 30, 5)
    assert adapter["optim_conf"] == {"lr": 1e-4, "betas": [0.9, 0.95], "weight_decay": 0.01}
    # What decays, and one floor for all groups: as the released code has it.
    assert decoder["optim_conf"] == {"lr": 1e-5, "weight_decay": 0.005, "layer_decay": 0.9, "decayed": "released"}
    warmup = {"warmup_ratio": 0.1, "warmup_start": 0.01}
    assert decoder["scheduler_conf"] == {**warmup, "floor": 0.01, "floor_of": "all"}
    assert decoder["ema_decay"] == 0.995 and "ema_decay" not in adapter


def test_mini_long_is_mini_at_three_speeds_and_trained_longer(tmp_path):
    """Every later stage takes the set with the copies; nothing of preset mini is overwritten."""
    stages = stages_of(tmp_path, "--preset", "mini_long", "--whisper_dir", str(tmp_path))
    (speed,) = [line for line in stages["data"] if "perturb_speed" in line]
    assert "train_mini_sp --factors 0.9 1.0 1.1" in speed
    assert "/train_mini_sp " in " ".join(stages["dump"]) and "/train_mini " not in " ".join(stages["dump"])
    for stage, config in (("train_adapter", "train_whisper_anchored_mini"), ("train_decoder", "train_whisper_mini")):
        longer, usual = (read_yaml(RECIPE / f"conf/{config}{name}.yaml") for name in ("_long", ""))
        (training,) = [line for line in stages[stage] if ".bin.train " in line]
        assert f"conf/{config}_long.yaml" in training and "/states/train_mini_sp,states,states" in training
        assert longer.pop("max_epoch") > usual.pop("max_epoch") and longer == usual
    mini, long = (read_yaml(RECIPE / f"conf/preset_{name}.yaml") for name in ("mini", "mini_long"))
    assert {long["datadir"], long["dumpdir"]}.isdisjoint({mini["datadir"], mini["dumpdir"]})
