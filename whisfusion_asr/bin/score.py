"""Score a decoded set: WER and CER, and TER with a token model, in sclite's format.

    python -m whisfusion_asr.bin.score --ref data/test/text --utt2spk data/test/utt2spk \\
        --hyp exp/x/decode_pdd/test/text --token_list data/token_list/unigram500 --out exp/x/decode_pdd/test

Writes OUT/score_{wer,cer,ter}/{ref.trn,hyp.trn,result.txt} and OUT/summary.json, and prints the corpus rates with
their confidence intervals, the mean over utterances, jiwer's count, and the WER of the raw texts.
"""

import argparse
from pathlib import Path

from whisfusion_asr.bin.arguments import command_parser
from whisfusion_asr.errors import exits_cleanly
from whisfusion_asr.scoring import NORMALIZERS, score_files
from whisfusion_asr.scoring.score import Split, console_lines


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = command_parser(__doc__)
    parser.add_argument("--ref", required=True, help="reference text, lines `key words`")
    parser.add_argument("--hyp", required=True, help="hypothesis text with exactly the same keys")
    parser.add_argument("--out", required=True, help="directory that receives the score directories")
    parser.add_argument("--utt2spk", help="lines `key speaker`; without it every utterance is its own "
                        "speaker. As in sclite, what precedes the first hyphen is the speaker, unless all share it")
    tokens = parser.add_mutually_exclusive_group()
    tokens.add_argument("--token_list", help="token list directory; adds the token error rate")
    tokens.add_argument("--token_model", help="sentencepiece model; adds the token error rate")
    parser.add_argument("--normalizer", default="none", help=f"applied to both texts: {', '.join(NORMALIZERS)}")
    args = parser.parse_args(argv)
    note = Path(args.ref).with_name("labelled")
    labelled = len(note.read_text(encoding="utf-8").splitlines()) if note.is_file() else 0
    scored = score_files(args.ref, args.hyp, args.utt2spk, args.out, _tokenizer(args), args.normalizer, labelled)
    print("\n".join(console_lines(scored, args.normalizer, args.out)))
    if labelled:
        print(f"Whisper wrote {labelled} of the references ({note}): WER is disagreement with it there")


def _tokenizer(args: argparse.Namespace) -> Split | None:
    """Text -> pieces. Imported here only: WER and CER do not need it."""
    if args.token_list:
        from whisfusion_asr.data.tokenizer import load_tokenizer

        return load_tokenizer(args.token_list).tokenize
    if args.token_model:
        from whisfusion_asr.data.tokenizer import SentencePieceTokenizer

        return SentencePieceTokenizer(args.token_model).tokenize
    return None


if __name__ == "__main__":
    main()
