"""Word times without a CTC head, on a decoder whose attention is set by hand to the frames that hold its letter."""

from pathlib import Path

import numpy as np
import pytest
import torch
from engine_fakes import CONFIG, TOKENS, WIDTH, experiment

from whisfusion_asr.api import Speech2Text
from whisfusion_asr.errors import UserError

DEAF = {"ctc": None, "model_conf": {"canvas_conf": {"fit": "fixed", "length": 12}}}
ONE_HEAD = {"size": WIDTH, "num_blocks": 1, "attention_heads": 1, "ffn_size": 8}
SHIFT = 0.1  # seconds of a frame
LETTERS = "abcd"


def listener(folder: Path) -> Speech2Text:
    """Letter number i has a 1 in channel i, in the embedding as in the states; all else leaves the slots alone."""
    model = Speech2Text(experiment(folder, **DEAF, decoder_conf=ONE_HEAD), word_times=True)
    decoder = model.network.decoder
    with torch.no_grad():
        decoder.embed.weight.zero_()
        for channel, letter in enumerate(LETTERS):
            decoder.embed.weight[TOKENS.index(letter), channel] = 1.0
        decoder.embed.weight[TOKENS.index("<space>"), len(LETTERS)] = 1.0
        decoder.blocks[0].attn.out.weight.zero_()
        decoder.adapters[0].q_proj.weight.copy_(torch.eye(WIDTH) * 9)
        decoder.adapters[0].kv_proj.weight[:WIDTH] = torch.eye(WIDTH)
    return model


def states_with(spans: dict[str, tuple[int, int]], frames: int) -> np.ndarray:
    """(T, D): the channel of a letter is 1 in its frames, that of the blank in the others."""
    states = np.zeros((frames, WIDTH), dtype=np.float32)
    for letter, (start, end) in spans.items():
        states[start:end, LETTERS.index(letter)] = 1.0
    states[states.sum(1) == 0, len(LETTERS)] = 1.0
    return states


def test_words_are_timed_by_where_the_decoder_looks(tmp_path):
    model = listener(tmp_path / "exp")
    states = states_with({"a": (5, 8), "b": (8, 11), "c": (20, 22), "d": (22, 27)}, 40)
    found = model.decode_states("u", states, 40 * SHIFT, model.given("ab cd", ends=True))
    assert [word["word"] for word in found.words] == ["ab", "cd"]
    first, second = found.words
    assert not first.get("interpolated") and not second.get("interpolated") and "times" in found.timing
    # the blank before "cd" is part of that word and fills the frames between
    times = [first["start"], first["end"], second["start"], second["end"]]
    assert times == pytest.approx([0.5, 1.1, 1.1, 2.7])
    assert model.with_settings({"sampler": "pdd_reference"}).word_times


def test_an_empty_text_has_no_times(tmp_path):
    model = listener(tmp_path / "exp")
    assert model.decode_states("u", states_with({}, 9), 0.9, model.given("", ends=True)).words == []


@pytest.mark.parametrize("changed", [
    DEAF | {"decoder": "causal"}, DEAF, DEAF | {"model_conf": {"bos_id": 1, "canvas_conf": {"fit": "frames"}}},
])
def test_every_decoder_times_its_words_in_order(tmp_path, changed):
    sampler = "autoregressive" if changed.get("decoder") == "causal" else "pdd"
    conf = CONFIG["decoder_conf"] | {"ruler": "none", "clock": True}
    model = Speech2Text(experiment(tmp_path / "exp", **changed, decoder_conf=conf), word_times=True,
                        inference={"sampler": sampler, "sampler_conf": {}})
    states = np.random.default_rng(0).normal(size=(60, WIDTH)).astype(np.float32)
    found = model.decode_states("u", states, 6.0)
    borders = [time for word in found.words for time in (word["start"], word["end"])]
    assert found.words and borders == sorted(borders) and 0 <= borders[0] and borders[-1] <= 6.0
    assert not any(word.get("interpolated") for word in found.words)


def test_without_any_ear_times_are_refused(tmp_path):
    folder = experiment(tmp_path / "exp", **DEAF, decoder_conf=ONE_HEAD | {"conditioned": False})
    with pytest.raises(UserError, match="exp/config.yaml: word_times needs ctc: ctc_head or a decoder with"):
        Speech2Text(folder, word_times=True)
    listens = experiment(tmp_path / "listens", **DEAF, decoder_conf=ONE_HEAD)
    with pytest.raises(UserError, match="looks into the decoder's layers, which compile hides"):
        Speech2Text(listens, word_times=True, running={"compile": "default"})
