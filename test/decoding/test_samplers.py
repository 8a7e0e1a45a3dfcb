"""Which slots each sampler fills: the rules on a table of probabilities, and their limits on toy networks."""

import math
import zlib
from pathlib import Path

import pytest
import torch
from engine_fakes import certain, spread, toy

from whisfusion_asr.config import read_yaml
from whisfusion_asr.decoding.network import Answer
from whisfusion_asr.decoding.sampler_unmask import Step
from whisfusion_asr.decoding.samplers import ENGINE_SAMPLERS, Sampler
from whisfusion_asr.diffusion.canvas import CanvasSpec
from whisfusion_asr.errors import UserError

PLAIN = CanvasSpec(vocab_size=5)
# Six hidden slots, four tokens; entropies in nats .16770 .00894 .76628 .03623 .00113 .38899.
ROWS = [[0.97, 0.01, 0.01, 0.01], [0.999, 0.0005, 0.0003, 0.0002], [0.60, 0.38, 0.01, 0.01],
        [0.995, 0.003, 0.001, 0.001], [0.9999, 0.00004, 0.00003, 0.00003], [0.90, 0.08, 0.01, 0.01]]
HIDDEN = torch.ones(1, 6, dtype=torch.bool)


def answer(rows: list[list[float]]) -> Answer:
    entropy = [[-sum(p * math.log(p) for p in row if p) for row in rows]]
    largest = [[max(row) for row in rows]]
    return Answer(torch.zeros(1, len(rows), dtype=torch.long), torch.tensor(largest), torch.tensor(entropy))


def filled(name: str, hidden: torch.Tensor = HIDDEN, step: int = 0, **conf: object) -> set[int]:
    chosen = Sampler.of(name, conf).options.slots(Step(step, answer(ROWS), hidden, hidden.sum(1, keepdim=True)))
    return set(chosen[0].nonzero().flatten().tolist())


@pytest.mark.parametrize(("name", "conf", "slots"), [
    ("topk", {"passes": 3}, {1, 4}),
    ("threshold", {"threshold": 0.9}, {0, 1, 3, 4, 5}),
    ("threshold", {"threshold": 1.0}, {4}),
    ("eb", {"gamma": 0.01}, {1, 4}),
    ("eb", {"gamma": 0.05}, {0, 1, 3, 4}),
    ("eb", {"gamma": 0.2}, {0, 1, 3, 4}),
    ("eb", {"gamma": 0.01, "rule": "sum"}, {4}),
    ("eb", {"gamma": 0.05, "rule": "sum"}, {1, 3, 4}),
    ("eb", {"gamma": 0.2, "rule": "sum"}, {1, 3, 4}),
    ("eb", {"gamma": 0.05, "order": "confidence"}, {0, 1, 3, 4}),
    ("pbeb", {}, {0, 1, 3, 4}),
    ("pbeb", {"gamma": 0.2}, {0, 1, 3, 4}),
    ("pbeb", {"gamma": 0.5}, {0, 1, 2, 3, 4}),
    ("pbeb", {"rule": "sum"}, {0}),
    ("pbeb", {"gamma": 0.2, "rule": "sum"}, {0, 1}),
    ("pbeb", {"gamma": 0.5, "rule": "sum"}, {0, 1, 3, 4}),
    ("pbeb", {"gamma": 9.0, "min_confidence": 0.98}, {0, 1, 3, 4}),  # the first one passes at any confidence
    ("pbeb", {"gamma": 9.0, "min_confidence": 0.996}, {0, 1}),
    ("single", {}, {0, 1, 2, 3, 4, 5}),
])
def test_the_slots_of_one_pass(name, conf, slots):
    assert filled(name, **conf) == slots


def test_the_order_of_pbeb():
    key = Sampler.of("pbeb").options.key(answer(ROWS))
    assert key.argsort(descending=True)[0].tolist() == [0, 1, 3, 4, 2, 5]
    assert key.exp()[0].tolist() == pytest.approx([0.97, 0.81791, 0.40219, 0.54607, 0.44928, 0.33109], abs=1e-5)
    far = Answer(torch.zeros(1, 900).long(), torch.full((1, 900), 0.5), torch.ones(1, 900))
    assert (Sampler.of("pbeb").options.key(far).diff() < 0).all(), "no underflow far to the right"


@pytest.mark.parametrize("name", ["topk", "threshold", "eb", "pbeb"])
def test_only_hidden_slots_are_filled(name):
    hidden = torch.tensor([[True, False, True, True, False, False]])
    assert filled(name, hidden) <= {0, 2, 3}
    assert filled(name, hidden), "at least one"


@pytest.mark.parametrize(("schedule", "passes", "length", "left"), [
    ("linear", 4, 10, [7, 4, 2, 0]), ("cosine", 4, 20, [18, 14, 7, 0]),
    ("cosine", 8, 24, [23, 22, 19, 16, 13, 9, 4, 0]),
])
def test_schedules_of_topk(schedule, passes, length, left):
    """LLaDA's counts 3 3 2 2, and MaskGIT's numbers of slots still hidden."""
    options, hidden = Sampler.of("topk", {"passes": passes, "schedule": schedule}).options, torch.ones(1, length) > 0
    even, counts = answer([[0.5, 0.5]] * length), []
    for step in range(passes):
        hidden = hidden & ~options.slots(Step(step, even, hidden, torch.tensor([[length]])))
        counts.append(int(hidden.sum()))
    assert counts == left


def test_slots_behind_the_end_do_not_count_in_a_schedule(run):
    """The first pass takes the end; of the 5 slots that count, floor(5 cos(pi / 4)) = 3 and then 1 are left."""
    sure, unsure = [0.99, 0.01, 0.0, 0.0, 0.0], [0.0, 0.6, 0.4, 0.0, 0.0]
    _, predict = run(spread([*[unsure] * 4, sure, *[sure] * 4]), 9, PLAIN, "topk", passes=4, schedule="cosine")
    assert [int((canvas == PLAIN.mask_id).sum()) for canvas in predict.seen] == [9, 4, 3, 1]


def test_random_leaves_a_slot_hidden_with_probability_s_over_t():
    options, uniform = Sampler.of("random", {"passes": 4}).options, torch.rand(1, 20000)
    every = torch.ones(1, 20000, dtype=torch.bool)
    for step, share in ((0, 1 / 4), (1, 1 / 3), (2, 1 / 2), (3, 1.0)):
        chosen = options.slots(Step(step, answer([[1.0]]), every, torch.tensor([[20000]]), uniform))
        assert abs(chosen.float().mean().item() - share) < 0.02


def test_random_draws_its_tokens(run):
    row = [0.0, 0.1, 0.2, 0.7, 0.0]
    found, predict = run(spread([row] * 400), 400, PLAIN, "random", passes=3, rows=4)
    tokens = torch.tensor([c.tokens for c in found.candidates])
    assert tokens.shape == (4, 400) and len(tokens.unique(dim=0)) == 4
    for token, share in enumerate(row):
        assert abs((tokens == token).float().mean().item() - share) < 0.05
    chances = torch.tensor([c.token_confidence for c in found.candidates])
    torch.testing.assert_close(chances, torch.tensor(row)[tokens])
    assert found.passes == 3 and found.rows == 1 + 4 + 4
    found, _ = run(spread([row] * 40), 40, PLAIN, "random", tokens="argmax", passes=3)
    assert found.candidates[0].tokens == [3] * 40


UNIFORM = spread([[0.0, 0.25, 0.25, 0.25, 0.25]] * 12)


@pytest.mark.parametrize(("name", "conf", "passes"), [
    ("pbeb", {}, 12), ("eb", {"gamma": 0.05}, 12), ("pbeb", {"gamma": 0.0}, 12), ("pbeb", {"gamma": 1.0e9}, 1),
    ("eb", {"gamma": 1.0e9}, 1), ("threshold", {"threshold": 0.0}, 1), ("threshold", {"threshold": 1.0}, 12),
    ("topk", {"passes": 4}, 4), ("random", {"passes": 5}, 5), ("single", {}, 1),
])
def test_passes_on_a_network_that_knows_nothing(run, name, conf, passes):
    """Each slot costs ln 4 nats: a small bound fills one a pass, a large one all at once."""
    found, predict = run(UNIFORM, 12, PLAIN, name, **conf)
    assert found.passes == len(predict.seen) == passes
    assert found.flags == [] and len(found.candidates[0].tokens) == 12
    if passes == 12:
        assert [int((canvas == PLAIN.mask_id).sum()) for canvas in predict.seen] == list(range(12, 0, -1))


def test_a_large_bias_goes_strictly_from_left_to_right(run):
    for bias, sorted_ in ((50.0, True), (0.0, False)):
        _, predict = run(toy(5, 5, 3.0), 14, CanvasSpec(5, eos_id=4), "pbeb", bias=bias, gamma=0.5)
        hidden = [(canvas[0] == PLAIN.mask_id).tolist() for canvas in predict.seen]
        assert all(row == sorted(row) for row in hidden) == sorted_


def test_an_end_that_is_accepted_closes_the_canvas(run):
    rows = [[0.0, 0.6, 0.4, 0.0, 0.0], [0.95, 0.05, 0.0, 0.0, 0.0], *[[0.0, 0.5, 0.5, 0.0, 0.0]] * 2]
    found, predict = run(spread(rows), 4, PLAIN, "eb", gamma=0.0)
    assert found.passes == 2, "the end first, then the one slot before it; the two behind it are never asked"
    assert found.candidates[0].tokens == [1]
    assert found.candidates[0].confidence == pytest.approx((0.6 + 0.95) / 2)
    assert found.unread == [0]


@pytest.mark.parametrize("name", ["eb", "pbeb", "threshold"])
def test_a_sampler_that_is_forced_to_end_says_so(run, name):
    conf = {"threshold": 1.0} if name == "threshold" else {"gamma": 0.0}
    found, _ = run(UNIFORM, 12, PLAIN, name, max_passes=3, **conf)
    assert found.passes == 3 and found.flags == ["stalled"] and len(found.candidates[0].tokens) == 12


def test_pbeb_ends_after_32_passes_as_in_the_paper(run):
    network = spread([[0.0, 0.25, 0.25, 0.25, 0.25]] * 40)
    for options, passes, flags in (({}, 32, ["stalled"]), ({"max_passes": None}, 40, [])):
        found, predict = run(network, 40, PLAIN, "pbeb", **options)
        assert (found.passes, found.flags, len(found.candidates[0].tokens)) == (passes, flags, 40)
        assert int((predict.seen[31] == PLAIN.mask_id).sum()) == 9
    conf = read_yaml(Path(__file__).parents[2] / "conf/decode_pbeb.yaml")
    assert Sampler.of("pbeb", conf["sampler_conf"]).options == Sampler.of("pbeb").options


@pytest.mark.parametrize("name", ENGINE_SAMPLERS)
@pytest.mark.parametrize("spec", [PLAIN, CanvasSpec(5, eos_id=2, bos_id=1), CanvasSpec(5, eos_id=2, bos_id=2)])
def test_all_samplers_believe_a_network_that_knows_the_text(run, name, spec):
    row = [3, 1, 4, 0, 0, 0] if spec is PLAIN else [spec.bos_id, 3, 0, 4, 2, 2]
    found, predict = run(certain(row, 5), 6, spec, name)
    assert all(c.tokens == ([3, 1, 4] if spec is PLAIN else [3, 0, 4]) for c in found.candidates)
    if spec.bos_id is not None:
        assert all((canvas[:, 0] == spec.bos_id).all() and not asked[:, 0].any()
                   for canvas, asked in zip(predict.seen, predict.asked, strict=True))


def test_one_pass_equals_one_candidate_in_one_pass(run):
    logits = toy(zlib.crc32(b"x") % 97, 5)
    single, _ = run(logits, 9, PLAIN, "single")
    pdd, _ = run(logits, 9, PLAIN, "pdd", candidates=1, mask_ratios=[1.0])
    assert single.candidates == pdd.candidates


def test_pruning_keeps_the_surest_rows(run):
    found, predict = run(toy(1, 5), 30, PLAIN, "pdd", candidates=12, keep=[12, 5, 2], remask="exact")
    assert [len(rows) for rows in predict.owners] == [1, 12, 5, 2] and len(found.candidates) == 2
    conf = {"candidates": 12, "mask_ratios": [1.0, 0.9, 0.85], "remask": "exact"}
    two, _ = run(toy(1, 5), 30, PLAIN, "pdd", **conf | {"mask_ratios": [1.0, 0.9]})
    best = sorted(sorted(range(12), key=lambda k: -two.candidates[k].confidence)[:3])
    whole, _ = run(toy(1, 5), 30, PLAIN, "pdd", trace=True, **conf)
    pruned, _ = run(toy(1, 5), 30, PLAIN, "pdd", trace=True, keep=[12, 3], **conf)
    assert torch.equal(pruned.trace[2].shown, whole.trace[2].shown[best])


def test_stable_candidates_end_the_search(run):
    found, _ = run(certain([3, 1, 0, 0], 5), 4, PLAIN, "pdd", candidates=4, stop_when_stable=True)
    assert found.passes == 2 and [c.tokens for c in found.candidates] == [[3, 1]] * 4
    alone, _ = run(certain([3, 1, 0, 0], 5), 4, PLAIN, "pdd", candidates=1, stop_when_stable=True)
    assert alone.passes == 2
    unsure, _ = run(toy(7, 5), 30, PLAIN, "pdd", candidates=4, stop_when_stable=True)
    assert unsure.passes == 4


def test_an_easy_utterance_gets_few_candidates_and_passes(run):
    conf = {"candidates": 10, "mask_ratios": [1.0, 0.9, 0.85, 0.8], "adaptive_stop": 0.5, "adaptive_full": 4.0}
    shares = []
    for wrong in (0.1, 0.2, 0.4, 0.8):  # of each of the four slots that count: three tokens and the end
        rows = [[wrong / 4, *[wrong / 4] * 2, 1 - wrong, wrong / 4]] * 3 + [[1 - wrong, *[wrong / 4] * 4]] * 3
        found, _ = run(spread(rows), 6, PLAIN, "pdd", **conf)
        shares.append((found.passes, len(found.candidates)))
    # expected wrong 0.4 -> one pass; 0.8 -> a fifth; 1.6 -> two fifths; 0.8 of four: not the argmax any more
    assert shares[:3] == [(1, 1), (2, 2), (3, 4)]


@pytest.mark.parametrize("first_pass", ["argmax", "sample"])
def test_what_adaptive_passes_leave_out_costs_no_probability(run, first_pass):
    """Slots that only a cancelled pass would have hidden keep theirs, as they do where every pass is read."""
    conf = {"candidates": 6, "adaptive_full": 7.0, "mask_ratios": [1.0, 0.5, 0.4, 0.3], "first_pass": first_pass}
    (lazy, _), (whole, _) = (run(toy(0, 30, 4.0), 30, CanvasSpec(30), "pdd", trace=trace, **conf)
                             for trace in (False, True))
    assert lazy.passes == whole.passes == 3
    assert [c.tokens for c in lazy.candidates] == [c.tokens for c in whole.candidates]
    for one, other in zip(lazy.candidates, whole.candidates, strict=True):
        assert min(one.token_confidence, default=1.0) > 0
        assert one.token_confidence == pytest.approx(other.token_confidence, abs=1e-6)
        assert one.confidence == pytest.approx(other.confidence, abs=1e-6)


@pytest.mark.parametrize(("name", "conf", "message"), [
    ("pdd", {"candidates": 0}, "sampler_conf: candidates: expected at least 1, got 0"),
    ("pdd", {"passes": 0}, "passes: expected at least 1, got 0; leave it out, mask_ratios has 4"),
    ("pdd", {"passes": 4, "mask_ratios": [1.0, 0.9, 0.85]}, "passes: 4 needs 4 mask_ratios, got 3: "),
    ("pdd", {"mask_ratios": [1.0, 0.8, 0.9]}, r"mask_ratios: expected numbers that do not rise, got"),
    ("pdd", {"mask_ratios": [1.0, 0.0]}, r"mask_ratios: expected numbers in \(0, 1\], got \[1.0, 0.0\]"),
    ("pdd", {"mask_ratios": [0.9]}, "mask_ratios: expected 1.0 first"),
    ("pdd", {"mask_ratios": []}, "mask_ratios: expected 1.0 first"),
    ("pdd", {"mask_ratios": 4}, "sampler_conf.mask_ratios: expected a list, got 4"),
    ("pdd", {"keep": [15, 8]}, r"keep: 4 passes need 3 numbers of rows, got \[15, 8\]"),
    ("pdd", {"keep": [15, 16, 4]}, "keep: expected 15 or less, not rising, down to 1"),
    ("pdd", {"keep": [15, 4, 0]}, "keep: expected 15 or less, not rising, down to 1"),
    ("pdd", {"adaptive_stop": -1}, "expected 0 or more wrong tokens"),
    ("pdd", {"adaptive_full": math.nan}, "expected 0 or more wrong tokens"),
    ("pdd", {"mask_ratios": [1.0, math.nan]}, r"mask_ratios: expected numbers in \(0, 1\], got \[1.0, nan\]"),
    ("pdd", {"candidates": "five"}, "sampler_conf.candidates: expected a whole number, got 'five'"),
    ("pdd", {"candidate": 5}, "unknown key candidate; did you mean candidates?"),
    ("random", {"passes": 0}, "passes: expected at least 1, got 0"),
    ("random", {"tokens": "best"}, "tokens: 'best' is unknown; expected sample or argmax"),
    ("topk", {"passes": 0}, "passes: expected at least 1, got 0"),
    ("topk", {"schedule": "sine"}, "schedule: 'sine' is unknown; expected linear or cosine"),
    ("threshold", {"threshold": 1.5}, r"threshold: expected a probability in \[0, 1\], got 1.5"),
    ("eb", {"gamma": -0.1}, "gamma: expected 0 or more nats, got -0.1"),
    ("eb", {"gamma": math.nan}, "gamma: expected 0 or more nats, got nan"),
    ("pbeb", {"gamma": math.nan}, "gamma: expected 0 or more nats, got nan"),
    ("pbeb", {"bias": math.nan}, "bias: expected 0 or more per slot, got nan"),
    ("eb", {"rule": "max"}, "rule: 'max' is unknown; expected sum_minus_max or sum"),
    ("eb", {"order": "left"}, "order: 'left' is unknown; expected entropy or confidence"),
    ("pbeb", {"max_passes": 0}, "max_passes: expected at least 1, got 0"),
    ("pbeb", {"bias": -1}, "bias: expected 0 or more per slot, got -1.0"),
    ("pbeb", {"order": "entropy"}, "unknown key order"),
])
def test_wrong_options_are_named(name, conf, message):
    with pytest.raises(UserError, match=message):
        Sampler.of(name, conf)
