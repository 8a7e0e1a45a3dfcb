"""A small conformer that learns on a CPU: fused norms, ReLU, no positions in attention, no dropout."""

import torch.nn.functional as F
from torch import Tensor, nn

from whisfusion_asr.errors import UserError
from whisfusion_asr.models.attention import attend, split_heads
from whisfusion_asr.models.frontend import frames_mask


class ConvolutionModule(nn.Module):
    """Linear, gated linear unit, depth-wise convolution over time, norm, ReLU, linear."""

    def __init__(self, size: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.gate = nn.Linear(size, 2 * size)
        self.depthwise = nn.Conv1d(size, size, kernel, padding=kernel // 2, groups=size)
        self.norm_conv = nn.LayerNorm(size)
        self.out = nn.Linear(size, size)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """x: (B, T, D); inside: (B, T) bool. Returns the branch's output (B, T, D)."""
        x = F.glu(self.gate(self.norm(x)), dim=-1) * inside.unsqueeze(-1)
        x = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return self.out(F.relu(self.norm_conv(x)))


class FrameAttention(nn.Module):
    """Self-attention over frames; the convolutions before it carry the order."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(size)
        self.qkv = nn.Linear(size, 3 * size)
        self.out = nn.Linear(size, size)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """x: (B, T, D); inside: (B, T) bool. Returns the branch's output (B, T, D)."""
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(self.norm(x)).chunk(3, dim=-1))
        return self.out(attend(query, key, value, inside))


class ConformerBlock(nn.Module):
    """Convolution, attention and feed-forward branches, each with a norm before and halved output weights at start.

    Raises UserError for an even kernel or a size that the heads do not divide.
    """

    def __init__(self, size: int, heads: int, kernel: int, ffn_factor: int = 4) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise UserError(f"conformer kernel: {kernel} must be odd, to be centred on its frame")
        if size % heads:
            raise UserError(f"conformer size {size} must be a multiple of attention_heads ({heads})")
        self.conv = ConvolutionModule(size, kernel)
        self.attention = FrameAttention(size, heads)
        self.ffn = nn.Sequential(
            nn.LayerNorm(size), nn.Linear(size, ffn_factor * size), nn.ReLU(), nn.Linear(ffn_factor * size, size)
        )
        for last in (self.conv.out, self.attention.out, self.ffn[-1]):
            last.weight.data.mul_(0.5)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """x: (B, T, D); inside: (B, T) bool. Returns (B, T, D)."""
        x = x + self.conv(x, inside)
        x = x + self.attention(x, inside)
        return x + self.ffn(x)


class LightConformer(nn.Module):
    """Features at 100 frames a second -> states at 25: two strided convolutions, then conformer blocks."""

    def __init__(self, input_size: int, output_size: int = 128, num_blocks: int = 4, attention_heads: int = 4,
                 kernel: int = 11) -> None:
        super().__init__()
        self.output_size = output_size
        self.subsample = nn.ModuleList(
            nn.Conv1d(size, output_size, 5, stride=2, padding=2) for size in (input_size, output_size)
        )
        self.blocks = nn.ModuleList(ConformerBlock(output_size, attention_heads, kernel) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(output_size)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features: (B, T, F); lengths: (B,). Returns states (B, T', D), lengths (B,), T' = ((T + 1) // 2 + 1) // 2."""
        x = features.transpose(1, 2)  # (B, T, F) -> (B, F, T)
        for conv in self.subsample:
            x = F.relu(conv(x * frames_mask(lengths, x.size(2)).unsqueeze(1)))
            lengths = (lengths + 1) // 2
        x = x.transpose(1, 2)  # (B, D, T') -> (B, T', D)
        inside = frames_mask(lengths, x.size(1))
        for block in self.blocks:
            x = block(x, inside)
        return self.norm(x) * inside.unsqueeze(-1), lengths
