"""Training of the autoregressive control: the same network, data and trainer, the loss of the next token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from whisfusion_asr.diffusion.objective import Score
from whisfusion_asr.errors import UserError
from whisfusion_asr.models.causal_decoder import CausalDecoder
from whisfusion_asr.models.whisfusion import Whisfusion
from whisfusion_asr.tasks.espnet_model import DiffusionASRModel


@dataclass(frozen=True)
class NextToken:
    """Cross-entropy of each token and of the end, given the true tokens before it (teacher forcing)."""

    start_id: int
    eos_id: int
    label_smoothing: float

    def scored(self, score: Score, target: Tensor, utt_ids: Sequence[str], seed: int) -> dict[str, Tensor]:
        """target: (B, L) int64, text and then end tokens; utt_ids, seed: nothing is drawn here.

        returns: `loss` (mean over the texts and their first end), and without gradient `acc` (share found)
        """
        start = target.new_full((len(target), 1), self.start_id)
        is_eos = target == self.eos_id
        counted = ~(is_eos & (is_eos.cumsum(1) > 1))
        logits, wanted = score(torch.cat((start, target[:, :-1]), 1), counted), target[counted]
        loss = F.cross_entropy(logits.float(), wanted, label_smoothing=self.label_smoothing)
        return {"loss": loss, "acc": (logits.detach().argmax(-1) == wanted).float().mean()}


class CausalASRModel(DiffusionASRModel):
    """Next-token loss of a causal decoder + ctc_weight * CTC loss.

    canvas_conf: CanvasRule; it bounds the length of a transcript, so give it a generous margin; label_smoothing: share
    of the target that is spread over all tokens; ctc_weight: 0 keeps the head for the ruler only; eos_id, bos_id: of
    the token list, by the task. The decoder's start symbol stands where a diffusion canvas has its bos_id.
    """

    def __init__(self, network: Whisfusion, vocab_size: int, canvas_conf: Mapping[str, Any] | None = None,
                 ctc_weight: float = 0.0, label_smoothing: float = 0.1, eos_id: int = 0,
                 bos_id: int | None = None) -> None:
        super().__init__(network, vocab_size, canvas_conf=canvas_conf, ctc_weight=ctc_weight, eos_id=eos_id)
        if not isinstance(network.decoder, CausalDecoder):
            raise UserError("model: causal_asr needs decoder: causal in the same YAML")
        self.objective = self.valid_objective = NextToken(network.decoder.start_id, self.spec.eos_id, label_smoothing)
