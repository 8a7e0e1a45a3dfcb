"""Parallel Diffusion Decoding for the engine: the result of pdd.py, with only the network's work that it needs."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from whisfusion_asr.decoding.fill import Fill, Filled, row_confidence, same_text, scored_slots
from whisfusion_asr.decoding.given import Start
from whisfusion_asr.decoding.network import Ask, taken
from whisfusion_asr.decoding.pdd import PddOptions, candidate_uniforms
from whisfusion_asr.diffusion.canvas import CanvasSpec
from whisfusion_asr.errors import UserError


@dataclass(frozen=True)
class EnginePddOptions(PddOptions):
    """PDD's options, and those that save work at the price of another result (all off by default).

    passes: N, a check on the number of mask_ratios
    keep: rows of the passes 2, 3, ... N; before each, the candidates of least confidence are dropped
    stop_when_stable: end when a pass changed no candidate's text, or when all of several candidates agree after it
    adaptive_stop: the first pass is the answer if it expects at most this many wrong tokens (sum of 1 - probability)
    adaptive_full: expected wrong tokens from which on all candidates and passes are used, below it a share of them;
        0 uses all always
    """

    passes: int | None = None
    keep: tuple[int, ...] = ()
    stop_when_stable: bool = False
    adaptive_stop: float = 0.0
    adaptive_full: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        ratios = self.mask_ratios
        if self.passes is not None and self.passes < 1:
            raise UserError(f"passes: expected at least 1, got {self.passes}; leave it out, mask_ratios has "
                            f"{len(ratios)}")
        if self.passes is not None and self.passes != len(ratios):
            raise UserError(f"passes: {self.passes} needs {self.passes} mask_ratios, got {len(ratios)}: {list(ratios)}")
        rows = (self.candidates, *self.keep)
        if self.keep and len(self.keep) != len(ratios) - 1:
            raise UserError(f"keep: {len(ratios)} passes need {len(ratios) - 1} numbers of rows, got {list(self.keep)}")
        if any(after > before for before, after in zip(rows, self.keep, strict=False)) or min(rows) < 1:
            raise UserError(f"keep: expected {self.candidates} or less, not rising, down to 1; got {list(self.keep)}")
        if not (self.adaptive_stop >= 0 and self.adaptive_full >= 0):
            raise UserError("adaptive_stop and adaptive_full: expected 0 or more wrong tokens")

    @property
    def reads_every_pass(self) -> bool:
        """Whether complete texts are needed between the passes."""
        return bool(self.keep) or self.stop_when_stable


def pdd_fill(start: Start, spec: CanvasSpec, options: EnginePddOptions, utt_id: str, whole: bool) -> Fill:
    """Fill K canvases in N passes, each of which hides a random share of the slots and fills them again.

    What is hidden when depends on random numbers only and is drawn at once. So it is known which predictions a later
    pass hides again unseen; they are not asked for, unless texts are read between the passes (or `whole`).
    """
    hidden, draw = _plan(start, spec, options, utt_id)
    whole = whole or options.reads_every_pass
    candidates, rows = options.candidates, torch.arange(options.candidates)
    canvas = start.tokens.repeat(candidates, 1)
    filled_with = start.confidence.repeat(candidates, 1)
    largest, flags = None, ()
    step = 0
    while step < len(hidden):
        before = canvas
        canvas = canvas.masked_fill(hidden[step], spec.mask_id)
        adapts = step == 0 and options.adaptive_stop + options.adaptive_full > 0
        needed, asked, sure = _needed(hidden[step:], whole or adapts, options.confidence == "published")
        ask = Ask(canvas, asked, start.text, sure, draw=None if step else draw, greedy=1, filled_with=filled_with,
                  rows=rows)
        answer = yield ask
        largest, (token, probability) = answer.probability, taken(ask, answer)
        canvas = torch.where(needed, token, canvas)
        filled_with = torch.where(needed, probability, filled_with)
        step += 1
        if answer.last and step < len(hidden):
            flags = ("budget",)
            break
        if adapts:
            candidates, passes = _adapted(canvas, answer.probability, spec, options)
            hidden = hidden[:passes]
        if options.stop_when_stable and step > 1 and _stable(before, canvas, spec):
            break
        if options.keep and step < len(hidden):
            candidates = min(candidates, options.keep[step - 1])
        kept = _best(canvas, filled_with, candidates, spec)
        rows, hidden = rows[kept], hidden[:, kept]
        canvas, filled_with, largest = canvas[kept], filled_with[kept], largest[kept]
    return Filled(canvas, filled_with, largest if options.confidence == "published" else None, flags, rows)


def _needed(hidden: Tensor, whole: bool, published: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Slots that a pass fills, slots that it predicts, and those whose probability counts (None: of all), (K, L) each.

    hidden: (N, K, L), of this pass and of those that will follow: what they hide again loses its probability.
    """
    if whole or len(hidden) == 1:
        return hidden[0], torch.ones_like(hidden[0]) if published else hidden[0], None
    needed = hidden[0] & ~hidden[1]
    return needed, needed, needed & ~hidden[1:].any(0)


def _plan(start: Start, spec: CanvasSpec, options: EnginePddOptions, utt_id: str) -> tuple[Tensor, Tensor | None]:
    """Hidden slots of all passes, (N, K, L) bool, and the numbers that draw the first tokens, from pdd.py's stream."""
    uniforms = candidate_uniforms(options, utt_id, len(start.tokens))
    free = int((~start.fixed).sum())
    hidden, draw = [], None
    for step, ratio in enumerate(options.mask_ratios):
        uniform = uniforms().masked_fill(start.fixed, 2.0)
        hide = uniform < ratio
        if options.remask == "exact":
            hide = uniform.argsort(1).argsort(1) < round(ratio * free)
        if step == 0:
            hide = (start.tokens == spec.mask_id).expand_as(hide)
            draw = uniforms() if options.first_pass == "sample" else None
        hidden.append(hide)
    return torch.stack(hidden), draw


def _adapted(canvas: Tensor, probability: Tensor, spec: CanvasSpec, options: EnginePddOptions) -> tuple[int, int]:
    """Candidates and passes that the first pass's expected number of wrong tokens deserves."""
    wrong = float(((1 - probability[:1]) * scored_slots(canvas[:1], spec)).sum())
    if wrong <= options.adaptive_stop:
        return 1, 1
    share = min(1.0, wrong / options.adaptive_full) if options.adaptive_full else 1.0
    return max(1, math.ceil(share * options.candidates)), 1 + math.ceil(share * (len(options.mask_ratios) - 1))


def _stable(before: Tensor, canvas: Tensor, spec: CanvasSpec) -> bool:
    agree = len(canvas) > 1 and bool(same_text(canvas, canvas[:1], spec).all())
    return agree or bool(same_text(canvas, before, spec).all())


def _best(canvas: Tensor, filled_with: Tensor, count: int, spec: CanvasSpec) -> Tensor:
    """The `count` rows of highest confidence, in their order; the first ones on ties."""
    if count >= len(canvas):
        return torch.arange(len(canvas))
    order = row_confidence(canvas, filled_with, spec).argsort(descending=True, stable=True)
    return order[:count].sort().values
