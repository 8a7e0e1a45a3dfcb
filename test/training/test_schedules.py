"""Schedule values against their formulas; the ratio between groups; resuming."""

import math

import pytest
import torch

from whisfusion_asr.errors import UserError
from whisfusion_asr.training.schedules import EpochCosine, WarmupCosine, WarmupHoldLinear


def optimizer() -> torch.optim.Optimizer:
    """Two groups, 10 : 1."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1e-2, 1e-3)]
    return torch.optim.SGD(groups)


def walk(scheduler, total: int) -> list[list[float]]:
    """Rates of both groups at each of `total` updates."""
    scheduler.set_total(total)
    rows = []
    for _ in range(total):
        rows.append([group["lr"] for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
    return rows


def test_warmup_cosine_by_formula():
    """20 steps, 4 of them warm-up, floor 0.1."""
    rows = walk(WarmupCosine(optimizer(), warmup_ratio=0.2, floor=0.1), 20)
    for step, (rate, _) in enumerate(rows, start=1):
        wanted = step / 4 if step <= 4 else 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - 4) / 16))
        assert rate == pytest.approx(1e-2 * wanted)
    assert rows[3][0] == pytest.approx(1e-2) and rows[-1][0] == pytest.approx(1e-3)


def test_warmup_from_above_zero():
    """20 steps, 4 of them warm-up, which rises from 1 %."""
    rates = [row[0] for row in walk(WarmupCosine(optimizer(), warmup_ratio=0.2, warmup_start=0.01), 20)]
    assert rates[:4] == pytest.approx([1e-2 * (0.01 + 0.99 * step / 4) for step in (1, 2, 3, 4)])


def test_one_floor_for_all_groups():
    """20 steps, 4 of them warm-up; both groups end at 1 % of the first one's rate, as eta_min does in torch."""
    rows = walk(WarmupCosine(optimizer(), warmup_ratio=0.2, floor=0.01, floor_of="all"), 20)
    assert rows[1] == pytest.approx([0.5e-2, 0.5e-3])
    for step, row in enumerate(rows[3:], start=4):
        share = 0.5 * (1 + math.cos(math.pi * (step - 4) / 16))
        assert row == pytest.approx([1e-4 + (base - 1e-4) * share for base in (1e-2, 1e-3)])
    assert rows[-1] == pytest.approx([1e-4, 1e-4])


def test_an_unknown_floor_is_named():
    """The key and the values."""
    with pytest.raises(UserError, match="floor_of of warmup_cosine: expected group or all, got 'each'"):
        WarmupCosine(optimizer(), floor_of="each")


def test_warmup_hold_linear_by_formula():
    """20 steps: up in 2, held to 10, down to 2 %."""
    rows = walk(WarmupHoldLinear(optimizer(), warmup_ratio=0.1, hold_ratio=0.5, floor=0.02), 20)
    assert [row[0] for row in rows[:2]] == pytest.approx([0.5e-2, 1e-2])
    assert {round(row[0], 12) for row in rows[1:10]} == {1e-2}
    assert rows[14][0] == pytest.approx(1e-2 * (1 - 0.98 * 5 / 10))
    assert rows[-1][0] == pytest.approx(2e-4)


def test_epoch_cosine_gives_the_released_sequence():
    """80 epochs, warm-up ratio 0.02, base 2e-4: values simulated with the released code's schedulers."""
    only = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-4)
    rates = [row[0] for row in walk(EpochCosine(only, warmup_ratio=0.02), 80)]
    for epoch, wanted in [(1, 2.0e-5), (2, 2.0e-4), (11, 1.944e-4), (41, 1.135e-4), (80, 2.03e-5)]:
        assert rates[epoch - 1] == pytest.approx(wanted, rel=2e-3)


@pytest.mark.parametrize("make", [WarmupCosine, WarmupHoldLinear, EpochCosine])
@pytest.mark.parametrize("total", [1, 2, 7, 40])
def test_groups_keep_their_ratio_and_the_first_update_moves(make, total):
    """10 : 1 at every step of trainings of any length; never 0."""
    for high, low in walk(make(optimizer()), total):
        assert high == pytest.approx(10 * low) and high > 0


@pytest.mark.parametrize("make", [WarmupCosine, WarmupHoldLinear, EpochCosine])
def test_a_resumed_schedule_goes_on_where_it_was(make):
    """Saved after 6 of 15 steps into a new object, whose length the trainer tells before it loads."""
    rows = walk(make(optimizer()), 15)
    first = make(optimizer())
    first.set_total(15)
    for _ in range(6):
        first.optimizer.step()
        first.step()
    second = make(optimizer())
    second.set_total(15)
    second.load_state_dict(first.state_dict())
    assert first.state_dict() == {"last_epoch": 6}
    assert [group["lr"] for group in second.optimizer.param_groups] == rows[6]
    second.optimizer.step()
    second.step()
    assert [group["lr"] for group in second.optimizer.param_groups] == rows[7]


@pytest.mark.parametrize("make", [WarmupCosine, WarmupHoldLinear, EpochCosine])
def test_ratios_outside_0_to_1_are_refused(make):
    """The key and the value are named."""
    with pytest.raises(UserError, match="scheduler_conf.warmup_ratio of .*, got 30"):
        make(optimizer(), warmup_ratio=30)
