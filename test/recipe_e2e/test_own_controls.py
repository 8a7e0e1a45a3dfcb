"""The recipe's own controls on the toy corpus, by the scripts that a user calls: few steps, few utterances."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from whisfusion_asr.bin.data import main as data

if TYPE_CHECKING:
    from conftest import Toy

ENCODER = "train_encoder_en_unigram80"


def few(toy: Toy, script: str, root: Path) -> Toy:
    """A control with the toy's encoder and states, and a set `few` of four utterances."""
    control = replace(toy, script=script, root=root, data=shutil.copytree(toy.data, root / "data"))
    data(["subset", str(control.data / "test"), "4", str(control.data / "few")])
    shutil.copytree(toy.states, control.states)
    (control.states / "few").symlink_to("test")
    shutil.copytree(toy.exp / ENCODER, control.exp / ENCODER)
    return control


def decoded(control: Toy, decoding: str) -> dict:
    """The summary of a decoding of `few`; every utterance is in its text."""
    place = control.exp / decoding / "few"
    keys = [line.split()[0] for line in (control.data / "few/utt2spk").read_text().splitlines()]
    assert [line.split()[0] for line in (place / "text").read_text().splitlines()] == keys
    return json.loads((place / "meta.json").read_text())


def test_the_autoregressive_control_is_trained_and_searched(toy: Toy, tmp_path: Path) -> None:
    control = few(toy, "run_ar.sh", tmp_path)
    training = "--max_epoch 1 --num_iters_per_epoch 3 --batch_size 4 --decoder_conf num_blocks=1"
    control.run("--test_sets", "few", "--asr_args", training, "--inference_nj", "1", *control.stages(4, 6))
    greedy = decoded(control, "mini_synth_ar/decode_ar")
    assert greedy["sampler"] == "autoregressive" and greedy["warm_up"] == "1 utterance"
    assert decoded(control, "mini_synth_ar/decode_ar_beam5")["sampler_conf"]["beam"] == 5


def test_the_ctc_control_is_the_encoder_alone(toy: Toy, tmp_path: Path) -> None:
    control = few(toy, "run_ctc.sh", tmp_path)
    control.run("--test_sets", "few", "--inference_nj", "1", *control.stages(5, 6))
    assert decoded(control, f"{ENCODER}/decode_ctc")["sampler"] == "ctc_greedy"
    summary = json.loads((control.exp / ENCODER / "decode_ctc/few/summary.json").read_text())
    assert summary["utterances"] == 4
