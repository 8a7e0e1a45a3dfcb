"""Which frames each token of a transcript was heard in: by the CTC head, else by where the decoder looks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from whisfusion_asr.decoding.times import attention_spans, ctc_spans
from whisfusion_asr.errors import UserError
from whisfusion_asr.models.whisfusion import Whisfusion

if TYPE_CHECKING:
    from whisfusion_asr.api.speech2text import Speech2Text


def check_can_time(network: Whisfusion, place: str, compiled: bool) -> None:
    """Raise UserError for a network that cannot tell when its words were said. place: begins the message."""
    if network.ctc is None and not _listens(network):
        raise UserError(f"{place}: word_times needs ctc: ctc_head or a decoder with cross-attention; both are missing")
    if network.ctc is None and compiled:
        raise UserError(f"{place}: word_times without ctc: ctc_head looks into the decoder's layers, which compile "
                        "hides; leave compile out")


def token_spans(model: "Speech2Text", states: Tensor, tokens: Sequence[int], heard: Tensor | None) -> np.ndarray:
    """Frames of each token, (N, 2) as in `ctc_spans`; all -1 where nothing tells them.

    states: (T, D) of the utterance; tokens: N ids of its text
    heard: (T, V + 1) log-probabilities of the CTC head, None without one: the text is then read once more by the
        decoder, complete, and its cross-attention counts
    """
    if heard is not None:
        return ctc_spans(heard, tokens)
    if not tokens or not _listens(model.network):
        return np.full((len(tokens), 2), -1)
    decoder = model.network.decoder
    canvas = _canvas(model, len(states), tokens)
    frames = torch.tensor([len(states)], device=states.device)
    memory = decoder.read(model.network.acoustics(states[None], frames), canvas.size(1))
    first = model.spec.prefix
    weights = decoder.listening(canvas.to(states.device), memory)[0, :, first : first + len(tokens), : len(states)]
    return attention_spans(weights.mean(0))


def _canvas(model: "Speech2Text", frames: int, tokens: Sequence[int]) -> Tensor:
    """The text on a canvas (1, L) as long as the trained rule has it, filled up with ends."""
    spec = model.spec
    row = [*([] if spec.bos_id is None else [spec.bos_id]), *tokens]
    length = max(len(row), model.canvas_rule.decoding_length(spec, frames, len(tokens)))
    return torch.tensor([row + [spec.eos_id] * (length - len(row))])


def _listens(network: Whisfusion) -> bool:
    """Whether the decoder tells where it looks: a registered one need not, and one without adapters looks nowhere."""
    return hasattr(network.decoder, "listening") and network.decoder.adapters is not None
