"""What training brings by its minutes: the kept epochs of an experiment, each decoded with every setting of a grid.

    whisfusion learning_curve --exp_dir exp/mini_synth --data_dir data/dev --states_dir dump/states/dev \\
        --config conf/decode_pdd.yaml --grid conf/sweep_candidates.yaml --out exp/mini_synth/learning

A training keeps all its epochs with --asr_args "--keep_nbest_models N". What is decoded already is kept. Writes
OUT/learning_curve.{md,json,png}.
"""

import shlex
import sys
from pathlib import Path

from whisfusion_asr.bin.arguments import command_parser
from whisfusion_asr.bin.sweep import add_grid_options, facts_of, read_inputs
from whisfusion_asr.errors import exits_cleanly
from whisfusion_asr.studies.learning import learning_curve, write_curve


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = command_parser(__doc__)
    add_grid_options(parser)
    args = parser.parse_args(argv)
    inputs, points = read_inputs(args)
    rows = learning_curve(inputs, points, Path(args.out))
    command = shlex.join(["whisfusion", "learning_curve", *(sys.argv[1:] if argv is None else argv)])
    write_curve(rows, Path(args.out), {"model": args.exp_dir} | facts_of(args, rows), command)
    print(f"wrote {args.out}/learning_curve.md")


if __name__ == "__main__":
    main()
