"""The bound below which nothing was said: its formula, what it empties, and the command that writes it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_fakes import TOKENS, WIDTH, data_set, experiment

from whisfusion_asr.api import Speech2Text
from whisfusion_asr.api.silence import FILE, calibrate, confidence, read_bound
from whisfusion_asr.bin import calibrate as command
from whisfusion_asr.decoding.given import Given
from whisfusion_asr.errors import UserError

BLANK = len(TOKENS)
SAMPLERS = [{"sampler": "pdd"}, {"sampler": "eb"}, {"sampler": "ctc_greedy"}]


@pytest.fixture
def exp(tmp_path) -> Path:
    return experiment(tmp_path / "exp")


def hears(model: Speech2Text) -> Speech2Text:
    """CTC hears a token, two frames and blank, and gives it the probability that stands in the first frame's state."""

    def logits(states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        rows = torch.full((len(states), states.size(1), BLANK + 1), -30.0)
        rows[..., BLANK] = 30.0
        for row, state in enumerate(states[:, 0, 0].tolist()):
            if state:
                rows[row, :2] = math.log((1 - state) / BLANK)
                rows[row, :2, 3] = math.log(state)
        return rows

    model.network.ctc.forward = logits
    return model


def states(sure: float, frames: int = 6) -> np.ndarray:
    table = np.zeros((frames, WIDTH), dtype=np.float32)
    table[0, 0] = sure
    return table


def utterances(model: Speech2Text, sure: list[float]) -> list:
    return [model.utterance(f"u{i}", states(s), 1.0) for i, s in enumerate(sure)]


def test_the_bound_by_hand(exp):
    model = hears(Speech2Text(exp, inference={"sampler": "ctc_greedy"}))
    sure = [0.8, *[0.95] * 200]
    assert [confidence(model, one) for one in utterances(model, sure[:2])] == pytest.approx([0.8, 0.95], abs=1e-5)
    found = calibrate(model, utterances(model, sure))
    # the 0.5 % quantile of 201 values is the second smallest: 1 - 2 * 0.05
    assert found == {"bound": 0.9, "measure": "ctc", "quantile": 0.95, "utterances": 201}
    assert calibrate(model, utterances(model, [0.1, 0.0]))["bound"] == 0.0
    with pytest.raises(UserError, match="calibrate: the set holds no utterances"):
        calibrate(model, [])


@pytest.mark.parametrize("inference", SAMPLERS)
def test_what_ctc_is_unsure_of_is_silence_by_the_experiments_bound(exp, inference):
    (exp / FILE).write_text('{"bound": 0.9}')
    model = hears(Speech2Text(exp, inference=inference))
    loud, unsure, nothing = list(model.decode_many(utterances(model, [0.95, 0.85, 0.0])))
    assert loud.flags.count("silence") == 0 and (inference["sampler"] != "ctc_greedy" or loud.text == "a")
    for quiet in (unsure, nothing):
        assert (quiet.text, quiet.tokens, quiet.words) == ("", [], []) and "silence" in quiet.flags


def test_a_given_bound_counts_and_so_do_given_words(exp):
    (exp / FILE).write_text('{"bound": 0.9}')
    model = hears(Speech2Text(exp, inference={"engine_conf": {"silence": 0.8}}))
    assert "silence" not in model.decode_states("u", states(0.85), 1.0).flags
    other = model.with_settings({})
    assert "silence" in other.decode_states("u", states(0.85), 1.0).flags
    given = other.decode_states("u", states(0.85), 1.0, Given([3, 4], ends=True))
    assert given.text == "ab" and "silence" not in given.flags


def test_without_a_bound_everything_is_speech(exp):
    model = hears(Speech2Text(exp))
    assert read_bound(exp) is None
    assert all("silence" not in found.flags for found in model.decode_many(utterances(model, [0.3, 0.0])))


def test_a_model_without_ctc_is_measured_by_its_first_pass(tmp_path):
    folder = experiment(tmp_path / "exp", ctc=None, decoder_conf={"size": 16, "attention_heads": 2, "num_blocks": 1},
                        model_conf={"canvas_conf": {"fit": "fixed", "length": 8}})
    model = Speech2Text(folder, inference={"sampler": "single", "engine_conf": {"silence": 0.0}})
    heard = [model.utterance(name, np.random.default_rng(i).normal(size=(9, WIDTH)), 1.0)
             for i, name in enumerate("abc")]
    found = calibrate(model, heard)
    assert found["measure"] == "first_pass" and 0 <= found["bound"] < found["quantile"] < 1
    strict = model.with_settings({"sampler": "eb", "engine_conf": {"silence": 1.0}})
    assert all(one.text == "" and "silence" in one.flags for one in strict.decode_many(heard))


def test_the_command_writes_the_bound_once(exp, tmp_path, capsys):
    data_set(tmp_path / "set", {"u1": 8000, "u2": 16000, "u3": 4800})
    words = ["--exp_dir", str(exp), "--data_dir", str(tmp_path / "set/data")]
    command.main([*words, "--states_dir", str(tmp_path / "set/absent")])
    assert not (exp / FILE).exists() and "absent/states.scp is not there" in capsys.readouterr().out
    words += ["--states_dir", str(tmp_path / "set/states")]
    command.main(words)
    found = json.loads((exp / FILE).read_text())
    assert found["utterances"] == 3 and found["measure"] == "ctc" and read_bound(exp) == found["bound"]
    assert "no speech below" in capsys.readouterr().out
    command.main(words)
    assert capsys.readouterr().out == "", "these weights and this set: nothing to do"
    (exp / FILE).write_text(json.dumps(found | {"weights": "others"}))
    command.main(words)
    assert json.loads((exp / FILE).read_text())["weights"] != "others"


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"bound": "x"}'])
def test_a_damaged_file_is_named(exp, content):
    (exp / FILE).write_text(content)
    with pytest.raises(UserError, match=r"silence.json: expected a JSON object with a number `bound`"):
        Speech2Text(exp)
