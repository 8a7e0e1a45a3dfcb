"""The canvas before the first pass: empty, with words that are known, or with a draft that may be changed."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from whisfusion_asr.diffusion.canvas import CanvasSpec
from whisfusion_asr.errors import UserError


@dataclass(frozen=True)
class Given:
    """Tokens on the canvas from its first text slot on.

    tokens: ids, None for a slot that the network fills; confidence: of each token, 1 where none is given
    fixed: whether each token is never changed; by default all are. A token that is not fixed is a draft.
    ends: the text ends behind these tokens, so that only the slots among them can change
    """

    tokens: Sequence[int | None]
    fixed: Sequence[bool] | None = None
    confidence: Sequence[float] | None = None
    ends: bool = False

    def __post_init__(self) -> None:
        for name in ("fixed", "confidence"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.tokens):
                raise UserError(f"given {name}: {len(values)} values for {len(self.tokens)} tokens")


@dataclass(frozen=True)
class Start:
    """A canvas to be filled, all (L,): tokens (the mask where nothing is known), fixed, confidence of what stands
    there, and text: slots where the text cannot end, because a fixed token follows."""

    tokens: Tensor
    fixed: Tensor
    confidence: Tensor
    text: Tensor

    def cut(self, length: int) -> "Start":
        """Its first slots."""
        return Start(*(getattr(self, item.name)[:length] for item in fields(self)))


def start_canvas(length: int, spec: CanvasSpec, given: Given | None = None, language: int | None = None) -> Start:
    """Lay what is given on a canvas of L slots. language: its token, for a model of several languages.

    raises UserError: the tokens do not fit, or are none of this vocabulary
    """
    tokens, fixed = torch.full((length,), spec.mask_id), torch.zeros(length, dtype=torch.bool)
    confidence = torch.zeros(length)
    tokens[: spec.prefix] = torch.tensor(spec.front(language), dtype=torch.long)
    fixed[: spec.prefix] = True
    text = torch.zeros(length, dtype=torch.bool)
    if given is None:
        return Start(tokens, fixed, confidence, text)
    end = spec.prefix + len(given.tokens)
    if end + given.ends > length:
        raise UserError(f"given: {len(given.tokens)} tokens do not fit a canvas of {length}; raise canvas_conf.margin")
    for index, token in enumerate(given.tokens):
        if token is None:
            continue
        if not 0 <= token < spec.vocab_size:
            raise UserError(f"given: token {token} is none of the {spec.vocab_size} of this model")
        slot = spec.prefix + index
        tokens[slot] = token
        fixed[slot] = given.fixed is None or given.fixed[index]
        confidence[slot] = 1.0 if given.confidence is None else given.confidence[index]
    if given.ends:
        tokens[end:], fixed[end:], confidence[end:] = spec.eos_id, True, 1.0
        text[:end] = True
    known = [slot for slot in range(spec.prefix, end) if fixed[slot] and tokens[slot] != spec.eos_id]
    text[: max(known, default=0)] = True
    return Start(tokens, fixed, confidence, text)
