"""The diffusion transformer decoder: bidirectional, RoPE, RMSNorm, SwiGLU, a cross-attention adapter in every block."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whisfusion_asr.errors import UserError
from whisfusion_asr.models.adapter import Acoustics, Adapter, Memory, PositionRuler, frame_clock
from whisfusion_asr.models.attention import Attend, Fold, attend, rotary_table, rotate, split_heads
from whisfusion_asr.models.flash import check_attention, choose_attention
from whisfusion_asr.models.frontend import frames_mask
from whisfusion_asr.models.listening import watched_weights


class CanvasDecoder(Protocol):
    """What a decoder is to training and to the decoding engine. Its parts are registered in models/build.py.

    Training calls `decoder(canvas, decoder.read(acoustics, L))`. The engine reads once per batch of utterances, then
    asks for `hidden` of R rows per pass and for `logits` at the slots that need them, in chunks. The result of a row
    must not depend on the other rows, nor on slots beyond its length. It is a torch module with at least one parameter.

    prefix: slots at the front that hold no token; vocab_size: V, ids that can be predicted
    """

    prefix: int
    vocab_size: int

    def read(self, acoustics: Acoustics | None, length: int | Tensor) -> Memory | None:
        """Keys and values of B utterances for canvases of `length` slots, or of length[b] slots each, (B,) int64."""

    def hidden(self, canvas: Tensor, memory: Memory | None = None, rows: Tensor | None = None,
               lengths: Tensor | None = None) -> Tensor:
        """What the head reads, normalised, (R, L, D).

        canvas: (R, L) int64, V is the mask; memory: of B utterances
        rows: (R,) int64 utterance of each row, every utterance at least once; None when R = B, row b being b's
        lengths: (R,) slots of each row, what stands beyond is unseen; None when all have L
        """

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden: (..., D), any choice of slots. Returns (..., V)."""

    def __call__(self, canvas: Tensor, memory: Memory | None = None) -> Tensor:
        """logits(hidden(canvas, memory)), (B, L, V)."""


class DecoderAttention(nn.Module):
    """Self-attention over the whole canvas, not causal: the slots that fill it up are ordinary tokens."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(size, 3 * size, bias=False)
        self.out = nn.Linear(size, size, bias=False)

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor], inside: Tensor | None = None,
                attention: Attend = attend) -> Tensor:
        """x: (R, L, D); table: rotary cosines and sines of the slots; inside: (R, L) bool, slots of the row's canvas.

        returns: (R, L, D)
        """
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        return self.out(attention(rotate(query, table), rotate(key, table), value, inside))


class SwiGLU(nn.Module):
    """w3(silu(w1 x) * w2 x)."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(size, hidden, bias=False)
        self.w2 = nn.Linear(size, hidden, bias=False)
        self.w3 = nn.Linear(hidden, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D). Returns (..., D)."""
        return self.w3(F.silu(self.w1(x)) * self.w2(x))


class DecoderBlock(nn.Module):
    """The text half of a block; its adapter is kept apart so that the two can be trained apart."""

    def __init__(self, attention: DecoderAttention, size: int, ffn_size: int, eps: float,
                 residual_scale: float) -> None:
        super().__init__()
        self.norm_1 = nn.RMSNorm(size, eps=eps)
        self.attn = attention
        self.norm_2 = nn.RMSNorm(size, eps=eps)
        self.mlp = SwiGLU(size, ffn_size)
        for last in (self.attn.out, self.mlp.w3):
            last.weight.data.mul_(residual_scale)


class DiffusionDecoder(nn.Module):
    """Masked canvas and acoustics -> logits of every slot (Whisfusion, SMDM's network).

    vocab_size: V; the embedding has V + 1 rows, the last is the mask; the head (not tied) cannot predict the mask.
    encoder_output_size: width of the states; None makes a text-only model without adapters.
    ruler: "ctc_count" (positions from a CTC head, see Adapter) or "none" (sinusoids of time added to the states when
        `clock` is true; Whisper states know their time already).
    conditioned: False leaves the adapters out although there are states (the ablation without acoustics).
    embed_std, residual_scale: start values that let a small model leave the unigram plateau within 300 steps.
    attention: auto, sdpa or flash, see models/flash.py.
    """

    self_attention = DecoderAttention

    def __init__(self, vocab_size: int, encoder_output_size: int | None = None, size: int = 192, num_blocks: int = 4,
                 attention_heads: int = 4, ffn_size: int = 512, norm_eps: float = 1e-5, rope_base: float = 10000.0,
                 embed_std: float = 0.7, residual_scale: float = 0.5, ruler: str = "none", clock: bool = False,
                 adapter_out_std: float | None = 0.02, prefix: int = 0, conditioned: bool = True,
                 attention: str = "auto") -> None:
        super().__init__()
        if ruler not in ("none", "ctc_count"):
            raise UserError(f"decoder_conf.ruler: {ruler!r} is unknown; expected none or ctc_count")
        if size % (2 * attention_heads):
            raise UserError(f"decoder_conf: size {size} must be a multiple of 2 * attention_heads ({attention_heads})")
        self.size, self.heads, self.rope_base, self.clock, self.prefix = size, attention_heads, rope_base, clock, prefix
        self.vocab_size, self.attention = vocab_size, check_attention(attention)
        self.embed = nn.Embedding(vocab_size + 1, size)
        nn.init.normal_(self.embed.weight, std=embed_std)
        self.blocks = nn.ModuleList(
            DecoderBlock(self.self_attention(size, attention_heads), size, ffn_size, norm_eps, residual_scale)
            for _ in range(num_blocks)
        )
        self.adapters, self.ruler = None, None
        if encoder_output_size is not None and conditioned:
            self.adapters = nn.ModuleList(
                Adapter(size, encoder_output_size, attention_heads, norm_eps, ruler != "none", adapter_out_std)
                for _ in range(num_blocks)
            )
            self.ruler = PositionRuler(encoder_output_size) if ruler != "none" else None
        self.norm = nn.RMSNorm(size, eps=norm_eps)
        self.head = nn.Linear(size, vocab_size, bias=False)

    def read(self, acoustics: Acoustics | None, length: int | Tensor) -> Memory | None:
        """Keys and values of all adapters for canvases of L slots, or of (B,) each; None (text only) without acoustics.

        Raises UserError when the ruler is on and there is no CTC head to count tokens.
        """
        if acoustics is None or self.adapters is None:
            return None
        if self.ruler is None:
            states, positions, slots_from = acoustics.states, None, None
            key_mask = frames_mask(acoustics.lengths, states.size(1))
            if self.clock:
                states = states + frame_clock(states.size(1), states.size(2), states.device)
        elif acoustics.positions is None:
            raise UserError("decoder_conf.ruler: ctc_count needs a CTC head: set ctc: ctc_head in the same YAML")
        else:
            states, positions, key_mask = self.ruler(acoustics, length - self.prefix)
            slots_from = acoustics.states.size(1) - self.prefix
        pairs = [adapter.read(states, positions) for adapter in self.adapters]
        return Memory([key for key, _ in pairs], [value for _, value in pairs], key_mask, slots_from)

    def hidden(self, canvas: Tensor, memory: Memory | None = None, rows: Tensor | None = None,
               lengths: Tensor | None = None) -> Tensor:
        """See CanvasDecoder. canvas: (R, L). Returns (R, L, D)."""
        x, attention = self.embed(canvas), self.chosen_attention()
        slots = torch.arange(canvas.size(1), device=canvas.device)
        table = rotary_table(slots, self.size // self.heads, self.rope_base)
        inside = None if lengths is None else frames_mask(lengths.to(canvas.device), canvas.size(1))
        fold = None
        if rows is not None and memory is not None:
            fold = Fold.of(rows, memory.key_mask.size(0)).to(canvas.device)
        for index, block in enumerate(self.blocks):
            x = x + block.attn(block.norm_1(x), table, inside, attention)
            if memory is not None:
                assert self.adapters is not None
                key, value = memory.keys[index], memory.values[index]
                x = self.adapters[index](x, key, value, memory.key_mask, slots - self.prefix, fold=fold,
                                         attention=attention)
            x = x + block.mlp(block.norm_2(x))
        return self.norm(x)

    def chosen_attention(self) -> Attend:
        """The attention of one pass. Raises UserError: attention: flash, and it cannot run here."""
        return choose_attention(self.attention, self.embed.weight, self.size // self.heads)

    def listening(self, canvas: Tensor, memory: Memory) -> Tensor:
        """Where the heads of the upper half of the blocks look at each slot of filled canvases, (B, C, L, S).

        canvas: (B, L); memory: of these rows; its first T states are the audio's frames
        """
        assert self.adapters is not None
        upper = self.adapters[len(self.adapters) // 2 :]
        return watched_weights(upper, lambda: self.hidden(canvas, memory)).transpose(0, 1).flatten(1, 2)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden: (..., D). Returns (..., V)."""
        return self.head(hidden)

    def forward(self, canvas: Tensor, memory: Memory | None = None) -> Tensor:
        """canvas: (B, L) int64; memory: what `read` returned for these rows. Returns logits (B, L, V)."""
        return self.logits(self.hidden(canvas, memory))
