"""A CTC head made of Whisper's decoder: slots anchored in time, all of them written in one pass.

The canvas is a row of masks, one for every few states. Each slot knows its time, for its cross-attention prefers the
states near it: a distance bias whose width every head learns. A slot holds a token or the null token; the text is what
is left without null tokens and repetitions, and the loss sums over all alignments. That is CTC (Graves et al., ICML
2006) over slots, as in NLE (arXiv 2603.08397), by a network that hears and spells already.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whisfusion_asr.errors import UserError
from whisfusion_asr.models.attention import attend
from whisfusion_asr.models.ctc_head import ctc_loss
from whisfusion_asr.models.frontend import frames_mask
from whisfusion_asr.models.whisper_decoder import WhisperDiffusionDecoder
from whisfusion_asr.models.whisper_vocabulary import END

PACE = 100  # the widths are to halve within a training whose rate is made for Whisper's weights, 1e-4 a step at most


class AnchoredWhisper(nn.Module):
    """Logits of V tokens and the null token (id V); it takes the place of `ctc_head`.

    frames_per_slot: states from one slot to the next; an utterance needs as many slots as it has tokens
    width: in slots; standard deviation of the Gaussian by which the states around a slot are weighted at the start
    model, language, task, dropout: those of WhisperDiffusionDecoder, which `decoder` is

    Parts for freeze_param: `ctc.decoder.embed`, `ctc.decoder.readers` and the decoder's others, `ctc.null` (row of the
    null token, at first that of the end of the text), `ctc.narrowing` (of the widths, by layer and head).
    Raises UserError: no end token in the list; see also WhisperDiffusionDecoder.
    """

    def __init__(self, input_size: int, vocab_size: int, pieces: list[str] | None, model: str, language: str = "en",
                 task: str = "transcribe", frames_per_slot: int = 4, width: float = 3.0, dropout: float = 0.0) -> None:
        super().__init__()
        if frames_per_slot < 1 or not width > 0:
            raise UserError(f"ctc_conf: frames_per_slot {frames_per_slot} must be at least 1, width {width} above 0")
        self.decoder = WhisperDiffusionDecoder(vocab_size, input_size, pieces, model, language, task, dropout=dropout)
        if END not in pieces:
            raise UserError(f"token_list: no {END}; make the list with --token_type whisper")
        self.blank, self.frames_per_slot = vocab_size, frames_per_slot
        layers = self.decoder.adapters
        self.width, self.narrowing = width, nn.Parameter(torch.zeros(len(layers), layers[0].heads))
        self.null = nn.Parameter(self.decoder.embed.weight.detach()[pieces.index(END)].clone())

    def scores(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Logits by slot. states: (B, T, D); lengths: (B,). Returns (B, S, V + 1) and the slots of each, (B,)."""
        slots = (lengths + self.frames_per_slot - 1) // self.frames_per_slot
        hidden = self._hidden(states, lengths, slots)
        return torch.cat((self.decoder.logits(hidden), hidden @ self.null[:, None]), -1), slots

    def at_frames(self, logits: Tensor, frames: int) -> Tensor:
        """(B, S, V + 1) -> (B, T, V + 1): each state has the logits of its slot, which leaves the text as it is."""
        return logits.repeat_interleave(self.frames_per_slot, 1)[:, :frames]

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """states: (B, T, D); lengths: (B,). Returns logits by state, (B, T, V + 1)."""
        return self.at_frames(self.scores(states, lengths)[0], states.size(1))

    def loss(self, logits: Tensor, slots: Tensor, text: Tensor, text_lengths: Tensor) -> Tensor:
        """See `ctc_loss`; logits and slots are those of `scores`."""
        return ctc_loss(logits, slots, text, text_lengths)

    def _hidden(self, states: Tensor, lengths: Tensor, slots: Tensor) -> Tensor:
        """What the slots' logits are made of, (B, S, D). slots: (B,)."""
        decoder, most = self.decoder, int(slots.max())
        start = decoder.prefix_embed.size(0)
        x = decoder.dropout(decoder.embedded(slots.new_full((len(slots), most), self.blank), decoder.positions))
        inside = frames_mask(slots + start, x.size(1))
        heard = frames_mask(lengths, states.size(1))
        squares = self._squares(x.size(1), states.size(1)).to(x)
        for index, block in enumerate(decoder.blocks):
            x = x + decoder.dropout(block.attn(block.norm_1(x), inside, False, attend))
            width = self.width * (-PACE * self.narrowing[index]).exp()
            near = partial(attend_near, bias=-squares / (2 * width[:, None, None] ** 2))
            key, value = decoder.readers[index](states)
            x = x + decoder.dropout(decoder.adapters[index](x, key, value, heard, None, near))
            x = x + decoder.dropout(block.mlp(x))
        return decoder.norm(x[:, start - 1 : start - 1 + most])

    def _squares(self, rows: int, frames: int) -> Tensor:
        """Squared distances, in slots, between the slot that is read at each row and every state, (rows, T).

        Rows that no slot is read at are everywhere alike near.
        """
        slot = torch.arange(rows) - (self.decoder.prefix_embed.size(0) - 1)
        distance = (torch.arange(frames) + 0.5) / self.frames_per_slot - (slot[:, None] + 0.5)
        return distance.square().masked_fill(slot[:, None] < 0, 0.0)


def attend_near(query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor, bias: Tensor) -> Tensor:
    """`attend` with a bias of the scores. bias: (H, L, S)."""
    mask = bias.masked_fill(~key_mask[:, None, None, :], -torch.inf).to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
