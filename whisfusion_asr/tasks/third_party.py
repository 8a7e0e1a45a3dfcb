"""Our decoder inside ESPnet's own ASRTask, for recipes that stay there."""

from typing import Any

import torch
from torch import Tensor

from whisfusion_asr.tasks import choices  # noqa: F401  (first: makes espnet2 importable, and registers ours)

# isort: split
from espnet2.asr.decoder.abs_decoder import AbsDecoder
from espnet2.asr.espnet_model import ESPnetASRModel
from espnet2.tasks.asr import decoder_choices, model_choices

from whisfusion_asr.diffusion.canvas import CanvasRule, CanvasSpec, fill_canvas
from whisfusion_asr.diffusion.corruption import MaskLaw, draw_masks
from whisfusion_asr.diffusion.loss import LossRule, masked_diffusion_loss
from whisfusion_asr.models.adapter import Acoustics
from whisfusion_asr.models.diffusion_decoder import DiffusionDecoder


class EspnetDiffusionDecoder(AbsDecoder):
    """DiffusionDecoder as an AbsDecoder; decoder_conf has the keys of DiffusionDecoder."""

    def __init__(self, vocab_size: int, encoder_output_size: int, **conf: Any) -> None:
        super().__init__()
        self.body = DiffusionDecoder(vocab_size, encoder_output_size, **conf)

    def forward(
        self, hs_pad: Tensor, hlens: Tensor, ys_in_pad: Tensor, ys_in_lens: Tensor
    ) -> tuple[Tensor, Tensor]:
        """hs_pad: (B, T, D) states; hlens: (B,); ys_in_pad: (B, L) canvas, masked slots hold V; ys_in_lens: (B,).

        Returns logits (B, L, V) and ys_in_lens.
        """
        memory = self.body.read(Acoustics(hs_pad, hlens), ys_in_pad.size(1))
        return self.body(ys_in_pad, memory), ys_in_lens


class EspnetMaskedDiffusionModel(ESPnetASRModel):
    """ESPnetASRModel whose attention loss is the masked-diffusion loss; the rest (CTC, front end) stays ESPnet's.

    ESPnet's `<sos/eos>` fills the canvas. mask_ratio: [low, high]; canvas_margin: slots beyond the longest text;
    mask_seed: masks of the validation.
    """

    def __init__(self, *args: Any, mask_ratio: tuple[float, float] = (0.0, 1.0), canvas_margin: int = 4,
                 mask_seed: int = 0, **others: Any) -> None:
        super().__init__(*args, **others)
        self.spec = CanvasSpec(self.vocab_size, eos_id=self.eos)
        self.rule = CanvasRule(fit="count", margin=canvas_margin)
        self.mask_law = MaskLaw(*mask_ratio)
        self.mask_seed = mask_seed
        self._utt_ids: list[str] = []

    def forward(self, speech: Tensor, speech_lengths: Tensor, text: Tensor, text_lengths: Tensor,
                **others: Any) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """As ESPnetASRModel.forward; `utt_id` seeds the masks."""
        self._utt_ids = others.get("utt_id") or [str(row) for row in range(text.size(0))]
        return super().forward(speech, speech_lengths, text, text_lengths, **others)

    def _calc_att_loss(self, encoder_out: Tensor, encoder_out_lens: Tensor, ys_pad: Tensor,
                       ys_pad_lens: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """ESPnet's hook for the decoder's loss: loss, accuracy, and no error rates."""
        seed = int(torch.randint(2**31, ())) if self.training else self.mask_seed
        length = self.rule.training_length(self.spec, ys_pad_lens, None, seed)
        target = fill_canvas(ys_pad, ys_pad_lens, length, self.spec)
        masked, ratio = draw_masks(self.mask_law, self._utt_ids, length, self.spec.prefix, seed)
        masked, ratio = masked.to(target.device), ratio.to(target.device)
        canvas = target.masked_fill(masked, self.spec.mask_id)
        logits, _ = self.decoder(encoder_out, encoder_out_lens, canvas, ys_pad_lens)
        parts = masked_diffusion_loss(logits, target, masked, ratio, self.spec.eos_id, LossRule())
        return parts["loss"], parts["acc"], None, None


def register_choices() -> None:
    """Add decoder `diffusion` and model `masked_diffusion` to ESPnet's ASRTask."""
    decoder_choices.classes["diffusion"] = EspnetDiffusionDecoder
    model_choices.classes["masked_diffusion"] = EspnetMaskedDiffusionModel
