"""What a training step minimises: corrupt the canvases, predict, compare; with self-correction a second time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from whisfusion_asr.diffusion.canvas import CanvasSpec
from whisfusion_asr.diffusion.corruption import MaskLaw, RatioLaw, disturb, draw_masks
from whisfusion_asr.diffusion.gaps import GapRule, open_gaps
from whisfusion_asr.diffusion.loss import LossRule, hidden_slots_loss
from whisfusion_asr.diffusion.self_correction import second_step

Predict = Callable[[Tensor], Tensor]  # (B, L) canvases -> (B, L, V) logits
Score = Callable[[Tensor, Tensor], Tensor]  # (B, L) canvases, (B, L) bool which slots -> (N, V) logits of these N
FREQUENT = 1500  # first ids of a token list, from which the wrong tokens of `noise` are drawn


@dataclass(frozen=True)
class Objective:
    """law: mask ratios t of the (first) step; rule: weighting of its slots.

    correction: law of the second step's ratio t2 (iterative self-correction training), None without a second step
    noise: share of the visible tokens that frequent wrong ones replace; gaps: rows of gaps, None without them
    """

    spec: CanvasSpec
    law: RatioLaw
    rule: LossRule
    correction: MaskLaw | None = None
    noise: float = 0.0
    gaps: GapRule | None = None

    def __call__(self, predict: Predict, target: Tensor, utt_ids: Sequence[str], seed: int) -> dict[str, Tensor]:
        """`scored` with a network that gives the logits of all slots."""
        return self.scored(lambda canvas, hidden: predict(canvas)[hidden], target, utt_ids, seed)

    def scored(self, score: Score, target: Tensor, utt_ids: Sequence[str], seed: int) -> dict[str, Tensor]:
        """The loss of a batch, and its parts for the log.

        target: (B, L) int64 filled canvases; utt_ids: B names; seed: of the masks, with each utterance's name
        returns: as hidden_slots_loss; with self-correction `loss` is the sum of both steps' losses, and there are
            also `loss_first`, `loss_second`, `acc_second` (hidden text slots found) and `wrong_second` (share of the
            visible slots that hold an error)
        """
        masked, ratio = draw_masks(self.law, utt_ids, target.size(1), self.spec.prefix, seed)
        masked, ratio = masked.to(target.device), ratio.to(target.device)
        if self.gaps:
            target, masked = open_gaps(target, masked, self.gaps, utt_ids, self.spec, seed)
        shown = self._noisy(target, masked, seed)
        logits = score(shown.masked_fill(masked, self.spec.mask_id), masked)
        first = hidden_slots_loss(logits, target, masked, ratio, self.spec.eos_id, self.rule)
        if self.correction is None:
            return first
        filled = shown.masked_scatter(masked, logits.detach().argmax(-1))
        step = second_step(filled, target, self.correction, utt_ids, self.spec, seed)
        logits = score(step.canvas, step.masked)
        second = hidden_slots_loss(logits, target, step.masked, step.ratio, self.spec.eos_id, self.rule)
        return {
            **first,
            "loss": first["loss"] + second["loss"],
            "loss_first": first["loss"].detach(),
            "loss_second": second["loss"].detach(),
            "acc_second": second["acc"],
            "wrong_second": step.wrong,
        }

    def foretold(self, score: Score, target: Tensor, seed: int) -> dict[str, Tensor]:
        """The autoregressive loss of the same texts: each token and the first end, from the tokens before it.

        score: of a network under a causal mask; target: (B, L) int64 filled canvases; seed: of the noise
        returns: `loss_before` (mean cross-entropy, with gradient) and `acc_before` (share of the slots foretold)
        """
        ends = target == self.spec.eos_id
        asked = ~(ends & F.pad(ends[:, :-1], (1, 0)))  # no end behind another one
        asked[:, : self.spec.prefix] = False
        shown = self._noisy(target, torch.zeros_like(asked), seed)
        logits, answer = score(shown, asked), target[asked]
        return {"loss_before": F.cross_entropy(logits.float(), answer),
                "acc_before": (logits.detach().argmax(-1) == answer).float().mean()}

    def _noisy(self, target: Tensor, masked: Tensor, seed: int) -> Tensor:
        """Some visible tokens replaced by wrong ones."""
        if not self.noise:
            return target
        return disturb(target, masked, self.noise, FREQUENT, self.spec, torch.Generator().manual_seed(seed))
