"""Score a decoded set: WER and CER, and TER with a token list, in sclite's format.

    python -m whisfusion_asr.bin.score --ref data/test/text --utt2spk data/test/utt2spk \\
        --hyp exp/x/decode_pdd/test/text --token_list data/token_list/unigram500 --out exp/x/decode_pdd/test

Writes OUT/score_{wer,cer,ter}/{ref.trn,hyp.trn,result.txt} and OUT/summary.json, and prints the corpus rates.
"""

from whisfusion_asr.bin.arguments import command_parser
from whisfusion_asr.errors import exits_cleanly
from whisfusion_asr.scoring import NORMALIZERS, score_files
from whisfusion_asr.scoring.error_rate import percent_text


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = command_parser(__doc__)
    parser.add_argument("--ref", required=True, help="reference text, lines `key words`")
    parser.add_argument("--hyp", required=True, help="hypothesis text with exactly the same keys")
    parser.add_argument("--out", required=True, help="directory that receives the score directories")
    parser.add_argument("--utt2spk", help="lines `key speaker`; without it every utterance is its own speaker")
    parser.add_argument("--token_list", help="token list directory; adds the token error rate")
    parser.add_argument("--normalizer", default="none", help=f"applied to both texts: {', '.join(NORMALIZERS)}")
    args = parser.parse_args(argv)
    tokenizer = None
    if args.token_list:
        from whisfusion_asr.data.tokenizer import load_tokenizer  # only here: it is not needed for WER and CER

        tokenizer = load_tokenizer(args.token_list).tokenize
    counts = score_files(args.ref, args.hyp, args.utt2spk, args.out, tokenizer, args.normalizer)
    for name, each in counts.items():
        print(
            f"%{name.upper()} {percent_text(each.percent)} [ {each.errors} / {each.reference_length}, "
            f"{each.insertions} ins, {each.deletions} del, {each.substitutions} sub ] "
            f"{each.utterances} utterances, normalizer {args.normalizer}: {args.out}/score_{name}/result.txt"
        )


if __name__ == "__main__":
    main()
