"""The experiment directory before training starts: settings, tokens, what an earlier run left."""

import argparse
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from whisfusion_asr.tasks import espnet_compat  # noqa: F401  (first: makes espnet2 importable)

# isort: split
from espnet2.train.distributed_utils import get_rank
from espnet2.utils.yaml_no_alias_safe_dump import yaml_no_alias_safe_dump

from whisfusion_asr.data.audio import SAMPLE_RATE
from whisfusion_asr.data.kaldi_dir import read_table
from whisfusion_asr.data.tokenizer import load_tokenizer
from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write, sha256
from whisfusion_asr.tasks.espnet_compat import CHECKPOINT
from whisfusion_asr.tasks.trainer import FINISHED
from whisfusion_asr.training.checkpoint import (
    InitParam,
    read_config,
    read_init_record,
    read_weights,
    record_init,
    shorten,
)
from whisfusion_asr.training.freeze import under
from whisfusion_asr.training.longest import record_longest

# Settings that change how a training runs, but not what comes out of it; every other one must stay on resume.
FREE = {
    "config", "print_config", "required", "version", "resume", "dry_run", "output_dir", "log_level", "log_interval",
    "ngpu", "num_workers", "use_matplotlib", "use_tensorboard", "create_graph_in_tensorboard",
    "num_att_plot", "max_cache_size", "valid_max_cache_size", "max_cache_fd", "local_rank", "distributed",
    "multiprocessing_distributed", "gradient_as_bucket_view", "detect_anomaly", "token_list_file",
}
# Written once and whole when a training begins; ESPnet's config.yaml is rewritten in place at every start.
SETTINGS = "settings.yaml"
FREE_PREFIXES = ("wandb", "use_wandb", "dist_")
LOOKED_AT = 1000  # transcripts of a table whose tokens are counted


def is_first_process(args: argparse.Namespace) -> bool:
    """Whether this process is the one that writes files."""
    return get_rank(args.dist_rank, args.dist_launcher) in (None, 0)


def read_tokens(args: argparse.Namespace) -> list[str]:
    """Pieces of the token list that args name, by id. Raises UserError for a file that is missing or none."""
    if isinstance(args.token_list, str):
        return load_tokenizer(args.token_list, args.token_type, args.bpemodel).pieces
    return args.token_list


def check_values(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Check what came from YAML, where ESPnet's parser checks nothing.

    Raises UserError: a name that is no choice, a number that YAML reads as text (1e-3 without a point).
    """
    for action in parser._actions:
        value = getattr(args, action.dest, None)
        if action.choices is not None and value is not None and value not in action.choices:
            known = ", ".join(str(choice) for choice in action.choices if choice is not None)
            raise UserError(f"{action.dest}: {value!r} is unknown; choose one of {known}")
        if action.dest.endswith("_conf") and isinstance(value, Mapping):
            refuse_numbers_as_text(value, f"{action.dest}.")


def refuse_numbers_as_text(conf: Mapping[str, Any], where: str = "") -> None:
    """Raise UserError for a string that is a number, at any depth."""
    for key, value in conf.items():
        if isinstance(value, Mapping):
            refuse_numbers_as_text(value, f"{where}{key}.")
        elif isinstance(value, str):
            try:
                number = float(value)
            except ValueError:
                continue
            raise UserError(f"{where}{key}: {value!r} is text to YAML; write it with a point and a sign, {number:.1e}")


def check_tokens(args: argparse.Namespace) -> None:
    """Raise UserError when init_param brings parts that were trained on another token list."""
    for text in args.init_param:
        init = InitParam.parse(text)
        config = Path(init.path).parent / "config.yaml"
        if not config.is_file():
            continue
        theirs = read_config(config.parent).get("token_list")
        if not isinstance(theirs, list) or theirs == args.token_list:
            continue
        bound = [name for name in init.select(read_weights(init.path)) if under(name, "decoder") or under(name, "ctc")]
        if bound:
            raise UserError(
                f"token_list: {init.path} was trained on other tokens ({len(theirs)}, here {len(args.token_list)}), "
                f"and gives {shorten(bound, 1)}; use the token list of {config.parent}, or file:encoder:encoder only"
            )


def is_begun(args: argparse.Namespace) -> bool:
    """Whether there is a training to go on with."""
    return args.resume and (Path(args.output_dir) / CHECKPOINT).exists()


def is_finished(args: argparse.Namespace) -> bool:
    """Whether this very training is already complete. Raises UserError when it was begun with other settings."""
    if not is_begun(args):
        return False
    refuse_changes(args, Path(args.output_dir))
    return (Path(args.output_dir) / FINISHED).exists()


def begin_experiment(args: argparse.Namespace) -> None:
    """Clear what a killed run left, and write down settings, initial files and the longest utterance's length.

    For the first process only.

    Raises UserError: an initial file that is missing, or changed since the training began; texts in other letters.
    """
    output_dir, begun = Path(args.output_dir), is_begun(args)
    for leftover in output_dir.glob(".*.pth.*tmp"):
        leftover.unlink()
    if not begun:
        refuse_foreign_texts(args)
        (output_dir / FINISHED).unlink(missing_ok=True)
        with atomic_write(output_dir / SETTINGS) as file:
            yaml.safe_dump(effective_settings(args), file, allow_unicode=True)
        if (seconds := longest_utterance(args)) is not None:
            record_longest(output_dir, seconds)
    for text in args.init_param:
        path = Path(InitParam.parse(text).path)
        if not path.is_file():
            raise UserError(f"init_param: {path}: no such weight file; train the step that writes it first")
        recorded = read_init_record(output_dir).get(text) if begun else None
        if recorded is not None and sha256(path) != recorded["sha256"]:
            raise UserError(f"init_param: {path} changed since {output_dir} began; give another --output_dir")
    if args.init_param:
        record_init(output_dir, args.init_param)


def refuse_foreign_texts(args: argparse.Namespace) -> None:
    """Raise UserError for transcripts that the tokens cannot write: in capitals, for tokens of small letters.

    Then a third of their tokens or more are unknown; a strange word becomes a blank and one unknown token.
    """
    if not isinstance(args.token_list, str):
        return
    tokenizer = load_tokenizer(args.token_list, args.token_type, args.bpemodel)
    for path, name, kind in (*args.train_data_path_and_name_and_type, *args.valid_data_path_and_name_and_type):
        if (name, kind) != ("text", "text"):
            continue
        ids = [token for text in islice(read_table(path).values(), LOOKED_AT) for token in tokenizer.encode(text)]
        if (unknown := ids.count(tokenizer.unk_id)) * 3 > len(ids):
            raise UserError(
                f"{path}: {unknown} of {len(ids)} tokens are not in {args.token_list}; write these texts as those "
                "that it was made of (--text_case, --punctuation of the recipe), or make it of these, too"
            )


def longest_utterance(args: argparse.Namespace) -> float | None:
    """Seconds of the longest utterance of the training; None for one on text alone, which has no utt2num_samples."""
    texts = [path for path, name, _ in args.train_data_path_and_name_and_type if name == "text"]
    lengths = Path(texts[0]).parent / "utt2num_samples" if texts else None
    shapes = [Path(path) for path in args.train_shape_file[:1] if Path(path).is_file()]
    if lengths is None or not shapes or not lengths.is_file():
        return None
    samples, trained = read_table(lengths), read_table(shapes[0])
    return max((int(samples[key]) for key in trained.keys() & samples.keys()), default=0) / SAMPLE_RATE or None


def effective_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What decides the result of a training, as YAML gives it back, with the pieces of the token list."""
    settings = yaml.safe_load(yaml_no_alias_safe_dump({**vars(args), "token_list": read_tokens(args)}))
    return {key: value for key, value in settings.items() if key not in FREE and not key.startswith(FREE_PREFIXES)}


def refuse_changes(args: argparse.Namespace, output_dir: Path) -> None:
    """Raise UserError when args differ from the settings that output_dir was begun with."""
    ours = effective_settings(args)
    theirs = yaml.safe_load((output_dir / SETTINGS).read_text(encoding="utf-8"))
    differing = [
        f"{key}: {_short(theirs.get(key))} -> {_short(ours.get(key))}"
        for key in sorted(set(ours) | set(theirs))
        if ours.get(key) != theirs.get(key)
    ]
    if differing:
        raise UserError(
            f"{output_dir}: this training was begun with other settings ({'; '.join(differing)}); "
            "restore them, give another --output_dir, or start over with --resume false"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
