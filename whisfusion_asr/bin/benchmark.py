"""Measure speed and memory in one run: the ratios, the machine, and the command's settings.

    whisfusion benchmark WHAT --out exp/benchmark/WHAT       prints a table, writes WHAT.json and WHAT.md

`whisfusion benchmark WHAT --help` shows what else a benchmark can be told.
"""

import argparse
import importlib
import sys
from types import ModuleType

from whisfusion_asr.bin.arguments import command_parser
from whisfusion_asr.errors import exits_cleanly

# Each is a module of whisfusion_asr/benchmark/ with `add_arguments(parser)` and `run(args) -> Report`.
BENCHMARKS = {
    "decode": "decoding: the released way, the engine, left to right with a cache, in encoder times",
    "dump": "dumping states: times real time, and the encoder's share of it",
    "train": "training: utterances a second, padded as published and cut to true lengths",
    "size": "the published size: a step of either training stage and a PDD decode, with peak memory",
}


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Run the benchmark that the first word names, print its page, write it where --out says."""
    words = list(sys.argv[1:] if argv is None else argv)
    module = _module(words[0]) if words and words[0] in BENCHMARKS else None
    parser = command_parser(__doc__ if module is None else f"{module.__doc__}")
    listed = "; ".join(f"{name}: {line}" for name, line in BENCHMARKS.items())
    parser.add_argument("what", choices=list(BENCHMARKS), help=listed)
    _add_common(parser)
    if module is not None:
        module.add_arguments(parser)
    args = parser.parse_args(words)
    from whisfusion_asr.benchmark import harness

    harness.use_threads(args.threads)
    machine = harness.environment(args.device, args.dtype)
    report = module.run(args)
    machine["load after"], machine["gemm fp32 GFLOP/s after"] = harness.load(), harness.gemm_rate(args.device)
    machine["dtype"] = args.dtype  # a benchmark may have chosen it
    print(report.markdown(machine), end="")
    if args.out:
        print("wrote " + " and ".join(str(place) for place in report.write(args.out, machine)))


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", help="write OUT.json and OUT.md")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"],
                        help="of the networks' arithmetic")
    parser.add_argument("--warm_up", type=int, default=1, help="unmeasured calls of each function")
    parser.add_argument("--repeats", type=int, default=5, help="measured calls of each function; the median counts")
    parser.add_argument("--threads", type=int, help="threads that torch computes with (default: its own choice)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and random data")


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"whisfusion_asr.benchmark.{name}")


if __name__ == "__main__":
    main()
