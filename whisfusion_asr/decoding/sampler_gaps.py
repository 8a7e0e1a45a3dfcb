"""The sampler for a text with gaps: what is known stands, what is missing is written into each gap from left to right.

However much a gap lacks, the network is shown `ahead` masks in its place. It names the next tokens that are missing
there, and the end token where nothing more is: that closes the gap. So does the token that is known to follow it, for a
network that reads on behind the gap would write the rest of the text a second time. No length is needed in advance, and
all gaps are written at once. An empty canvas is a single gap. The network must have been trained on such canvases.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, takewhile

import torch

from whisfusion_asr.decoding.fill import Fill, Filled
from whisfusion_asr.decoding.given import Start
from whisfusion_asr.decoding.network import Ask
from whisfusion_asr.diffusion.canvas import CanvasSpec
from whisfusion_asr.diffusion.gaps import GapRule
from whisfusion_asr.errors import UserError

TRAINED = GapRule().ahead


@dataclass(frozen=True)
class GapsOptions:
    """ahead: masks that stand for a gap; null for as many as in training (TRAINED where that is not recorded)

    gamma: nats that a pass may leave open in each gap: besides its leftmost slot it takes the following ones while the
        entropies of all that it takes add up to this at most; 0 is one token a gap and pass, .inf all that is shown
    max_passes: passes after which every gap is closed; null for as many as it takes, at most one per slot
    """

    ahead: int | None = None
    gamma: float = 0.5
    max_passes: int | None = None

    def __post_init__(self) -> None:
        if self.ahead is not None and self.ahead < 1:
            raise UserError(f"ahead: expected at least 1, got {self.ahead}")
        if not self.gamma >= 0:
            raise UserError(f"gamma: expected 0 or more nats, got {self.gamma}")
        if self.max_passes is not None and self.max_passes < 1:
            raise UserError(f"max_passes: expected at least 1, got {self.max_passes}")

    @property
    def candidates(self) -> int:
        """K."""
        return 1


@dataclass(eq=False)
class _Part:
    """Known tokens, each with its probability, and whether a gap follows them.

    written: tokens that came out of the gap; end: probability with which it was closed, 1 where there was none
    behind: the known token behind the gap, None at the end of the text
    """

    tokens: list[int] = field(default_factory=list)
    sure: list[float] = field(default_factory=list)
    open: bool = False
    written: int = 0
    end: float = 1.0
    behind: int | None = None

    def take(self, tokens: Sequence[int], sure: Sequence[float], eos_id: int) -> None:
        """Write tokens into the gap until one closes it; what is behind that says nothing."""
        for token, probability in zip(tokens, sure, strict=True):
            if token in (eos_id, self.behind):
                self.open, self.end = False, probability
                return
            self.tokens.append(token)
            self.sure.append(probability)
            self.written += 1

    def give_up(self) -> None:
        """Close the gap although the network has not said that it is complete."""
        self.open, self.end = False, 0.0


def gaps_fill(start: Start, spec: CanvasSpec, options: GapsOptions) -> Fill:
    """Write into all gaps until each is closed.

    Flags: canvas_full, a gap was given up for want of room; stalled or budget, one was not complete at the last pass.
    """
    parts, length = _parts(start, spec), len(start.tokens)
    anywhere = torch.zeros(length, dtype=torch.bool)  # an end token among known words is a closed gap
    flags: list[str] = []
    passes = 0
    while True:
        if _give_up(parts, length - spec.prefix):
            flags.append("canvas_full")
        gaps = [part for part in parts if part.open]
        if not gaps:
            break
        passes += 1
        canvas, slots = _shown(parts, start, spec, options.ahead or TRAINED)
        answer = yield Ask(canvas, canvas == spec.mask_id, anywhere, entropy=True)
        last = "budget" if answer.last else "stalled" if passes == options.max_passes else None
        for part, (first, behind) in zip(gaps, slots, strict=True):
            tokens, sure = answer.token[0, first:behind].tolist(), answer.probability[0, first:behind].tolist()
            count = _within(answer.entropy[0, first:behind].tolist(), options.gamma)
            part.take(tokens[:count], sure[:count], spec.eos_id)
            if last and part.open:
                part.take(tokens[count:], sure[count:], spec.eos_id)
                part.give_up()
                flags.append(last)
    return _filled(parts, start, spec, tuple(dict.fromkeys(flags)))


def _parts(start: Start, spec: CanvasSpec) -> list[_Part]:
    """The canvas as known tokens and gaps. A run of masks, however long, is one gap."""
    parts = [_Part()]
    for token, sure in zip(start.tokens[spec.prefix :].tolist(), start.confidence[spec.prefix :].tolist(), strict=True):
        if token == spec.eos_id:
            break
        if token == spec.mask_id:
            parts[-1].open = True
            continue
        if parts[-1].open:
            parts[-1].behind = token
            parts.append(_Part())
        parts[-1].tokens.append(token)
        parts[-1].sure.append(sure)
    return parts


def _within(entropy: Sequence[float], gamma: float) -> int:
    """How many slots of a gap are taken: the first one, and those after it while the sum stays within gamma."""
    return max(1, len(list(takewhile(lambda total: total <= gamma, accumulate(entropy)))))


def _give_up(parts: Sequence[_Part], room: int) -> bool:
    """Close gaps until each can be shown by a mask; those that were written into most first, for a network that
    repeats itself must not cost the others their place. Returns whether there were any."""
    gaps = [part for part in parts if part.open]
    free = room - sum(len(part.tokens) for part in parts)
    excess = max(0, len(gaps) - free)
    for part in sorted(reversed(gaps), key=lambda part: -part.written)[:excess]:
        part.give_up()
    return excess > 0


def _shown(parts: Sequence[_Part], start: Start, spec: CanvasSpec,
           ahead: int) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """The canvas (1, L), and for each gap its first slot and the one behind the last.

    Where the canvas is too short, the last gaps are shown by fewer masks, and by one at least.
    """
    canvas = torch.full_like(start.tokens, spec.eos_id)
    canvas[: spec.prefix] = start.tokens[: spec.prefix]
    waiting = sum(part.open for part in parts)
    free = len(canvas) - spec.prefix - sum(len(part.tokens) for part in parts)
    place, slots = spec.prefix, []
    for part in parts:
        canvas[place : place + len(part.tokens)] = torch.tensor(part.tokens, dtype=canvas.dtype)
        place += len(part.tokens)
        if part.open:
            waiting -= 1
            width = min(ahead, free - waiting)
            canvas[place : place + width] = spec.mask_id
            slots.append((place, place + width))
            place, free = place + width, free - width
    return canvas[None], slots


def _filled(parts: Sequence[_Part], start: Start, spec: CanvasSpec, flags: tuple[str, ...]) -> Filled:
    """The closed parts as a canvas, the end token behind them."""
    tokens = [token for part in parts for token in part.tokens]
    sure = [probability for part in parts for probability in part.sure]
    canvas, filled_with = start.tokens.clone(), start.confidence.clone()
    canvas[spec.prefix :], filled_with[spec.prefix :] = spec.eos_id, parts[-1].end
    inside = slice(spec.prefix, spec.prefix + len(tokens))
    canvas[inside] = torch.tensor(tokens, dtype=canvas.dtype)
    filled_with[inside] = torch.tensor(sure)
    return Filled(canvas[None], filled_with[None], None, flags)
