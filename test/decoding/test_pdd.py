"""Parallel Diffusion Decoding on fake networks of a few tokens. The released system's trace: test_golden_whisfusion."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whisfusion_asr.decoding.pdd import Candidate, PddOptions, best_candidate, candidate_uniforms, pdd
from whisfusion_asr.diffusion.canvas import CanvasSpec
from whisfusion_asr.errors import UserError

PLAIN = CanvasSpec(vocab_size=3)  # eos 0, tokens 1 and 2, mask 3
WITH_BOS = CanvasSpec(vocab_size=5, eos_id=2, bos_id=1)  # tokens 0, 3 and 4, mask 5
NOTHING = 1e-9  # the smallest ratio here: no number of these tests' seeds is below it


class Recorder:
    """A fake network that keeps the canvases it is asked about."""

    def __init__(self, logits: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.logits, self.seen = logits, []

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        self.seen.append(canvas.clone())
        return self.logits(canvas)


def always(row: list[int], vocab: int, strength: float = 20.0) -> Recorder:
    """A network that knows the canvas, whatever it is shown."""
    wanted = strength * torch.nn.functional.one_hot(torch.tensor(row), vocab).float()
    return Recorder(lambda canvas: wanted.expand(len(canvas), *wanted.shape))


def neighbours(canvas: torch.Tensor) -> torch.Tensor:
    """A network whose answer depends on the slots beside each slot, with odd numbers that make no ties."""
    around = canvas.roll(1, 1) * 7 + canvas.roll(-1, 1) * 5 + torch.arange(canvas.size(1)) * 3
    return torch.sin(around.unsqueeze(-1) * 1.3 + torch.arange(3) * 2.1) * 2


def run(predict, length: int, spec: CanvasSpec, options: PddOptions, utt_id: str = "utt") -> list[Candidate]:
    return pdd(predict, length, spec, options, candidate_uniforms(options, utt_id, length))


def scripted(*draws: list[list[float]]) -> Callable[[], torch.Tensor]:
    """Uniform numbers given in advance, one table (K, L) a call."""
    tables = iter(draws)
    return lambda: torch.tensor(next(tables))


@pytest.mark.parametrize("first_pass", ["argmax", "sample"])
@pytest.mark.parametrize("remask", ["bernoulli", "exact"])
@pytest.mark.parametrize("confidence", ["published", "token"])
@pytest.mark.parametrize("after_end", ["cut", "skip"])
def test_a_network_that_knows_the_text_is_believed(first_pass, remask, confidence, after_end):
    options = PddOptions(4, (1.0, 0.9, 0.5), first_pass, remask, confidence, after_end)
    for spec, row, text in ((PLAIN, [2, 1, 1, 0, 0, 0], [2, 1, 1]), (WITH_BOS, [1, 4, 0, 3, 2, 2], [4, 0, 3])):
        candidates = run(always(row, spec.vocab_size), 6, spec, options)
        assert [c.tokens for c in candidates] == [text] * 4
        for candidate in candidates:
            assert candidate.confidence == pytest.approx(1.0, abs=1e-6)
            assert candidate.token_confidence == pytest.approx([1.0] * 3, abs=1e-6)


def test_one_evaluation_of_all_candidates_a_pass():
    network = always([1, 2, 0, 0], 3)
    run(network, 4, PLAIN, PddOptions(5, (1.0, 0.5, 0.5, NOTHING)))
    assert [canvas.shape for canvas in network.seen] == [(5, 4)] * 4
    assert (network.seen[0] == PLAIN.mask_id).all()
    assert (network.seen[3] != PLAIN.mask_id).all(), "so small a ratio hides nothing"


def test_the_first_pass_makes_equal_rows_of_the_best_tokens():
    network = Recorder(neighbours)
    run(network, 40, PLAIN, PddOptions(6, (1.0, NOTHING)))
    expected = neighbours(torch.full((1, 40), 3)).argmax(-1)
    assert torch.equal(network.seen[1], expected.expand(6, 40))


def test_sampling_draws_all_but_the_first_row_from_the_networks_probabilities():
    logits = torch.tensor([0.0, 1.0, 2.0]).log()  # of 0, 1/3, 2/3: eos never
    network = Recorder(lambda canvas: logits.expand(*canvas.shape, 3))
    run(network, 300, PLAIN, PddOptions(9, (1.0, NOTHING), first_pass="sample"))
    rows = network.seen[1]
    assert (rows[0] == 2).all(), "candidate 0 stays the argmax"
    assert not (rows == 0).any(), "an impossible token is never drawn"
    share = (rows[1:] == 1).float().mean().item()
    assert abs(share - 1 / 3) < 5 * math.sqrt(2 / 9 / 2400)
    assert len({tuple(row.tolist()) for row in rows}) == 9


def test_a_uniform_number_picks_the_token_whose_share_of_the_interval_holds_it():
    logits = torch.tensor([0.25, 0.25, 0.5]).log()
    network = Recorder(lambda canvas: logits.expand(*canvas.shape, 3))
    hidden, drawn = [[0.5] * 6] * 2, [[0.0] * 6, [0.0, 0.24, 0.26, 0.49, 0.51, 0.999]]
    pdd(network, 6, PLAIN, PddOptions(2, (1.0, NOTHING), first_pass="sample"), scripted(hidden, drawn, hidden))
    assert network.seen[1].tolist() == [[2] * 6, [0, 0, 1, 1, 2, 2]]


def test_a_uniform_number_of_zero_does_not_pick_an_impossible_token():
    logits = torch.tensor([0.0, 0.5, 0.5]).log()
    uniforms = scripted([[0.5] * 3] * 2, [[0.0] * 3, [0.0, 0.499, 0.501]])
    options = PddOptions(2, (1.0,), first_pass="sample")
    assert pdd(lambda canvas: logits.expand(2, 3, 3), 3, PLAIN, options, uniforms)[1].tokens == [1, 1, 2]


def hidden_counts(options: PddOptions, spec: CanvasSpec, length: int) -> torch.Tensor:
    """Masked slots per position, over the passes after the first: (passes, K, L) bool."""
    network = Recorder(lambda canvas: torch.zeros(*canvas.shape, spec.vocab_size))
    run(network, length, spec, options)
    return torch.stack(network.seen[1:]) == spec.mask_id


@pytest.mark.parametrize(("spec", "ratio", "count"), [(PLAIN, 0.9, 18), (PLAIN, 0.33, 7), (WITH_BOS, 0.9, 18)])
def test_exact_hides_the_same_number_in_every_row_anywhere(spec, ratio, count):
    length = 20 + spec.prefix
    hidden = hidden_counts(PddOptions(30, (1.0, *[ratio] * 20), remask="exact"), spec, length)
    assert set(hidden.sum(-1).flatten().tolist()) == {count}
    assert not hidden[..., : spec.prefix].any()
    share = hidden[..., spec.prefix :].float().mean((0, 1))
    assert (share - count / 20).abs().max() < 5 * math.sqrt(count / 20 * (1 - count / 20) / 600)


@pytest.mark.parametrize("spec", [PLAIN, WITH_BOS])
def test_bernoulli_hides_each_slot_by_itself(spec):
    length = 20 + spec.prefix
    hidden = hidden_counts(PddOptions(30, (1.0, *[0.8] * 20)), spec, length)
    assert not hidden[..., : spec.prefix].any()
    counts = hidden.sum(-1).float()
    assert abs(counts.mean() - 16) < 5 * math.sqrt(3.2 / 600)
    assert abs(counts.var() - 3.2) < 1.0, "binomial: 20 * 0.8 * 0.2"


def test_visible_slots_keep_their_tokens():
    rows = iter([[2, 2, 2, 2], [1, 1, 1, 1]])
    network = Recorder(lambda canvas: 9.0 * torch.nn.functional.one_hot(torch.tensor([next(rows)]), 3).float())
    uniforms = scripted([[0.0] * 4], [[0.6, 0.4, 0.7, 0.2]])
    (candidate,) = pdd(network, 4, PLAIN, PddOptions(1, (1.0, 0.5)), uniforms)
    assert network.seen[1].tolist() == [[2, 3, 2, 3]]
    assert candidate.tokens == [2, 1, 2, 1]


PASSES = torch.tensor([  # probabilities of eos, 1, 2 in two passes, four slots
    [[0.1, 0.7, 0.2], [0.2, 0.2, 0.6], [0.9, 0.05, 0.05], [0.5, 0.4, 0.1]],
    [[0.15, 0.05, 0.8], [0.3, 0.65, 0.05], [0.7, 0.1, 0.2], [0.05, 0.9, 0.05]],
])


def two_passes(options: PddOptions) -> Candidate:
    """Pass 0 makes [1, 2, eos, eos]; pass 1 hides slots 0 and 3 and makes [2, 2, eos, 1]."""
    passes = iter(PASSES.log())
    network = lambda canvas: next(passes).expand(1, 4, 3)  # noqa: E731
    return pdd(network, 4, PLAIN, options, scripted([[0.0] * 4], [[0.1, 0.9, 0.8, 0.2]]))[0]


@pytest.mark.parametrize(("confidence", "after_end", "tokens", "token_confidence", "score"), [
    # emitted slots 0 (pass 1: .8), 1 (pass 0: .6) and the end (pass 0: .9)
    ("token", "cut", [2, 2], [0.8, 0.6], (0.8 + 0.6 + 0.9) / 3),
    ("token", "skip", [2, 2, 1], [0.8, 0.6, 0.9], (0.8 + 0.6 + 0.9 + 0.9) / 4),
    # the last pass's largest numbers at all slots without eos, though slot 1 holds another token than its largest
    ("published", "cut", [2, 2], [0.8, 0.6], (0.8 + 0.65 + 0.9) / 3),
    ("published", "skip", [2, 2, 1], [0.8, 0.6, 0.9], (0.8 + 0.65 + 0.9) / 3),
])
def test_confidence_and_end_by_hand(confidence, after_end, tokens, token_confidence, score):
    candidate = two_passes(PddOptions(1, (1.0, 0.5), confidence=confidence, after_end=after_end))
    assert candidate.tokens == tokens
    assert candidate.token_confidence == pytest.approx(token_confidence, abs=1e-6)
    assert candidate.confidence == pytest.approx(score, abs=1e-6)


def test_published_confidence_counts_bos_and_the_last_pass_of_kept_slots():
    first = torch.tensor([[0.2] * 5, [0.0, 0.0, 0.1, 0.9, 0.0], [0.0, 0.0, 0.8, 0.2, 0.0]])
    last = torch.tensor([[0.5, 0.5, 0.0, 0.0, 0.0], [0.7, 0.0, 0.0, 0.3, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0]])
    for confidence, score in (("published", (0.5 + 0.7) / 2), ("token", (0.9 + 1.0) / 2)):
        passes = iter((first.log(), last.log()))
        uniforms = scripted([[0.0] * 3], [[0.0, 0.9, 0.1]])  # hides slot 2 again, never the bos
        options = PddOptions(1, (1.0, 0.5), confidence=confidence)
        (candidate,) = pdd(lambda canvas: next(passes)[None], 3, WITH_BOS, options, uniforms)  # noqa: B023
        assert candidate.tokens == [3]
        assert candidate.confidence == pytest.approx(score, abs=1e-6)


def test_token_confidence_of_a_sampled_token_is_its_own_probability():
    logits = torch.tensor([0.25, 0.25, 0.5]).log()
    uniforms = scripted([[0.0] * 2] * 2, [[0.0] * 2, [0.3, 0.9]])
    options = PddOptions(2, (1.0,), first_pass="sample")
    first, second = pdd(lambda canvas: logits.expand(2, 2, 3), 2, PLAIN, options, uniforms)
    assert (first.tokens, second.tokens) == ([2, 2], [1, 2])
    assert second.token_confidence == pytest.approx([0.25, 0.5])


def test_an_empty_transcript_has_the_confidence_of_its_end():
    (candidate,) = run(always([0, 0, 0], 3, strength=2.0), 3, PLAIN, PddOptions(1, (1.0,)))
    assert candidate.tokens == [] and candidate.token_confidence == []
    assert candidate.confidence == pytest.approx(math.exp(2) / (math.exp(2) + 2), abs=1e-6)


def test_confidence_is_computed_in_fp32_from_half_precision_logits():
    logits = torch.tensor([0.0, 6.53, 0.3]).bfloat16()
    (candidate,) = run(lambda canvas: logits.expand(1, 2, 3), 2, PLAIN, PddOptions(1, (1.0,)))
    exact = float(logits.double().softmax(-1)[1])
    assert candidate.confidence == pytest.approx(exact, abs=1e-6)
    assert abs(float(logits.softmax(-1)[1]) - exact) > 1e-4, "half precision would differ"


def test_candidates_together_equal_one_at_a_time():
    options = PddOptions(5, first_pass="argmax", remask="exact")
    together = run(neighbours, 12, PLAIN, options)
    for k, candidate in enumerate(together):
        uniforms = candidate_uniforms(options, "utt", 12)
        alone = pdd(neighbours, 12, PLAIN, PddOptions(1, remask="exact"), lambda: uniforms()[k : k + 1])  # noqa: B023
        assert alone[0].tokens == candidate.tokens
        assert alone[0].confidence == pytest.approx(candidate.confidence, abs=1e-6)
    assert len({tuple(c.tokens) for c in together}) > 1


@pytest.mark.parametrize("first_pass", ["argmax", "sample"])
def test_a_transcript_depends_on_seed_and_utterance_only(first_pass):
    options = PddOptions(5, first_pass=first_pass, after_end="skip")
    names = ["a", "b", "c"]
    first = {name: run(neighbours, 12, PLAIN, options, name) for name in names}
    torch.manual_seed(77)
    assert {name: run(neighbours, 12, PLAIN, options, name) for name in reversed(names)} == first
    more = run(neighbours, 12, PLAIN, PddOptions(8, first_pass=first_pass, after_end="skip"), "a")
    assert more[:5] == first["a"], "further candidates leave the others alone"
    assert len({tuple(tuple(c.tokens) for c in candidates) for candidates in first.values()}) == 3
    other = PddOptions(5, first_pass=first_pass, after_end="skip", seed=1)
    assert run(neighbours, 12, PLAIN, other, "a") != first["a"]


def test_uniforms_are_fresh_in_every_pass_and_differ_between_candidates():
    draw = candidate_uniforms(PddOptions(3), "utt", 50)
    tables = torch.stack([draw(), draw()])
    assert tables.shape == (2, 3, 50)
    assert tables.flatten().unique().numel() == 300
    assert 0.4 < tables.mean() < 0.6 and tables.min() >= 0 and tables.max() < 1


@settings(deadline=None, max_examples=60)
@given(candidates=st.integers(1, 4), length=st.integers(2, 12), ratios=st.lists(st.floats(NOTHING, 1), max_size=4),
       first_pass=st.sampled_from(["argmax", "sample"]), remask=st.sampled_from(["bernoulli", "exact"]),
       confidence=st.sampled_from(["published", "token"]), after_end=st.sampled_from(["cut", "skip"]),
       seed=st.integers(0, 100), spec=st.sampled_from([PLAIN, CanvasSpec(3, eos_id=2, bos_id=1)]))
def test_any_options_give_complete_transcripts(candidates, length, ratios, first_pass, remask, confidence, after_end,
                                               seed, spec):
    falling = (1.0, *sorted(ratios, reverse=True))
    options = PddOptions(candidates, falling, first_pass, remask, confidence, after_end, seed)
    found = run(neighbours, length, spec, options)
    assert len(found) == candidates
    for candidate in found:
        assert set(candidate.tokens) <= {0, 1, 2} - {spec.eos_id}, "neither the mask nor the end"
        assert len(candidate.tokens) == len(candidate.token_confidence) <= length - spec.prefix
        assert all(0 < p <= 1 for p in candidate.token_confidence)
        assert 0 <= candidate.confidence <= 1


def test_the_highest_confidence_wins_and_the_first_of_equals():
    candidates = [Candidate([1], [0.5], score) for score in (0.5, 0.9, 0.9, 0.1)]
    assert best_candidate(candidates) == 1


@pytest.mark.parametrize(("wrong", "message"), [
    ({"first_pass": "greedy"}, "first_pass: 'greedy' is unknown; expected argmax or sample"),
    ({"remask": "confidence"}, "remask: 'confidence' is unknown; expected bernoulli or exact"),
    ({"confidence": "v1"}, "confidence: 'v1' is unknown; expected published or token"),
    ({"after_end": "keep"}, "after_end: 'keep' is unknown; expected cut or skip"),
    ({"candidates": 0}, "candidates: expected at least 1, got 0"),
    ({"mask_ratios": ()}, r"mask_ratios: expected 1.0 first.*got \[\]"),
    ({"mask_ratios": (0.9, 0.8)}, r"mask_ratios: expected 1.0 first.*got \[0.9, 0.8\]"),
    ({"mask_ratios": (1.0, 1.2)}, r"numbers in \(0, 1\], got \[1.0, 1.2\]"),
    ({"mask_ratios": (1.0, 0.0, 0.9)}, r"numbers in \(0, 1\], got \[1.0, 0.0, 0.9\]"),
    ({"mask_ratios": (1.0, 0.8, 0.9)}, r"numbers that do not rise, got \[1.0, 0.8, 0.9\]"),
])
def test_wrong_options_are_named(wrong, message):
    with pytest.raises(UserError, match=message):
        PddOptions(**wrong)
