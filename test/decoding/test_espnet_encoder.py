"""An experiment on raw audio with ESPnet's conformer opens like any other, in a process that has not seen ESPnet."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engine_fakes import experiment

import whisfusion_asr.tasks.choices  # noqa: F401  (registers ESPnet's encoders, to build the network that is saved)
from whisfusion_asr.api import load_encoder, loading
from whisfusion_asr.errors import UserError

CONFORMER = {
    "frontend": "logmel", "encoder": "conformer",
    "encoder_conf": {"output_size": 8, "attention_heads": 2, "linear_units": 8, "num_blocks": 1},
}
OPEN = """
import sys
import numpy as np
from whisfusion_asr.api import Speech2Text
assert "espnet2" not in sys.modules, "the import alone costs seconds"
model = Speech2Text({exp!r}, inference={{"sampler": "pdd", "sampler_conf": {{"candidates": 2}}}})
print(repr(model(np.load({audio!r}))[0][0]))
"""


@pytest.fixture(scope="module")
def exp(tmp_path_factory) -> Path:
    return experiment(tmp_path_factory.mktemp("conformer") / "exp", **CONFORMER)


def test_speech2text_decodes_with_a_conformer(exp, tmp_path):
    np.save(tmp_path / "audio.npy", np.random.default_rng(0).normal(size=16000).astype(np.float32) * 0.1)
    code = OPEN.format(exp=str(exp), audio=str(tmp_path / "audio.npy"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) > 2, "some text of a random network"


def test_its_encoder_alone_opens_too(exp):
    assert load_encoder(exp).encoder.output_size == 8


def test_without_espnet_the_remedy_is_named(exp, monkeypatch):
    ours = {name: part for name, part in loading.ENCODERS.items() if name != "conformer"}
    monkeypatch.setattr(loading, "ENCODERS", ours)
    monkeypatch.delitem(sys.modules, "whisfusion_asr.tasks.choices")
    monkeypatch.setitem(sys.modules, "espnet2.schedulers.abs_scheduler", None)
    with pytest.raises(UserError, match=r"config\.yaml: encoder: conformer is none of .* pip install"):
        load_encoder(exp)
