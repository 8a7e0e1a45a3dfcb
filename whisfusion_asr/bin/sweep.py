"""Decode one set with every setting of a grid and see what each costs: tables, Pareto fronts, a recommendation.

    whisfusion sweep --exp_dir exp/mini_synth --data_dir data/dev --states_dir dump/states/dev \\
        --config conf/decode_pdd.yaml --grid conf/sweep_candidates.yaml --out exp/mini_synth/sweep

The grid names changes of the decoding YAML: `points:` (name: settings) and `grid:` (dotted key: values, all
combinations). Model and states are loaded once. Each point is a decode directory below OUT/points, filed under its
settings: a sweep that was stopped goes on, several grids may share OUT. Writes OUT/<name of the grid>.{md,json,png}.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from whisfusion_asr import __version__
from whisfusion_asr.bin.arguments import add_draft_options, boolean, command_parser
from whisfusion_asr.config import apply_overrides, read_yaml
from whisfusion_asr.errors import UserError, exits_cleanly
from whisfusion_asr.scoring import NORMALIZERS
from whisfusion_asr.studies.front import TARGETS
from whisfusion_asr.studies.grid import Point, read_grid
from whisfusion_asr.studies.sweep import SweepInputs, run_sweep
from whisfusion_asr.studies.sweep_page import write_sweep


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = command_parser(__doc__)
    add_grid_options(parser)
    parser.add_argument("--model_file", default="valid.loss.ave.pth", help="weights inside exp_dir")
    parser.add_argument("--target", default="wer", choices=tuple(TARGETS), help="what the recommended point is good at")
    parser.add_argument("--tolerance", type=float, help="how far from the target's best value it may be: points of "
                        f"WER (default {TARGETS['wer'][1]:g}), percent of seconds (default {TARGETS['seconds'][1]:g})")
    parser.add_argument("--against", default="", metavar="POINT", help="name of the point that the others are tested "
                        "against; default: the one of lowest WER")
    parser.add_argument("--figures", type=boolean, default=True, help="draw WER against cost (needs matplotlib)")
    args = parser.parse_args(argv)
    if args.tolerance is not None and args.tolerance < 0:
        raise UserError(f"--tolerance {args.tolerance:g}: expected 0 or more")
    inputs, points = read_inputs(args)
    names = [point.name for point in points]
    if args.against and args.against not in names:
        raise UserError(f"--against {args.against}: no such point; {args.grid} has {'; '.join(names)}")
    rows = run_sweep(inputs, points, args.out)
    facts = {"model": f"{args.exp_dir}/{args.model_file}"} | facts_of(args, rows)
    command = shlex.join(["whisfusion", "sweep", *(sys.argv[1:] if argv is None else argv)])
    name = Path(args.grid).stem
    found = write_sweep(rows, args.out, name, args.target, args.tolerance, facts, command, args.figures,
                        args.against)
    chosen = found["recommended"]
    print(f"recommended for {chosen['target']}: {chosen['name']} ({chosen['rule']})\nwrote {args.out}/{name}.md")


def add_grid_options(parser: argparse.ArgumentParser) -> None:
    """The options of commands that decode one set with every setting of a grid, all but the weights'."""
    parser.add_argument("--exp_dir", required=True, help="experiment with config.yaml and weights")
    add_draft_options(parser)
    parser.add_argument("--data_dir", required=True, help="Kaldi directory of the set; a development set")
    parser.add_argument("--states_dir", required=True, help="its dumped states")
    parser.add_argument("--config", required=True, help="decoding YAML that the points change")
    parser.add_argument("--inference_args", default="", help="overrides of it, e.g. 'sampler_conf.seed=1'")
    parser.add_argument("--grid", required=True, help="YAML with points: and grid:")
    parser.add_argument("--out", required=True, help="directory of the results")
    parser.add_argument("--normalizer", default="none", help=f"applied to both texts: {', '.join(NORMALIZERS)}")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--repeats", type=int, default=1, help="decodings of each point; the median time counts")


def read_inputs(args: argparse.Namespace) -> tuple[SweepInputs, list[Point]]:
    """What add_grid_options read. Raises UserError for a grid that decoding refuses."""
    if args.repeats < 1:
        raise UserError(f"--repeats {args.repeats}: expected a positive number")
    points = read_grid(args.grid, apply_overrides(read_yaml(args.config), args.inference_args.split()))
    inputs = SweepInputs(args.exp_dir, getattr(args, "model_file", ""), args.data_dir, args.states_dir, args.device,
                         args.normalizer, args.repeats, args.draft_dir, args.draft_model)
    return inputs, points


def facts_of(args: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Conditions of the results, for the head of their page."""
    return {"set": args.data_dir, "utterances": str(rows[0]["utterances"]),
            "reference words": str(rows[0]["reference_length"]), "normalizer": args.normalizer, "device": args.device,
            "threads": str(torch.get_num_threads()), "repeats": str(args.repeats), "torch": torch.__version__,
            "version": __version__}


if __name__ == "__main__":
    main()
