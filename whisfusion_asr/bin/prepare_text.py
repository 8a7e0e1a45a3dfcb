"""Make the text of a text-only model: `text` (key, sentence) and `shape` (key, number of tokens).

python -m whisfusion_asr.bin.prepare_text --text books.txt --plain true --token_list data/token_list/bpe500 \\
    --out dump/text/train
"""

from pathlib import Path

from whisfusion_asr.bin.arguments import boolean, command_parser
from whisfusion_asr.data.tables import read_lines, read_table, write_table
from whisfusion_asr.data.tokenizer import load_tokenizer
from whisfusion_asr.errors import UserError, exits_cleanly


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Parse, tokenize, write OUT/text and OUT/shape."""
    parser = command_parser(__doc__)
    parser.add_argument("--text", required=True, help="Kaldi text file, or plain sentences with --plain true")
    parser.add_argument("--plain", type=boolean, default=False, help="one sentence a line, without keys")
    parser.add_argument("--token_list", required=True, help="token folder (tokens.txt, tokens.model)")
    parser.add_argument("--out", required=True, help="folder to write")
    args = parser.parse_args(argv)
    table = _number_lines(Path(args.text)) if args.plain else read_table(args.text)
    sentences = {key: " ".join(text.split()) for key, text in table.items() if text.strip()}
    if not sentences:
        raise UserError(f"{args.text}: no sentence in it")
    tokenizer = load_tokenizer(args.token_list)
    shapes = {key: len(tokenizer.encode(text)) for key, text in sentences.items()}
    write_table(Path(args.out) / "text", sentences)
    write_table(Path(args.out) / "shape", shapes)
    print(
        f"{args.out}: {len(shapes)} sentences, {sum(shapes.values())} tokens, longest {max(shapes.values())}; "
        f"{len(table) - len(sentences)} empty lines left out"
    )


def _number_lines(path: Path) -> dict[str, str]:
    """Sentences under keys `<file name>-<line number>` that sort in the order of the file."""
    lines = read_lines(path)
    return {f"{path.stem}-{number:0{len(str(len(lines)))}d}": line for number, line in enumerate(lines, start=1)}


if __name__ == "__main__":
    main()
