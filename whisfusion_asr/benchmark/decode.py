"""Decoding speed: the released code's way, the engine exact and fast, left to right with a cache, and the encoder.

Random weights of the published size on both sides: what is compared is the work, which the weights change only where a
decoding may stop early. So the passes of one-row sampling are an option (give the mean that your trained model needs),
and left-to-right decoding writes exactly as many tokens as the audio has. With --exp_dir a trained model decodes real
states instead, by decoding configurations; then passes and stops are real.

    whisfusion benchmark decode --warm_up 1 --repeats 3 --faster_dtype true --whisper whisper-base
    whisfusion benchmark decode --device cuda --dtype bfloat16 --seconds 30 --batch 1 64 512
    whisfusion benchmark decode --exp_dir exp/x --data_dir data/test --states_dir dump/states/test
"""

import argparse
import statistics
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch

from whisfusion_asr.benchmark import trained, whisper
from whisfusion_asr.benchmark.harness import Measurement, Report, count_work, gemm_rate, measure
from whisfusion_asr.benchmark.systems import BATCHED, ON_REQUEST, SLOW, SYSTEMS, Bench, Networks, encoder
from whisfusion_asr.errors import UserError

COLUMNS = ("GFLOP: of matrix products and attention. Share of GEMM rate: of the rate at which large square matrices "
           "were multiplied in the run's dtype, before and after; 8-bit integers may exceed it. RTFx with encoder: the "
           "encoder's window of 30 s counted to every utterance.\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `whisfusion benchmark decode`."""
    parser.add_argument("--seconds", type=float, nargs="+", default=[10.0, 30.0], help="of audio, one table row each")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="utterances decoded together, a row each")
    parser.add_argument("--tokens_per_second", type=float, default=3.0, help="tokens of the text a second")
    parser.add_argument("--candidates", type=int, default=15, help="PDD candidates")
    parser.add_argument("--few_candidates", type=int, default=5, help="PDD candidates of the smaller setting")
    parser.add_argument("--mask_ratios", type=float, nargs="+", default=[1.0, 0.9, 0.85, 0.8],
                        help="of PDD, one for each pass (default: the paper's)")
    parser.add_argument("--keep", type=int, nargs="+", default=[15, 8, 4],
                        help="rows kept in passes 2, 3, ... (pruning; default: those of conf/decode_pdd_pruned.yaml)")
    parser.add_argument("--slow_repeats", type=int, default=1,
                        help=f"measured calls of {', '.join(SLOW)} and of the reference, a minute each on a CPU")
    parser.add_argument("--row_passes", type=int, default=6, help="passes of one-row sampling, such as eb")
    parser.add_argument("--margin", type=int, default=10, help="slots of a fitted canvas beyond the text")
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS),
                        help=f"default: all but {', '.join(ON_REQUEST)}")
    parser.add_argument("--faster_dtype", default="false", choices=["true", "false"],
                        help="take float32 or bfloat16, whichever runs the encoder faster on this machine")
    parser.add_argument("--whisper", help="folder of a Whisper, to be measured beside the others")
    parser.add_argument("--size", type=int, default=768, help="width of decoder, encoder and states")
    parser.add_argument("--blocks", type=int, default=18, help="decoder blocks")
    parser.add_argument("--heads", type=int, default=12, help="attention heads")
    parser.add_argument("--vocab", type=int, default=32000, help="pieces of the token model")
    trained.add_arguments(parser)


def run(args: argparse.Namespace) -> Report:
    """Measure every system on every length, the systems of one length in turns. Raises UserError for odd numbers."""
    if args.exp_dir:
        return trained.run(args)
    if min(args.seconds) <= 0 or min(args.candidates, args.few_candidates, args.row_passes, *args.batch) < 1:
        raise UserError("benchmark decode: --seconds, --batch, candidates and passes must be above 0")
    if args.faster_dtype == "true":
        args.dtype = faster_dtype(args)
    networks = Networks(args)
    rows: list[dict[str, Any]] = []
    summary: dict[str, float] = {}
    notes = [COLUMNS, *(f"- {name}: {' '.join((SYSTEMS[name].__doc__ or '').split())}" for name in _chosen(args, 1))]
    with ExitStack() as stack:
        extra = stack.enter_context(whisper.opened(args.whisper, args)) if args.whisper else None
        if extra is not None:
            notes += [*whisper.NOTES, *([extra.missing] if extra.missing else [])]
        for batch in args.batch:
            for seconds in args.seconds:
                bench = Bench(args, seconds, networks, batch)
                functions = {name: SYSTEMS[name](bench) for name in _chosen(args, batch)}
                if extra is not None and batch == 1:
                    functions |= extra.systems(bench)
                found, lines = _measured(functions, bench)
                rows += lines
                where = f"{seconds:g} s" + (f", batch {batch}" if batch > 1 else "")
                summary |= {f"{name}, {where}": value for name, value in _ratios(found).items()}
    settings = {name: value for name, value in vars(args).items() if name not in ("out", "what")}
    return Report("Decoding, random weights", settings, rows, summary, notes)


def faster_dtype(args: argparse.Namespace) -> str:
    """float32 or bfloat16: the one in which the encoder takes less time here."""
    functions = {}
    for dtype in ("float32", "bfloat16"):
        other = argparse.Namespace(**vars(args) | {"dtype": dtype})
        functions[dtype] = encoder(Bench(other, 30.0, Networks(other)))
    found = measure(functions, 1, 3, args.device)
    return max(found, key=lambda dtype: found[dtype].rate(1))


def _chosen(args: argparse.Namespace, batch: int) -> list[str]:
    """The systems that a batch of this size is decoded by."""
    on_cpu = not args.device.startswith("cuda")
    names = args.systems or [name for name in SYSTEMS
                             if name not in ON_REQUEST and (on_cpu or not name.endswith("int8"))]
    return [name for name in names if batch == 1 or name in BATCHED]


def _measured(functions: Mapping[str, Callable[[], Any]], bench: Bench) -> tuple[dict[str, Measurement],
                                                                               list[dict[str, Any]]]:
    """Measurements of the systems that fit into memory, and the table's rows of all of them."""
    args, work = bench.args, {}
    peaks = [gemm_rate(args.device, dtype=args.dtype)]
    for name, function in functions.items():
        try:
            work[name] = _warmed_up(name, function)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    fitting = {name: function for name, function in functions.items() if name in work}
    found = measure(fitting, max(0, args.warm_up - 1), args.repeats, args.device, SLOW, args.slow_repeats)
    peak = statistics.mean([*peaks, gemm_rate(args.device, dtype=args.dtype)])
    return found, [_row(name, bench, found.get(name), found.get("encoder"), work.get(name), peak) for name in functions]


def _warmed_up(name: str, function: Callable[[], Any]) -> int | None:
    """Call a function for the first time; returns its operations, None where they cannot be counted."""
    if name not in ON_REQUEST:
        return count_work(function)
    for _ in range(3):  # under the counter nothing is compiled; a CUDA graph is recorded in the second call
        function()
    return None


def _row(name: str, bench: Bench, one: Measurement | None, encoder: Measurement | None, work: int | None,
         peak: float) -> dict[str, Any]:
    """peak: GFLOP/s of a large matrix product; one: None where memory did not suffice."""
    row: dict[str, Any] = {"audio s": bench.seconds, "batch": bench.batch, "system": name}
    columns = one.columns() if one is not None else dict.fromkeys(Measurement((0.0,), (0.0,)).columns())
    gigaflops = None if one is None or not work else work / 1e9
    alone = name == "encoder" or "whisper" in name  # these encode themselves
    seconds = None
    if one is not None and (alone or encoder is not None):
        seconds = 1 / one.rate(1) + (0 if alone or encoder is None else 1 / encoder.rate(1))
    return row | columns | {
        "GFLOP": gigaflops, "share of GEMM rate": gigaflops and one.rate(gigaflops) / peak,
        "RTFx with encoder": seconds and bench.batch * bench.seconds / seconds,
    }


def _ratios(found: Mapping[str, Measurement]) -> dict[str, float]:
    """What is compared, from medians of wall seconds."""
    seconds = {name: 1 / one.rate(1) for name, one in found.items()}
    wanted = {f"{name} in encoder times": (name, "encoder") for name in seconds if name != "encoder"}
    wanted |= {f"released / {name}": ("released", name) for name in ("exact", "fast", "fast few", "pruned", "one row")}
    wanted |= {f"{name} / causal greedy": (name, "causal greedy") for name in ("fast", "pruned", "one row")}
    wanted |= {f"{name} / {name} int8": (name, f"{name} int8") for name in ("fast", "one row", "causal greedy")}
    wanted["one row / one row compiled"] = ("one row", "one row compiled")
    return {title: seconds[a] / seconds[b] for title, (a, b) in wanted.items() if a in seconds and b in seconds}
