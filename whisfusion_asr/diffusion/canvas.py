"""The canvas: one row of token slots that training corrupts and decoding fills. One definition for both."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whisfusion_asr.errors import UserError


@dataclass(frozen=True)
class CanvasSpec:
    """Which ids a canvas is made of.

    vocab_size: V, ids that can be predicted; the mask has id V, a row of the input embedding only.
    eos_id: ends the text and fills the rest of the canvas (the first one is the end, the others are padding).
    bos_id: visible at position 0 if the decoder was trained with one, else None.
    languages: ids of the language tokens, one of which is visible behind bos; empty for a model of one language.
    inner: ids of pieces that go on with a word, for a decoding that replaces whole words; empty where none is known.
    """

    vocab_size: int
    eos_id: int = 0
    bos_id: int | None = None
    languages: tuple[int, ...] = ()
    inner: frozenset[int] = frozenset()

    @property
    def mask_id(self) -> int:
        """Id of a hidden slot: one beyond the last that can be predicted."""
        return self.vocab_size

    @property
    def prefix(self) -> int:
        """Number of positions at the front that are never masked."""
        return (self.bos_id is not None) + bool(self.languages)

    def front(self, language: int | None = None) -> list[int]:
        """Ids of these positions. language: the utterance's token. Raises UserError for one that is none of them."""
        if language is not None and language not in self.languages or (language is None and self.languages):
            raise UserError(f"language token {language}: this model has {list(self.languages) or 'no languages'}")
        return [number for number in (self.bos_id, language) if number is not None]


@dataclass(frozen=True)
class CanvasRule:
    """How long a canvas is; the same rule in training and decoding.

    fit: "fixed" (always `length`, as published), "count" (CTC token count + margin), "frames" (`tokens_per_frame` times
        the number of encoder frames, + margin), or in decoding only "first_pass" (`length` in the first pass, in those
        behind it the text that it found, + margin).
    length: slots of a fixed canvas, and of that of the first pass.
    margin: slots beyond the expected text in decoding; training draws 1..margin.
    tokens_per_frame: upper bound of the speaking rate, for "frames".
    multiple: decoding rounds the length of a fitted canvas up to a multiple of this.
    """

    fit: str = "fixed"
    length: int = 256
    margin: int = 4
    tokens_per_frame: float = 0.1
    multiple: int = 1

    def __post_init__(self) -> None:
        if self.fit not in ("fixed", "count", "frames", "first_pass"):
            raise UserError(f"canvas_conf.fit: {self.fit!r} is unknown; expected fixed, count, frames or first_pass")
        if self.length < 1 or self.margin < 1:
            raise UserError(f"canvas_conf: length {self.length} and margin {self.margin} must be at least 1")
        if self.multiple < 1:
            raise UserError(f"canvas_conf: multiple {self.multiple} must be at least 1")

    @classmethod
    def from_conf(cls, conf: Mapping[str, Any] | None) -> "CanvasRule":
        """The rule of a YAML's `canvas_conf`. Raises UserError for an unknown key."""
        unknown = sorted(set(conf or {}) - set(cls.__dataclass_fields__))
        if unknown:
            known = ", ".join(cls.__dataclass_fields__)
            raise UserError(f"canvas_conf: unknown key {', '.join(unknown)}; it knows {known}")
        return cls(**(conf or {}))

    @classmethod
    def of_training(cls, conf: Mapping[str, Any] | None) -> "CanvasRule":
        """The rule of a training's `canvas_conf`. Raises UserError also for a rule that only decoding has."""
        rule = cls.from_conf(conf)
        if rule.fit == "first_pass":
            raise UserError("model_conf.canvas_conf.fit: first_pass needs the passes of a decoding, training has none: "
                            "train with fixed, count or frames, and set first_pass in the decoding YAML's canvas_conf")
        return rule

    def expected(self, frames: Tensor | None, counts: Tensor | None) -> Tensor | None:
        """Tokens to expect per utterance, (B,) int64; None where only the text itself can tell (text-only training)."""
        if self.fit == "frames" and frames is not None:
            return torch.ceil(frames * self.tokens_per_frame).long()
        if self.fit == "count" and counts is not None:
            return counts.long()
        return None

    def decoding_length(self, spec: CanvasSpec, frames: int, count: int | None) -> int:
        """L for one utterance of `frames` encoder frames and `count` CTC tokens. Raises UserError without a count."""
        if self.fit in ("fixed", "first_pass"):
            return self.length
        expected = self.expected(torch.tensor([frames]), None if count is None else torch.tensor([count]))
        if expected is None:
            raise UserError("canvas_conf.fit: count needs a CTC head; set ctc: ctc_head or fit: frames")
        return self.with_margin(spec.prefix + int(expected))

    def with_margin(self, slots: int) -> int:
        """Slots of the canvas for a prefix and text of so many."""
        return -(-(slots + self.margin) // self.multiple) * self.multiple

    def training_length(self, spec: CanvasSpec, text_lengths: Tensor, expected: Tensor | None, seed: int) -> int:
        """L for a batch: room for the longest text or expectation, and 1..margin slots drawn from `seed`.

        text_lengths: (B,) int64. Raises UserError when a text does not fit into a fixed canvas.
        """
        longest = int(text_lengths.max()) + spec.prefix
        if self.fit == "fixed":
            if longest > self.length:
                raise UserError(
                    f"a text of {longest} tokens does not fit the canvas of {self.length}: "
                    f"filter the data or set model_conf.canvas_conf.length to {longest + 1}"
                )
            return self.length
        if expected is not None:
            longest = max(longest, int(expected.max()) + spec.prefix)
        generator = torch.Generator().manual_seed(seed)
        return longest + int(torch.randint(1, self.margin + 1, (), generator=generator))


def fill_canvas(text: Tensor, text_lengths: Tensor, length: int, spec: CanvasSpec,
                languages: Tensor | None = None) -> Tensor:
    """Lay texts on canvases: [bos] [language] text eos eos ...

    text: (B, N) int64, anything beyond text_lengths is ignored
    text_lengths: (B,) int64
    languages: (B,) int64 language token of each; None for a model of one language
    returns: (B, L) int64
    raises UserError: a text is longer than the canvas, a language is missing or none of the model's
    """
    longest = int(text_lengths.max()) + spec.prefix
    if longest > length:
        raise UserError(f"a text of {longest} tokens does not fit a canvas of {length}")
    canvas = text.new_full((text.size(0), length), spec.eos_id)
    width = min(text.size(1), length - spec.prefix)
    inside = torch.arange(width, device=text.device) < text_lengths[:, None]
    canvas[:, spec.prefix : spec.prefix + width] = torch.where(inside, text[:, :width], spec.eos_id)
    tokens = [None] * len(canvas) if languages is None else languages.tolist()
    canvas[:, : spec.prefix] = canvas.new_tensor([spec.front(token) for token in tokens])
    return canvas


def emitted_tokens(row: list[int], spec: CanvasSpec, after_end: str = "cut") -> list[int]:
    """Positions of a canvas row that are text.

    after_end: "cut" stops at the first eos; "skip" leaves eos out wherever it stands (the released code's rule).
    returns: indices into the row, in order, without the prefix
    """
    indices = []
    for index in range(spec.prefix, len(row)):
        if row[index] == spec.eos_id:
            if after_end == "cut":
                break
            continue
        indices.append(index)
    return indices
