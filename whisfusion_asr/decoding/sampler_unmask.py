"""Samplers that fill a canvas slot by slot and never look back: they differ in which slots a pass may fill.

random: ancestral sampling of masked diffusion (MDLM); topk: as many of the surest slots as bring the canvas to its
schedule (MaskGIT, LLaDA); eb: entropy-bounded (EB-Sampler, arXiv 2505.24857); pbeb: the same in an order that prefers
the left (MDM-ASR, arXiv 2602.18952); threshold: all slots above a confidence (Fast-dLLM); single: everything at once.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from whisfusion_asr.decoding.fill import Fill, Filled
from whisfusion_asr.decoding.given import Start
from whisfusion_asr.decoding.network import Answer, Ask, taken
from whisfusion_asr.decoding.pdd import PddOptions, candidate_uniforms
from whisfusion_asr.diffusion.canvas import CanvasSpec
from whisfusion_asr.errors import UserError


@dataclass(frozen=True)
class Step:
    """What a rule may look at when it chooses slots in pass `number` (0, 1, ...).

    hidden: (K, L) bool; total: (K, 1) slots that are hidden or were filled, those behind the end not counted
    uniform: (K, L) numbers in [0, 1) for samplers that draw, else None
    """

    number: int
    answer: Answer
    hidden: Tensor
    total: Tensor
    uniform: Tensor | None = None


@dataclass(frozen=True)
class UnmaskOptions:
    """What all these samplers say of themselves."""

    @property
    def candidates(self) -> int:
        """K."""
        return 1

    @property
    def entropy(self) -> bool:
        """Whether the rule needs entropies."""
        return False

    @property
    def most_passes(self) -> int | None:
        """Passes after which what is left is filled at once; None for as many as there are slots."""
        return None

    def slots(self, step: Step) -> Tensor:
        """Which hidden slots this pass fills, (K, L) bool. All rules but `random` fill at least one."""
        raise NotImplementedError


@dataclass(frozen=True)
class SingleOptions(UnmaskOptions):
    """One pass."""

    @property
    def most_passes(self) -> int:
        """One."""
        return 1

    def slots(self, step: Step) -> Tensor:
        """All."""
        return step.hidden


@dataclass(frozen=True)
class RandomOptions(UnmaskOptions):
    """rows: K candidates; passes: N; tokens: "sample" from the distribution (ancestral) or "argmax"; seed: of both."""

    rows: int = 1
    passes: int = 8
    tokens: str = "sample"
    seed: int = 0

    def __post_init__(self) -> None:
        _check_choice("tokens", self.tokens, ("sample", "argmax"))
        _check_positive("rows", self.rows)
        _check_positive("passes", self.passes)

    @property
    def candidates(self) -> int:
        """K."""
        return self.rows

    @property
    def most_passes(self) -> int:
        """N."""
        return self.passes

    def slots(self, step: Step) -> Tensor:
        """Each slot by itself: from time t to s = t - 1/N a hidden one stays hidden with probability s / t."""
        assert step.uniform is not None
        return step.hidden & (step.uniform >= 1 - 1 / (self.passes - step.number))


@dataclass(frozen=True)
class TopkOptions(UnmaskOptions):
    """passes: N; schedule: "linear" fills the same number in every pass, "cosine" (MaskGIT) few at first."""

    passes: int = 8
    schedule: str = "linear"

    def __post_init__(self) -> None:
        _check_choice("schedule", self.schedule, ("linear", "cosine"))
        _check_positive("passes", self.passes)

    @property
    def most_passes(self) -> int:
        """N."""
        return self.passes

    def slots(self, step: Step) -> Tensor:
        """The surest slots, as many as lead to the number that is to be left."""
        left = step.hidden.sum(1, keepdim=True)
        if self.schedule == "linear":
            count = torch.ceil(left / (self.passes - step.number))
        else:
            share = math.cos(math.pi / 2 * (step.number + 1) / self.passes)
            count = (left - torch.floor(step.total * share + 1e-6)).clamp(min=1)
        key = step.answer.probability.masked_fill(~step.hidden, -1.0)
        return step.hidden & (key.argsort(dim=1, descending=True, stable=True).argsort(1) < count)


@dataclass(frozen=True)
class ThresholdOptions(UnmaskOptions):
    """threshold: probability from which on a slot is filled, besides the surest one; max_passes: None = slots."""

    threshold: float = 0.9
    max_passes: int | None = None

    def __post_init__(self) -> None:
        _check_max_passes(self.max_passes)
        if not 0 <= self.threshold <= 1:
            raise UserError(f"threshold: expected a probability in [0, 1], got {self.threshold}")

    @property
    def most_passes(self) -> int | None:
        """max_passes."""
        return self.max_passes

    def slots(self, step: Step) -> Tensor:
        """All sure slots and the surest."""
        key = step.answer.probability.masked_fill(~step.hidden, -1.0)
        best = torch.zeros_like(step.hidden)
        best[torch.arange(len(key)), key.argmax(1)] = True
        return step.hidden & (best | (key >= self.threshold))


@dataclass(frozen=True)
class BoundedOptions(UnmaskOptions):
    """The longest prefix of an order of the slots whose entropies (nats) stay within a bound.

    gamma: the bound; rule: "sum_minus_max" (EB-Sampler's bound on what the slots know of each other) or "sum"
    min_confidence: the prefix ends before the first slot below it; max_passes: None for as many as the canvas has slots
    """

    gamma: float = 0.1
    rule: str = "sum_minus_max"
    min_confidence: float = 0.0
    max_passes: int | None = None

    def __post_init__(self) -> None:
        _check_max_passes(self.max_passes)
        _check_choice("rule", self.rule, ("sum_minus_max", "sum"))
        if not self.gamma >= 0:
            raise UserError(f"gamma: expected 0 or more nats, got {self.gamma}")

    @property
    def entropy(self) -> bool:
        """Needed."""
        return True

    @property
    def most_passes(self) -> int | None:
        """max_passes."""
        return self.max_passes

    def key(self, answer: Answer) -> Tensor:
        """(K, L): the larger, the earlier a slot is considered."""
        raise NotImplementedError

    def slots(self, step: Step) -> Tensor:
        """The prefix of the order within the bound, and always its first slot."""
        answer, hidden = step.answer, step.hidden
        order = self.key(answer).masked_fill(~hidden, -torch.inf).argsort(dim=1, descending=True, stable=True)
        entropy = answer.entropy.masked_fill(~hidden, 0).gather(1, order)
        total = entropy.cumsum(1)
        if self.rule == "sum_minus_max":
            total = total - entropy.cummax(1).values
        within = (total <= self.gamma) & (answer.probability.gather(1, order) >= self.min_confidence)
        within[:, 0] = True
        return hidden & torch.zeros_like(hidden).scatter(1, order, within.long().cumprod(1).bool())


@dataclass(frozen=True)
class EntropyOptions(BoundedOptions):
    """eb. order: "entropy" or "confidence", best first."""

    order: str = "entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("order", self.order, ("entropy", "confidence"))

    def key(self, answer: Answer) -> Tensor:
        """(K, L): the larger, the earlier a slot is considered."""
        return -answer.entropy if self.order == "entropy" else answer.probability


@dataclass(frozen=True)
class PositionOptions(BoundedOptions):
    """pbeb: ordered by ln(confidence) - bias * slot; a logarithm, for confidence * exp(-bias * slot) underflows.

    max_passes: as in the paper, after 32 the rest is filled at once
    """

    gamma: float = 0.05
    max_passes: int | None = 32
    bias: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bias >= 0:
            raise UserError(f"bias: expected 0 or more per slot, got {self.bias}")

    def key(self, answer: Answer) -> Tensor:
        """(K, L): the larger, the earlier a slot is considered."""
        slots = torch.arange(answer.probability.size(1))
        return answer.probability.clamp(min=1e-30).log() - self.bias * slots


def unmask_fill(start: Start, spec: CanvasSpec, options: UnmaskOptions, utt_id: str) -> Fill:
    """Fill the canvas until nothing is hidden. Behind the first end that is accepted everything is end."""
    uniforms, samples = None, False
    if isinstance(options, RandomOptions):
        numbers = PddOptions(options.rows, seed=options.seed)
        uniforms, samples = candidate_uniforms(numbers, utt_id, len(start.tokens)), options.tokens == "sample"
    canvas = start.tokens.repeat(options.candidates, 1)
    filled_with = start.confidence.repeat(options.candidates, 1)
    free, flags = ~start.fixed, ()
    total = (canvas == spec.mask_id).sum(1, keepdim=True)
    passes = options.most_passes or len(start.tokens)
    for step in range(passes):
        hidden = canvas == spec.mask_id
        if not hidden.any():
            break
        draw = uniforms() if samples else None
        ask = Ask(canvas, hidden, start.text, entropy=options.entropy, draw=draw, filled_with=filled_with)
        answer = yield ask
        token, probability = taken(ask, answer)
        fill = options.slots(Step(step, answer, hidden, total, uniforms() if uniforms else None))
        if (answer.last or step == passes - 1) and not torch.equal(fill, hidden):
            fill, flags = hidden, ("budget",) if answer.last else ("stalled",)
        canvas = torch.where(fill, token, canvas)
        filled_with = torch.where(fill, probability, filled_with)
        ended = ((canvas == spec.eos_id) & free).cumsum(1) > 0
        closed = ended & (canvas == spec.mask_id)
        total = total - closed.sum(1, keepdim=True)
        canvas = torch.where(ended & free, spec.eos_id, canvas)
    return Filled(canvas, filled_with, None, flags)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{name}: {value!r} is unknown; expected {' or '.join(allowed)}")


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise UserError(f"{name}: expected at least 1, got {value}")


def _check_max_passes(value: int | None) -> None:
    if value is not None:
        _check_positive("max_passes", value)
