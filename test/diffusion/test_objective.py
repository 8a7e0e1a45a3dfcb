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

    def score(canvas, asked, answer):
        seen.append(canvas)
        return logits[asked], answer

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
    answers, seen = [], []

    def score(canvas, asked, answer):
        seen.append(canvas)
        answers.append(answer)
        return LOGITS[asked], answer

    for seed in range(40):
        objective(noise=0.5).foretold(score, TARGET, seed)
    assert all(torch.equal(answer, answers[0]) for answer in answers)
    changed = sum((canvas != TARGET).int() for canvas in seen)
    text = torch.tensor([[0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]]).bool()
    assert (changed[text] > 5).all() and not changed[~text].any()
