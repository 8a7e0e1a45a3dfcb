"""What the storage of the states costs a trained decoder: int8 and float16 against float32."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from whisfusion_asr.config import read_yaml
from whisfusion_asr.data.states import StatesTable
from whisfusion_asr.data.storage import pack, stored_bytes, unpack
from whisfusion_asr.recipe.options import Options
from whisfusion_asr.tasks.asr import DiffusionASRTask

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = 1500 * 768 * 2  # bytes of an utterance: all states of a 30 s window, two bytes a number
LIBRISPEECH_SECONDS = 960.9 * 3600 / 281_241  # mean utterance of the 960 hours


def loss_of(model: torch.nn.Module, states: Mapping[str, np.ndarray], texts: Mapping[str, torch.Tensor]) -> float:
    """Validation loss, its masks fixed by the utterances' names."""
    keys = sorted(states)
    rows = [torch.from_numpy(states[key]) for key in keys]
    pad = torch.nn.utils.rnn.pad_sequence
    with torch.no_grad():
        loss, _, _ = model(
            text=pad([texts[key] for key in keys], batch_first=True, padding_value=-1),
            text_lengths=torch.tensor([len(texts[key]) for key in keys]),
            utt_id=keys,
            states=pad(rows, batch_first=True),
            states_lengths=torch.tensor([len(row) for row in rows]),
        )
    return float(loss)


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    """A decoder that reads the toy states: 200 epochs of two steps on nearly all slots masked."""
    conf = {"model_conf": {"canvas_conf": {"fit": "fixed", "length": 8}, "mask_ratio": [0.7, 1.0]}}
    exp = train(tmp_path_factory.mktemp("stored") / "exp", conf, max_epoch=200, batch_size=6)
    model, args = DiffusionASRTask.build_model_from_file(exp / "config.yaml", exp / "valid.loss.ave.pth")
    return model.eval(), args.token_list


def test_loss_changes_by_less_than_a_hundredth(trained, corpus):
    model, tokens = trained
    table = StatesTable(corpus / "dump" / "train")
    states = {key: table[key] for key in table}
    lines = [line.split() for line in (corpus / "data/train/text").read_text().splitlines()]
    texts = {key: torch.tensor([tokens.index(letter) for letter in word]) for key, word in lines}
    exact = loss_of(model, states, texts)
    shuffled = loss_of(model, dict(zip(states, [*states.values()][1:] + [states["train00"]], strict=True)), texts)
    assert shuffled > 1.5 * exact  # it listens to the states, so harm done to them would show
    for storage in ("float16", "int8"):
        stored = {key: unpack(pack(value, storage), storage) for key, value in states.items()}
        assert abs(loss_of(model, stored, texts) / exact - 1) < 0.01
    coarse = {key: np.round(value) for key, value in states.items()}
    assert abs(loss_of(model, coarse, texts) / exact - 1) > 0.01  # the bound can be missed


def test_default_librispeech_states_take_an_eighth_of_the_published():
    conf = read_yaml(ROOT / "egs/librispeech/asr1/conf/whisper_small.yaml")["encoder_conf"]
    frames = 30 * 50 if conf.get("keep") == "padded" else LIBRISPEECH_SECONDS * 50
    stored = stored_bytes(Options().states_storage, frames / conf.get("pool", 1), 768)
    assert stored <= PUBLISHED / 8, json.dumps(conf)
