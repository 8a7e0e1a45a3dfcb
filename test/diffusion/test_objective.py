"""The autoregressive loss beside the masked one."""

import pytest
import torch

from whisfusion_asr.diffusion.canvas import CanvasSpec
from whisfusion_asr.diffusion.corruption import MaskLaw
from whisfusion_asr.diffusion.loss import LossRule
from whisfusion_asr.diffusion.objective import Objective

SPEC = CanvasSpec(9, eos_id=0, bos_id=1)
TARGET = torch.tensor([[1, 5, 6, 0, 0, 0], [1, 7, 8, 3, 2, 0], [1, 0, 0, 0, 0, 0]])
LOGITS = torch.randn(3, 6, 9, generator=torch.Generator().manual_seed(0))


def objective(noise: float = 0.0) -> Objective:
    return Objective(SPEC, MaskLaw(), LossRule(), noise=noise)


def test_every_token_and_the_first_end_count_alike() -> None:
    logits, seen = LOGITS.clone().requires_grad_(), []

    def score(canvas, asked):
        seen.append(canvas)
        return logits[asked]

    found = objective().foretold(score, TARGET, seed=3)
    slots = [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 1)]
    wanted = [-LOGITS[row, slot].log_softmax(-1)[TARGET[row, slot]] for row, slot in slots]
    assert float(found["loss_before"].detach()) == pytest.approx(float(sum(wanted)) / len(wanted), rel=1e-6)
    right = [int(LOGITS[row, slot].argmax()) == int(TARGET[row, slot]) for row, slot in slots]
    assert float(found["acc_before"]) == pytest.approx(sum(right) / len(right))
    assert torch.equal(seen[0], TARGET), "nothing is hidden"
    found["loss_before"].backward()
    touched = logits.grad.abs().sum(-1) > 0
    assert touched.nonzero().tolist() == [list(slot) for slot in slots]


def test_noise_changes_text_that_is_read_and_not_what_is_asked_for() -> None:
    slots, seen, losses = [], [], []

    def score(canvas, asked):
        seen.append(canvas)
        slots.append(asked)
        return LOGITS[asked]

    for seed in range(40):
        losses.append(float(objective(noise=0.5).foretold(score, TARGET, seed)["loss_before"]))
    assert all(torch.equal(asked, slots[0]) for asked in slots) and len(set(losses)) == 1
    changed = sum((canvas != TARGET).int() for canvas in seen)
    text = torch.tensor([[0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]]).bool()
    assert (changed[text] > 5).all() and not changed[~text].any()
