"""The cross-attention adapter: how a text decoder reads encoder states, with or without the position ruler."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from whisfusion_asr.models.attention import (
    Attend,
    Fold,
    attend,
    attend_shared,
    attention_weights,
    rotary_table,
    rotate,
    split_heads,
)
from whisfusion_asr.models.frontend import frames_mask

# The ruler's frequencies: base 100 keeps one token's step visible in every pair of a head of 32 to 64 dimensions.
RULER_BASE = 100.0


@dataclass(frozen=True)
class Acoustics:
    """What the decoder may know of the audio of B utterances.

    states: (B, T, D); lengths: (B,); positions: (B, T) places on the ruler, counts: (B,) tokens counted by CTC,
    both None without a CTC head.
    """

    states: Tensor
    lengths: Tensor
    positions: Tensor | None = None
    counts: Tensor | None = None

    def select(self, utterances: list[int]) -> "Acoustics":
        """Those of some utterances, copied."""
        known = (self.states, self.lengths, self.positions, self.counts)
        return Acoustics(*(None if each is None else each[utterances] for each in known))


@dataclass(frozen=True)
class Memory:
    """Keys and values of all adapters, computed once per utterance: lists of (B, H, S, E), and key_mask (B, S).

    slots_from: a ruler has a key for every slot of the canvas behind the prefix; where that of slot 0 would be
    """

    keys: list[Tensor]
    values: list[Tensor]
    key_mask: Tensor
    slots_from: int | None = None

    def repeat(self, rows: int) -> "Memory":
        """The memory of one utterance for `rows` candidates, without copying."""

        def expand(tensor: Tensor) -> Tensor:
            return tensor.expand(rows, *tensor.shape[1:])

        return replace(self, keys=[expand(k) for k in self.keys], values=[expand(v) for v in self.values],
                       key_mask=expand(self.key_mask))

    def select(self, utterances: Tensor) -> "Memory":
        """The memory of some utterances, copied. utterances: int64 indices."""
        index = utterances.to(self.key_mask.device)
        return replace(self, keys=[k[index] for k in self.keys], values=[v[index] for v in self.values],
                       key_mask=self.key_mask[index])

    def shortened(self, utterance: int, length: int) -> "Memory":
        """The same, one utterance having a canvas of fewer slots than it was read for."""
        if self.slots_from is None:
            return self
        mask = self.key_mask.clone()
        mask[utterance, self.slots_from + length :] = False
        return replace(self, key_mask=mask)


class PositionRuler(nn.Module):
    """Gives every canvas slot a key at its own position beyond the last counted token.

    The frames carry their CTC count as position (count_positions). A learned end state stands at the positions
    n, n + 1, ... of the canvas, n being the token count: a slot there finds it and learns that the text has ended.
    """

    def __init__(self, state_size: int) -> None:
        super().__init__()
        self.end_state = nn.Parameter(torch.randn(state_size))

    def forward(self, acoustics: Acoustics, length: int | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Append L end states; an utterance sees those of its own canvas only.

        length: slots of all canvases, or of each, (B,); L is the largest
        returns: states (B, T + L, D), positions (B, T + L), key_mask (B, T + L)
        """
        assert acoustics.positions is not None and acoustics.counts is not None
        batch, device = acoustics.states.size(0), acoustics.states.device
        lengths = torch.as_tensor(length, device=device).expand(batch)
        longest = int(lengths.max())
        slots = torch.arange(longest, device=device)
        ends = self.end_state.expand(batch, longest, -1)
        inside = frames_mask(acoustics.lengths, acoustics.states.size(1))
        states = torch.cat((acoustics.states, ends), 1)
        positions = torch.cat((acoustics.positions, slots.expand(batch, longest).float()), 1)
        seen = (slots >= acoustics.counts[:, None]) & (slots < lengths[:, None])
        return states, positions, torch.cat((inside, seen), 1)


class Adapter(nn.Module):
    """x + out(attention(q(norm x), k(states), v(states))), to be put between self-attention and feed-forward.

    With the ruler, queries and keys get a learned bias per head and are turned by their positions (canvas slot, CTC
    count). The biases start equal, so that the score before any training is a kernel with its maximum where slot and
    count agree: the adapter looks at the right frames from step 0. No additive mask, so flash attention stays possible.

    out_std: standard deviation of the output projection at the start; 0 leaves the text decoder undisturbed, None is
        torch's default, as in the released code.
    """

    def __init__(self, size: int, state_size: int, heads: int, eps: float, ruler: bool,
                 out_std: float | None = 0.02) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.RMSNorm(size, eps=eps)
        self.q_proj = nn.Linear(size, size, bias=False)
        self.kv_proj = nn.Linear(state_size, 2 * size, bias=False)
        self.out_proj = nn.Linear(size, size, bias=False)
        if out_std is not None:
            nn.init.normal_(self.out_proj.weight, std=out_std)
        self.ruler = ruler
        if ruler:
            # 2 makes the initial kernel's peak 2 * 4 * (E / 2) / sqrt(E) above its mean: sharp, not saturated.
            self.query_bias = nn.Parameter(torch.full((heads, 1, size // heads), 2.0))
            self.key_bias = nn.Parameter(torch.full((heads, 1, size // heads), 2.0))

    def read(self, states: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        """states: (B, S, D); positions: (B, S) with a ruler. Returns keys and values (B, H, S, E)."""
        key, value = (split_heads(part, self.heads) for part in self.kv_proj(states).chunk(2, dim=-1))
        if self.ruler:
            key = rotate(key + self.key_bias, rotary_table(positions, key.size(-1), RULER_BASE))
        return key, value

    def forward(self, x: Tensor, key: Tensor, value: Tensor, key_mask: Tensor, slots: Tensor,
                fold: Fold | None = None, attention: Attend = attend) -> Tensor:
        """x: (R, L, D); key, value: (B, H, S, E); key_mask: (B, S); slots: (L,) token index. Returns (R, L, D).

        fold: how the rows share the utterances' keys; None when R = B; attention: torch's or flash_attn's
        """
        query = self.query(x, slots)
        if fold is None:
            return x + self.out_proj(attention(query, key, value, key_mask))
        return x + self.out_proj(attend_shared(query, key, value, key_mask, fold, attention))

    def query(self, x: Tensor, slots: Tensor) -> Tensor:
        """What x (R, L, D) asks the states. slots: (L,) token index. Returns (R, H, L, E)."""
        query = split_heads(self.q_proj(self.norm(x)), self.heads)
        return rotate(query + self.query_bias, rotary_table(slots, query.size(-1), RULER_BASE)) if self.ruler else query

    def weights(self, x: Tensor, key: Tensor, value: Tensor, key_mask: Tensor, slots: Tensor,
                **_: object) -> Tensor:
        """How much each slot looks at each state: of `forward`'s arguments with R = B, (B, H, L, S)."""
        return attention_weights(self.query(x, slots), key, key_mask)


def frame_clock(frames: int, size: int, device: torch.device) -> Tensor:
    """Sinusoids of time for states without a ruler, (T, D): attention alone cannot tell one frame from another."""
    cos, sin = rotary_table(torch.arange(frames, device=device), 2 * math.ceil(size / 2), 10000.0)
    return torch.cat((sin, cos), -1)[:, :size]
