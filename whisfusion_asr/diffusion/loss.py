"""The masked-diffusion loss, and its three parts that should be read apart: text, end, padding."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from whisfusion_asr.errors import UserError

# An utterance whose ratio was drawn near 0 must not dominate the 1/t weighting (SMDM clamps at the same value).
SMALLEST_RATIO = 1e-3


@dataclass(frozen=True)
class LossRule:
    """weighting: "none" (mean over the hidden slots, the released code) or "inverse_ratio" (1/t, the paper's Eq. 3).

    pad_weight: weight of the hidden eos slots after the first one (1: as published, 0: not trained).
    """

    weighting: str = "none"
    pad_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.weighting not in ("none", "inverse_ratio"):
            raise UserError(f"loss weighting {self.weighting!r} is unknown; expected none or inverse_ratio")


def masked_diffusion_loss(
    logits: Tensor, target: Tensor, masked: Tensor, ratio: Tensor, eos_id: int, rule: LossRule
) -> dict[str, Tensor]:
    """Cross-entropy of the hidden slots, from the logits of all slots (B, L, V); see `hidden_slots_loss`."""
    return hidden_slots_loss(logits[masked], target, masked, ratio, eos_id, rule)


def hidden_slots_loss(
    logits: Tensor, target: Tensor, masked: Tensor, ratio: Tensor, eos_id: int, rule: LossRule
) -> dict[str, Tensor]:
    """Cross-entropy of the hidden slots.

    logits: (N, V) of the N hidden slots; target: (B, L) int64; masked: (B, L) bool; ratio: (B,) mask ratio t of each
        utterance
    returns: `loss` (with gradient), and without gradient `loss_text`, `loss_end`, `loss_pad` (means over the hidden
        text, first-eos and further eos slots; absent slots give 0) and `acc` (share of hidden text slots found)
    none:           sum w CE / sum w over hidden slots
    inverse_ratio:  sum w CE / t, divided by B L  (the bound of MDLM and LLaDA for the linear schedule)
    """
    hidden, answer = masked.nonzero(as_tuple=True), target[masked]
    entropy = F.cross_entropy(logits.float(), answer, reduction="none")
    is_eos = target == eos_id
    pad = (is_eos & F.pad(is_eos[:, :-1], (1, 0)))[hidden]  # behind another eos
    end = is_eos[hidden] & ~pad
    weight = torch.where(pad, rule.pad_weight, 1.0)
    if rule.weighting == "none":
        loss = (weight * entropy).sum() / weight.sum().clamp(min=1e-8)
    else:
        loss = (weight * entropy / ratio.clamp(min=SMALLEST_RATIO)[hidden[0]]).sum() / target.numel()

    def mean(values: Tensor, where: Tensor) -> Tensor:
        return (values * where).sum() / where.sum().clamp(min=1)

    with torch.no_grad():
        text = ~(pad | end)
        correct = logits.argmax(-1) == answer
        parts = {f"loss_{name}": mean(entropy, where) for name, where in (("text", text), ("end", end), ("pad", pad))}
        return {"loss": loss, **parts, "acc": mean(correct.float(), text)}
