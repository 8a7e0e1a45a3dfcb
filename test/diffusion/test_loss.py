"""The masked-diffusion loss against sums written out slot by slot in float64."""

import numpy as np
import pytest
import torch

from whisfusion_asr.diffusion.loss import LossRule, masked_diffusion_loss
from whisfusion_asr.errors import UserError

EOS, VOCAB = 0, 7
TARGET = torch.tensor([[3, 4, 5, 0, 0, 0], [6, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]])
MASKED = torch.tensor([[1, 0, 1, 1, 1, 0], [1, 1, 0, 1, 1, 1], [0, 1, 0, 0, 1, 0]], dtype=torch.bool)
RATIO = torch.tensor([0.6, 0.9, 1e-5])


@pytest.fixture
def logits() -> torch.Tensor:
    return (torch.randn(3, 6, VOCAB, generator=torch.Generator().manual_seed(0)) * 2).requires_grad_()


def slots(logits: torch.Tensor):
    """Every hidden slot: row, kind ("text", "end" or "pad"), cross-entropy, whether the best token is right."""
    values = logits.detach().double().numpy()
    for row, target in enumerate(TARGET.tolist()):
        ends = [i for i, token in enumerate(target) if token == EOS]
        for slot, token in enumerate(target):
            if MASKED[row, slot]:
                kind = "text" if slot not in ends else "end" if slot == ends[0] else "pad"
                entropy = np.log(np.exp(values[row, slot]).sum()) - values[row, slot, token]
                yield row, kind, entropy, values[row, slot].argmax() == token


@pytest.mark.parametrize("pad_weight", [1.0, 0.3, 0.0])
def test_mean_over_the_hidden_slots(logits, pad_weight):
    out = masked_diffusion_loss(logits, TARGET, MASKED, RATIO, EOS, LossRule("none", pad_weight))
    weighted = [(pad_weight if kind == "pad" else 1.0, entropy) for _, kind, entropy, _ in slots(logits)]
    expected = sum(w * e for w, e in weighted) / sum(w for w, _ in weighted)
    assert out["loss"].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("pad_weight", [1.0, 0.3])
def test_inverse_ratio_is_the_bound_divided_by_all_slots(logits, pad_weight):
    out = masked_diffusion_loss(logits, TARGET, MASKED, RATIO, EOS, LossRule("inverse_ratio", pad_weight))
    ratio = [0.6, 0.9, 1e-3]  # a ratio drawn near 0 counts as 1e-3
    expected = sum((pad_weight if kind == "pad" else 1) * e / ratio[row] for row, kind, e, _ in slots(logits)) / 18
    assert out["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_the_three_parts_and_the_accuracy(logits):
    out = masked_diffusion_loss(logits, TARGET, MASKED, RATIO, EOS, LossRule(pad_weight=0.0))
    for part in ("text", "end", "pad"):
        expected = np.mean([entropy for _, kind, entropy, _ in slots(logits) if kind == part])
        assert out[f"loss_{part}"].item() == pytest.approx(expected, abs=1e-5), part
    expected = np.mean([right for _, kind, _, right in slots(logits) if kind == "text"])
    assert out["acc"].item() == pytest.approx(expected)
    assert {name for name, value in out.items() if value.requires_grad} == {"loss"}


def test_accuracy_of_a_network_that_knows_the_text():
    out = masked_diffusion_loss(9.0 * torch.eye(VOCAB)[TARGET], TARGET, MASKED, RATIO, EOS, LossRule())
    assert out["acc"].item() == 1.0
    assert out["loss"].item() == pytest.approx(np.log1p((VOCAB - 1) * np.exp(-9.0)), rel=1e-3)


def test_parts_without_a_slot_are_zero():
    masked = torch.zeros_like(MASKED)
    masked[2, 0] = True  # text only
    out = masked_diffusion_loss(torch.zeros(3, 6, VOCAB), TARGET, masked, RATIO, EOS, LossRule())
    assert out["loss_text"].item() == pytest.approx(np.log(VOCAB))
    assert out["loss_end"].item() == out["loss_pad"].item() == 0.0


@pytest.mark.parametrize("weighting", ["none", "inverse_ratio"])
def test_gradient_reaches_the_hidden_slots_only(logits, weighting):
    masked_diffusion_loss(logits, TARGET, MASKED, RATIO, EOS, LossRule(weighting))["loss"].backward()
    reached = logits.grad.abs().sum(-1) > 0
    assert torch.equal(reached, MASKED)


def test_pad_weight_zero_leaves_padding_untrained_but_not_the_end(logits):
    masked_diffusion_loss(logits, TARGET, MASKED, RATIO, EOS, LossRule(pad_weight=0.0))["loss"].backward()
    reached = logits.grad.abs().sum(-1) > 0
    is_eos = TARGET == EOS
    padding = is_eos & torch.cat((torch.zeros(3, 1, dtype=torch.bool), is_eos[:, :-1]), 1)
    assert torch.equal(reached, MASKED & ~padding)
    assert reached[0, 3] and reached[1, 1], "the first eos carries the length"


def test_only_padding_hidden_and_untrained_gives_zero_not_nan(logits):
    masked = torch.zeros_like(MASKED)
    masked[0, 5] = True
    loss = masked_diffusion_loss(logits, TARGET, masked, RATIO, EOS, LossRule(pad_weight=0.0))["loss"]
    loss.backward()
    assert loss.item() == 0.0 and logits.grad.abs().max() == 0.0


@pytest.mark.parametrize("weighting", ["none", "inverse_ratio"])
def test_order_of_the_batch_does_not_matter(logits, weighting):
    order, rule = [2, 0, 1], LossRule(weighting, 0.5)
    first = masked_diffusion_loss(logits, TARGET, MASKED, RATIO, EOS, rule)
    second = masked_diffusion_loss(logits[order], TARGET[order], MASKED[order], RATIO[order], EOS, rule)
    for name, value in first.items():
        assert second[name].item() == pytest.approx(value.item(), rel=1e-6), name


def test_half_precision_logits_are_summed_in_fp32(logits):
    half = logits.detach().bfloat16()
    out = masked_diffusion_loss(half, TARGET, MASKED, RATIO, EOS, LossRule())
    assert out["loss"].dtype == torch.float32
    same = masked_diffusion_loss(half.float(), TARGET, MASKED, RATIO, EOS, LossRule())
    assert out["loss"].item() == same["loss"].item()


def test_unknown_weighting_is_named():
    with pytest.raises(UserError, match="loss weighting 'inv_p' is unknown; expected none or inverse_ratio"):
        LossRule("inv_p")
