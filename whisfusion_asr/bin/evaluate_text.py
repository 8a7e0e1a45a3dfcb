"""How well a text diffusion model predicts held-out text: its bound, beside unigram and bigram on the same tokens.

    whisfusion evaluate_text --exp_dir exp/train_text_en_unigram500 --text valid.txt --train_text train.txt --plain true
    whisfusion evaluate_text --exp_dir EXP --model_file 1epoch.pth 2epoch.pth --text dump/text/dev/text

Prints nats a token and bits a character with their standard error over the sentences. The model's figure is an upper
bound of its negative log-likelihood; a canvas that fits the text tells its length, so n-grams are not charged for it.
"""

import argparse
import json
import math
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from whisfusion_asr.api import canvas_spec, load_network
from whisfusion_asr.bin.arguments import boolean, command_parser
from whisfusion_asr.data.tables import read_lines, read_table
from whisfusion_asr.data.tokenizer import Tokenizer, make_tokenizer
from whisfusion_asr.diffusion.bound import text_bound
from whisfusion_asr.diffusion.canvas import CanvasRule, CanvasSpec
from whisfusion_asr.errors import UserError, exits_cleanly
from whisfusion_asr.files import atomic_write
from whisfusion_asr.scoring.ngram import Bigram
from whisfusion_asr.training.checkpoint import read_config


@dataclass(frozen=True)
class HeldOut:
    """texts: (name, token ids) of each sentence; characters: of all of them."""

    texts: list[tuple[str, list[int]]]
    characters: int


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Parse, evaluate, print the table, write the JSON file."""
    args = _parser().parse_args(argv)
    for name in ("draws", "max_sentences", "max_train_sentences"):
        if (number := getattr(args, name)) is not None and number < 1:
            raise UserError(f"--{name} {number}: expected at least 1")
    config = read_config(args.exp_dir)
    if config.get("decoder") is None:
        raise UserError(f"{args.exp_dir}/config.yaml: decoder: is missing; give the experiment of a text model")
    model_conf = config.get("model_conf") or {}
    rule = CanvasRule.from_conf(model_conf.get("canvas_conf"))
    length = rule.length if rule.fit == "fixed" else None
    tokenizer = make_tokenizer(config["token_list"], config.get("bpemodel"), f"{args.exp_dir}/config.yaml")
    spec = canvas_spec(config, tokenizer)
    held_out = _encode(args.text, args.plain, tokenizer, args.max_sentences)
    rows = _baselines(args, tokenizer, held_out, None if length is None else spec.eos_id)
    for model_file in args.model_file:
        rows.append(_evaluate(args, model_file, held_out, spec, length))
        print(_line(rows[-1]), flush=True)
    if args.out:
        with atomic_write(args.out) as file:
            json.dump({"settings": vars(args), "sentences": len(held_out.texts), "rows": rows}, file, indent=1)
        print(f"wrote {args.out}")


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    parser.add_argument("--exp_dir", required=True, help="experiment with a decoder; its text half is evaluated")
    parser.add_argument("--model_file", nargs="+", default=["valid.loss.ave.pth"], help="weights in it, one or more")
    parser.add_argument("--text", required=True, help="held-out Kaldi text, or plain sentences with --plain true")
    parser.add_argument("--train_text", help="text of the same form for the unigram and bigram model")
    parser.add_argument("--plain", type=boolean, default=False, help="one sentence a line, without keys")
    parser.add_argument("--max_sentences", type=int, help="the first sentences only")
    parser.add_argument("--max_train_sentences", type=int, help="the first sentences of --train_text only")
    parser.add_argument("--draws", type=int, default=16, help="masks drawn for each sentence")
    parser.add_argument("--seed", type=int, default=0, help="of the masks, with each sentence's key")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", help="JSON file to write")
    return parser


def _sentences(path: str, plain: bool, limit: int | None) -> dict[str, str]:
    table = {f"line{n:07d}": text for n, text in enumerate(read_lines(path))} if plain else read_table(path)
    found = {key: " ".join(text.split()) for key, text in table.items() if text.strip()}
    if not found:
        raise UserError(f"{path}: no sentence in it")
    return dict(islice(found.items(), limit))


def _encode(path: str, plain: bool, tokenizer: Tokenizer, limit: int | None) -> HeldOut:
    chosen = _sentences(path, plain, limit)
    return HeldOut([(key, tokenizer.encode(text)) for key, text in chosen.items()], sum(map(len, chosen.values())))


def _baselines(
    args: argparse.Namespace, tokenizer: Tokenizer, held_out: HeldOut, end: int | None
) -> list[dict[str, Any]]:
    """Rows of the two n-gram models; none without --train_text."""
    given = "" if end is not None else ", given the length of each"
    print(f"{len(held_out.texts)} sentences, {sum(len(ids) for _, ids in held_out.texts)} tokens{given}")
    if args.train_text is None:
        return []
    sentences = _sentences(args.train_text, args.plain, args.max_train_sentences)
    train = (tokenizer.encode(text) for text in sentences.values())
    model = Bigram(train, tokenizer.vocab_size, end)
    tokens, rows = sum(len(ids) + (end is not None) for _, ids in held_out.texts), []
    for name, nats_of in (("unigram", model.unigram_nats), ("bigram", model.bigram_nats)):
        nats = sum(nats_of(ids) for _, ids in held_out.texts)
        rows.append(_row(name, nats, tokens, held_out.characters))
        print(_line(rows[-1]))
    return rows


def _evaluate(
    args: argparse.Namespace, model_file: str, held_out: HeldOut, spec: CanvasSpec, length: int | None
) -> dict[str, Any]:
    decoder = load_network(args.exp_dir, model_file, args.device)[0].decoder
    name, longest = max(held_out.texts, key=lambda item: len(item[1]))
    if length is not None and spec.prefix + len(longest) >= length:
        raise UserError(f"{args.text}: {name} has {len(longest)} tokens, too many for canvases of {length} with an end")
    bound = text_bound(decoder, held_out.texts, spec, args.draws, length, args.seed, device=args.device)
    errors = {"error": bound.error, "mask_error": bound.mask_error}
    return _row(Path(model_file).name, bound.nats, bound.tokens, held_out.characters) | errors


def _row(name: str, nats: float, tokens: int, characters: int) -> dict[str, Any]:
    return {"model": name, "nats_per_token": nats / tokens, "bits_per_character": nats / math.log(2) / characters}


def _line(row: dict[str, Any]) -> str:
    error = f" +- {row['error']:.4f} (masks {row['mask_error']:.4f})" if "error" in row else ""
    return f"{row['model']:24} {row['nats_per_token']:.4f}{error} nats/token  {row['bits_per_character']:.4f} bits/char"


if __name__ == "__main__":
    main()
