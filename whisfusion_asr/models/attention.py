"""Attention by torch's scaled_dot_product_attention, and rotary positions that need not be whole numbers.

models/flash.py has the same by flash_attn, and chooses between the two.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, L, D) -> (B, H, L, D / H)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class Attend(Protocol):
    """What `attend` and `flash.FlashAttention` are to the layers."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None = None,
                 causal: bool = False) -> Tensor:
        """See `attend`."""


def attend(query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Softmax attention, scale 1 / sqrt(head size).

    query: (B, H, L, E); key, value: (B, H, S, E); key_mask: (B, S) bool, True = may be attended to
    causal: slot i sees keys 0..i only; with L = S and without key_mask
    returns: (B, L, H * E)
    """
    mask = None if key_mask is None else key_mask[:, None, None, :]
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
    return out.transpose(1, 2).flatten(2)


def attention_weights(query: Tensor, key: Tensor, key_mask: Tensor) -> Tensor:
    """What `attend` weighs the values by. query: (B, H, L, E); key: (B, H, S, E); key_mask: (B, S).

    returns: (B, H, L, S), rows that sum to 1
    """
    scores = query @ key.transpose(2, 3) / query.size(-1) ** 0.5
    return scores.masked_fill(~key_mask[:, None, None, :], -torch.inf).softmax(-1)


@dataclass(frozen=True)
class Fold:
    """How R rows lie in a table of B utterances with K places each, so that the rows of one share its keys.

    source: (B * K,) the row at each place, a spare place repeats row 0; place: (R,) where each row lies. Both are None
        when row r is candidate r % K of utterance r // K.
    """

    candidates: int
    source: Tensor | None = None
    place: Tensor | None = None

    @classmethod
    def of(cls, rows: "Tensor | Fold", utterances: int) -> "Fold":
        """rows: (R,) int64, the utterance of each row, each of 0..B-1 at least once, in any order and number.

        A fold is returned as it is: what reads the values of `rows` is kept out of a compiled decoder.
        """
        if isinstance(rows, Fold):
            return rows
        counts = rows.bincount(minlength=utterances)
        candidates, order = int(counts.max()), rows.argsort(stable=True)
        rank = torch.empty_like(rows)
        rank[order] = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows[order]]
        place = rows * candidates + rank
        source = torch.zeros(utterances * candidates, dtype=torch.long, device=rows.device)
        source[place] = torch.arange(len(rows), device=rows.device)
        if torch.equal(place, torch.arange(len(source), device=rows.device)):
            return cls(candidates)
        return cls(candidates, source, place)

    def to(self, device: torch.device) -> "Fold":
        """The same fold on another device."""
        if self.source is None or self.place is None:
            return self
        return Fold(self.candidates, self.source.to(device), self.place.to(device))


def attend_shared(query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor, fold: Fold,
                  attention: Attend = attend) -> Tensor:
    """Attention of R rows to the keys of B utterances: candidates lie along the query length, so no key is copied.

    query: (R, H, L, E); key, value: (B, H, S, E); key_mask: (B, S) bool
    returns: (R, L, H * E)
    """
    if fold.source is not None:
        query = query[fold.source]
    table = query.unflatten(0, (-1, fold.candidates)).transpose(1, 2).flatten(2, 3)  # (B, H, K * L, E)
    out = attention(table, key, value, key_mask).unflatten(1, (fold.candidates, -1)).flatten(0, 1)
    return out if fold.place is None else out[fold.place]


def rotary_table(positions: Tensor, size: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions * base^(-2 j / size), always in fp32: half precision is wrong by up to 0.5.

    positions: (L,) or (B, L), any real numbers; size: head size
    returns: two tensors of shape positions.shape + (size / 2,)
    """
    frequencies = base ** (-torch.arange(0, size, 2, dtype=torch.float32, device=positions.device) / size)
    angles = positions.float().unsqueeze(-1) * frequencies
    return angles.cos(), angles.sin()


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the half-split pairs of each head by the table's angles (as GPT-NeoX and Llama do).

    x: (B, H, L, E); table: cosines and sines of shape (L, E / 2) or (B, L, E / 2)
    returns: (B, H, L, E) in the type of x
    """
    cos, sin = (t if t.dim() == 2 else t.unsqueeze(1) for t in table)
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1).to(x.dtype)
