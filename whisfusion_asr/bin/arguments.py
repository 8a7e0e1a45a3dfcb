"""The option syntax that all commands share: `--a_b value`, `--a-b value` and `--a_b=value` mean the same."""

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from whisfusion_asr.errors import UserError

_OPTION = re.compile(r"--([A-Za-z][\w-]*)(=.*)?", re.DOTALL)


def command_parser(doc: str) -> argparse.ArgumentParser:
    """Parser of the calling command: program name from the caller's module, description from its docstring.

    Options are declared with underscores. Sub-parsers (`add_subparsers`) behave in the same way.
    """
    spec = sys._getframe(1).f_globals.get("__spec__")
    prog = f"whisfusion {spec.name.rpartition('.')[2]}" if spec else None
    return _CommandParser(prog=prog, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Two ways of naming a trained model, one of which must be given: --exp_dir and --model."""
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("--exp_dir", help="experiment with config.yaml and weights")
    either.add_argument("--model", help="packed model (whisfusion pack), or name of a hub model that holds one")


def add_running_options(parser: argparse.ArgumentParser) -> None:
    """How decoder and drafter compute: --dtype, --quantize and --compile, checked by models/running.py."""
    parser.add_argument("--dtype", default="float32", help="of the arithmetic: float32, bfloat16, on CUDA "
                        "float16; softmax and confidences are float32 in any case")
    parser.add_argument("--quantize", help="int8: the linear layers on 8-bit integers (CPU)")
    parser.add_argument("--compile", help="torch.compile of the decoder: default, or on CUDA reduce-overhead, "
                        "which replays CUDA graphs")


def running_options(args: argparse.Namespace) -> dict[str, str]:
    """What add_running_options read and is not the default, as Speech2Text takes it."""
    given = {"dtype": args.dtype, "quantize": args.quantize, "compile": args.compile}
    return {key: value for key, value in given.items() if value not in (None, "float32")}


def add_encoder_option(parser: argparse.ArgumentParser) -> None:
    """What makes the states of audio for a model that was trained on dumped ones: --encoder_dir."""
    parser.add_argument("--encoder_dir", help="encoder of the states that the experiment was trained on")


def add_draft_options(parser: argparse.ArgumentParser) -> None:
    """Where the drafts of the sampler `gaps` come from: --draft_dir and --draft_model."""
    parser.add_argument("--draft_dir", help="experiment whose CTC head writes the drafts of sampler gaps; default: the "
                        "model itself")
    parser.add_argument("--draft_model", default="valid.loss.ave.pth", help="weights inside draft_dir")


def add_original_options(parser: argparse.ArgumentParser) -> None:
    """The options of a command in which the original Whisper transcribes a data directory."""
    parser.add_argument("--whisper_dir", required=True, help="folder of the Whisper model, Hugging Face's layout")
    parser.add_argument("--config", help="YAML as conf/ar_whisper.yaml; without it greedy, English, 8 at a time")
    parser.add_argument("--inference_args", default="", help="overrides, e.g. 'num_beams=5 language=de'")
    parser.add_argument("--data_dir", required=True, help="Kaldi directory; transcripts are not needed")
    parser.add_argument("--out", required=True, type=Path, help="decode directory")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    add_job_options(parser)


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """How a set is shared out among processes: --num_jobs, --job and --merge, which `jobs_to_do` reads."""
    parser.add_argument("--num_jobs", type=int, default=1, help="into how many parts the set is divided")
    parser.add_argument("--job", type=int, help="only this part, 1 to num_jobs; default: all, which are then joined")
    parser.add_argument("--merge", type=boolean, default=False, help="true: only join the parts that are there")


def jobs_to_do(args: argparse.Namespace) -> tuple[list[int], bool]:
    """The numbers of the parts that this process has to do, and whether it joins all parts then.

    raises UserError: a part that does not exist
    """
    if args.num_jobs < 1 or args.job is not None and not 1 <= args.job <= args.num_jobs:
        raise UserError(f"--job {args.job} of --num_jobs {args.num_jobs}: expected 1 to num_jobs")
    if args.merge:
        return [], True
    return (list(range(1, args.num_jobs + 1)), True) if args.job is None else ([args.job], False)


def boolean(text: str) -> bool:
    """The value of a `true|false` option; use as `type=boolean`."""
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return text == "true"


class _CommandParser(argparse.ArgumentParser):
    """Both spellings of an option, no abbreviations, the nearest name for an unknown one, one line and exit code 2."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"allow_abbrev": False})

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        words = [_underscored(word) for word in (sys.argv[1:] if args is None else args)]
        self._refuse_unknown(words)
        return super().parse_args(words, namespace)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        words = [_underscored(word) for word in (sys.argv[1:] if args is None else args)]
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """One line on stderr, exit code 2."""
        self.exit(2, f"error: {self.prog}: {message} (see --help)\n")

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        # Before argparse's own check: it would first complain of the required option that was only mistyped.
        known = _option_names(self)
        for word in words:
            if word == "--":
                return
            if (match := _OPTION.fullmatch(word)) and f"--{match[1]}" not in known:
                near = difflib.get_close_matches(f"--{match[1]}", sorted(known), n=1)
                self.error(f"unknown option --{match[1]}" + (f"; did you mean {near[0]}?" if near else ""))


def _underscored(word: str) -> str:
    match = _OPTION.fullmatch(word)
    return f"--{match[1].replace('-', '_')}{match[2] or ''}" if match else word


def _option_names(parser: argparse.ArgumentParser) -> set[str]:
    names = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                names |= _option_names(child)
    return names
