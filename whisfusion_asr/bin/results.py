"""Write the results page of one or more experiments, in the columns of ESPnet's show_asr_result.sh.

    python -m whisfusion_asr.bin.results --exp_dir exp/x --out exp/x/RESULTS.md
    python -m whisfusion_asr.bin.results --exp_dir exp/a exp/b --out RESULTS.md --title "LibriSpeech" --notes notes.md

Reads EXP/<inference_tag>/<set>/score_*/result.txt, and what lies beside them of summary.json, meta.json, config.yaml
and run.sh.
"""

from whisfusion_asr.bin.arguments import command_parser
from whisfusion_asr.errors import exits_cleanly
from whisfusion_asr.report.results import write_results


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = command_parser(__doc__)
    parser.add_argument("--exp_dir", required=True, nargs="+", help="experiment directories, in the order to print")
    parser.add_argument("--out", required=True, help="Markdown file to write")
    parser.add_argument("--title", default="RESULTS", help="heading of the page")
    parser.add_argument("--notes", help="Markdown file inserted below the heading")
    args = parser.parse_args(argv)
    write_results(args.exp_dir, args.out, title=args.title, notes=args.notes)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
