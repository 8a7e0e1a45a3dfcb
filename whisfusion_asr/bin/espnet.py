"""Run ESPnet's own programs on this package's data, and join what they write. PROGRAM takes ESPnet's own options:

    whisfusion espnet asr_train --config conf/train_espnet.yaml --output_dir exp/x ...
    whisfusion espnet asr_inference --config conf/decode_espnet.yaml --output_dir exp/x/decode/test/logdir/output.1 ...
    whisfusion espnet asr_inference_maskctc ...

Two commands prepare for them and come after them:

    whisfusion espnet tokens --token_list data/token_list/unigram300 --out data/token_list/unigram300/tokens_espnet.txt
    whisfusion espnet merge --out exp/x/decode/test --num_jobs 2 --data_dir data/test --program asr_inference \\
        --config conf/decode_espnet.yaml --model_file exp/x/valid.acc.ave.pth
"""

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path

from whisfusion_asr.bin.arguments import boolean, command_parser
from whisfusion_asr.config import apply_overrides, read_yaml
from whisfusion_asr.errors import UserError, exits_cleanly
from whisfusion_asr.files import atomic_write

PROGRAMS = ("asr_train", "asr_inference", "asr_inference_maskctc")


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Run one of the commands, or a program of ESPnet."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0].startswith("-") or words[0] in ("tokens", "merge"):
        args = _arguments().parse_args(words)
        args.run(args)
    else:
        _run(*words)


def _arguments() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="PROGRAM, tokens or merge")
    tokens = commands.add_parser("tokens", help="write a token list in ESPnet's order")
    tokens.set_defaults(run=_tokens)
    tokens.add_argument("--token_list", required=True, help="token list directory")
    tokens.add_argument("--out", required=True, help="file to write")
    merge = commands.add_parser("merge", help="join the parts of a decoding and write meta.json")
    merge.set_defaults(run=_merge)
    merge.add_argument("--out", required=True, help="decode directory; its parts are logdir/output.1 to .num_jobs")
    merge.add_argument("--num_jobs", type=int, default=1)
    merge.add_argument("--data_dir", required=True, help="Kaldi directory of the set")
    merge.add_argument("--program", required=True, help="what decoded, for meta.json")
    merge.add_argument("--config", required=True, help="its decoding YAML, for meta.json")
    merge.add_argument("--inference_args", default="", help="the keys of it that were changed, for meta.json")
    merge.add_argument("--model_file", required=True, help="its weights, for meta.json")
    merge.add_argument("--states", type=boolean, default=False, help="it read dumped states, for meta.json")
    merge.add_argument("--device", default="cpu", help="cpu or cuda, for meta.json")
    return parser


def _run(program: str, *words: str) -> None:
    if program not in PROGRAMS:
        raise UserError(f"{program}: expected {', '.join(PROGRAMS)}, tokens or merge")
    from whisfusion_asr.tasks.espnet_programs import run_program  # late: importing ESPnet costs seconds

    seconds = run_program(program, words)
    if not seconds:
        return
    from whisfusion_asr.bin.decode import conditions

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--output_dir", type=Path)
    parser.add_argument("--ngpu", type=int, default=0)
    known, _ = parser.parse_known_args(words)
    told = conditions("cuda" if known.ngpu else "cpu", {}) | {"decode_seconds": sum(seconds)}
    with atomic_write(known.output_dir / "conditions.json") as file:
        file.write(json.dumps(told) + "\n")


def _tokens(args: argparse.Namespace) -> None:
    from whisfusion_asr.data.tokenizer import espnet_tokens, load_tokenizer

    tokens = espnet_tokens(load_tokenizer(args.token_list).pieces)
    with atomic_write(args.out) as file:
        file.writelines(f"{token}\n" for token in tokens)
    print(f"{args.out}: {len(tokens)} tokens")


def _merge(args: argparse.Namespace) -> None:
    from whisfusion_asr.data.kaldi_dir import SAMPLE_RATE, read_table
    from whisfusion_asr.decoding.espnet_parts import merge_espnet_parts

    samples = read_table(Path(args.data_dir) / "utt2num_samples")
    told = {
        "sampler": args.program, "sampler_conf": apply_overrides(read_yaml(args.config), args.inference_args.split()),
        "exp_dir": str(Path(args.model_file).parent), "model_file": Path(args.model_file).name, "device": args.device,
        "batch": "1 utterance", "encoder": "not timed (states from disk)" if args.states else "timed",
        "espnet": version("espnet"), "torch": version("torch"),
    }  # fmt: skip
    durations = {key: int(number) / SAMPLE_RATE for key, number in samples.items()}
    totals = merge_espnet_parts(Path(args.out), args.num_jobs, durations, told)
    print(f"{args.out}: {totals['utterances']} utterances, RTF {totals['rtf']}")


if __name__ == "__main__":
    main()
