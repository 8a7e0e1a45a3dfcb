"""The autoregressive control: the diffusion decoder's own network made causal, so that only the search differs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from whisfusion_asr.models.adapter import Memory
from whisfusion_asr.models.attention import Attend, Fold, attend, rotary_table, rotate, split_heads
from whisfusion_asr.models.diffusion_decoder import DecoderAttention, DiffusionDecoder

Past = tuple[Tensor, Tensor]  # keys and values of one block, each (R, H, S, E)


class CausalAttention(DecoderAttention):
    """Self-attention of every slot to itself and those before it."""

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor], inside: Tensor | None = None,
                attention: Attend = attend) -> Tensor:
        """x: (R, L, D); table: of the slots; inside: not needed, what fills a row up stands to its right.

        returns: (R, L, D)
        """
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        return self.out(attention(rotate(query, table), rotate(key, table), value, causal=True))

    def step(self, x: Tensor, table: tuple[Tensor, Tensor], past: Past | None,
             attention: Attend = attend) -> tuple[Tensor, Past]:
        """One more slot. x: (R, 1, D); table: of this slot; past: of the slots before it.

        returns: (R, 1, D), and the past with this slot
        """
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        key = rotate(key, table)
        if past is not None:
            key, value = torch.cat((past[0], key), 2), torch.cat((past[1], value), 2)
        return self.out(attention(rotate(query, table), key, value)), (key, value)


class CausalDecoder(DiffusionDecoder):
    """DiffusionDecoder with a causal mask: slot i reads the tokens before i and predicts token i.

    Takes the same configuration and has the same parameters; row V of the embedding, the mask there, is the start
    symbol here. With the ruler, slot i looks where CTC counted i tokens, which is the token that it predicts.
    """

    self_attention = CausalAttention

    @property
    def start_id(self) -> int:
        """Id that stands before the first token, V."""
        return self.embed.num_embeddings - 1

    def listening(self, canvas: Tensor, memory: Memory) -> Tensor:
        """See DiffusionDecoder: slot i has read the tokens before i."""
        return super().listening(F.pad(canvas[:, :-1], (1, 0), value=self.start_id), memory)

    def step(self, tokens: Tensor, memory: Memory | None, past: list[Past] | None = None,
             fold: Fold | None = None) -> tuple[Tensor, list[Past]]:
        """Logits of the next token; keys and values of the earlier slots are not computed again.

        tokens: (R,) int64, the last token of each row; memory: of B utterances; past: of the slots before, one entry
        per block, None at the start; fold: which utterance each row belongs to, None when R = B
        returns: (R, V), and the past for the next call
        """
        x, attention = self.embed(tokens).unsqueeze(1), self.chosen_attention()
        slot = torch.tensor([0 if past is None else past[0][0].size(2)], device=x.device)
        table = rotary_table(slot, self.size // self.heads, self.rope_base)
        longer = []
        for index, block in enumerate(self.blocks):
            change, kept = block.attn.step(block.norm_1(x), table, None if past is None else past[index], attention)
            longer.append(kept)
            x = x + change
            if memory is not None:
                key, value = memory.keys[index], memory.values[index]
                x = self.adapters[index](x, key, value, memory.key_mask, slot, fold, attention)
            x = x + block.mlp(block.norm_2(x))
        return self.logits(self.norm(x)).squeeze(1), longer


class NextTokens:
    """`next_token` of a beam search (decoding/autoregressive.py) over one utterance, with a cache."""

    def __init__(self, decoder: CausalDecoder, memory: Memory | None) -> None:
        self.decoder, self.memory = decoder, memory
        self.device = next(decoder.parameters()).device
        self.past: list[Past] | None = None

    @torch.no_grad()
    def __call__(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """tokens: (R,) int64; rows: (R,) the rows of the call before that they continue. Returns log p (R, V)."""
        tokens, rows = tokens.to(self.device), rows.to(self.device)
        past = None if self.past is None else [(key[rows], value[rows]) for key, value in self.past]
        logits, self.past = self.decoder.step(tokens, self.memory, past, Fold(len(tokens)))
        return logits.float().log_softmax(-1)
