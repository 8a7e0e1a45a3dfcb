"""The engine against the readable reference, and what it saves."""

import math

import pytest
import torch
from engine_fakes import FakePredict, certain, spread, toy
from hypothesis import given, settings
from hypothesis import strategies as st

from whisfusion_asr.decoding.engine import EngineLimits, Job, decode
from whisfusion_asr.decoding.given import start_canvas
from whisfusion_asr.decoding.pdd import Candidate, PddOptions, candidate_uniforms, pdd
from whisfusion_asr.decoding.samplers import ENGINE_SAMPLERS, Sampler
from whisfusion_asr.diffusion.canvas import CanvasSpec

PLAIN = CanvasSpec(vocab_size=5)
WITH_BOS = CanvasSpec(vocab_size=6, eos_id=2, bos_id=1)


def same(first: list[Candidate], second: list[Candidate]) -> None:
    """Tokens equal, probabilities within rounding."""
    assert [c.tokens for c in first] == [c.tokens for c in second]
    for one, two in zip(first, second, strict=True):
        assert one.token_confidence == pytest.approx(two.token_confidence, abs=1e-6)
        assert one.confidence == pytest.approx(two.confidence, abs=1e-6)


ratios = st.lists(st.floats(0.05, 1), max_size=4).map(lambda values: (1.0, *sorted(values, reverse=True)))


@settings(deadline=None, max_examples=100)
@given(options=st.fixed_dictionaries({
    "candidates": st.integers(1, 6), "mask_ratios": ratios, "first_pass": st.sampled_from(["argmax", "sample"]),
    "remask": st.sampled_from(["bernoulli", "exact"]), "confidence": st.sampled_from(["published", "token"]),
    "after_end": st.sampled_from(["cut", "skip"]), "seed": st.integers(0, 50)}),
    length=st.integers(2, 14), network=st.integers(0, 50), spec=st.sampled_from([PLAIN, WITH_BOS]),
    trace=st.booleans())
def test_pdd_equals_the_reference(options, length, network, spec, trace):
    logits = toy(network, spec.vocab_size)
    plain = PddOptions(**options)
    expected = pdd(logits, length, spec, plain, candidate_uniforms(plain, "utt", length))
    jobs = [Job("utt", start_canvas(length, spec))]
    (found,) = decode(FakePredict(logits), jobs, spec, Sampler.of("pdd", options), trace=trace)
    same(found.candidates, expected)
    assert len(found.trace) == (len(plain.mask_ratios) if trace else 0)


def test_the_first_pass_costs_one_row_and_equal_rows_cost_one(run):
    found, predict = run(toy(0, 5), 30, PLAIN, "pdd", candidates=15)
    assert [len(rows) for rows in predict.owners] == [1, 15, 15, 15]
    assert (found.passes, found.rows) == (4, 46)
    found, predict = run(certain([3, 1, 0, 0], 5), 4, PLAIN, "pdd", candidates=200)
    assert predict.owners[0] == [0]
    for canvas in predict.seen:
        assert len(canvas.unique(dim=0)) == len(canvas) <= 2**4, "no canvas is computed twice"
    assert found.rows == sum(map(len, predict.seen))
    assert [c.tokens for c in found.candidates] == [[3, 1]] * 200


def test_a_prediction_that_is_hidden_again_unseen_is_not_asked_for(run):
    _, lazy = run(toy(1, 5), 40, PLAIN, "pdd", candidates=3)
    _, whole = run(toy(1, 5), 40, PLAIN, "pdd", candidates=3, trace=True)
    asked = [[int(asked.sum()) for asked in predict.asked] for predict in (lazy, whole)]
    hidden = [[int((canvas == PLAIN.mask_id).sum()) for canvas in predict.seen] for predict in (lazy, whole)]
    assert asked[1] == hidden[1] == hidden[0], "with a trace every hidden slot is asked"
    assert asked[0][3] == hidden[0][3] and all(2 * asked[0][step] < hidden[0][step] for step in (1, 2))


def test_rows_that_hide_nothing_are_not_computed(run):
    found, predict = run(toy(2, 5), 2, PLAIN, "pdd", candidates=4, mask_ratios=[1.0, *[0.3] * 6])
    assert found.rows == sum(map(len, predict.seen)) < 1 + 4 * 6
    assert all(asked.any(1).all() for asked in predict.asked)


names = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6)
samplers = st.sampled_from([("pdd", {"candidates": 3}), ("pdd", {"candidates": 4, "keep": [4, 2, 1]}),
                            ("pdd", {"candidates": 3, "stop_when_stable": True, "first_pass": "sample"}),
                            ("pdd", {"candidates": 3, "adaptive_stop": 1.0, "adaptive_full": 4.0}),
                            *[(name, {}) for name in ENGINE_SAMPLERS], ("random", {"rows": 3, "tokens": "argmax"})])


@settings(deadline=None, max_examples=60)
@given(utterances=names, sampler=samplers, cut=st.integers(0, 6))
def test_a_transcript_depends_on_nothing_but_its_utterance(utterances, sampler, cut):
    """Any order, batch and repetition, canvases of unequal lengths: each as on its own."""
    networks = {name: toy(ord(name), 5, 4.0) for name in "abcdefgh"}
    lengths = {name: 3 + ord(name) % 7 for name in "abcdefgh"}

    def decoded(keys):
        predict = FakePredict(*[networks[key] for key in keys], lengths=[lengths[key] for key in keys])
        jobs = [Job(key, start_canvas(lengths[key], PLAIN)) for key in keys]
        return decode(predict, jobs, PLAIN, Sampler.of(*sampler)) if keys else []

    together = decoded(utterances[:cut]) + decoded(utterances[cut:])
    for key, found in zip(utterances, together, strict=True):
        (alone,) = decoded([key])
        same(found.candidates, alone.candidates)
        assert (found.passes, found.rows, found.flags) == (alone.passes, alone.rows, alone.flags)


def ticking(seconds: list[float]):
    times = iter([0.0, *[s for second in seconds for s in (second, second + 1.0)]])
    return lambda: next(times)


@pytest.mark.parametrize(("sampler", "conf"), [("pdd", {"candidates": 3}), ("pbeb", {"gamma": 0.0}),
                                               ("gaps", {"gamma": 0.0})])
def test_a_budget_gives_the_best_transcript_so_far(sampler, conf):
    """Passes last a second; with 2.5 seconds the second is the last, for a third would end at 3."""
    limits = EngineLimits(budget=2.5, clock=ticking([0.0, 1.0, 2.0, 3.0]))
    predict = FakePredict(toy(3, 5))
    (found,) = decode(predict, [Job("a", start_canvas(9, PLAIN))], PLAIN, Sampler.of(sampler, conf), limits)
    assert found.passes == 2 and found.flags == ["budget"]
    assert all(PLAIN.mask_id not in c.tokens for c in found.candidates)
    guess = toy(3, 5)(predict.seen[-1]).argmax(-1)
    last = torch.where(predict.seen[-1] == PLAIN.mask_id, guess, predict.seen[-1])[0].tolist()
    text = last[: last.index(0)] if 0 in last else last
    assert text in [c.tokens for c in found.candidates]


@pytest.mark.parametrize(("first", "second", "silent"), [
    ([0.2, 0.8, 0.0, 0.0, 0.0], [0.9, 0.1, 0.0, 0.0, 0.0], False),  # mean of 0.8 and the end's 0.9
    ([0.2, 0.8, 0.0, 0.0, 0.0], [0.7, 0.3, 0.0, 0.0, 0.0], True),
    ([0.9, 0.1, 0.0, 0.0, 0.0], [0.9, 0.1, 0.0, 0.0, 0.0], True),  # nothing but an end
])
@pytest.mark.parametrize("sampler", ["pdd", "pbeb", "gaps"])
def test_a_first_pass_that_is_empty_or_unsure_is_silence(first, second, silent, sampler):
    predict = FakePredict(spread([first, *[second] * 5]))
    jobs = [Job("a", start_canvas(6, PLAIN))]
    (found,) = decode(predict, jobs, PLAIN, Sampler.of(sampler, {}), EngineLimits(silence=0.8))
    assert ("silence" in found.flags) == silent
    assert found.candidates[0].tokens == ([] if silent else [1])
    if silent:
        assert (found.passes, found.rows, len(found.candidates)) == (1, 1, 1)


def test_text_behind_the_end_is_counted(run):
    found, _ = run(certain([3, 0, 2, 4, 0], 5), 5, PLAIN, "pdd", candidates=2)
    assert found.unread == [2, 2] and [c.tokens for c in found.candidates] == [[3], [3]]
    found, _ = run(certain([3, 0, 2, 4, 0], 5), 5, CanvasSpec(5, bos_id=1), "single")
    assert found.unread == [0] and found.candidates[0].tokens == [], "the samplers that never look back stop at the end"


def test_the_trace_shows_every_pass(run):
    found, predict = run(toy(4, 5), 8, PLAIN, "pdd", trace=True, candidates=3)
    assert len(found.trace) == 4
    for step, canvas in zip(found.trace, predict.seen, strict=True):
        assert step.shown.shape == step.guess.shape == (3, 8)
        assert {tuple(row) for row in step.shown.tolist()} == {tuple(row) for row in canvas.tolist()}
        visible = step.shown != PLAIN.mask_id
        assert torch.equal(step.guess[visible], step.shown[visible]) and (step.guess != PLAIN.mask_id).all()


@pytest.mark.parametrize(("sampler", "conf"), [
    ("pdd", {"candidates": 6, "keep": [5, 3, 2]}), ("pdd", {"candidates": 3, "first_pass": "sample"}),
    ("pdd", {"candidates": 6, "adaptive_full": 7.0}), ("pdd", {"candidates": 4, "confidence": "published"}),
    ("topk", {"passes": 3}), ("random", {"rows": 3, "passes": 3}), ("gaps", {"gamma": 0.5}),
])
def test_the_trace_ends_at_the_candidates(run, sampler, conf):
    """The rows that are left after the last pass are the candidates, by number, token and probability."""
    found, _ = run(toy(5, 30, 4.0), 30, CanvasSpec(30), sampler, trace=True, **conf)
    last = found.trace[-1]
    assert found.trace[0].rows == list(range(conf.get("candidates", conf.get("rows", 1))))
    assert set(found.kept) <= set(last.rows) and len(found.kept) == len(found.candidates)
    for number, candidate in zip(found.kept, found.candidates, strict=True):
        place, size = last.rows.index(number), len(candidate.tokens)
        assert size and last.guess[place, :size].tolist() == candidate.tokens
        assert last.confidence[place, :size].tolist() == pytest.approx(candidate.token_confidence)
    for earlier, later in zip(found.trace, found.trace[1:], strict=False):
        assert set(later.rows) <= set(earlier.rows)
        before = earlier.guess[[earlier.rows.index(number) for number in later.rows]]
        stands = later.shown != CanvasSpec(30).mask_id
        assert sampler != "pdd" or torch.equal(before[stands], later.shown[stands]), "each row goes on with its own"


def test_probabilities_are_those_of_softmax(run):
    found, _ = run(spread([[0.1, 0.2, 0.7]] * 2), 2, CanvasSpec(3), "single")
    assert found.candidates[0].token_confidence == pytest.approx([0.7, 0.7])
    assert math.isclose(found.candidates[0].confidence, 0.7, rel_tol=1e-6)
