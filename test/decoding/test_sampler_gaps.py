"""The sampler of gaps on networks that know the text, repeat themselves, or never end."""

import math

import pytest
import torch
from engine_fakes import FakePredict, spread, toy
from hypothesis import given, settings
from hypothesis import strategies as st

from whisfusion_asr.decoding.engine import EngineLimits, Job, decode
from whisfusion_asr.decoding.given import Given, start_canvas
from whisfusion_asr.decoding.samplers import Sampler
from whisfusion_asr.diffusion.canvas import CanvasSpec
from whisfusion_asr.errors import UserError

VOCAB = 14
PLAIN = CanvasSpec(VOCAB)  # eos 0, mask 14
WITH_BOS = CanvasSpec(VOCAB, eos_id=2, bos_id=1)
INFINITE = math.inf


def knowing(text: list[int], spec: CanvasSpec):
    """A network that knows a text of distinct tokens: what is missing between a gap's neighbours, then the end."""

    def logits(canvas: torch.Tensor) -> torch.Tensor:
        row = canvas[0].tolist()
        wanted = torch.full((len(row),), spec.eos_id)
        slot = spec.prefix
        while slot < len(row):
            if row[slot] != spec.mask_id:
                slot += 1
                continue
            behind = next((n for n in range(slot, len(row)) if row[n] != spec.mask_id), len(row))
            before = text.index(row[slot - 1]) + 1 if slot > spec.prefix else 0
            ends = behind == len(row) or row[behind] == spec.eos_id
            missing = text[before : len(text) if ends else text.index(row[behind])]
            for place, token in zip(range(slot, behind), missing, strict=False):
                wanted[place] = token
            slot = behind
        return 12.0 * torch.nn.functional.one_hot(wanted, spec.vocab_size)[None]

    return logits


def kept(text: list[int], known: list[bool]) -> Given:
    """The text with its unknown tokens as one free slot each, an end gap behind them."""
    return Given([token if here else None for token, here in zip(text, known, strict=True)])


texts = st.permutations(range(3, VOCAB)).flatmap(lambda order: st.integers(0, len(order)).map(lambda n: order[:n]))


@settings(deadline=None, max_examples=60)
@given(text=texts, known=st.lists(st.booleans(), min_size=VOCAB, max_size=VOCAB), ahead=st.integers(1, 5),
       gamma=st.sampled_from([0.0, 0.1, INFINITE]), spec=st.sampled_from([PLAIN, WITH_BOS]), spare=st.integers(2, 30))
def test_what_the_network_knows_is_restored(text, known, ahead, gamma, spec, spare):
    """Any part of the text may be known; each pass shows `ahead` masks in each open gap and nothing else is hidden."""
    known = known[: len(text)]
    sizes = [len(gap) for gap in "".join("k" if here else "m" for here in known).split("k") if gap]
    if not text or known[-1]:
        sizes.append(0)  # the end gap lacks nothing
    spare = max(spare, len(sizes))  # each gap needs a slot to be found complete
    predict = FakePredict(knowing(text, spec))
    start = start_canvas(len(text) + spare + spec.prefix, spec, kept(text, known))
    (found,) = decode(predict, [Job("utt", start)], spec, Sampler.of("gaps", {"ahead": ahead, "gamma": gamma}))
    assert found.candidates[0].tokens == text and found.unread == [0] and found.rows == found.passes
    if spare > ahead * (len(sizes) + 1):
        passes = {0.0: max(sizes) + 1, INFINITE: math.ceil((max(sizes) + 1) / ahead)}
        assert found.flags == [] and found.passes == passes.get(gamma, found.passes)
        first = predict.seen[0][0].tolist()
        assert first.count(spec.mask_id) == ahead * len(sizes)
        assert [token for token in first if token in text] == [t for t, here in zip(text, known, strict=True) if here]


@settings(deadline=None, max_examples=40)
@given(text=texts.filter(bool), known=st.lists(st.booleans(), min_size=VOCAB, max_size=VOCAB), ahead=st.integers(1, 4),
       gamma=st.sampled_from([0.0, INFINITE]))
def test_what_is_known_behind_a_gap_is_not_written_twice(text, known, ahead, gamma):
    """A network that never looks to the right: it goes on with the text to its end, whatever is known of it."""

    def reads_on(canvas: torch.Tensor) -> torch.Tensor:
        row, wanted, following = canvas[0].tolist(), [], []
        for slot, token in enumerate(row):
            if token != PLAIN.mask_id or not slot or row[slot - 1] != PLAIN.mask_id:
                before = text.index(row[slot - 1]) + 1 if slot and row[slot - 1] in text else 0
                following = [*text[before:], *[PLAIN.eos_id] * len(row)]
            wanted.append(following.pop(0))
        return 12.0 * torch.nn.functional.one_hot(torch.tensor(wanted), VOCAB)[None]

    start = start_canvas(4 * VOCAB, PLAIN, kept(text, known[: len(text)]))
    sampler = Sampler.of("gaps", {"ahead": ahead, "gamma": gamma})
    (found,) = decode(FakePredict(reads_on), [Job("utt", start)], PLAIN, sampler)
    assert found.candidates[0].tokens == text


def test_the_canvas_that_the_network_sees(run):
    """Three known words with a gap between two of them and one at the end, two masks each, ends behind."""
    text = [3, 4, 5, 6, 7, 8]
    found, predict = run(knowing(text, PLAIN), 12, PLAIN, "gaps", given=Given([3, 4, None, None, 8]), ahead=2,
                         gamma=INFINITE, trace=True)
    mask = PLAIN.mask_id
    assert [row[0].tolist() for row in predict.seen] == [
        [3, 4, mask, mask, 8, mask, mask, 0, 0, 0, 0, 0],
        [3, 4, 5, 6, mask, mask, 8, 0, 0, 0, 0, 0],  # the end gap is closed
    ]
    assert found.candidates[0].tokens == text and found.passes == 2
    assert torch.equal(found.trace[1].guess[0], torch.tensor([3, 4, 5, 6, 7, 0, 8, 0, 0, 0, 0, 0]))


def test_entropies_of_a_gap_are_summed_with_its_first_slot(run):
    """Slots of .325 nats: 2 fit into 0.7, 1 into 0.6; the first one is taken even if it does not fit at all."""
    unsure = [[0.0, 0.9, 0.1, 0.0], [0.0, 0.1, 0.9, 0.0]]
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    for gamma, passes in ((2.1 * entropy, 4), (1.9 * entropy, 8), (0.5 * entropy, 8), (3.1 * entropy, 3)):
        found, _ = run(spread(unsure * 4), 8, CanvasSpec(4), "gaps", ahead=3, gamma=gamma)
        assert found.passes == passes and found.flags == ["canvas_full"]


def test_an_end_token_closes_a_gap_and_what_is_behind_it_says_nothing(run):
    sure_end = [[0.7, 0.1, 0.1, 0.1], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    found, _ = run(spread(sure_end), 4, CanvasSpec(4), "gaps", gamma=INFINITE)
    assert found.candidates[0].tokens == [] and found.passes == 1 and found.flags == []
    assert found.candidates[0].confidence == pytest.approx(0.7)


def test_confidences_are_those_of_the_pass_that_wrote_a_token(run):
    rows = [[0.0, 0.0, 0.8, 0.2], [0.0, 0.0, 0.1, 0.9], [0.6, 0.1, 0.2, 0.1], [1.0, 0.0, 0.0, 0.0]]
    draft = Given([2], confidence=[0.55])
    found, _ = run(spread(rows), 4, CanvasSpec(4), "gaps", given=draft, gamma=0.0)
    assert found.candidates[0].tokens == [2, 3]
    assert found.candidates[0].token_confidence == pytest.approx([0.55, 0.9])
    assert found.candidates[0].confidence == pytest.approx((0.55 + 0.9 + 0.6) / 3), "and the end's"


def test_known_words_with_an_end_have_no_gap_behind_them(run):
    found, predict = run(knowing([3, 4, 5, 6], PLAIN), 12, PLAIN, "gaps", given=Given([3, None, 5], ends=True))
    assert found.candidates[0].tokens == [3, 4, 5] and found.flags == []
    assert predict.seen[0][0].tolist() == [3, *[PLAIN.mask_id] * 3, 5, *[0] * 7]
    found, predict = run(knowing([3, 4], PLAIN), 6, PLAIN, "gaps", given=Given([3, 4], ends=True))
    assert found.candidates[0].tokens == [3, 4] and found.passes == 0 and predict.seen == []


@pytest.mark.parametrize(
    ("says", "passes"), [([1, 1, 1], 3), ([1, 2, 2], 2), ([1, 2, 1], 1), ([1, 1, 2], 2), ([2, 2, 2], 3)]
)
def test_neighbours_that_say_the_same_are_not_taken_together(run, says, passes):
    """However sure the network is of both."""
    rows = torch.nn.functional.one_hot(torch.tensor([*says, 0, 0, 0, 0, 0]), 4).float().tolist()
    found, _ = run(spread(rows), 8, CanvasSpec(4), "gaps", ahead=4, gamma=INFINITE)
    assert found.candidates[0].tokens == says and found.passes == passes


ENDLESS = ([[0.0, 0.0, 0.4, 0.6], [0.0, 0.0, 0.6, 0.4]] * 5)[:9]


@pytest.mark.parametrize(("gamma", "passes"), [(0.0, 9), (INFINITE, 3)])
def test_a_network_that_never_ends_is_stopped_by_the_canvas(run, gamma, passes):
    found, predict = run(spread(ENDLESS), 9, CanvasSpec(4), "gaps", ahead=3, gamma=gamma)
    assert found.candidates[0].tokens == [3, 2, 3, 2, 3, 2, 3, 2, 3] and found.flags == ["canvas_full"]
    assert found.passes == passes and all((canvas == 4).sum() >= 1 for canvas in predict.seen)


def test_a_gap_that_repeats_itself_does_not_cost_another_its_place():
    """Of a canvas of 10 slots, two gaps with known words beside them: the first one never ends."""

    def logits(canvas: torch.Tensor) -> torch.Tensor:
        row = canvas[0].tolist()
        wanted = [9 if number < row.index(5) else 6 if row[number - 1] == 5 else 0 for number in range(len(row))]
        return 12.0 * torch.nn.functional.one_hot(torch.tensor(wanted), VOCAB)[None]

    start = start_canvas(10, PLAIN, Given([4, None, 5]))
    (found,) = decode(FakePredict(logits), [Job("utt", start)], PLAIN, Sampler.of("gaps", {"ahead": 4, "gamma": 0.0}))
    tokens = found.candidates[0].tokens
    assert tokens[0] == 4 and tokens[-2:] == [5, 6] and set(tokens[1:-2]) == {9} and len(tokens) == 10
    assert found.flags == ["canvas_full"]


def test_little_room_leaves_fewer_masks_to_the_last_gaps(run):
    """12 slots, 5 known tokens, 3 gaps of 3 masks: 3 + 3 + 1."""
    given = Given([3, None, 4, 5, None, 6, 7])
    found, predict = run(knowing([3, 8, 4, 5, 9, 6, 7, 10], PLAIN), 12, PLAIN, "gaps", given=given, gamma=INFINITE)
    mask = PLAIN.mask_id
    assert predict.seen[0][0].tolist() == [3, mask, mask, mask, 4, 5, mask, mask, mask, 6, 7, mask]
    assert found.candidates[0].tokens == [3, 8, 4, 5, 9, 6, 7, 10] and found.flags == [] and found.passes == 2


@pytest.mark.parametrize(("limit", "flag"), [("max_passes", "stalled"), ("budget", "budget")])
def test_the_last_pass_takes_what_it_shows(run, limit, flag):
    if limit == "max_passes":
        found, _ = run(spread(ENDLESS), 9, CanvasSpec(4), "gaps", gamma=0.0, max_passes=2)
    else:
        times = iter([0.0, 0.0, 1.0, 1.0, 2.0])
        limits = EngineLimits(budget=2.5, clock=lambda: next(times))
        jobs = [Job("utt", start_canvas(9, CanvasSpec(4)))]
        (found,) = decode(FakePredict(spread(ENDLESS)), jobs, CanvasSpec(4), Sampler.of("gaps", {"gamma": 0.0}), limits)
    assert found.candidates[0].tokens == [3, 2, 3, 2] and found.passes == 2 and found.flags == [flag]
    found, _ = run(knowing([3, 4], PLAIN), 9, PLAIN, "gaps", gamma=0.0, max_passes=3)
    assert found.candidates[0].tokens == [3, 4] and found.flags == [], "complete at the last pass by itself"


starts = st.lists(st.one_of(st.none(), st.integers(3, VOCAB - 1)), max_size=7)


@settings(deadline=None, max_examples=60)
@given(jobs=st.lists(st.tuples(starts, st.booleans(), st.integers(0, 30)), min_size=1, max_size=5),
       gamma=st.sampled_from([0.0, 1.0, 4.0]), ahead=st.integers(1, 4))
def test_any_batch_gives_the_same_text_and_what_is_known_stands(jobs, gamma, ahead):
    def decoded(chosen):
        starts = [start_canvas(9 + seed % 5, PLAIN, Given(tokens, ends=ends)) for tokens, ends, seed in chosen]
        predict = FakePredict(*[toy(seed, VOCAB, 3.0) for *_, seed in chosen], lengths=[len(s.tokens) for s in starts])
        batch = [Job(str(number), start) for number, start in enumerate(starts)]
        return decode(predict, batch, PLAIN, Sampler.of("gaps", {"gamma": gamma, "ahead": ahead}))

    for job, together in zip(jobs, decoded(jobs), strict=True):
        (alone,) = decoded([job])
        assert together.candidates[0].tokens == alone.candidates[0].tokens
        assert (together.passes, together.rows, together.flags) == (alone.passes, alone.rows, alone.flags)
        written = iter(alone.candidates[0].tokens)
        assert all(token in written for token in job[0] if token is not None), "in this order"
        assert alone.passes <= 9 + job[2] % 5


@pytest.mark.parametrize(("conf", "message"), [
    ({"ahead": 0}, "sampler_conf: ahead: expected at least 1, got 0"),
    ({"gamma": -0.1}, "gamma: expected 0 or more nats, got -0.1"),
    ({"gamma": float("nan")}, "gamma: expected 0 or more nats, got nan"),
    ({"max_passes": 0}, "max_passes: expected at least 1, got 0"),
    ({"bias": 1}, "sampler_conf: unknown key bias; it knows ahead, gamma, max_passes, looks, margin"),
    ({"looks": -1}, "looks: expected at least 0, got -1"),
    ({"margin": -1.0}, "margin: expected 0 or more nats, got -1.0"),
])
def test_wrong_options_are_named(conf, message):
    with pytest.raises(UserError, match=message):
        Sampler.of("gaps", conf)
