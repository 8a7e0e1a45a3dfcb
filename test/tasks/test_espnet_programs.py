"""ESPnet's own programs: what is refused before they start, what is counted, and the optimiser they get."""

import argparse
import logging
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

pytest.importorskip("espnet2", reason="needs ESPnet; utils/install.sh installs it")
from whisfusion_asr.errors import UserError
from whisfusion_asr.tasks.espnet_programs import ControlTask, check_sound, run_program, timed
from whisfusion_asr.training.muon import Muon


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory with one utterance of a tenth of a second."""
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16000)
    (tmp_path / "wav.scp").write_text(f"a {tmp_path}/a.wav\n")
    return tmp_path


def test_whole_files_at_16_khz_are_accepted(data: Path) -> None:
    check_sound(data / "wav.scp")


def test_what_the_reader_would_not_read_is_refused(data: Path) -> None:
    (data / "segments").write_text("a a 0 0.05\n")
    with pytest.raises(UserError, match="segments: utterances are parts of recordings"):
        check_sound(data / "wav.scp")
    (data / "segments").unlink()
    soundfile.write(data / "a.wav", np.zeros(800), 8000)
    with pytest.raises(UserError, match="sampled at 8000 Hz, which ESPnet would take for 16000"):
        check_sound(data / "wav.scp")


@pytest.mark.parametrize("role", ["", "train_", "valid_"])
def test_the_audio_of_every_role_is_checked(data: Path, role: str) -> None:
    (data / "wav.scp").write_text("a sox a.mp3 -t wav - |\n")
    words = ["--seed", "0", f"--{role}data_path_and_name_and_type", f"{data}/wav.scp,speech,sound"]
    with pytest.raises(UserError, match="wav.scp: a is a command"):
        run_program("asr_train", words)


def test_every_call_is_timed_also_one_that_fails() -> None:
    calls: list[float] = []

    def sleep(seconds: float) -> float:
        calls.append(seconds)
        time.sleep(seconds if len(calls) > 1 else 0.2)  # what only a first call costs is in no utterance's time
        return 1 / seconds

    call, seconds = timed(sleep)
    assert call(0.02) == 50.0
    with pytest.raises(ZeroDivisionError):
        call(0.0)
    assert calls == [0.02, 0.02, 0.0] and len(seconds) == 2 and 0.2 > seconds[0] >= 0.02 > seconds[1]


class Speller(nn.Module):
    """Names as in ESPnet's models: a repeated decoder layer and a CTC head."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Module()
        self.decoder.decoders = nn.ModuleList([nn.Linear(4, 3)])
        self.ctc = nn.Linear(3, 5)


def test_muon_moves_the_matrices_of_the_layers_alone(caplog: pytest.LogCaptureFixture) -> None:
    model = Speller()
    args = argparse.Namespace(optim="muon", optim_conf={"lr": 0.001, "muon_lr": 0.02})
    with caplog.at_level(logging.INFO):
        (optimizer,) = ControlTask.build_optimizers(args, model)
    assert isinstance(optimizer, Muon)
    moved = {id(p): (group["muon"], group["lr"]) for group in optimizer.param_groups for p in group["params"]}
    assert moved == {
        id(model.decoder.decoders[0].weight): (True, 0.02), id(model.decoder.decoders[0].bias): (False, 0.001),
        id(model.ctc.weight): (False, 0.001), id(model.ctc.bias): (False, 0.001),
    }  # fmt: skip
    assert "decoder.decoders: 15 trainable, 0 frozen parameters" in caplog.text
    assert "ctc: 20 trainable, 0 frozen parameters" in caplog.text


def test_other_optimisers_are_built_by_espnet() -> None:
    args = argparse.Namespace(optim="adam", optim_conf={"lr": 0.5}, sharded_ddp=False, exclude_weight_decay=False)
    (optimizer,) = ControlTask.build_optimizers(args, Speller())
    assert type(optimizer) is torch.optim.Adam and len(optimizer.param_groups) == 1
