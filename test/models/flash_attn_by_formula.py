"""What the package flash_attn offers, with its signatures and layouts, by the formula of softmax attention.

Stands in sys.modules where there is no GPU: it has the limits of the true one as far as shapes go.
"""

import torch
from torch import Tensor

__version__ = "by formula"


def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, softmax_scale: float | None = None,
                    causal: bool = False) -> Tensor:
    """q: (B, L, H, E); k, v: (B, S, H, E). Returns (B, L, H, E)."""
    assert dropout_p == 0.0 and q.shape[2:] == k.shape[2:] == v.shape[2:] and q.dtype == k.dtype == v.dtype
    scores = torch.einsum("blhe,bshe->bhls", q, k) * (softmax_scale or q.size(-1) ** -0.5)
    if causal:  # the last query sees all keys
        rows, columns = scores.shape[2:]
        scores = scores.masked_fill(torch.ones(rows, columns).tril(columns - rows) == 0, -torch.inf)
    weight = scores.exp() / scores.exp().sum(-1, keepdim=True)
    return torch.einsum("bhls,bshe->blhe", weight, v)


def flash_attn_varlen_func(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
                           max_seqlen_q: int, max_seqlen_k: int, dropout_p: float = 0.0,
                           softmax_scale: float | None = None, causal: bool = False) -> Tensor:
    """q: (N, H, E), all queries in a row; k, v: (M, H, E); cu_seqlens: (B + 1,) int32. Returns (N, H, E)."""
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32 and cu_seqlens_q[-1] == len(q)
    assert cu_seqlens_k[-1] == len(k) == len(v) and int(cu_seqlens_k.diff().max()) == max_seqlen_k
    assert int(cu_seqlens_q.diff().max()) == max_seqlen_q
    rows = []
    for b in range(len(cu_seqlens_q) - 1):
        own, seen = slice(*cu_seqlens_q[b : b + 2].tolist()), slice(*cu_seqlens_k[b : b + 2].tolist())
        rows.append(flash_attn_func(q[None, own], k[None, seen], v[None, seen], dropout_p, softmax_scale, causal)[0])
    return torch.cat(rows)
