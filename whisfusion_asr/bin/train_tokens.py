"""Make the token list (and its sentencepiece model) of transcripts, or choose one from Whisper's tokens.

python -m whisfusion_asr.bin.train_tokens --text data/train/text --token_type bpe --vocab_size 500 \\
    --out data/token_list/bpe500
python -m whisfusion_asr.bin.train_tokens --text data/train/text --token_type whisper --whisper_dir whisper-base \\
    --out data/token_list/whisper
"""

from collections.abc import Iterator

from whisfusion_asr.bin.arguments import command_parser
from whisfusion_asr.data.tables import read_lines, read_table
from whisfusion_asr.data.text_form import CASES, PUNCTUATION, TextForm
from whisfusion_asr.data.tokenizer import TOKEN_TYPES, Tokenizer, train_tokenizer
from whisfusion_asr.errors import UserError, exits_cleanly


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Parse, train, write OUT/tokens.txt and OUT/tokens.model."""
    parser = command_parser(__doc__)
    parser.add_argument("--text", nargs="+", default=[], help="Kaldi text files (key, transcript)")
    parser.add_argument("--plain_text", nargs="+", default=[], help="files of plain sentences, one a line")
    parser.add_argument("--token_type", choices=(*TOKEN_TYPES, "whisper"), default="unigram")
    parser.add_argument("--vocab_size", type=int, help="number of tokens, special ones included (unigram and bpe)")
    parser.add_argument("--text_case", choices=CASES, default="keep", help="case of texts, recorded with the tokens")
    parser.add_argument("--punctuation", choices=PUNCTUATION, default="keep", help="punctuation of texts, likewise")
    parser.add_argument("--languages", nargs="+", default=[], help="codes (en de) of utt2lang that get a token")
    parser.add_argument("--whisper_dir", help="Whisper folder with a tokenizer.json (token type whisper)")
    parser.add_argument("--out", required=True, help="folder to write")
    args = parser.parse_args(argv)
    if not args.text and not args.plain_text:
        raise UserError("--text: no file given; name Kaldi text files (or --plain_text files of sentences)")
    if args.languages and args.token_type == "whisper":
        raise UserError("--languages: Whisper's tokens have its own languages (decoder_conf.language); leave it out")
    form, sentences = TextForm(args.text_case, args.punctuation), _sentences(args.text, args.plain_text)
    if args.token_type == "whisper":
        tokenizer = _whisper_tokens(sentences, args.whisper_dir, args.out, form)
    else:
        tokenizer = train_tokenizer(sentences, args.token_type, args.vocab_size, args.out, form, args.languages)
    asked = f" of {args.vocab_size} asked" if args.vocab_size not in (None, tokenizer.vocab_size) else ""
    print(f"{args.out}/tokens.txt: {tokenizer.vocab_size} {args.token_type} tokens{asked}")


def _whisper_tokens(sentences: Iterator[str], whisper_dir: str | None, out: str, form: TextForm) -> Tokenizer:
    if not whisper_dir:
        raise UserError("--token_type whisper chooses among a Whisper's tokens: give its folder with --whisper_dir")
    from whisfusion_asr.data.whisper_tokens import choose_tokens  # late: it needs the package tokenizers

    return choose_tokens(sentences, whisper_dir, out, form)


def _sentences(texts: list[str], plain_texts: list[str]) -> Iterator[str]:
    for path in texts:
        yield from read_table(path).values()
    for path in plain_texts:
        yield from read_lines(path)


if __name__ == "__main__":
    main()
