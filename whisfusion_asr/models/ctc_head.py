"""CTC on the encoder states: it helps a decoder that starts from nothing to find the audio, and it counts tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whisfusion_asr.models.frontend import frames_mask
from whisfusion_asr.models.light_conformer import ConformerBlock


class CTCHead(nn.Module):
    """Logits of V tokens and the blank (id V) per frame, over an optional trunk of conformer blocks.

    num_blocks: 0 for states that CTC training shaped; frozen Whisper states need 1 to 4 blocks of `hidden_size`.
    """

    def __init__(self, input_size: int, vocab_size: int, num_blocks: int = 0, hidden_size: int = 256,
                 attention_heads: int = 4, kernel: int = 15, dropout: float = 0.0) -> None:
        super().__init__()
        self.blank = vocab_size
        self.input = nn.Linear(input_size, hidden_size) if num_blocks else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(ConformerBlock(hidden_size, attention_heads, kernel) for _ in range(num_blocks))
        size = hidden_size if num_blocks else input_size
        self.norm = nn.LayerNorm(size) if num_blocks else nn.Identity()
        self.output = nn.Linear(size, vocab_size + 1)

    def scores(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Logits at the head's own rate, here by state, and their number in each utterance, (B,). See `forward`."""
        return self(states, lengths), lengths

    def at_frames(self, logits: Tensor, frames: int) -> Tensor:
        """The logits of `scores` by state, (B, T, V + 1)."""
        return logits

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """states: (B, T, D); lengths: (B,). Returns logits (B, T, V + 1)."""
        inside = frames_mask(lengths, states.size(1))
        x = self.input(self.dropout(states))
        for block in self.blocks:
            x = self.dropout(block(x, inside))
        return self.output(self.norm(x))

    def loss(self, logits: Tensor, lengths: Tensor, text: Tensor, text_lengths: Tensor) -> Tensor:
        """See `ctc_loss`; logits and lengths are those of `scores`."""
        return ctc_loss(logits, lengths, text, text_lengths)


def ctc_loss(logits: Tensor, lengths: Tensor, text: Tensor, text_lengths: Tensor) -> Tensor:
    """Negative log-likelihood per token of the batch; texts longer than their frames allow count as 0.

    logits: (B, T, V + 1), the blank last; text: (B, N) int64, ignored beyond text_lengths (B,)
    """
    log_probs = logits.float().log_softmax(-1).transpose(0, 1)  # (B, T, V + 1) -> (T, B, V + 1)
    blank = logits.size(-1) - 1
    total = F.ctc_loss(log_probs, text.clamp(min=0), lengths, text_lengths, blank, "sum", zero_infinity=True)
    return total / text_lengths.sum().clamp(min=1)


def greedy_path(logits: Tensor, lengths: Tensor) -> Tensor:
    """Best class per frame, blank beyond the length. logits: (B, T, V + 1) -> (B, T) int64."""
    best = logits.argmax(-1)
    return best.masked_fill(~frames_mask(lengths, best.size(1)), logits.size(-1) - 1)


def new_tokens(path: Tensor, blank: int) -> Tensor:
    """Frames where a token begins: not blank, and other than the frame before. path: (B, T) -> (B, T) bool."""
    before = F.pad(path[:, :-1], (1, 0), value=blank)
    return (path != blank) & (path != before)


def greedy_tokens(path: Tensor, blank: int) -> list[list[int]]:
    """CTC's greedy transcripts. path: (B, T) -> B lists of ids."""
    starts = new_tokens(path, blank)
    return [row[start].tolist() for row, start in zip(path, starts, strict=True)]


def count_positions(path: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """The position ruler: where each frame stands in the token sequence.

    path: (B, T) greedy classes
    returns: positions (B, T) float and counts (B,) int64. Frames of token i have position i, the gap after it
        i + 0.5, the lead-in -0.5; the count is the number of tokens.
    """
    counted = new_tokens(path, blank).cumsum(1)
    positions = counted - torch.where(path == blank, 0.5, 1.0)
    return positions, counted[:, -1]
