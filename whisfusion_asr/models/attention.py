"""Attention by torch's scaled_dot_product_attention, and rotary positions that need not be whole numbers."""

import torch
import torch.nn.functional as F
from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, L, D) -> (B, H, L, D / H)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None = None) -> Tensor:
    """Softmax attention without causal mask, scale 1 / sqrt(head size).

    query: (B, H, L, E); key, value: (B, H, S, E); key_mask: (B, S) bool, True = may be attended to
    returns: (B, L, H * E)
    """
    mask = None if key_mask is None else key_mask[:, None, None, :]
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return out.transpose(1, 2).flatten(2)


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
