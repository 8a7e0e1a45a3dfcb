"""Known words on the canvas: never changed by any sampler, and never cut off by an end before them."""

import pytest
import torch
from engine_fakes import FakePredict, certain, spread, toy
from hypothesis import given, settings
from hypothesis import strategies as st

from whisfusion_asr.decoding.engine import Job, decode
from whisfusion_asr.decoding.given import Given, start_canvas
from whisfusion_asr.decoding.samplers import ENGINE_SAMPLERS, Sampler
from whisfusion_asr.diffusion.canvas import CanvasSpec
from whisfusion_asr.errors import UserError

PLAIN = CanvasSpec(vocab_size=5)  # eos 0, mask 5
WITH_BOS = CanvasSpec(vocab_size=5, eos_id=2, bos_id=1)


def test_an_empty_canvas():
    start = start_canvas(4, WITH_BOS)
    assert start.tokens.tolist() == [1, 5, 5, 5] and start.fixed.tolist() == [True, False, False, False]
    assert not start.text.any() and not start.confidence.any()


def test_the_language_is_part_of_the_prefix():
    start = start_canvas(5, CanvasSpec(5, eos_id=2, bos_id=1, languages=(3, 4)), Given([0]), language=4)
    assert start.tokens.tolist() == [1, 4, 0, 5, 5] and start.fixed.tolist() == [True, True, True, False, False]


def test_known_tokens_are_laid_behind_the_prefix():
    start = start_canvas(7, WITH_BOS, Given([3, None, 4, None]))
    assert start.tokens.tolist() == [1, 3, 5, 4, 5, 5, 5]
    assert start.fixed.tolist() == [True, True, False, True, False, False, False]
    assert start.text.tolist() == [True, True, True, False, False, False, False], "no end before the known 4"
    assert start.confidence.tolist() == [0, 1, 0, 1, 0, 0, 0]


def test_a_closed_text_and_a_draft():
    closed = start_canvas(6, PLAIN, Given([3, None], ends=True))
    assert closed.tokens.tolist() == [3, 5, 0, 0, 0, 0] and closed.fixed.tolist() == [True, False, *[True] * 4]
    assert closed.text.tolist() == [True, True, *[False] * 4]
    draft = start_canvas(4, PLAIN, Given([3, None], fixed=[False, False], confidence=[0.75, 0.2]))
    assert not draft.fixed.any() and not draft.text.any() and draft.confidence.tolist() == [0.75, 0, 0, 0]


# The sampler `gaps` writes as much into a gap as it lacks, whatever the number of free slots: test_sampler_gaps.py.
SLOT_BY_SLOT = sorted(set(ENGINE_SAMPLERS) - {"gaps"})
known = st.lists(st.one_of(st.none(), st.sampled_from([3, 4])), min_size=1, max_size=6)


@settings(deadline=None, max_examples=120)
@given(tokens=known, ends=st.booleans(), name=st.sampled_from(SLOT_BY_SLOT), network=st.integers(0, 20),
       spec=st.sampled_from([PLAIN, WITH_BOS]), after_end=st.sampled_from(["cut", "skip"]))
def test_what_is_given_stands_in_every_candidate(tokens, ends, name, network, spec, after_end):
    conf = {"candidates": 4, "after_end": after_end} if name == "pdd" else {}
    predict = FakePredict(toy(network, 5))
    start = start_canvas(10, spec, Given(tokens, ends=ends))
    (found,) = decode(predict, [Job("utt", start)], spec, Sampler.of(name, conf))
    for canvas, asked in zip(predict.seen, predict.asked, strict=True):
        assert (canvas[:, start.fixed] == start.tokens[start.fixed]).all() and not asked[:, start.fixed].any()
    last = max((i for i, token in enumerate(tokens) if token is not None), default=-1)
    for candidate in found.candidates:
        assert candidate.tokens[: last + 1] == [
            seen if token is None else token for seen, token in zip(candidate.tokens, tokens[: last + 1], strict=False)
        ]
        assert len(candidate.tokens) > last and spec.eos_id not in candidate.tokens
        assert len(candidate.tokens) == len(tokens) or not ends


def test_an_end_before_a_known_word_becomes_the_next_best_token(run):
    network = spread([[0.6, 0.1, 0.2, 0.05, 0.05]] * 5)
    free, _ = run(network, 5, PLAIN, "single")
    bound, _ = run(network, 5, PLAIN, "single", given=Given([None, 3]))
    assert free.candidates[0].tokens == [] and bound.candidates[0].tokens == [2, 3]
    assert bound.candidates[0].token_confidence == pytest.approx([0.5, 1.0]), "of what is left without the end"


def test_a_draft_is_kept_where_it_is_sure_and_may_be_changed_later(run):
    draft = Given([4, None, 4], fixed=[False] * 3, confidence=[0.9, 0.1, 0.8])
    network = certain([3, 1, 4, 0, 0], 5)
    once, predict = run(network, 5, PLAIN, "single", given=draft)
    assert predict.seen[0].tolist() == [[4, 5, 4, 5, 5]]
    assert once.candidates[0].tokens == [4, 1, 4]
    assert once.candidates[0].token_confidence == pytest.approx([0.9, 1.0, 0.8])
    later, predict = run(network, 5, PLAIN, "pdd", given=draft, candidates=3, mask_ratios=[1.0, 1.0], trace=True)
    assert predict.seen[0].tolist() == [[4, 5, 4, 5, 5]], "the first pass fills what is doubtful"
    assert [c.tokens for c in later.candidates] == [[3, 1, 4]] * 3


def test_pdd_hides_free_slots_only():
    start = start_canvas(12, PLAIN, Given([3, 4, 3, 4]))
    predict = FakePredict(toy(1, 5))
    decode(predict, [Job("utt", start)], PLAIN, Sampler.of("pdd", {"remask": "exact", "mask_ratios": [1.0, 0.5]}))
    assert set((predict.seen[1] == PLAIN.mask_id).sum(1).tolist()) == {4}
    assert torch.equal(predict.seen[1][:, :4].unique(dim=0), torch.tensor([[3, 4, 3, 4]]))


@pytest.mark.parametrize(("given", "message"), [
    (lambda: start_canvas(3, PLAIN, Given([3, 4, 3, 4])), "4 tokens do not fit a canvas of 3; raise"),
    (lambda: start_canvas(4, PLAIN, Given([3, 4, 3, 4], ends=True)), "4 tokens do not fit a canvas of 4"),
    (lambda: start_canvas(4, PLAIN, Given([5])), "token 5 is none of the 5 of this model"),
    (lambda: Given([3, 4], fixed=[True]), "given fixed: 1 values for 2 tokens"),
    (lambda: Given([3, 4], confidence=[0.5]), "given confidence: 1 values for 2 tokens"),
])
def test_wrong_givens_are_named(given, message):
    with pytest.raises(UserError, match=message):
        given()
