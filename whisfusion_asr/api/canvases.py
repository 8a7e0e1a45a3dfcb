"""How many slots canvases take: estimated for batches, and after a first pass that tells the length of the text."""

from collections.abc import Sequence

from whisfusion_asr.decoding.engine import Fit
from whisfusion_asr.diffusion.canvas import CanvasRule
from whisfusion_asr.models.whisfusion import Predictor


def estimated_slots(rule: CanvasRule, frames: int, candidates: int) -> int:
    """Slots that the K canvases of an utterance take, by its encoder frames where the rule leaves their length open."""
    fitted = int(frames * rule.tokens_per_frame) + rule.margin
    if rule.fit == "first_pass":  # whose canvases are equal, and computed once
        return max(rule.length, candidates * fitted)
    return candidates * (rule.length if rule.fit == "fixed" else fitted)


def fit_of(rule: CanvasRule, predict: Predictor, lengths: Sequence[int]) -> Fit | None:
    """How the first pass shortens canvases, for the engine and the network; None where the rule has it otherwise.

    lengths: slots of each canvas in the first pass
    """
    if rule.fit != "first_pass":
        return None

    def fit(place: int, used: int) -> int:
        length = min(rule.with_margin(used), lengths[place])
        predict.shorten(place, length)
        return length

    return fit
