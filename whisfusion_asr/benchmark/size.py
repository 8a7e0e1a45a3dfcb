"""The published size on this machine: a step of either training stage, and one PDD decode, with random weights.

18 blocks of 768, 12 heads, SwiGLU 3072, vocabulary 32,000 (261,531,648 parameters with the adapters), states of
Whisper-small's width. The utterances have true length (50 states a second) and a fitted canvas; `--slots 256
--states 1500` is the published layout. Each part starts from fresh weights, so that its memory is its own. `--ways`
compares: `sdpa` or `flash` attention, `+compile` behind it compiles the decoder. On a GPU, at the paper's batch:

    whisfusion benchmark size --device cuda --dtype bfloat16 --batch_size 128 --slots 256 --states 1500 \\
        --parts adapter decoder --ways sdpa flash sdpa+compile flash+compile
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch

from whisfusion_asr.benchmark.harness import Measurement, Report, autocast, measure
from whisfusion_asr.benchmark.train import (
    PUBLISHED_SLOTS,
    STATES_PER_SECOND,
    Batch,
    Trainee,
    build_decoder,
    phase_law,
)
from whisfusion_asr.decoding.pdd import PddOptions, best_candidate, candidate_uniforms, pdd
from whisfusion_asr.diffusion.canvas import CanvasRule, CanvasSpec
from whisfusion_asr.diffusion.loss import LossRule
from whisfusion_asr.diffusion.objective import Objective
from whisfusion_asr.errors import UserError
from whisfusion_asr.models.adapter import Acoustics
from whisfusion_asr.models.diffusion_decoder import DiffusionDecoder
from whisfusion_asr.models.flash import ATTENTIONS
from whisfusion_asr.training.groups import build_optimizer

TOKENS_PER_SECOND = 6.6  # LibriSpeech in upper case with the published tokenizer
MARGIN = 4
WAYS = [attention + compiled for compiled in ("", "+compile") for attention in ATTENTIONS]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `whisfusion benchmark size`."""
    parser.add_argument("--parts", nargs="+", default=["adapter", "decoder", "decode"],
                        choices=["adapter", "decoder", "decode"], help="step of stage 1, of stage 2, PDD decode")
    parser.add_argument("--ways", nargs="+", default=["auto"], choices=WAYS,
                        help="attention, and +compile for a compiled decoder; a row for each")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the utterance")
    parser.add_argument("--states", type=int, help="encoder states of it (default: 50 a second)")
    parser.add_argument("--slots", type=int, help="canvas (default: 6.6 tokens a second and a margin of 4)")
    parser.add_argument("--batch_size", type=int, default=1, help="utterances in a training step")
    parser.add_argument("--candidates", type=int, default=15, help="PDD candidates")
    parser.add_argument("--mask_ratios", type=float, nargs="+", default=[1.0, 0.9, 0.85, 0.8], help="one for each pass")
    parser.add_argument("--size", type=int, default=768, help="width of decoder and states")
    parser.add_argument("--blocks", type=int, default=18, help="decoder blocks")
    parser.add_argument("--heads", type=int, default=12, help="attention heads")
    parser.add_argument("--vocab", type=int, default=32000, help="pieces of the token model")


def run(args: argparse.Namespace) -> Report:
    """Measure the parts one after another. Raises UserError for a canvas without room."""
    args.states = args.states or round(args.seconds * STATES_PER_SECOND)
    tokens = min(PUBLISHED_SLOTS - 1, round(args.seconds * TOKENS_PER_SECOND))
    args.slots = args.slots or tokens + MARGIN
    if min(args.states, args.batch_size, args.slots) < 1 or tokens >= args.slots:
        raise UserError(f"benchmark size: a text of {tokens} tokens needs --slots above that, got {args.slots}")
    rows = [{"part": part, "way": way, "per second": (found := _measured(part, way, tokens, args)).rate(1),
             **found.columns()} for part in args.parts for way in args.ways]
    count = sum(parameter.numel() for parameter in _decoder("decoder", args.ways[0], args).parameters())
    return Report(
        f"{count:,} parameters: training steps and a decode of {args.seconds:g} s",
        {name: value for name, value in vars(args).items() if name not in ("out", "what")},
        rows,
        {f"{_name(row)}: CPU seconds for a second of audio": row["cpu s"] / _audio(row["part"], args) for row in rows},
    )


def _name(row: dict[str, Any]) -> str:
    return row["part"] if row["way"] == "auto" else f"{row['part']}, {row['way']}"


def _audio(part: str, args: argparse.Namespace) -> float:
    return args.seconds * (1 if part == "decode" else args.batch_size)


def _decoder(phase: str, way: str, args: argparse.Namespace) -> DiffusionDecoder:
    attention, _, compiled = way.partition("+")
    decoder = build_decoder(argparse.Namespace(**vars(args) | {"phase": phase}))
    decoder.attention = attention
    if compiled:
        decoder.compile()
    return decoder


def _measured(part: str, way: str, tokens: int, args: argparse.Namespace) -> Measurement:
    function = _decode(way, args) if part == "decode" else _step(part, way, tokens, args)
    return measure({part: function}, args.warm_up, args.repeats, args.device)[part]


def _step(phase: str, way: str, tokens: int, args: argparse.Namespace) -> Callable[[], None]:
    decoder = _decoder(phase, way, args)
    optimizer = build_optimizer(torch.optim.AdamW, {"lr": 1e-5, "weight_decay": 0.005}, decoder)
    objective = Objective(CanvasSpec(args.vocab), phase_law(phase), LossRule())
    trainee = Trainee(decoder, objective, CanvasRule(length=args.slots))
    shape = (args.batch_size, args.states, args.size)
    batch = Batch(
        [f"utt{number}" for number in range(args.batch_size)],
        torch.randn(shape).to(args.device),
        torch.full((args.batch_size,), args.states),
        torch.randint(1, args.vocab, (args.batch_size, tokens)),
        torch.full((args.batch_size,), tokens),
    )

    def step() -> None:
        with autocast(args.device, args.dtype):
            loss = trainee.loss(batch, args.seed)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _decode(way: str, args: argparse.Namespace) -> Callable[[], int]:
    decoder, spec = _decoder("decoder", way, args).eval(), CanvasSpec(args.vocab)
    options = PddOptions(candidates=args.candidates, mask_ratios=tuple(args.mask_ratios))
    states = torch.randn(1, args.states, args.size).to(args.device)
    lengths = torch.tensor([args.states], device=args.device)

    @torch.inference_mode()
    def decode() -> int:
        with autocast(args.device, args.dtype):
            memory = decoder.read(Acoustics(states, lengths), args.slots).repeat(args.candidates)
            found = pdd(lambda canvas: decoder(canvas.to(args.device), memory).cpu(), args.slots, spec, options,
                        candidate_uniforms(options, "utt", args.slots))
        return best_candidate(found)

    return decode
