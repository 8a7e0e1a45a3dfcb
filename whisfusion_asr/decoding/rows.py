"""Reading tables of logits, a row for each slot. On a CPU what lies in its cache is read several times as fast."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

CACHED = 2**18  # numbers of a table that, with a copy or two, stay in a core's own cache
BLOCK = 512


def in_cache(tables: Iterable[Tensor]) -> Iterator[Tensor]:
    """Tables (N, V) in parts of whole rows, (n, V) each, in order; other devices than a CPU get them as they are."""
    for logits in tables:
        yield from logits.split(max(1, CACHED // logits.size(-1))) if logits.device.type == "cpu" else (logits,)


def largest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's largest number and its place, (N,) each: `max(-1)`, which a CPU does number by number.

    The largest of each block comes first, and then the place in the best one. logits: (N, V)
    """
    width = logits.size(-1)
    if logits.device.type != "cpu" or width < 2 * BLOCK:
        return logits.max(-1)
    whole = width // BLOCK * BLOCK
    blocks = logits[:, :whole].unflatten(1, (-1, BLOCK)).amax(-1)
    if whole < width:
        blocks = torch.cat((blocks, logits[:, whole:].amax(-1, keepdim=True)), 1)
    value, block = blocks.max(-1)
    start = (block * BLOCK).clamp(max=width - BLOCK)
    return value, start + logits.gather(1, start[:, None] + torch.arange(BLOCK)).argmax(-1)
