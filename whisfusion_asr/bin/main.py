"""The console script `whisfusion`: one name in front of all commands."""

import difflib
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

import whisfusion_asr
from whisfusion_asr.errors import UserError, exits_cleanly

# In the order of the work. Only these lines are read for --help; a command's module is imported when it is called.
COMMANDS = {
    "recipe": "run the stages of a recipe (what run.sh calls)",
    "data": "validate, filter, fix, split, combine, perturb or make Kaldi data directories",
    "train_tokens": "train a token model and write its token list",
    "prepare_text": "write text and its token counts for training the text model",
    "import_encoder": "take a frozen encoder from public weights",
    "import": "make an experiment of public weights: SMDM, Whisfusion, Whisper",
    "export_weights": "write a decoder in the released layout, or a Whisper in its three",
    "train": "train a model through ESPnet's task and trainer",
    "espnet": "run ESPnet's own training and decoding, the outside controls",
    "dump_states": "write the frozen encoder's states to disk",
    "evaluate_text": "bound a text model's likelihood on held-out text, beside n-grams",
    "decode": "decode states or audio with a trained model",
    "decode_whisper": "decode audio with the original Whisper, left to right, for comparison",
    "label": "let the original Whisper transcribe what has no transcript",
    "calibrate": "find below which confidence a model hears no speech",
    "refine": "predict the doubtful words of another system's hypotheses again",
    "transcribe": "transcribe audio files of any length: text, json or subtitles",
    "pack": "put a trained model into one file that needs nothing else, and upload it if asked",
    "score": "write WER, CER and TER score directories",
    "significance": "compare two scored systems: intervals, MAPSSWE, paired bootstrap",
    "compare": "write COMPARISON.md of several systems: error rates, p-values, speed, cost",
    "sweep": "decode with every setting of a grid: table, Pareto fronts, a recommended setting",
    "learning_curve": "decode an experiment's kept epochs: WER and passes against minutes of training",
    "ablate": "train and score variants of a recipe, compared with p-values",
    "results": "write RESULTS.md of an experiment",
    "benchmark": "measure speed and memory, compared within one run",
    "report": "write what the candidates of an experiment know: tables, figures, one HTML page",
    "doctor": "show versions and devices, what is missing and the command that adds it",
}

# Commands whose module has another name, because Python would not import one of theirs.
MODULES = {"import": "import_model"}


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Call the command that the first argument names with the arguments after it."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text())
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        print(whisfusion_asr.__version__)
        return
    command = words[0].replace("-", "_")
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(COMMANDS)}"
        raise UserError(f"whisfusion: unknown command {words[0]!r}; {hint}")
    _module(command).main(words[1:])


def help_text() -> str:
    """The list of commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {line}" for name, line in COMMANDS.items())
    return (
        "usage: whisfusion COMMAND [--option value ...]\n\n"
        f"{lines}\n\n"
        "whisfusion COMMAND --help shows its options; dashes and underscores are equal.\n"
        "The same command without the console script: python -m whisfusion_asr.bin.COMMAND"
    )


def _module(command: str) -> ModuleType:
    try:
        return importlib.import_module(f"whisfusion_asr.bin.{MODULES.get(command, command)}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "whisfusion_asr":
            raise
        raise UserError(
            f"whisfusion {command} needs the package {error.name}, which is not installed; "
            "`whisfusion doctor` shows the command that adds it"
        ) from error


if __name__ == "__main__":
    main()
