"""The sampler for a text with gaps: what is known stands, what is missing is written into each gap from left to right.

However much a gap lacks, the network is shown `ahead` masks in its place. It names the next tokens that are missing
there, and the end token where nothing more is: that closes the gap. So does the token that is known to follow it, for a
network that reads on behind the gap would write the rest of the text a second time. No length is needed in advance, and
all gaps are written at once. An empty canvas is a single gap. The network must have been trained on such canvases.

Slots beside each other that say the same are not taken in one pass: in parallel they know nothing of each other.

With `looks` the network, under a causal mask, then reads what stands there: all of it in one pass, as speculative
decoding (arXiv 2211.17192) verifies a draft. Where it would have gone on differently it does, and opens a gap behind;
a word that it had agreed with before stays behind the gap, since what it then misses there is another word before it.
A phrase that then stands on both sides of the gap was written there because it had been misheard behind it.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, starmap, takewhile
from typing import NamedTuple

import torch
from torch import Tensor

from whisfusion_asr.decoding.fill import Fill, Filled
from whisfusion_asr.decoding.given import Start
from whisfusion_asr.decoding.look import Foretold, Look
from whisfusion_asr.decoding.network import Answer, Ask
from whisfusion_asr.diffusion.canvas import CanvasSpec
from whisfusion_asr.diffusion.gaps import GapRule
from whisfusion_asr.errors import UserError

TRAINED = GapRule().ahead
REPEATED = 8  # tokens of the longest phrase that is looked for behind itself


@dataclass(frozen=True)
class GapsOptions:
    """ahead: masks that stand for a gap; null for as many as in training (TRAINED where that is not recorded)

    gamma: nats that a pass may leave open in each gap: besides its leftmost slot it takes the following ones while the
        entropies of all that it takes add up to this at most; 0 is one token a gap and pass, .inf all that is shown
    max_passes: passes after which every gap is closed and nothing is looked at again; null for as many as it takes
    looks: how often at most the whole text is read from left to right and mended; 0: never; null: until nothing is
        found wrong, which with margin 0 is what the network would write one token after another
    margin: nats by which another token must be more probable than the one that stands, read so, to take its place
    """

    ahead: int | None = None
    gamma: float = 0.5
    max_passes: int | None = None
    looks: int | None = 0
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.ahead is not None and self.ahead < 1:
            raise UserError(f"ahead: expected at least 1, got {self.ahead}")
        for name in ("gamma", "margin"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name}: expected 0 or more nats, got {getattr(self, name)}")
        if self.max_passes is not None and self.max_passes < 1:
            raise UserError(f"max_passes: expected at least 1, got {self.max_passes}")
        if self.looks is not None and self.looks < 0:
            raise UserError(f"looks: expected at least 0, got {self.looks}")

    @property
    def candidates(self) -> int:
        """K."""
        return 1


class _Token(NamedTuple):
    """A token that stands, its probability, whether it must, and whether a look has agreed with it."""

    id: int
    sure: float
    fixed: bool = False
    read: bool = False


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
            self.tokens.append(_Token(token, probability))
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
    """Write into all gaps until each is closed; then read what is written from left to right, and mend it.

    Flags: canvas_full, a gap was given up for want of room; stalled or budget, one was not complete at the last pass.
    """
    parts, progress = _parts(start, spec), _Progress()
    if options.looks != 0 and _text(parts):
        parts[-1].open = False  # a look foretells the end as well
    yield from _write(parts, start, spec, options, progress)
    open_end = not (start.fixed & (start.tokens == spec.eos_id))[spec.prefix :].any()
    confirmed, looks = 0, 0
    while not progress.over and looks != options.looks:
        text = _text(parts)
        last = min(len(text) + open_end, len(start.tokens) - spec.prefix)
        if confirmed >= last:
            break
        size = spec.prefix + last  # what is behind it is not seen anyway
        canvas, sure = _laid(parts, start, spec)
        foretold = yield Look(canvas[:size], spec.prefix + confirmed, size, sure[:size])
        looks, progress.passes = looks + 1, progress.passes + 1
        wrong = _wrong(text, foretold, confirmed, options.margin)
        room = len(text) + len(wrong) <= len(start.tokens) - spec.prefix
        parts = _mended(_judged(text, foretold, confirmed), wrong, spec, room)
        if not wrong:
            if open_end:
                parts[-1].end = float(foretold.shown[-1]) if last > len(text) else 0.0
            break
        confirmed = min(wrong) + 1
        progress.over = foretold.last or progress.passes == options.max_passes
        if progress.over:
            parts = [_Part(_text(parts))]  # each mended token as a mere substitution
        yield from _write(parts, start, spec, options, progress)
        parts = _said_once(parts)
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
        canvas, sure, slots = _shown(parts, start, spec, options.ahead or TRAINED)
        answer = yield Ask(canvas, canvas == spec.mask_id, anywhere, entropy=True, filled_with=sure)
        progress.passes += 1
        progress.over = answer.last or progress.passes == options.max_passes
        for part, (first, behind) in zip(gaps, slots, strict=True):
            tokens, sure = answer.token[0, first:behind].tolist(), answer.probability[0, first:behind].tolist()
            count = _taken(tokens, answer.entropy[0, first:behind].tolist(), options.gamma)
            part.take(tokens[:count], sure[:count], spec.eos_id)
            if progress.over and part.open:
                part.take(tokens[count:], sure[count:], spec.eos_id)
                part.give_up()
                progress.flags.append("budget" if answer.last else "stalled")


def _parts(start: Start, spec: CanvasSpec) -> list[_Part]:
    """The canvas as known tokens and gaps. A run of masks, however long, is one gap."""
    parts = [_Part()]
    columns = (start.tokens, start.confidence, start.fixed)
    for token in starmap(_Token, zip(*(column[spec.prefix :].tolist() for column in columns), strict=True)):
        if token.id == spec.eos_id:
            break
        if token.id == spec.mask_id:
            parts[-1].open = True
        else:
            _put(parts, token)
    return parts


def _put(parts: list[_Part], token: _Token) -> None:
    """Append a known token."""
    if parts[-1].open:
        parts[-1].behind = token.id
        parts.append(_Part())
    parts[-1].tokens.append(token)


def _judged(text: Sequence[_Token], foretold: Foretold, first: int) -> list[_Token]:
    """The text, its tokens from `first` on as sure as the look was of them."""
    seen = zip(text[first:], foretold.shown.tolist(), strict=False)  # behind the last one the end was foretold
    return [*text[:first], *(token._replace(sure=shown) for token, shown in seen)]


def _wrong(text: Sequence[_Token], foretold: Foretold, first: int, margin: float) -> dict[int, _Token]:
    """Places of the text, its end included, where another token is to stand, and that token."""
    preferred = (foretold.probability / foretold.shown.clamp(min=1e-30)).log() > margin
    return {
        place: _Token(int(foretold.token[place - first]), float(foretold.probability[place - first]))
        for place in (preferred.nonzero()[:, 0] + first).tolist()
        if place == len(text) or not text[place].fixed
    }


def _mended(text: Sequence[_Token], wrong: Mapping[int, _Token], spec: CanvasSpec, room: bool) -> list[_Part]:
    """The text with each wrong token replaced, and a gap behind the new one, in the place of the rest of its word and
    of wrong ones that follow. Those that an earlier look agreed with stay, once and if there is room for all: they had
    been heard, and what was not is something before them.

    A token that is to make way for its right neighbour is left out. Only the first wrong one may end the text: what was
    foretold from a wrong beginning is not to be relied on so far.
    """
    parts, place = [_Part()], 0
    while place < len(text) or place in wrong:
        new = wrong.get(place)
        ends = new is not None and new.id == spec.eos_id
        if ends and place == min(wrong) and not any(token.fixed for token in text[place:]):
            parts[-1].end = new.sure
            break
        if new is None or ends:
            _put(parts, text[place] if ends else text[place]._replace(read=True))
        elif place + 1 < len(text) and new.id == text[place + 1].id:
            place += 1
            _put(parts, text[place])
        else:
            _put(parts, new)
            parts[-1].open = True
            first, stays = place, False
            while place + 1 in wrong or _goes_on(text, place + 1, spec):
                place += 1
            for at, token in enumerate(text[first : place + 1], first):
                stays = room and token.read if at in wrong else stays
                if stays:
                    _put(parts, token._replace(read=False))
        place += 1
    return parts


def _goes_on(text: Sequence[_Token], place: int, spec: CanvasSpec) -> bool:
    """Whether a token goes on with the word before it, and may change."""
    return place < len(text) and text[place].id in spec.inner and not text[place].fixed


def _text(parts: Sequence[_Part]) -> list[_Token]:
    return [token for part in parts for token in part.tokens]


def _taken(tokens: Sequence[int], entropy: Sequence[float], gamma: float) -> int:
    """How many slots of a gap are taken: the first one, and those after it while the sum stays within gamma and none
    says what its left neighbour says."""
    within = len(list(takewhile(lambda total: total <= gamma, accumulate(entropy))))
    return next((slot for slot in range(1, within) if tokens[slot] == tokens[slot - 1]), max(1, within))


def _said_once(parts: Sequence[_Part]) -> list[_Part]:
    """The closed parts as one. Where a gap was, a phrase that stands on both sides is left out behind it.

    A phrase: two tokens or more. One that was said twice comes back when the text is looked at again.
    """
    text, gone, least = _text(parts), 0, 0
    for edge in accumulate(len(part.tokens) for part in parts[:-1]):
        place = max(edge - gone, least)
        for size in range(min(REPEATED, place, len(text) - place), 1, -1):
            copy = text[place : place + size]
            if [token.id for token in copy] == [token.id for token in text[place - size : place]]:
                if not any(token.fixed for token in copy):
                    del text[place : place + size]
                    gone += size
                break
        least = place
    return [_Part(text, end=parts[-1].end)]


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
           ahead: int) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """The canvas and the probabilities of what stands there, (1, L), and of each gap its first slot and the one behind
    the last.

    Where the canvas is too short, the last gaps are shown by fewer masks, and by one at least.
    """
    waiting = sum(part.open for part in parts)
    free = len(start.tokens) - spec.prefix - len(_text(parts))
    shown, slots, place = [], [], spec.prefix
    for part in parts:
        shown += part.tokens
        place += len(part.tokens)
        if part.open:
            waiting -= 1
            width = min(ahead, free - waiting)
            shown += [_Token(spec.mask_id, 0.0)] * width
            slots.append((place, place + width))
            place, free = place + width, free - width
    canvas, sure = _laid([_Part(shown, end=parts[-1].end)], start, spec)
    return canvas[None], sure[None], slots


def _laid(parts: Sequence[_Part], start: Start, spec: CanvasSpec) -> tuple[Tensor, Tensor]:
    """The parts' tokens on a canvas (L,), the prefix before them and the end token behind, and the probabilities."""
    text = _text(parts)
    canvas, sure = torch.full_like(start.tokens, spec.eos_id), torch.full_like(start.confidence, parts[-1].end)
    canvas[: spec.prefix], sure[: spec.prefix] = start.tokens[: spec.prefix], start.confidence[: spec.prefix]
    place = slice(spec.prefix, spec.prefix + len(text))
    canvas[place] = torch.tensor([token.id for token in text], dtype=canvas.dtype)
    sure[place] = torch.tensor([token.sure for token in text], dtype=sure.dtype)
    return canvas, sure


def _filled(parts: Sequence[_Part], start: Start, spec: CanvasSpec, flags: tuple[str, ...]) -> Filled:
    """The closed parts as a canvas."""
    canvas, filled_with = _laid(parts, start, spec)
    return Filled(canvas[None], filled_with[None], None, flags)
