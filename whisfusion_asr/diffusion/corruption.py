"""The forward process: which slots of a canvas are hidden in one training step."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whisfusion_asr.errors import UserError


@dataclass(frozen=True)
class MaskLaw:
    """Mask ratio of an utterance, uniform in [low, high]: U(0, 1) in the paper's stage 1, U(0.7, 1) in stage 2."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.low <= self.high <= 1.0 or self.high == 0.0:
            raise UserError(f"mask ratio: expected 0 <= low <= high <= 1 and high > 0, got {self.low} and {self.high}")


def utterance_generator(seed: int, utt_id: str) -> torch.Generator:
    """Random numbers of one utterance: they depend on (seed, utterance id), never on its batch or rank."""
    return torch.Generator().manual_seed((seed * 0x9E3779B1 + zlib.crc32(utt_id.encode())) & 0x7FFFFFFFFFFFFFFF)


def draw_masks(law: MaskLaw, utt_ids: Sequence[str], length: int, prefix: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw a mask ratio per utterance and hide each slot with that probability (at least one slot).

    utt_ids: B names; length: L slots; prefix: slots at the front that stay visible
    returns: masked (B, L) bool; ratio (B,) float
    The law of the released code (Bernoulli per slot), with the prefix left visible as in decoding.
    """
    masks, ratios = [], []
    for utt_id in utt_ids:
        generator = utterance_generator(seed, utt_id)
        ratio = law.low + (law.high - law.low) * float(torch.rand((), generator=generator))
        uniform = torch.rand(length, generator=generator)
        uniform[:prefix] = 2.0
        masked = uniform < ratio
        masked[uniform.argmin()] = True
        masks.append(masked)
        ratios.append(ratio)
    return torch.stack(masks), torch.tensor(ratios)
