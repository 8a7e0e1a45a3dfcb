"""The controls of ESPnet's own programs on the toy corpus, by the scripts that a user calls: a few steps and words."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from whisfusion_asr.bin.compare import main as compare
from whisfusion_asr.bin.data import main as data

if TYPE_CHECKING:
    from conftest import Toy

SMALL = "--encoder_conf num_blocks=1 --decoder_conf num_blocks=1"
TRAINING = f"--max_epoch 1 --num_iters_per_epoch 3 --batch_size 4 {SMALL}"
# of a search that has not learnt where a text ends
SHORT = {"run_espnet.sh": "beam_size=2 maxlenratio=-4", "run_maskctc.sh": "maskctc_n_iterations=2"}
ENCODER = {"run_espnet.sh": "timed", "run_maskctc.sh": "not timed (states from disk)"}
MODELS = {"run_espnet.sh": "mini_synth_espnet/decode_espnet", "run_maskctc.sh": "mini_synth_maskctc/decode_maskctc"}


@pytest.mark.parametrize("script", MODELS)
def test_trains_decodes_and_scores(toy: Toy, script: str, tmp_path: Path) -> None:
    """In a copy of the data: other tests compare what the toy recipe itself has left."""
    control = replace(toy, script=script, root=tmp_path, data=shutil.copytree(toy.data, tmp_path / "data"))
    data(["subset", str(control.data / "test"), "4", str(control.data / "few")])
    shutil.copytree(toy.states, control.states)
    (control.states / "few").symlink_to("test")
    words = ["--test_sets", "few", "--asr_args", TRAINING]
    words += ["--inference_args", SHORT[script], "--inference_nj", "1", *control.stages(4, 6)]
    control.run(*words)
    decoded = control.exp / MODELS[script] / "few"
    keys = [line.split()[0] for line in (control.data / "few/utt2spk").read_text().splitlines()]
    assert [line.split()[0] for line in (decoded / "text").read_text().splitlines()] == keys
    meta, summary = (json.loads((decoded / name).read_text()) for name in ("meta.json", "summary.json"))
    assert meta["decode_seconds"] > 0 and meta["utterances"] == summary["utterances"] == 4
    assert "goes on" not in (again := control.run(*words).stdout) and again.count("is up to date") == 4
    out = tmp_path / f"{script}.md"
    places = [f"{name}={decoded.parent}" for name in ("control", "itself")]
    compare(["--systems", *places, "--against", "control", "--replicates", "50", "--out", str(out)])
    row = json.loads(out.with_suffix(".json").read_text())["sets"]["few"]["systems"][0]
    assert row["encoder"] == ENCODER[script] and int(row["parameters"].replace(",", "")) > 500_000 and row["minutes"]
