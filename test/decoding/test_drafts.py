"""Drafts for the sampler of gaps: whole words of a CTC head, the model's own or one with other tokens."""

import string
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_fakes import TOKENS, WIDTH, experiment

from whisfusion_asr.api import Speech2Text
from whisfusion_asr.api.drafts import word_draft
from whisfusion_asr.data.text_form import TextForm
from whisfusion_asr.data.tokenizer import CharTokenizer, Tokenizer
from whisfusion_asr.decoding.given import Given
from whisfusion_asr.decoding.words import Word
from whisfusion_asr.errors import UserError

CAPITALS = ["<eos>", "<unk>", "<space>", "<dot>", *string.ascii_uppercase]
NO_CTC = {"ctc": None, "decoder_conf": {"size": 16, "num_blocks": 2, "attention_heads": 2, "ffn_size": 24},
          "model_conf": {"canvas_conf": {"fit": "frames", "tokens_per_frame": 1.0, "margin": 9}}}
GAPS = {"sampler": "gaps", "sampler_conf": {"gamma": 1.0}, "engine_conf": {"draft": 0.8}}


def says(tokens: list[str], text: str, sure: float = 0.9, doubt: dict[int, float] | None = None):
    """A CTC head that hears these pieces, one each second frame (blank between), some of them with less confidence."""
    pieces = [{" ": "<space>"}.get(letter, letter) for letter in text]
    table = torch.full((1, 2 * len(pieces), len(tokens) + 1), (1 - sure) / len(tokens))
    table[0, 1::2, -1] = sure
    for place, piece in enumerate(pieces):
        here = (doubt or {}).get(place, sure)
        table[0, 2 * place] = (1 - here) / len(tokens)
        table[0, 2 * place, tokens.index(piece)] = here
    return lambda states, lengths: table.log().expand(len(states), -1, -1)


def states(text: str) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(2 * len(text), WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Three experiments on the same states: one with a CTC head, a decoder without, a CTC head with capitals."""
    folder = tmp_path_factory.mktemp("drafts")
    experiment(folder / "both")
    experiment(folder / "decoder", text_case="lower", **NO_CTC)
    experiment(folder / "ctc", token_list=CAPITALS, decoder=None, decoder_conf=None)
    return folder


def test_doubtful_words_of_the_own_head_are_gaps(place):
    """Of the third word one letter is doubtful; neither it nor its neighbour leaves more than one gap."""
    text = "ab cd ef gh"
    speech2text = Speech2Text(place / "both", inference=GAPS, trace=True)
    speech2text.network.ctc.forward = says(TOKENS, text, doubt={4: 0.5, 7: 0.79})
    found = speech2text.decode_states("utt", states(text), 1.0)
    canvas = "a b <mask> <mask> <mask> <space> g h <mask> <mask> <mask>"
    assert found.trace[0]["shown"] == [canvas + " <eos>" * (found.canvas - 11)]
    assert found.tokens[:2] == ["a", "b"] and "gh" in found.text
    assert found.candidates[0]["token_confidence"][:2] == pytest.approx([0.9, 0.9])
    assert set(found.timing) == {"decode", "draft", "select"} and min(found.timing.values()) >= 0


def test_another_experiments_words_are_written_as_the_decoder_writes(place):
    text = "AB CD EF"
    speech2text = Speech2Text(place / "decoder", inference=GAPS, trace=True, draft_dir=place / "ctc")
    speech2text.drafter.network.ctc.forward = says(CAPITALS, text, doubt={0: 0.3})
    found = speech2text.decode_states("utt", states(text), 1.0)
    shown = found.trace[0]["shown"][0].split()
    assert shown[:12] == ["<mask>"] * 3 + ["<space>", "c", "d", "<space>", "e", "f"] + ["<mask>"] * 3
    assert set(shown[12:]) == {"<eos>"} and "cd ef" in found.text
    same = [speech2text.decode_states("utt", states(text), 1.0).text for _ in range(2)]
    given = speech2text.decode_states("utt", states(text), 1.0, speech2text.given("zz"))
    assert given.text.startswith("zz") and same == [found.text] * 2, "what is given stands above the draft"


def test_another_experiments_head_stands_above_the_own_one(place, tmp_path):
    """A model with a CTC head takes the draft of the one that is named; the own logits are not taken for its."""
    own = experiment(tmp_path / "own", text_case="lower")
    speech2text = Speech2Text(own, inference=GAPS, trace=True, draft_dir=place / "ctc")
    speech2text.network.ctc.forward = says(TOKENS, "zz zz zz")
    speech2text.drafter.network.ctc.forward = says(CAPITALS, "AB CD EF")
    found = speech2text.decode_states("utt", states("AB CD EF"), 1.0)
    assert found.trace[0]["shown"][0].split()[:8] == ["a", "b", "<space>", "c", "d", "<space>", "e", "f"]


@pytest.mark.parametrize("running", [{"dtype": "bfloat16"}, {"quantize": "int8"}])
def test_a_drafter_computes_as_its_decoder(place, running):
    """One that is named; the head of the model itself, which counts the tokens too, is left as it is."""
    plain, other = (Speech2Text(place / "decoder", inference=GAPS, draft_dir=place / "ctc", running=how)
                    for how in (None, running))
    heard = torch.from_numpy(states("abcd"))[None], torch.tensor([8])
    with torch.no_grad():
        wanted, found = (model.drafter.network.ctc.scores(*heard)[0].float() for model in (plain, other))
    assert 1e-4 < (found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt() < 0.02
    own = Speech2Text(place / "both", inference=GAPS, running=running)
    assert type(own.drafter.network.ctc.output) is torch.nn.Linear
    assert own.drafter.network.ctc.output.weight.dtype == torch.float32


def test_without_a_draft_the_canvas_is_one_gap(place):
    inference = GAPS | {"engine_conf": {"draft": 0}}
    for options in ({}, {"draft_dir": place / "ctc"}):
        speech2text = Speech2Text(place / "decoder", inference=inference, trace=True, **options)
        found = speech2text.decode_states("utt", states("abcd"), 1.0)
        assert found.trace[0]["shown"][0].split() == ["<mask>"] * 3 + ["<eos>"] * (found.canvas - 3)
        assert "draft" not in found.timing


def test_silence_is_what_the_drafter_hears(place):
    settings = GAPS | {"engine_conf": {"draft": 0.8, "silence": 0.0}}
    speech2text = Speech2Text(place / "decoder", inference=settings, draft_dir=place / "ctc")
    blank = torch.full((1, 8, len(CAPITALS) + 1), -9.0)
    blank[..., -1] = 0.0
    speech2text.drafter.network.ctc.forward = lambda states, lengths: blank
    found = speech2text.decode_states("utt", states("abcd"), 1.0)
    assert (found.text, found.flags, found.passes) == ("", ["silence"], 0)


def test_gaps_are_as_wide_as_in_training(tmp_path):
    exp = experiment(tmp_path / "exp", model_conf={"canvas_conf": {"fit": "count", "margin": 9},
                                                   "gap_conf": {"ahead": 2}})
    for options, wide in (({}, 2), ({"ahead": 5}, 5)):
        speech2text = Speech2Text(exp, inference={"sampler": "gaps", "sampler_conf": options}, trace=True)
        shown = speech2text.decode_states("utt", states("abcd"), 1.0).trace[0]["shown"][0]
        assert shown.split().count("<mask>") == wide


def letters(text_case: str = "keep") -> Tokenizer:
    return CharTokenizer(TOKENS, TextForm(text_case))


def test_words_of_a_draft():
    space, a, b = TOKENS.index("<space>"), TOKENS.index("a"), TOKENS.index("b")

    def drafted(*words: tuple[str, float], case: str = "keep") -> Given:
        return word_draft([Word(*word) for word in words], 0.5, letters(case))

    def draft(tokens: list[int | None], confidence: list[float]) -> Given:
        return Given(tokens, [False] * len(tokens), confidence)

    assert drafted() == draft([], [])
    assert drafted(("a", 0.5), ("b", 0.9)) == draft([a, space, b], [0.5, 0.9, 0.9]), "no gap between them"
    assert drafted(("a", 0.49), ("b", 0.1), ("b", 0.6)) == draft([None, space, b], [0.0, 0.6, 0.6])
    assert drafted(("b", 0.6), ("a", 0.1)) == draft([b, None], [0.6, 0.0])
    assert drafted(("B", 0.6), case="lower") == draft([b], [0.6])
    assert drafted(("B", 0.6)).tokens == [None], "the decoder cannot spell it"


def test_a_word_with_an_unknown_piece_is_no_draft(place):
    drafter = Speech2Text(place / "both", inference=GAPS).drafter
    ids = [TOKENS.index("a"), TOKENS.index("<space>"), TOKENS.index("<unk>"), TOKENS.index("b")]
    assert [(word.word, word.confidence) for word in drafter.words(ids, [0.7, 0.8, 0.9, 0.9])] == [
        ("a", 0.7), ("<unk>b", 0.0)]


def test_a_drafter_that_cannot_be_is_named(place, tmp_path):
    with pytest.raises(UserError, match="engine_conf.draft needs ctc: ctc_head; it is missing: set draft to 0, or with "
                                        "sampler gaps name another experiment on these states by --draft_dir"):
        Speech2Text(place / "decoder", inference=GAPS)
    with pytest.raises(UserError, match="engine_conf.draft needs ctc: ctc_head"):
        Speech2Text(place / "decoder", inference={"engine_conf": {"draft": 0.5}}, draft_dir=place / "ctc")
    with pytest.raises(UserError, match=r"--draft_dir .*decoder: .*config.yaml has no ctc: ctc_head; give an exp"):
        Speech2Text(place / "both", inference=GAPS, draft_dir=place / "decoder")
    wide = experiment(tmp_path / "wide", encoder_conf={"size": WIDTH + 1})
    with pytest.raises(UserError, match="wide: reads states of width 9, but those of the decoder have 8: give an exp"):
        Speech2Text(place / "decoder", inference=GAPS, draft_dir=wide)
