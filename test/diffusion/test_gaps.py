"""Rows with gaps: what they show and ask follows from the text alone, whatever the cuts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whisfusion_asr.diffusion.canvas import CanvasSpec
from whisfusion_asr.diffusion.corruption import MaskLaw
from whisfusion_asr.diffusion.gaps import GapRule, open_gaps
from whisfusion_asr.diffusion.loss import LossRule
from whisfusion_asr.diffusion.objective import Objective
from whisfusion_asr.errors import UserError

EOS, VOCAB = 0, 60
SPEC = CanvasSpec(VOCAB, EOS)


def canvas(words: int, length: int) -> torch.Tensor:
    """The text 1, 2, ..., so that a token's number is its place."""
    return torch.cat((torch.arange(1, words + 1), torch.zeros(length - words, dtype=torch.long)))[None]


def opened(words: int, length: int, rule: GapRule, seed: int = 0, name: str = "a") -> tuple[list[int], list[bool]]:
    target = canvas(words, length)
    row, hidden = open_gaps(target, torch.zeros_like(target, dtype=torch.bool), rule, [name], SPEC, seed)
    return row[0].tolist(), hidden[0].tolist()


def gaps_of(row: list[int], hidden: list[bool], words: int) -> list[tuple[list[int], list[int]]]:
    """Of each gap: what it asks for, and what is missing between its known neighbours."""
    found, slot = [], 0
    while slot < len(row):
        if not hidden[slot]:
            slot += 1
            continue
        begin = slot
        while slot < len(row) and hidden[slot]:
            slot += 1
        before = row[begin - 1] if begin else 0
        after = row[slot] if slot < len(row) and row[slot] != EOS else words + 1
        found.append((row[begin:slot], list(range(before + 1, after))))
    return found


@settings(deadline=None, max_examples=150)
@given(words=st.integers(0, 30), ahead=st.integers(1, 5), seed=st.integers(0, 2**30),
       longest=st.floats(1, 12), open_end=st.floats(0, 1), empty=st.floats(0, 0.5))
def test_a_gap_asks_for_what_comes_next_and_then_for_the_end(words, ahead, seed, longest, open_end, empty):
    length = 30 * (1 + ahead) + ahead
    row, hidden = opened(words, length, GapRule(1.0, ahead, longest, open_end, empty), seed)
    assert any(hidden)
    for asked, missing in gaps_of(row, hidden, words):
        assert asked == (missing + [EOS] * ahead)[:ahead]
    known = [token for token, slot in zip(row, hidden, strict=True) if not slot and token != EOS]
    assert known == sorted(known), "known words keep their order"
    last = max((i for i, token in enumerate(row) if hidden[i] or token != EOS), default=0)
    assert not any(hidden[last + 1 :]) and set(row[last + 1 :]) <= {EOS}


@settings(deadline=None, max_examples=80)
@given(words=st.integers(1, 30), spare=st.integers(1, 8), seed=st.integers(0, 2**30))
def test_a_short_canvas_shows_fewer_slots_and_keeps_the_known_words(words, spare, seed):
    row, hidden = opened(words, words + spare, GapRule(empty=0.3), seed)
    assert len(row) == words + spare
    for asked, missing in gaps_of(row, hidden, words):
        assert asked == (missing + [EOS] * len(asked))[: len(asked)]


def test_nothing_between_the_known_words_and_the_gap_of_a_row_read_from_the_left():
    for seed in range(20):
        row, hidden = opened(12, 30, GapRule(open_end=1.0), seed)
        first = hidden.index(True)
        assert row[:first] == list(range(1, first + 1)) and sum(hidden) == 3


def test_rows_without_gaps_keep_their_hidden_slots_and_the_share_is_as_asked():
    target = canvas(20, 40).repeat(1000, 1)
    masked = torch.rand(target.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    rows, hidden = open_gaps(target, masked, GapRule(share=0.3), [str(i) for i in range(1000)], SPEC, 4)
    same = (hidden == masked).all(1)
    assert 0.64 < same.float().mean() < 0.76
    assert torch.equal(rows[same], target[same])


def test_cuts_depend_on_seed_and_name_only():
    target = canvas(20, 90).repeat(3, 1)
    nothing = torch.zeros_like(target, dtype=torch.bool)
    rows, hidden = open_gaps(target, nothing, GapRule(), ["x", "y", "z"], SPEC, 7)
    assert opened(20, 90, GapRule(), 7, "y") == (rows[1].tolist(), hidden[1].tolist())
    assert opened(20, 90, GapRule(), 8, "y") != (rows[1].tolist(), hidden[1].tolist())


def test_the_prefix_stays():
    spec = CanvasSpec(VOCAB, EOS, bos_id=50)
    target = torch.cat((torch.tensor([[50]]), canvas(10, 60)), 1)
    rows, hidden = open_gaps(target, torch.zeros_like(target, dtype=torch.bool), GapRule(open_end=1.0), ["u"], spec, 1)
    assert rows[0, 0] == 50 and not hidden[0, 0]
    assert rows[0, 1:].tolist() == opened(10, 60, GapRule(open_end=1.0), 1, "u")[0]


def test_the_objective_shows_the_cut_row_and_counts_its_answers():
    """A network that gives the right answers half its probability: the loss is log 2, gradients reach only them."""
    target = canvas(10, 60)
    logits = torch.full((1, 60, VOCAB), -30.0)
    wanted, hidden = open_gaps(target, torch.zeros_like(target, dtype=torch.bool), GapRule(), ["u"], SPEC, 3)
    logits.scatter_(2, wanted[..., None], 0.0)
    logits.scatter_(2, (wanted[..., None] + 1) % VOCAB, 0.0)
    logits.requires_grad_()
    seen = []

    def predict(shown: torch.Tensor) -> torch.Tensor:
        seen.append(shown)
        return logits

    objective = Objective(SPEC, MaskLaw(), LossRule(pad_weight=0.5), gaps=GapRule())
    out = objective(predict, target, ["u"], 3)
    out["loss"].backward()
    assert torch.equal(seen[0], wanted.masked_fill(hidden, SPEC.mask_id))
    assert out["loss"].item() == pytest.approx(torch.log(torch.tensor(2.0)).item(), rel=1e-4)
    assert torch.equal(logits.grad.abs().sum(-1) > 0, hidden)


def test_the_end_of_every_gap_counts_in_full_and_what_follows_as_padding():
    """One gap that lacks nothing: its first slot is an end, the two others are padding."""
    target = canvas(4, 12)
    rule = GapRule(open_end=1.0)
    seed = next(s for s in range(200) if opened(4, 12, rule, s)[0][:5] == [1, 2, 3, 4, 0])
    logits = torch.zeros(1, 12, VOCAB)
    logits[0, 4, EOS] = 5.0  # only the end is known
    weigh = [Objective(SPEC, MaskLaw(), LossRule(pad_weight=w), gaps=rule)(lambda _: logits, target, ["a"], seed)
             for w in (0.0, 1.0)]
    end, pad = (-torch.log_softmax(logits[0, slot], -1)[EOS].item() for slot in (4, 5))
    assert weigh[0]["loss"].item() == pytest.approx(end)
    assert weigh[1]["loss"].item() == pytest.approx((end + 2 * pad) / 3)
    assert weigh[1]["loss_end"].item() == pytest.approx(end) and weigh[1]["loss_pad"].item() == pytest.approx(pad)


@pytest.mark.parametrize(("conf", "message"), [
    ({"share": 1.5}, "gap_conf.share: expected a share in"),
    ({"ahead": 0}, "ahead 0 and longest 6.0 must be at least 1"),
    ({"aheads": 2}, "gap_conf: unknown key aheads; it knows share, ahead"),
])
def test_odd_rules_are_refused(conf, message):
    with pytest.raises(UserError, match=message):
        GapRule.from_conf(conf)
