"""Parallel Diffusion Decoding, the readable reference (Whisfusion, arXiv 2508.07048, and its released code)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from whisfusion_asr.diffusion.canvas import CanvasSpec, emitted_tokens
from whisfusion_asr.diffusion.corruption import utterance_generator
from whisfusion_asr.errors import UserError

Predict = Callable[[Tensor], Tensor]  # (K, L) canvases -> (K, L, V) logits
Uniforms = Callable[[], Tensor]  # fresh (K, L) numbers in [0, 1)


@dataclass(frozen=True)
class PddOptions:
    """candidates: K; mask_ratios: r_0 = 1, r_1, ... one for each of the N passes, in (0, 1], not rising.

    first_pass: "argmax" (all candidates equal after it, as released) or "sample" (candidate 0 argmax, others drawn).
    remask: "bernoulli" (each slot with probability r, as released) or "exact" (round(r L) random slots).
    confidence: "published" (mean of the last pass's largest probability over all slots that do not hold eos) or "token"
        (mean probability of the emitted tokens and the first eos, each from the pass that filled it last).
    after_end: "cut" the text at the first eos, or "skip" eos wherever it stands (as released).
    """

    candidates: int = 15
    mask_ratios: tuple[float, ...] = (1.0, 0.9, 0.85, 0.8)
    first_pass: str = "argmax"
    remask: str = "bernoulli"
    confidence: str = "token"
    after_end: str = "cut"
    seed: int = 0

    def __post_init__(self) -> None:
        allowed = {"first_pass": ("argmax", "sample"), "remask": ("bernoulli", "exact"),
                   "confidence": ("published", "token"), "after_end": ("cut", "skip")}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise UserError(f"{name}: {getattr(self, name)!r} is unknown; expected {' or '.join(values)}")
        if self.candidates < 1:
            raise UserError(f"candidates: expected at least 1, got {self.candidates}")
        ratios, given = self.mask_ratios, list(self.mask_ratios)
        if not ratios or ratios[0] != 1.0:
            raise UserError(f"mask_ratios: expected 1.0 first, then a number for each further pass, got {given}")
        if not all(0 < ratio <= 1 for ratio in ratios):
            raise UserError(f"mask_ratios: expected numbers in (0, 1], got {given}")
        if any(after > before for before, after in zip(ratios, ratios[1:], strict=False)):
            raise UserError(f"mask_ratios: expected numbers that do not rise, got {given}")


@dataclass(frozen=True)
class Candidate:
    """tokens: emitted ids; token_confidence: probability of each; confidence: the score that selection uses."""

    tokens: list[int]
    token_confidence: list[float] = field(repr=False)
    confidence: float = 0.0


def candidate_uniforms(options: PddOptions, utt_id: str, length: int) -> Uniforms:
    """Random numbers from (seed, utterance id, candidate): batch, order and jobs cannot change a transcript."""
    generators = [utterance_generator(options.seed, f"{utt_id}/{k}") for k in range(options.candidates)]
    return lambda: torch.stack([torch.rand(length, generator=g) for g in generators])


def pdd(predict: Predict, length: int, spec: CanvasSpec, options: PddOptions, uniforms: Uniforms,
        language: int | None = None) -> list[Candidate]:
    """Fill K canvases of L slots in N passes; every pass hides a random share of the slots and fills them again.

    language: the utterance's token, for a model of several languages
    """
    canvas = torch.full((options.candidates, length), spec.mask_id)
    canvas[:, : spec.prefix] = torch.tensor(spec.front(language), dtype=torch.long)
    filled_with = torch.zeros(canvas.shape)  # probability of each slot's token in the pass that filled it
    largest = torch.zeros(canvas.shape)
    for step, ratio in enumerate(options.mask_ratios):
        hidden = _choose_hidden(uniforms(), ratio, options.remask, spec.prefix)
        canvas = canvas.masked_fill(hidden, spec.mask_id)
        probability = predict(canvas).float().softmax(-1)  # (K, L, V)
        largest, token = probability.max(-1)
        if step == 0 and options.first_pass == "sample":
            drawn = _inverse_cdf(probability, uniforms())
            token = torch.cat((token[:1], drawn[1:]))
        chosen = probability.gather(-1, token.unsqueeze(-1)).squeeze(-1)
        canvas = torch.where(hidden, token, canvas)
        filled_with = torch.where(hidden, chosen, filled_with)
    return [candidate_of(row, f, m, spec, options) for row, f, m in zip(canvas, filled_with, largest, strict=True)]


def best_candidate(candidates: list[Candidate]) -> int:
    """Index of the highest confidence, the first one on ties."""
    return max(range(len(candidates)), key=lambda k: candidates[k].confidence)


def candidate_of(row: Tensor, filled_with: Tensor, largest: Tensor, spec: CanvasSpec, options: PddOptions) -> Candidate:
    """What a filled canvas says.

    row: (L,) ids; filled_with: (L,) probability of each in the pass that filled it; largest: (L,) the last pass's
    """
    ids = row.tolist()
    emitted = emitted_tokens(ids, spec, options.after_end)
    if options.confidence == "published":
        score = largest[row != spec.eos_id].sum() / (row != spec.eos_id).sum().clamp(min=1)
    else:
        ends = [i for i in range(spec.prefix, len(ids)) if ids[i] == spec.eos_id][:1]
        score = filled_with[emitted + ends].mean()
    return Candidate([ids[i] for i in emitted], filled_with[emitted].tolist(), float(score))


def _choose_hidden(uniform: Tensor, ratio: float, remask: str, prefix: int) -> Tensor:
    uniform[:, :prefix] = 2.0
    if remask == "bernoulli":
        return uniform < ratio
    count = round(ratio * (uniform.size(1) - prefix))
    return uniform.argsort(1).argsort(1) < count


def _inverse_cdf(probability: Tensor, uniform: Tensor) -> Tensor:
    total = probability.cumsum(-1)
    return torch.searchsorted(total, (uniform * total[..., -1]).unsqueeze(-1), right=True).squeeze(-1).clamp(
        max=probability.size(-1) - 1
    )
