"""The whole network: speech -> states -> (CTC head, position ruler) -> diffusion decoder."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from whisfusion_asr.errors import UserError
from whisfusion_asr.models.adapter import Acoustics, Memory
from whisfusion_asr.models.ctc_head import CTCHead, count_positions, greedy_path, greedy_tokens, new_tokens
from whisfusion_asr.models.diffusion_decoder import CanvasDecoder

# Logits that exist at once, as numbers: 32 MB in fp32 stay near the processor's cache, a GPU wants larger pieces.
CPU_LOGITS, GPU_LOGITS = 2**23, 2**28


class DumpedStates(nn.Module):
    """Stands where the encoder would, when its states were dumped to disk before.

    size: width of the dumped states; checked against every batch.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.output_size = size

    def forward(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """states: (B, T, D). Returns them as they are. Raises UserError for another width."""
        if states.size(2) != self.output_size:
            raise UserError(
                f"states of width {states.size(2)}, but encoder_conf.size is {self.output_size}: dump again "
                "(run.sh --stage dump --stop_stage dump) or correct the YAML"
            )
        return states, lengths


class Whisfusion(nn.Module):
    """frontend, specaug and encoder make states; ctc counts tokens on them; decoder fills canvases. Each may be None.

    Without decoder it is a CTC model, with the decoder alone a text diffusion model.
    """

    def __init__(self, frontend: nn.Module | None, specaug: nn.Module | None, encoder: nn.Module | None,
                 ctc: CTCHead | None, decoder: CanvasDecoder | None) -> None:
        super().__init__()
        self.frontend, self.specaug, self.encoder, self.ctc, self.decoder = frontend, specaug, encoder, ctc, decoder

    def encode(self, speech: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """speech: (B, S) samples, or dumped states (B, T, D); lengths: (B,). Returns states (B, T, D), lengths (B,)."""
        if self.encoder is None:
            raise UserError("this model has no encoder: set encoder: in its YAML")
        if self.frontend is not None:
            speech, lengths = self.frontend(speech, lengths)
        late = self.frontend is None and speech.dim() == 2  # a waveform: what can be masked is the encoder's states
        if self.specaug is not None and not late:  # on features, or on dumped states
            speech = self.specaug(speech, lengths)
        states, lengths = self.encoder(speech, lengths)
        return (self.specaug(states, lengths) if self.specaug is not None and late else states), lengths

    def acoustics(self, states: Tensor, lengths: Tensor, ctc_logits: Tensor | None = None) -> Acoustics:
        """states: (B, T, D); lengths: (B,); ctc_logits: (B, T, V + 1) if they are known. Returns the record."""
        if self.ctc is None:
            return Acoustics(states, lengths)
        with torch.no_grad():
            logits = self.ctc(states, lengths) if ctc_logits is None else ctc_logits
            positions, counts = count_positions(greedy_path(logits, lengths), self.ctc.blank)
        return Acoustics(states, lengths, positions, counts)

    def predict(self, canvas: Tensor, acoustics: Acoustics | None) -> Tensor:
        """canvas: (B, L) int64, masked slots hold V. Returns logits (B, L, V)."""
        assert self.decoder is not None
        return self.decoder(canvas, self.decoder.read(acoustics, canvas.size(1)))

    def predictor(self, acoustics: Acoustics | None, lengths: Tensor) -> "Predictor":
        """What the decoding engine asks: the audio of B utterances is read here, once. lengths: (B,) canvas slots."""
        assert self.decoder is not None
        return Predictor(self.decoder, self.decoder.read(acoustics, lengths), lengths)

    def greedy_draft(self, logits: Tensor, lengths: Tensor) -> list[tuple[list[int], list[float]]]:
        """CTC's greedy tokens of each utterance and the largest probability of each among its frames.

        logits: (B, T, V + 1); lengths: (B,)
        """
        assert self.ctc is not None
        path = greedy_path(logits, lengths)
        scores = logits.float()
        probability = (scores.amax(-1) - scores.logsumexp(-1)).exp()
        segment = new_tokens(path, self.ctc.blank).cumsum(1)
        drafts = []
        for row, ids in enumerate(greedy_tokens(path, self.ctc.blank)):
            spoken = path[row] != self.ctc.blank
            best = probability.new_zeros(len(ids)).scatter_reduce(
                0, segment[row][spoken] - 1, probability[row][spoken], "amax"
            )
            drafts.append((ids, best.tolist()))
        return drafts


class Predictor:
    """`predict` of the decoding engine (decoding/network.py) for a batch of utterances.

    before: foretell every slot from the slots before it, under a causal mask
    """

    def __init__(self, decoder: CanvasDecoder, memory: Memory | None, lengths: Tensor, before: bool = False) -> None:
        self.decoder, self.memory, self.lengths = decoder, memory, lengths.cpu().clone()
        self.hidden = decoder.hidden_before if before else decoder.hidden
        self.device = next(decoder.parameters()).device
        self.present, self.chosen = torch.arange(len(lengths)), memory

    def before(self) -> "Predictor | None":
        """The same utterances, every slot foretold from the slots before it; None for a decoder that cannot."""
        if not hasattr(self.decoder, "hidden_before"):
            return None
        return Predictor(self.decoder, self.memory, self.lengths, before=True)

    def shorten(self, utterance: int, length: int) -> None:
        """From here on the canvas of an utterance has `length` slots, fewer than before."""
        self.lengths[utterance] = length
        if self.memory is not None:
            self.memory = self.chosen = self.memory.shortened(utterance, length)
            self.present = torch.arange(len(self.lengths))

    def __call__(self, canvas: Tensor, rows: Tensor, asked: Tensor) -> Iterator[Tensor]:
        """canvas: (R, L); rows: (R,) utterances; asked: (R, L) bool. Yields logits (n, V) of the asked, in order."""
        present, owners = rows.unique(return_inverse=True)
        if self.memory is not None and not torch.equal(present, self.present):
            self.present, self.chosen = present, self.memory.select(present)
        lengths = self.lengths[rows]
        uneven = bool((lengths != canvas.size(1)).any())
        hidden = self.hidden(canvas.to(self.device), self.chosen, owners, lengths if uneven else None)
        wanted = hidden[asked.to(self.device)]
        size = GPU_LOGITS if self.device.type == "cuda" else CPU_LOGITS
        for part in wanted.split(max(1, size // self.decoder.vocab_size)):
            yield self.decoder.logits(part)
