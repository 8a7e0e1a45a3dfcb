"""Looks of the sampler gaps: what is written is read from left to right and mended."""

import pytest
import torch
from engine_fakes import FakePredict, certain, toy
from hypothesis import given, settings
from hypothesis import strategies as st

from whisfusion_asr.decoding.engine import Decoded, EngineLimits, Job, decode
from whisfusion_asr.decoding.given import Given, start_canvas
from whisfusion_asr.decoding.look import Look, look_back
from whisfusion_asr.decoding.samplers import Sampler
from whisfusion_asr.diffusion.canvas import CanvasSpec

VOCAB = 8
PLAIN = CanvasSpec(VOCAB)  # eos 0, mask 8
WITH_BOS = CanvasSpec(VOCAB, eos_id=2, bos_id=1)
END = PLAIN.eos_id


def foretelling(seed: int):
    """A causal network without ties: the logits of a slot depend on all slots before it and on no other."""

    def logits(canvas: torch.Tensor) -> torch.Tensor:
        weight = torch.arange(canvas.size(1)) * 3 + 7
        before = (canvas * weight).cumsum(1) - canvas * weight
        return 3 * torch.sin((before + weight + seed).unsqueeze(-1) * 1.3 + torch.arange(VOCAB) * 2.1)

    return logits


def reciting(text: list[int], asked_for: dict[int, int] | None = None):
    """A causal network that goes on from the last token of a text of distinct ones; asked_for: other continuations."""
    follows = dict(zip([None, *text], [*text, END], strict=True)) | (asked_for or {})

    def logits(canvas: torch.Tensor) -> torch.Tensor:
        row = [None, *canvas[0].tolist()]
        wanted = [follows.get(token, END) for token in row[:-1]]
        return 8.0 * torch.nn.functional.one_hot(torch.tensor(wanted), VOCAB)[None]

    return logits


def left_to_right(logits, length: int, spec: CanvasSpec) -> list[int]:
    """The greedy text of a causal network, one token after another, on a canvas of `length` slots."""
    row = spec.front()
    while len(row) < length:
        filled = torch.tensor([row + [spec.eos_id] * (length - len(row))])
        token = int(logits(filled)[0, len(row)].argmax())
        if token == spec.eos_id:
            break
        row.append(token)
    return row[spec.prefix :]


def looked(ask, before, length: int, draft: Given | None, spec: CanvasSpec = PLAIN, limits: EngineLimits | None = None,
           **conf: object) -> tuple[Decoded, FakePredict, FakePredict]:
    """Decode with the networks `ask` of both directions and `before`; what each of them was shown."""
    both, causal = FakePredict(ask), FakePredict(before)
    sampler = Sampler.of("gaps", {"looks": None, **conf})
    jobs = [Job("utt", start_canvas(length, spec, draft))]
    return decode(both, jobs, spec, sampler, limits, trace=True, before=causal)[0], both, causal


def draft_of(tokens: list[int]) -> Given:
    return Given(tokens, [False] * len(tokens), [0.9] * len(tokens))


drafts = st.lists(st.sampled_from([3, 4, 5, 6, 7, None]), max_size=7)


@settings(deadline=None, max_examples=150)
@given(tokens=drafts, seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)), room=st.integers(0, 6),
       gamma=st.sampled_from([0.0, 1.0, 100.0]), spec=st.sampled_from([PLAIN, WITH_BOS]),
       inner=st.frozensets(st.integers(3, 7)))
def test_looks_without_limit_end_at_the_text_of_a_search_from_left_to_right(tokens, seeds, room, gamma, spec, inner):
    """Whatever the draft and the network that writes into gaps: they decide on the passes only."""
    spec = CanvasSpec(spec.vocab_size, spec.eos_id, spec.bos_id, inner=inner)
    length, causal = spec.prefix + len(tokens) + 1 + room, foretelling(seeds[1])
    draft = Given(tokens, [False] * len(tokens))
    found, _, _ = looked(toy(seeds[0], VOCAB), causal, length, draft, spec, gamma=gamma)
    assert found.candidates[0].tokens == left_to_right(causal, length, spec)


@settings(deadline=None, max_examples=60)
@given(words=st.lists(st.tuples(st.integers(3, 7), st.booleans()), min_size=3, max_size=7),
       seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)), looks=st.sampled_from([1, 2, None]))
def test_what_is_fixed_stands_in_its_order(words, seeds, looks):
    draft = Given([token for token, _ in words], [stands for _, stands in words])
    spec = CanvasSpec(VOCAB, inner=frozenset([5, 6, 7]))
    found, _, _ = looked(toy(seeds[0], VOCAB), foretelling(seeds[1]), 16, draft, spec, looks=looks, gamma=100.0)
    written = iter(found.candidates[0].tokens)
    assert all(token in written for token, stands in words if stands)


@settings(deadline=None, max_examples=40)
@given(jobs=st.lists(st.tuples(drafts, st.integers(0, 30)), min_size=1, max_size=4), looks=st.sampled_from([1, None]))
def test_any_batch_gives_the_same_text(jobs, looks):
    def decoded(chosen):
        starts = [start_canvas(10 + seed % 4, PLAIN, Given(tokens, [False] * len(tokens))) for tokens, seed in chosen]
        lengths = [len(start.tokens) for start in starts]
        both = FakePredict(*[toy(seed, VOCAB) for _, seed in chosen], lengths=lengths)
        causal = FakePredict(*[foretelling(seed) for _, seed in chosen], lengths=lengths)
        batch = [Job(str(number), start) for number, start in enumerate(starts)]
        return decode(both, batch, PLAIN, Sampler.of("gaps", {"looks": looks}), before=causal)

    for job, together in zip(jobs, decoded(jobs), strict=True):
        (alone,) = decoded([job])
        assert together.candidates[0].tokens == alone.candidates[0].tokens
        assert (together.passes, together.rows, together.flags) == (alone.passes, alone.rows, alone.flags)


def test_a_wrong_word_is_replaced_and_what_is_missing_behind_it_is_written_in_a_gap():
    """3 4 5 6 7 was drafted as 3 6 7: the look wants a 4, the gap behind it lacks 5 and 6: three passes."""
    text, mask = [3, 4, 5, 6, 7], PLAIN.mask_id
    found, both, causal = looked(certain([3, 4, 5, 6, 0, 0, 0, 0, 0], VOCAB), reciting(text, {6: 7}), 9,
                                 draft_of([3, 6, 7]), gamma=100.0)
    assert [row[0].tolist() for row in causal.seen] == [[3, 6, 7, 0], [3, 4, 5, 6, 7, 0]]
    assert [row[0].tolist() for row in both.seen] == [[3, 4, mask, mask, mask, 7, 0, 0, 0]]
    assert found.candidates[0].tokens == text and found.passes == 3 and found.flags == []


def test_a_superfluous_word_is_left_out_without_a_pass():
    found, both, causal = looked(certain([0] * 9, VOCAB), reciting([3, 4, 5]), 9, draft_of([3, 6, 4, 5]))
    assert found.candidates[0].tokens == [3, 4, 5] and both.seen == [] and found.passes == 2
    assert [row[0].tolist() for row in causal.seen] == [[3, 6, 4, 5, 0], [3, 4, 5, 0]]
    assert causal.asked[0][0].tolist() == [True] * 5, "the text and its end"
    assert causal.asked[1][0].tolist() == [False] * 2 + [True] * 2, "behind what is confirmed"
    assert [snapshot.guess[0].tolist() for snapshot in found.trace] == [
        [3, 4, 0, 5, 0, 0, 0, 0, 0], [3, 4, 5, 0, 0, 0, 0, 0, 0]], "as long as the canvas"


@pytest.mark.parametrize("looks", [1, None])
@pytest.mark.parametrize("stands", [False, True])
def test_a_phrase_on_both_sides_of_a_gap_is_said_once(looks, stands):
    """3 4 5 was heard as 3 7 3 4 5: with the 7 mended to a 4 and nothing in the gap the rest has been said already."""
    asked_for = {7: 3}  # the wrong word foretells what follows it
    draft = Given([3, 7, 3, 4, 5], [False, False, stands, False, False], [0.9] * 5)
    found, both, _ = looked(certain([0] * 9, VOCAB), reciting([3, 4, 5], asked_for), 9, draft, looks=looks)
    mask = PLAIN.mask_id
    assert both.seen[0][0].tolist() == [3, 4, mask, mask, mask, 3, 4, 5, 0]
    if stands:
        assert found.candidates[0].tokens[:5] != [3, 4, 5]
    else:
        assert found.candidates[0].tokens == [3, 4, 5] and found.passes == 2 + (looks is None)


def test_the_text_ends_where_the_first_wrong_word_is_an_end_and_goes_on_where_none_was():
    found, both, _ = looked(certain([0] * 9, VOCAB), reciting([3, 4]), 9, draft_of([3, 4, 6, 7]))
    assert found.candidates[0].tokens == [3, 4] and both.seen == [] and found.passes == 1
    found, both, _ = looked(certain([0, 0, 0, 6, 0, 0, 0, 0, 0], VOCAB), reciting([3, 4, 5, 6]), 9, draft_of([3, 4]),
                            gamma=100.0)
    assert found.candidates[0].tokens == [3, 4, 5, 6] and found.passes == 3
    assert both.seen[0][0].tolist() == [3, 4, 5, *[PLAIN.mask_id] * 3, 0, 0, 0]


def test_an_end_that_is_given_stands():
    """The network would go on with 5; of a text that is known to end behind its second word only words change."""
    for ends, tokens in ((True, [3, 4]), (False, [3, 4, 5])):
        given = Given([3, 6], [True, False], ends=ends)
        found, _, causal = looked(certain([0] * 9, VOCAB), reciting([3, 4, 5]), 9, given)
        assert found.candidates[0].tokens == tokens
        assert causal.asked[0][0].tolist() == [True] * (2 if ends else 3)


def test_the_rest_of_a_wrong_word_goes_with_it():
    """6 and 7 go on with the word that 5 begins; the gap takes their place."""
    spec = CanvasSpec(VOCAB, inner=frozenset([6, 7]))
    found, both, _ = looked(certain([0] * 9, VOCAB), reciting([3, 4]), 9, draft_of([3, 5, 6, 7]), spec, looks=1,
                            gamma=100.0)
    assert both.seen[0][0].tolist() == [3, 4, *[spec.mask_id] * 3, 0, 0, 0, 0]
    assert found.candidates[0].tokens == [3, 4]


@pytest.mark.parametrize(
    ("text", "draft", "second", "third"),
    [([3, 4, 5, 6, 7], [3, 1, 6, 7], [3, 4, 5, None, 6, 7], None),
     ([3, 4, 5, 6], [3, 1, 7], [3, 4, 5, None, 7], [3, 4, 5, 6, None])],
)
def test_what_an_earlier_look_agreed_with_stays_once(text, draft, second, third):
    """A wrong 1 stands for 4 and 5. A 6 behind it is right, and the second look misses the 5 only; a 7 is wrong."""
    found, both, _ = looked(certain([0] * 9, VOCAB), reciting(text, {1: draft[2]}), 9, draft_of(draft), gamma=100.0)
    gaps = [sum(([token] if token else [PLAIN.mask_id] * 3 for token in row), []) for row in (second, third) if row]
    assert [row[0].tolist() for row in both.seen[1:]] == [row + [END] * (9 - len(row)) for row in gaps]
    assert found.candidates[0].tokens == text and found.passes == 3 + 2 * len(gaps)


def test_a_margin_keeps_what_is_nearly_as_probable():
    """Of the second slot: 0.5 for another token, 0.25 for the one that stands, log 2 nats between them."""
    logits = torch.full((1, 5, VOCAB), -30.0)
    logits[0, :, END] = 0.0
    logits[0, 0, 3] = 9.0
    logits[0, 1, [4, 5, 6]] = torch.tensor([0.5, 0.25, 0.25]).log() + 9
    for margin, token in ((0.69, 4), (0.70, 5)):
        found, _, causal = looked(certain([0] * 5, VOCAB), lambda canvas: logits[:, : canvas.size(1)], 5,
                                  draft_of([3, 5]), margin=margin)
        assert found.candidates[0].tokens == [3, token] and len(causal.seen) == 1 + (token == 4)
    assert found.candidates[0].token_confidence == pytest.approx([1.0, 0.25], abs=1e-3), "as the look was of them"
    assert found.candidates[0].confidence == pytest.approx((1 + 0.25 + 1) / 3, abs=1e-3)


@pytest.mark.parametrize(("conf", "passes"), [({"looks": 1}, 2), ({"looks": 0}, 1), ({"max_passes": 1}, 1)])
def test_looks_and_passes_have_limits(conf, passes):
    found, _, causal = looked(certain([0] * 9, VOCAB), reciting([3, 4, 5], {6: 5}), 9, draft_of([3, 6, 5]), **conf)
    assert found.passes == passes and found.flags == []
    assert found.candidates[0].tokens == ([3, 6, 5] if conf.get("looks") == 0 else [3, 4, 5])
    assert len(causal.seen) == (0 if conf.get("looks") == 0 else 1)


def test_without_time_the_last_look_mends_without_another_pass():
    times = iter([0.0, 0.0, 2.0])
    limits = EngineLimits(budget=2.5, clock=lambda: next(times))
    found, both, _ = looked(certain([0] * 9, VOCAB), reciting([3, 4, 5], {6: 5}), 9, draft_of([3, 6, 5]),
                            limits=limits)
    assert found.candidates[0].tokens == [3, 4, 5] and both.seen == [] and found.passes == 1


def test_what_is_foretold_is_a_softmax_of_each_asked_slot():
    canvas = torch.tensor([3, 5, 4, 0])
    seen = look_back(FakePredict(foretelling(1), foretelling(2), chunk=2),
                     [Look(canvas, 0, 4), Look(canvas[:3], 2, 3)], [0, 1], END)
    for logits, first, last, found in ((foretelling(1), 0, 4, seen[0]), (foretelling(2), 2, 3, seen[1])):
        wanted = logits(canvas[None])[0, first:last].softmax(-1)
        assert found.token.tolist() == wanted.argmax(-1).tolist() and not found.last
        assert torch.allclose(found.probability, wanted.amax(-1))
        assert torch.allclose(found.shown, wanted.gather(1, canvas[first:last, None])[:, 0])
