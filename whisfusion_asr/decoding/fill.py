"""What all samplers share: the questions they yield, the filled canvases they return, the candidates read off them."""

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from whisfusion_asr.decoding.look import Foretold, Look
from whisfusion_asr.decoding.network import Answer, Ask
from whisfusion_asr.diffusion.canvas import CanvasSpec


@dataclass(frozen=True)
class Filled:
    """K complete canvases.

    canvas: (K, L) int64; filled_with: (K, L) probability of each slot's token in the pass that filled it
    largest: (K, L) the last pass's largest probability, where that is the confidence, else None
    flags: "stalled" when slots were left at the last allowed pass, "budget" when time ran out
    rows: (K,) which candidate of the first pass each is, None for all in order
    """

    canvas: Tensor
    filled_with: Tensor
    largest: Tensor | None = None
    flags: tuple[str, ...] = ()
    rows: Tensor | None = None


# A sampler yields one Ask or Look per pass, is sent the Answer, or what is Foretold, and returns the canvases.
Fill = Generator[Ask | Look, Answer | Foretold, Filled]


def text_slots(canvas: Tensor, spec: CanvasSpec) -> Tensor:
    """Slots before the first end, without the prefix. canvas: (K, L). Returns (K, L) bool."""
    ends = canvas == spec.eos_id
    ends[:, : spec.prefix] = False
    inside = ends.cumsum(1) == 0
    inside[:, : spec.prefix] = False
    return inside


def scored_slots(canvas: Tensor, spec: CanvasSpec) -> Tensor:
    """The text and its first end: what the token confidence is the mean of. canvas: (K, L). Returns (K, L) bool."""
    inside = text_slots(canvas, spec)
    first_end = torch.zeros_like(inside)
    first_end[:, spec.prefix] = True
    first_end[:, 1:] |= inside[:, :-1]
    return inside | (first_end & (canvas == spec.eos_id))


def row_confidence(canvas: Tensor, filled_with: Tensor, spec: CanvasSpec) -> Tensor:
    """Mean probability of each row's text and first end, (K,)."""
    scored = scored_slots(canvas, spec)
    return (filled_with * scored).sum(1) / scored.sum(1).clamp(min=1)


def same_text(first: Tensor, second: Tensor, spec: CanvasSpec) -> Tensor:
    """Whether rows hold the same text up to its end. first: (K, L); second: (K, L) or (1, L). Returns (K,) bool."""
    inside, other = text_slots(first, spec), text_slots(second, spec)
    return ((inside == other) & ((first == second) | ~inside)).all(1)
