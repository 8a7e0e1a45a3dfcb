"""Learning-rate schedules that scale all groups alike, so that their ratio stays what the layer-wise decay made it.

None of them is told its length in YAML: the trainer counts the optimiser steps and calls `set_total`.
"""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from whisfusion_asr.errors import UserError


def check_ratios(scheduler: str, **ratios: float) -> None:
    """Raise UserError for a ratio outside [0, 1]."""
    for name, ratio in ratios.items():
        if not isinstance(ratio, (int, float)) or not 0.0 <= ratio <= 1.0:
            raise UserError(f"scheduler_conf.{name} of {scheduler}: expected a number from 0 to 1, got {ratio!r}")


class RatioSchedule(LRScheduler):
    """Every group's rate is its base rate times `factor(t)`, t = 1 at the first of `total` steps or epochs."""

    total: int | None = None

    def factor(self, t: int) -> float:
        """Share of the base rate at step or epoch t of self.total."""
        raise NotImplementedError

    def set_total(self, total: int) -> None:
        """Tell the number of steps (epochs) of the whole training, and set the rate of the current one."""
        self.total = total
        self._write()

    def get_lr(self) -> list[float]:
        """Rates of the groups for the step that comes next."""
        factor = 1.0 if self.total is None else self.factor(min(self.last_epoch + 1, self.total))
        return [base * factor for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Only the position: the shape comes from the configuration, the length from the trainer."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on at the saved position."""
        self.last_epoch = state_dict["last_epoch"]
        self._write()

    def _write(self) -> None:
        self._last_lr = self.get_lr()
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = lr


def cosine(position: float, floor: float) -> float:
    """From 1 at position 0 to `floor` at position 1 and beyond."""
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, position)))


class WarmupCosine(RatioSchedule):
    """Per step: linear from warmup_start to 1 over warmup_ratio of the steps, then a cosine to `floor` at the last.

    floor_of: "group" lets each group end at `floor` times its own rate; "all" lets all end at `floor` times the first
        group's (the full rate), so that slow groups slow down less: the one floor of the released stage-2 code.
    """

    def __init__(self, optimizer: Optimizer, warmup_ratio: float = 0.1, floor: float = 0.01,
                 floor_of: str = "group", warmup_start: float = 0.0) -> None:
        check_ratios("warmup_cosine", warmup_ratio=warmup_ratio, floor=floor, warmup_start=warmup_start)
        if floor_of not in ("group", "all"):
            raise UserError(f"scheduler_conf.floor_of of warmup_cosine: expected group or all, got {floor_of!r}")
        self.warmup_ratio, self.floor, self.floor_of, self.warmup_start = warmup_ratio, floor, floor_of, warmup_start
        super().__init__(optimizer)

    def factor(self, t: int) -> float:
        """Share of the base rate at step t."""
        return self._shape(t, self.floor)

    def get_lr(self) -> list[float]:
        """Rates of the groups for the step that comes next."""
        if self.floor_of == "group" or self.total is None:
            return super().get_lr()
        lowest, t = self.floor * self.base_lrs[0], min(self.last_epoch + 1, self.total)
        return [base * self._shape(t, lowest / base) for base in self.base_lrs]

    def _shape(self, t: int, floor: float) -> float:
        warm = max(1, int(self.total * self.warmup_ratio))
        if t <= warm:
            return self.warmup_start + (1.0 - self.warmup_start) * t / warm
        return cosine((t - warm) / (self.total - warm), floor)


class WarmupHoldLinear(RatioSchedule):
    """Per step: linear from 0 to 1, held until hold_ratio of the steps, then linear to `floor` at the last."""

    def __init__(self, optimizer: Optimizer, warmup_ratio: float = 0.05, hold_ratio: float = 0.5,
                 floor: float = 0.02) -> None:
        check_ratios("warmup_hold_linear", warmup_ratio=warmup_ratio, hold_ratio=hold_ratio, floor=floor)
        self.warmup_ratio, self.hold_ratio, self.floor = warmup_ratio, hold_ratio, floor
        super().__init__(optimizer)

    def factor(self, t: int) -> float:
        """Share of the base rate at step t."""
        warm = max(1, int(self.total * self.warmup_ratio))
        hold = max(warm, int(self.total * self.hold_ratio))
        if t <= warm:
            return t / warm
        return 1.0 if t <= hold else 1.0 - (1.0 - self.floor) * min(1.0, (t - hold) / (self.total - hold))


class EpochCosine(RatioSchedule):
    """Per epoch, as the released stage-1 code: int(warmup_ratio * epochs) epochs rise from warmup_start, then a cosine.

    The cosine is laid over all epochs, warm-up included, so the last epoch stays a little above `floor`.
    """

    def __init__(self, optimizer: Optimizer, warmup_ratio: float = 0.02, warmup_start: float = 0.1,
                 floor: float = 0.1) -> None:
        check_ratios("epoch_cosine", warmup_ratio=warmup_ratio, warmup_start=warmup_start, floor=floor)
        self.warmup_ratio, self.warmup_start, self.floor = warmup_ratio, warmup_start, floor
        super().__init__(optimizer)

    def factor(self, t: int) -> float:
        """Share of the base rate in epoch t."""
        warm, done = int(self.total * self.warmup_ratio), t - 1
        if done < warm:
            return self.warmup_start + (1.0 - self.warmup_start) * done / warm
        return cosine((done - warm) / self.total, self.floor)
