"""Training steps: utterances a second in the published layout, and cut to true lengths.

The same network, utterances and optimiser in both. Published: batches as they come, 1500 states each (30 s), all of
them attended to, and a canvas of 256 slots. Ours: utterances of like length together, states of their true length, a
canvas that fits the longest text of the batch. The utterances have the lengths of LibriSpeech's training set, their
states and tokens are random. One repeat is one epoch over all of them. Beside fp32 the second layout runs in bf16, too.
"""

import argparse
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whisfusion_asr.benchmark.harness import Report, autocast, measure
from whisfusion_asr.diffusion.canvas import CanvasRule, CanvasSpec, fill_canvas
from whisfusion_asr.diffusion.corruption import MaskLaw
from whisfusion_asr.diffusion.loss import LossRule
from whisfusion_asr.diffusion.objective import Objective
from whisfusion_asr.errors import UserError
from whisfusion_asr.models.adapter import Acoustics
from whisfusion_asr.models.diffusion_decoder import DiffusionDecoder
from whisfusion_asr.training.groups import build_optimizer

# Seconds below which a share of LibriSpeech's 281,241 training utterances lie: the mixture of icefall's statistics of
# train-clean-100, train-clean-360 and train-other-500, straight between. Mean 12.2 s; 960.9 h / 281,241 are 12.3 s.
DURATIONS = ((0.0, 0.8), (0.01, 2.36), (0.05, 3.77), (0.1, 5.51), (0.25, 10.2), (0.5, 13.52), (0.75, 15.21),
             (0.9, 16.57), (0.95, 17.26), (0.99, 18.1), (0.999, 18.9), (1.0, 29.7))
STATES_PER_SECOND = 50  # Whisper's
PUBLISHED_STATES, PUBLISHED_SLOTS = 1500, 256


@dataclass(frozen=True)
class Utterance:
    """frames: T encoder states of its true length; tokens: of its text."""

    name: str
    frames: int
    tokens: int


@dataclass(frozen=True)
class Batch:
    """states: (B, T, D); lengths: (B,) states that may be attended to; text: (B, N); text_lengths: (B,)."""

    names: list[str]
    states: Tensor
    lengths: Tensor
    text: Tensor
    text_lengths: Tensor


def quantile(share: float) -> float:
    """Seconds below which this share of the utterances lies."""
    shares, seconds = zip(*DURATIONS, strict=True)
    upper = min(bisect_right(shares, share), len(shares) - 1)
    part = (share - shares[upper - 1]) / (shares[upper] - shares[upper - 1])
    return seconds[upper - 1] + part * (seconds[upper] - seconds[upper - 1])


def utterances(count: int, tokens_per_second: float) -> list[Utterance]:
    """`count` utterances whose lengths stand for the whole distribution: its quantiles at (i + 1/2) / count."""
    found = []
    for number in range(count):
        seconds = quantile((number + 0.5) / count)
        tokens = min(PUBLISHED_SLOTS - 1, max(1, round(seconds * tokens_per_second)))
        found.append(Utterance(f"utt{number:04d}", max(1, round(seconds * STATES_PER_SECOND)), tokens))
    return found


def batches(rows: Sequence[Utterance], batch_size: int, size: int, vocab: int, padded: bool, seed: int) -> list[Batch]:
    """All utterances in batches of one layout.

    padded: in random order and PUBLISHED_STATES long; else in order of length, as long as the longest of the batch
    An utterance has the same states and tokens in both layouts.
    """
    generator = torch.Generator().manual_seed(seed)
    if padded:
        order = [rows[i] for i in torch.randperm(len(rows), generator=generator)]
    else:
        order = sorted(rows, key=lambda row: row.frames)
    return [_batch(order[i : i + batch_size], size, vocab, padded, seed) for i in range(0, len(order), batch_size)]


def _batch(rows: Sequence[Utterance], size: int, vocab: int, padded: bool, seed: int) -> Batch:
    frames = [PUBLISHED_STATES if padded else row.frames for row in rows]
    states = torch.zeros(len(rows), max(frames), size)
    text = torch.zeros(len(rows), max(row.tokens for row in rows), dtype=torch.long)
    for number, row in enumerate(rows):
        generator = torch.Generator().manual_seed(seed + int(row.name[3:]))
        states[number, : row.frames] = torch.randn(row.frames, size, generator=generator)
        text[number, : row.tokens] = torch.randint(1, vocab, (row.tokens,), generator=generator)
    return Batch([row.name for row in rows], states, torch.tensor(frames), text, torch.tensor([r.tokens for r in rows]))


@dataclass(frozen=True)
class Trainee:
    """A decoder, what it minimises, and the canvas rule of its layout; a call does the forward and backward pass."""

    decoder: DiffusionDecoder
    objective: Objective
    canvas: CanvasRule

    def loss(self, batch: Batch, seed: int) -> Tensor:
        """The loss of one batch, with gradient."""
        spec = self.objective.spec
        length = self.canvas.training_length(spec, batch.text_lengths, None, seed)
        device = batch.states.device
        target = fill_canvas(batch.text.to(device), batch.text_lengths.to(device), length, spec)
        memory = self.decoder.read(Acoustics(batch.states, batch.lengths.to(device)), length)
        return self.objective(lambda canvas: self.decoder(canvas, memory), target, batch.names, seed)["loss"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `whisfusion benchmark train`."""
    parser.add_argument("--phase", default="decoder", choices=["adapter", "decoder"], help="training stage 1 or 2")
    parser.add_argument("--utterances", type=int, default=64, help="in an epoch")
    parser.add_argument("--batch_size", type=int, default=8, help="utterances in a batch")
    parser.add_argument("--size", type=int, default=256, help="width of decoder and states")
    parser.add_argument("--blocks", type=int, default=4, help="decoder blocks")
    parser.add_argument("--heads", type=int, default=4, help="attention heads")
    parser.add_argument("--vocab", type=int, default=5000, help="pieces of the token model")
    parser.add_argument("--tokens_per_second", type=float, default=6.6,
                        help="6.6: LibriSpeech in upper case with the published tokenizer (81 pieces in 12.3 s)")


def run(args: argparse.Namespace) -> Report:
    """Measure the layouts. Raises UserError for sizes that make no network."""
    if min(args.utterances, args.batch_size, args.size, args.blocks, args.vocab - 1) < 1:
        raise UserError("benchmark train: --utterances, --batch_size, --size, --blocks and --vocab must be positive")
    rows = utterances(args.utterances, args.tokens_per_second)
    fitted = CanvasRule(fit="count")
    layouts = {"published": (CanvasRule(length=PUBLISHED_SLOTS), args.dtype), "true lengths": (fitted, args.dtype)}
    if args.dtype == "float32":
        layouts["true lengths, bf16"] = fitted, "bfloat16"
    decoder = build_decoder(args)
    optimizer = build_optimizer(torch.optim.AdamW, {"lr": 1e-5, "weight_decay": 0.005}, decoder)
    functions, shapes = {}, {}
    for name, (rule, dtype) in layouts.items():
        made = batches(rows, args.batch_size, args.size, args.vocab, name == "published", args.seed)
        trainee = Trainee(decoder, Objective(CanvasSpec(args.vocab), phase_law(args.phase), LossRule()), rule)
        functions[name] = _epoch(trainee, optimizer, made, args, dtype)
        shapes[name] = _shape(trainee, made, args.seed)
    found = measure(functions, args.warm_up, args.repeats, args.device)
    table = [
        {"layout": name, **shapes[name], "utt/s": one.rate(len(rows)), **one.columns()} for name, one in found.items()
    ]
    return Report(
        f"Training, phase {args.phase}: utterances a second by layout",
        {name: value for name, value in vars(args).items() if name not in ("out", "what")},
        table,
        {
            "speed-up in wall time": table[1]["utt/s"] / table[0]["utt/s"],
            "speed-up in cpu time": table[0]["cpu s"] / table[1]["cpu s"],
            **({"further speed-up by bf16 in wall time": table[2]["utt/s"] / table[1]["utt/s"]} if table[2:] else {}),
            "mean seconds of an utterance": sum(row.frames for row in rows) / STATES_PER_SECOND / len(rows),
        },
    )


def phase_law(phase: str) -> MaskLaw:
    """The paper's mask law of a training stage: U(0, 1) for the adapter, U(0.7, 1) for the whole decoder."""
    return MaskLaw() if phase == "adapter" else MaskLaw(0.7, 1.0)


def build_decoder(args: argparse.Namespace) -> DiffusionDecoder:
    """A decoder of the asked size with random weights; in phase `adapter` only its adapters learn."""
    torch.manual_seed(args.seed)
    decoder = DiffusionDecoder(args.vocab, args.size, args.size, args.blocks, args.heads, 4 * args.size)
    for name, parameter in decoder.named_parameters():
        parameter.requires_grad_(args.phase == "decoder" or name.startswith("adapters."))
    return decoder.to(args.device)


def _epoch(trainee: Trainee, optimizer: torch.optim.Optimizer, made: Sequence[Batch], args: argparse.Namespace,
           dtype: str) -> Callable[[], None]:
    def epoch() -> None:
        for number, batch in enumerate(made):
            on_device = Batch(batch.names, batch.states.to(args.device), batch.lengths, batch.text, batch.text_lengths)
            with autocast(args.device, dtype):
                loss = trainee.loss(on_device, args.seed + number)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return epoch


def _shape(trainee: Trainee, made: Sequence[Batch], seed: int) -> dict[str, Any]:
    """Mean slots and states of an utterance, padding counted."""
    spec, count = trainee.objective.spec, sum(len(batch.names) for batch in made)
    slots = [trainee.canvas.training_length(spec, b.text_lengths, None, seed + i) for i, b in enumerate(made)]
    return {
        "slots": sum(n * len(batch.names) for n, batch in zip(slots, made, strict=True)) / count,
        "states": sum(batch.states.size(1) * len(batch.names) for batch in made) / count,
    }
