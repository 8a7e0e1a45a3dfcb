"""Compare decoded and scored systems on the same sets: error rates, are they chance, and what each system cost.

    whisfusion compare --systems ar=exp/x_ar/decode_ar pdd=exp/x/decode_pdd --against ar --out exp/COMPARISON.md

Each DIR holds a directory for each decoded set, with its score_wer, and meta.json where this toolkit decoded. DIR,DIR1
names the same decoding one utterance at a time besides (engine_conf.batch_tokens=1), for a second speed; errors are
those of DIR. Writes OUT, beside it the same as JSON with every statistic, and comparison.png: WER against RTFx.
"""

import shlex
import sys
from pathlib import Path

from whisfusion_asr.bin.arguments import command_parser
from whisfusion_asr.errors import UserError, exits_cleanly
from whisfusion_asr.report.comparison import write_comparison
from whisfusion_asr.report.systems import parse_systems
from whisfusion_asr.scoring.bootstrap import REPLICATES


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = command_parser(__doc__)
    parser.add_argument("--systems", required=True, nargs="+", metavar="NAME=DIR[,DIR1]", help="two decodings or more")
    parser.add_argument("--against", required=True, help="NAME of the system that the others are tested against")
    parser.add_argument("--out", required=True, help="Markdown file to write; a name that ends in .md")
    parser.add_argument("--sets", nargs="+", default=[], help="sets to compare; default: all scored ones of --against")
    parser.add_argument("--replicates", type=int, default=REPLICATES, help="draws of the bootstraps")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstraps")
    args = parser.parse_args(argv)
    if args.replicates < 1:
        raise UserError(f"--replicates {args.replicates}: expected a positive number")
    if not args.out.endswith(".md"):
        raise UserError(f"--out {args.out}: expected a name that ends in .md; the JSON goes beside it")
    command = shlex.join(["whisfusion", "compare", *(sys.argv[1:] if argv is None else argv)])
    lines = write_comparison(parse_systems(args.systems), args.against, Path(args.out), args.sets, command,
                             args.replicates, args.seed)
    print("\n".join([*lines, f"wrote {args.out}"]))


if __name__ == "__main__":
    main()
