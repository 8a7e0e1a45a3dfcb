"""The sampler for a text with gaps: what is known stands, what is missing is written into each gap from left to right.

However much a gap lacks, the network is shown `ahead` masks in its place. It names the next tokens that are missing
there, and the end token where nothing more is: that closes the gap. So does the token that is known to follow it, for a
network that reads on behind the gap would write the rest of the text a second time. No length is needed in advance, and
all gaps are written at once. An empty canvas is a single gap. The network must have been trained on such canvases.
"""

from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from typing import NamedTuple

import torch

from whisfusion_asr.decoding.fill import Fill, Filled
from whisfusion_asr.decoding.given import Start
from whisfusion_asr.decoding.network import Answer, Ask
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
    recheck: words of the draft that are less sure are written once more when all gaps are closed, with both neighbours
        known: every second one of them, then the others; 0 is off
    """

    ahead: int | None = None
    gamma: float = 0.5
    max_passes: int | None = None
    recheck: float = 0.0

    def __post_init__(self) -> None:
        if self.ahead is not None and self.ahead < 1:
            raise UserError(f"ahead: expected at least 1, got {self.ahead}")
        if not self.gamma >= 0:
            raise UserError(f"gamma: expected 0 or more nats, got {self.gamma}")
        if self.max_passes is not None and self.max_passes < 1:
            raise UserError(f"max_passes: expected at least 1, got {self.max_passes}")
        if not 0 <= self.recheck <= 1:
            raise UserError(f"recheck: expected a probability in [0, 1], got {self.recheck}")

    @property
    def candidates(self) -> int:
        """K."""
        return 1


class _Token(NamedTuple):
    """A token that stands, its probability, and the number of its word in the draft, -1 where it is of none."""

    id: int
    sure: float
    word: int


@dataclass(eq=False)
class _Part:
    """Known tokens, and whether a gap follows them.

    written: tokens that came out of the gap; end: probability with which it was closed, 1 where there was none
    behind: the known token behind the gap, None at the end of the text
    """

    tokens: list[_Token] = field(default_factory=list)
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
            self.tokens.append(_Token(token, probability, -1))
            self.written += 1

    def give_up(self) -> None:
        """Close the gap although the network has not said that it is complete."""
        self.open, self.end = False, 0.0


@dataclass
class _Progress:
    """passes: so far; over: no other may follow; flags: what went wrong."""

    passes: int = 0
    over: bool = False
    flags: list[str] = field(default_factory=list)


def gaps_fill(start: Start, spec: CanvasSpec, options: GapsOptions) -> Fill:
    """Write into all gaps until each is closed, then once more what `recheck` doubts.

    Flags: canvas_full, a gap was given up for want of room; stalled or budget, one was not complete at the last pass.
    A second look that ends so leaves the text as it was; that it was cut short by the budget is said.
    """
    parts, progress = _parts(start, spec), _Progress()
    yield from _write(parts, start, spec, options, progress)
    doubtful = dict.fromkeys(token.word for token in _text(parts) if token.word >= 0 and token.sure < options.recheck)
    for group in (list(doubtful)[::2], list(doubtful)[1::2]):
        if progress.over or not group:
            break
        again, look = _without(parts, group), _Progress(progress.passes)
        yield from _write(again, start, spec, options, look)
        parts = parts if look.flags else again
        flags = [flag for flag in look.flags if flag == "budget"]
        progress = _Progress(look.passes, look.over, progress.flags + flags)
    return _filled(parts, start, spec, tuple(dict.fromkeys(progress.flags)))


def _write(parts: Sequence[_Part], start: Start, spec: CanvasSpec, options: GapsOptions,
           progress: _Progress) -> Generator[Ask, Answer, None]:
    """Close all gaps of the parts, pass by pass."""
    anywhere = torch.zeros_like(start.fixed)  # an end token among known words is a closed gap
    while True:
        if _give_up(parts, len(start.tokens) - spec.prefix):
            progress.flags.append("canvas_full")
        gaps = [part for part in parts if part.open]
        if not gaps:
            return
        canvas, slots = _shown(parts, start, spec, options.ahead or TRAINED)
        answer = yield Ask(canvas, canvas == spec.mask_id, anywhere, entropy=True)
        progress.passes += 1
        progress.over = answer.last or progress.passes == options.max_passes
        for part, (first, behind) in zip(gaps, slots, strict=True):
            tokens, sure = answer.token[0, first:behind].tolist(), answer.probability[0, first:behind].tolist()
            count = _within(answer.entropy[0, first:behind].tolist(), options.gamma)
            part.take(tokens[:count], sure[:count], spec.eos_id)
            if progress.over and part.open:
                part.take(tokens[count:], sure[count:], spec.eos_id)
                part.give_up()
                progress.flags.append("budget" if answer.last else "stalled")


def _parts(start: Start, spec: CanvasSpec) -> list[_Part]:
    """The canvas as known tokens and gaps. A run of masks, however long, is one gap."""
    parts = [_Part()]
    columns = (start.tokens, start.confidence, start.words)
    for token in map(_Token._make, zip(*(column[spec.prefix :].tolist() for column in columns), strict=True)):
        if token.id == spec.eos_id:
            break
        if token.id == spec.mask_id:
            parts[-1].open = True
            continue
        if parts[-1].open:
            parts[-1].behind = token.id
            parts.append(_Part())
        parts[-1].tokens.append(token)
    return parts


def _without(parts: Sequence[_Part], words: Collection[int]) -> list[_Part]:
    """The text with a gap in the place of each of these words."""
    again, hidden = [_Part()], -1
    for token in _text(parts):
        if token.word in words:
            hidden = hidden if again[-1].open else token.id
            again[-1].open = True
            continue
        if again[-1].open:
            again[-1].behind = None if token.id == hidden else token.id  # "had had" would lose one
            again.append(_Part())
        again[-1].tokens.append(token)
    if not again[-1].open:
        again[-1].end = parts[-1].end
    return again


def _text(parts: Sequence[_Part]) -> list[_Token]:
    return [token for part in parts for token in part.tokens]


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
        ids = [token.id for token in part.tokens]
        canvas[place : place + len(ids)] = torch.tensor(ids, dtype=canvas.dtype)
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
    text = _text(parts)
    canvas, filled_with = start.tokens.clone(), start.confidence.clone()
    canvas[spec.prefix :], filled_with[spec.prefix :] = spec.eos_id, parts[-1].end
    inside = slice(spec.prefix, spec.prefix + len(text))
    canvas[inside] = torch.tensor([token.id for token in text], dtype=canvas.dtype)
    filled_with[inside] = torch.tensor([token.sure for token in text])
    return Filled(canvas[None], filled_with[None], None, flags)
