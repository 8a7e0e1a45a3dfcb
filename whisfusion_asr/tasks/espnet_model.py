"""The network as ESPnet's trainer sees it: a batch in, (loss, stats, weight) out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.train.abs_espnet_model import AbsESPnetModel
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from whisfusion_asr.diffusion.canvas import CanvasRule, CanvasSpec, fill_canvas
from whisfusion_asr.diffusion.corruption import MaskLaw, ratio_law
from whisfusion_asr.diffusion.gaps import GapRule
from whisfusion_asr.diffusion.loss import LossRule
from whisfusion_asr.diffusion.objective import Objective
from whisfusion_asr.errors import UserError
from whisfusion_asr.models.ctc_head import greedy_path, greedy_tokens
from whisfusion_asr.models.whisfusion import Whisfusion
from whisfusion_asr.models.whisper_encoder import TooLong


class DiffusionASRModel(AbsESPnetModel):
    """Masked-diffusion loss of the decoder + ctc_weight * CTC loss, for whichever of the two parts exist.

    network: its parts become children of this model, so that checkpoints name them encoder.*, ctc.*, decoder.*
    mask_ratio: [low, high] of the uniform mask law, or a mixture [[weight, low, high], ...]; loss_weighting,
    pad_weight: see LossRule; canvas_conf: CanvasRule; bos_id: visible first token, or None; eos_id: end of the text
    languages: tokens of the languages, one of which stands in front of each text (the task takes all three from the
    token list); ctc_weight: 0 keeps the head for the ruler only;
    self_correction: [low, high] of the mask ratio of a second step on the model's own predictions, None without one
    (see diffusion/self_correction.py);
    visible_noise: share of the visible tokens that are replaced by other frequent ones;
    gap_conf: GapRule of rows with gaps, None without them;
    left_to_right: weight of the autoregressive loss under a causal mask beside it, for a decoder that has both ways of
    reading (the sampler gaps then checks what it wrote); 0: none;
    mask_seed: seed of the masks in validation, where each utterance always gets the same ones, so that validation
    losses of different epochs compare.
    """

    # Shapes come from the data preparation and the dump; there are no feature statistics to collect.
    extract_feats_in_collect_stats = False

    def __init__(self, network: Whisfusion, vocab_size: int, mask_ratio: Sequence[Any] = (0.0, 1.0),
                 loss_weighting: str = "none", pad_weight: float = 1.0, canvas_conf: Mapping[str, Any] | None = None,
                 bos_id: int | None = None, eos_id: int = 0, ctc_weight: float = 0.0, mask_seed: int = 0,
                 self_correction: tuple[float, float] | None = None, visible_noise: float = 0.0,
                 gap_conf: Mapping[str, Any] | None = None, left_to_right: float = 0.0, languages: tuple[int, ...] = (),
                 ) -> None:
        super().__init__()
        for name, part in network.named_children():
            self.add_module(name, part)
        # Unregistered on purpose: registering would list every parameter twice.
        object.__setattr__(self, "network", network)
        self.spec = CanvasSpec(vocab_size, eos_id, bos_id, languages)
        self.canvas_rule = CanvasRule.of_training(canvas_conf)
        law, rule = ratio_law(mask_ratio, "model_conf.mask_ratio"), LossRule(loss_weighting, pad_weight)
        correction = None if self_correction is None else mask_law("self_correction", self_correction)
        # Validation has no noise, so that its losses compare.
        gaps = None if gap_conf is None else GapRule.from_conf(gap_conf)
        self.valid_objective = Objective(self.spec, law, rule, correction, gaps=gaps)
        self.objective = replace(self.valid_objective, noise=visible_noise)
        self.ctc_weight = ctc_weight
        self.mask_seed = mask_seed
        if not 0 <= visible_noise < 1:
            raise UserError(f"model_conf.visible_noise: {visible_noise} must be in [0, 1)")
        if left_to_right < 0 or left_to_right and not hasattr(network.decoder, "hidden_before"):
            raise UserError(f"model_conf.left_to_right: {left_to_right} must be at least 0, and 0 for any decoder but "
                            "whisper_diffusion")
        self.left_to_right = left_to_right
        if network.decoder is None and (network.ctc is None or ctc_weight == 0):
            raise UserError("nothing to train: set decoder:, or ctc: with model_conf.ctc_weight above 0")
        if network.decoder is not None and network.decoder.ruler and network.decoder.prefix != self.spec.prefix:
            raise UserError(f"model_conf.bos_id {bos_id} and {len(languages)} languages need decoder_conf.prefix "
                            f"{self.spec.prefix}, not decoder_conf.prefix {network.decoder.prefix}: the ruler counts "
                            "from the slot behind them")

    def forward(self, text: Tensor, text_lengths: Tensor, utt_id: list[str], speech: Tensor | None = None,
                speech_lengths: Tensor | None = None, states: Tensor | None = None,
                states_lengths: Tensor | None = None, language: Tensor | None = None,
                language_lengths: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """text: (B, N) int64 padded with -1; speech: (B, S), or states: (B, T, D), with lengths (B,); utt_id: B names;
        language: (B, 1) int64 tokens, where there are several languages.

        Returns loss, stats (scalars for the log) and weight B.
        """
        network, stats = self.network, {}
        loss = text.new_zeros((), dtype=torch.float32)
        acoustics = None
        if network.encoder is not None:
            source, lengths = (speech, speech_lengths) if states is None else (states, states_lengths)
            if source is None:
                raise UserError("the model has an encoder, but the data has neither speech nor states")
            try:
                encoded, lengths = network.encode(source, lengths)
            except TooLong as error:
                raise UserError(f"{utt_id[error.row]} {error.reason}") from None
            by_frame = None
            if network.ctc is not None:
                logits, steps = network.ctc.scores(encoded, lengths)
                by_frame = network.ctc.at_frames(logits, encoded.size(1)) if network.decoder is not None else None
                if self.ctc_weight > 0:
                    stats["loss_ctc"] = network.ctc.loss(logits, steps, text, text_lengths)
                    loss = loss + self.ctc_weight * stats["loss_ctc"]
                if not self.training:
                    stats["ter_ctc"] = self._ctc_errors(logits, steps, text, text_lengths)
            if network.decoder is not None:
                acoustics = network.acoustics(encoded, lengths, by_frame)
        if network.decoder is not None:
            diffusion = self._diffusion_loss(text, text_lengths, utt_id, acoustics, self._languages(language, text))
            loss = loss + diffusion.pop("loss")
            stats |= diffusion
        stats = {name: value.detach() for name, value in {"loss": loss, **stats}.items()}
        return force_gatherable((loss, stats, text.size(0)), loss.device)

    def _languages(self, language: Tensor | None, text: Tensor) -> Tensor | None:
        """Language token of each text, (B,); the only one where there is one."""
        if language is not None or not self.spec.languages:
            return None if language is None else language[:, 0]
        if len(self.spec.languages) > 1:
            raise UserError("the tokens are of several languages, but the data does not say which: write utt2lang and "
                            "give the recipe --languages (here: --train_data_path_and_name_and_type "
                            "DIR/utt2lang,language,text, and the same for valid)")
        return text.new_full((len(text),), self.spec.languages[0])

    def _diffusion_loss(
        self, text: Tensor, text_lengths: Tensor, utt_id: list[str], acoustics: Any, languages: Tensor | None
    ) -> dict[str, Tensor]:
        # One number from the trainer's generator, which is reseeded per epoch, then per-utterance generators: masks
        # differ between epochs and between ranks, survive a resume bit by bit, and do not depend on the batch.
        seed = int(torch.randint(2**31, ())) if self.training else self.mask_seed
        frames, counts = (None, None) if acoustics is None else (acoustics.lengths, acoustics.counts)
        expected = self.canvas_rule.expected(frames, counts)
        length = self.canvas_rule.training_length(self.spec, text_lengths, expected, seed)
        target = fill_canvas(text, text_lengths, length, self.spec, languages)
        decoder = self.network.decoder
        memory = decoder.read(acoustics, length)
        objective = self.objective if self.training else self.valid_objective

        def score(canvas: Tensor, asked: Tensor) -> Tensor:
            return decoder.logits(decoder.hidden(canvas, memory)[asked])

        def score_before(canvas: Tensor, asked: Tensor) -> Tensor:
            return decoder.logits(decoder.hidden_before(canvas, memory)[asked])

        parts = objective.scored(score, target, utt_id, seed)
        if self.left_to_right:
            parts |= objective.foretold(score_before, target, seed)
            parts["loss"] = parts["loss"] + self.left_to_right * parts["loss_before"]
        return parts

    @staticmethod
    def _ctc_errors(logits: Tensor, lengths: Tensor, text: Tensor, text_lengths: Tensor) -> Tensor:
        """Token error rate of CTC's greedy transcripts, as a share of the batch's tokens."""
        found = greedy_tokens(greedy_path(logits, lengths), logits.size(-1) - 1)
        wanted = [row[:n].tolist() for row, n in zip(text, text_lengths, strict=True)]
        errors = sum(Levenshtein.distance(a, b) for a, b in zip(found, wanted, strict=True))
        return logits.new_tensor(errors / max(1, int(text_lengths.sum())))

    def collect_feats(self, **batch: Tensor) -> dict[str, Tensor]:
        """Nothing: see extract_feats_in_collect_stats."""
        return {}


def mask_law(key: str, bounds: Sequence[float]) -> MaskLaw:
    """The law of a model_conf key. Raises UserError for anything but two bounds."""
    if len(bounds) != 2:
        raise UserError(f"model_conf.{key}: expected [low, high], got {list(bounds)}")
    return MaskLaw(*bounds)
