"""Rows with gaps: known words, and between them places where an unknown number of tokens is missing.

What decoding from a draft meets (the sampler `gaps`). A gap is shown as the same few hidden slots whatever it lacks, so
that their number tells nothing; predicted are the next tokens that are missing there, and eos once nothing is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whisfusion_asr.diffusion.canvas import CanvasSpec
from whisfusion_asr.diffusion.corruption import utterance_generator
from whisfusion_asr.errors import UserError


@dataclass(frozen=True)
class GapRule:
    """How texts are cut.

    share: of the rows that have gaps, the others are hidden slot by slot
    ahead: hidden slots that show a gap
    longest: tokens; the mean length of a row's gaps is drawn from 1 to this
    open_end: share of the rows with a single gap, from some token to the end of the text: left to right
    empty: probability of a gap that lacks nothing, between two known tokens
    """

    share: float = 1.0
    ahead: int = 3
    longest: float = 6.0
    open_end: float = 0.15
    empty: float = 0.03

    def __post_init__(self) -> None:
        for name in ("share", "open_end", "empty"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"gap_conf.{name}: expected a share in [0, 1], got {getattr(self, name)}")
        if self.ahead < 1 or self.longest < 1:
            raise UserError(f"gap_conf: ahead {self.ahead} and longest {self.longest} must be at least 1")

    @classmethod
    def from_conf(cls, conf: Mapping[str, Any]) -> "GapRule":
        """The rule of a YAML's `gap_conf`. Raises UserError for an unknown key."""
        unknown = sorted(set(conf) - set(cls.__dataclass_fields__))
        if unknown:
            known = ", ".join(cls.__dataclass_fields__)
            raise UserError(f"gap_conf: unknown key {', '.join(unknown)}; it knows {known}")
        return cls(**conf)


@dataclass(frozen=True)
class _Piece:
    """Known tokens, or what is missing in a gap."""

    tokens: list[int]
    gap: bool


def open_gaps(
    target: Tensor, masked: Tensor, rule: GapRule, utt_ids: Sequence[str], spec: CanvasSpec, seed: int
) -> tuple[Tensor, Tensor]:
    """Give a share of the rows gaps in the place of their hidden slots.

    target: (B, L) int64 filled canvases; masked: (B, L) bool; utt_ids: B names; seed: with each name of its cuts
    returns: target and masked, (B, L) both. A row with gaps holds known tokens, of each gap its hidden slots with what
        comes next there, and eos to the end of the canvas. A canvas too short for all gaps shows fewer of their slots.
    """
    rows, hidden = target.clone(), masked.clone()
    for row, utt_id in enumerate(utt_ids):
        generator = utterance_generator(seed, f"{utt_id}/gaps")
        if float(torch.rand((), generator=generator)) >= rule.share:
            continue
        tokens = target[row, spec.prefix :].tolist()
        tokens = tokens[: tokens.index(spec.eos_id)] if spec.eos_id in tokens else tokens
        pieces = _cut(tokens, rule, generator)
        laid, slots = _lay(pieces, rule.ahead, target.size(1) - spec.prefix, spec.eos_id)
        rows[row, spec.prefix :] = torch.tensor(laid, device=target.device)
        hidden[row, spec.prefix :] = torch.tensor(slots, device=target.device)
    return rows, hidden


def _cut(tokens: list[int], rule: GapRule, generator: torch.Generator) -> list[_Piece]:
    """Known tokens and gaps in turns; a gap's first tokens may be known already, as after some passes of decoding."""

    def uniform(low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    def length(mean: float) -> int:
        """Geometric, at least 1."""
        return int(torch.empty(()).geometric_(1 / mean, generator=generator)) if mean > 1 else 1

    if uniform() < rule.open_end:
        known = int(uniform(0, len(tokens) + 1))
        return [_Piece(tokens[:known], False), _Piece(tokens[known:], True)]
    missing, share = uniform(1, rule.longest), uniform(0.25, 0.95)
    pieces: list[_Piece] = []
    place, gap = 0, uniform() < share
    while place < len(tokens):
        taken = tokens[place : place + length(missing if gap else missing * (1 - share) / share)]
        place += len(taken)
        if gap:
            filled = 0 if uniform() < 0.5 else int(uniform(0, len(taken) + 1))
            pieces += [_Piece(taken[:filled], False), _Piece(taken[filled:], True)]
        else:
            for token in taken[:-1]:  # behind the last one a gap follows anyway
                pieces.append(_Piece([token], False))
                if uniform() < rule.empty:
                    pieces.append(_Piece([], True))
            pieces.append(_Piece(taken[-1:], False))
        gap = not gap
    # An end that is not known to be complete is a gap, which may lack nothing.
    if not any(piece.gap for piece in pieces) or not pieces[-1].gap and uniform() < 0.5:
        pieces.append(_Piece([], True))
    return pieces


def _lay(pieces: list[_Piece], ahead: int, length: int, eos_id: int) -> tuple[list[int], list[bool]]:
    """The row's tokens and which of them are hidden."""
    known = sum(len(piece.tokens) for piece in pieces if not piece.gap)
    gaps = sum(piece.gap for piece in pieces)
    shown = min(ahead, (length - known) // gaps) if gaps else 0
    laid: list[int] = []
    slots: list[bool] = []
    for piece in pieces:
        next_tokens = (piece.tokens + [eos_id] * shown)[:shown] if piece.gap else piece.tokens
        laid += next_tokens
        slots += [piece.gap] * len(next_tokens)
    rest = length - len(laid)
    return laid + [eos_id] * rest, slots + [False] * rest
