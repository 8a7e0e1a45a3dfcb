"""DiffusionASRTask: training of encoders, text models, adapters and whole Whisfusion models with ESPnet's trainer."""

import argparse
import difflib
import inspect
import logging
import multiprocessing
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.multiprocessing import ProcessExitedException

from whisfusion_asr.tasks import espnet_compat  # noqa: F401  (first: makes espnet2 importable)

# isort: split
from espnet2.tasks.abs_task import AbsTask, optim_classes, scheduler_classes
from espnet2.train.abs_espnet_model import AbsESPnetModel
from espnet2.train.class_choices import ClassChoices
from espnet2.train.collate_fn import CommonCollateFn
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import str_or_none

from whisfusion_asr.config import flat, read_yaml
from whisfusion_asr.data.languages import language_id
from whisfusion_asr.data.tokenizer import Tokenizer, load_tokenizer, special_ids
from whisfusion_asr.errors import USER_ERROR, UserError, exits_cleanly
from whisfusion_asr.models.build import build_network
from whisfusion_asr.tasks.causal_model import CausalASRModel
from whisfusion_asr.tasks.choices import (
    ctc_choices,
    decoder_choices,
    encoder_choices,
    frontend_choices,
    specaug_choices,
)
from whisfusion_asr.tasks.espnet_model import DiffusionASRModel
from whisfusion_asr.tasks.experiment import (
    begin_experiment,
    check_tokens,
    check_values,
    is_finished,
    is_first_process,
    read_tokens,
)
from whisfusion_asr.tasks.trainer import DiffusionTrainer
from whisfusion_asr.training.checkpoint import load_network_weights
from whisfusion_asr.training.ema import attach_shadow
from whisfusion_asr.training.freeze import check_patterns, hold_frozen
from whisfusion_asr.training.groups import build_optimizer, inventory

MODELS = {"diffusion_asr": DiffusionASRModel, "causal_asr": CausalASRModel}
model_choices = ClassChoices("model", MODELS, AbsESPnetModel, "diffusion_asr")


class TextToIds:
    """Preprocessor: the transcript becomes token ids, the language its token, everything else passes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, utt_id: str, data: dict[str, Any]) -> dict[str, np.ndarray]:
        """data: name -> array, and `text`, `language` -> str. Returns the arrays, text (N,) and language (1,) int64.

        Raises UserError: a language that has no token.
        """
        ids = dict(data)
        if isinstance(data.get("text"), str):
            ids["text"] = np.array(self.tokenizer.encode(data["text"]), dtype=np.int64)
        if isinstance(data.get("language"), str):
            try:
                ids["language"] = np.array([language_id(self.tokenizer.languages, data["language"])], dtype=np.int64)
            except UserError as error:
                raise UserError(f"{utt_id}: {error}") from None
        return ids


class DiffusionASRTask(AbsTask):
    """Task of ESPnet with our choices; `main(cmd=[...])` or `python -m whisfusion_asr.bin.train`."""

    num_optimizers: int = 1
    class_choices_list = [
        frontend_choices, specaug_choices, encoder_choices, ctc_choices, decoder_choices, model_choices
    ]
    trainer = DiffusionTrainer

    @classmethod
    def get_parser(cls) -> Any:
        """ESPnet's parser; a mistake raises UserError instead of printing 150 options."""
        parser = super().get_parser()

        def refuse(message: str) -> None:
            raise UserError(suggest(message, {action.dest for action in parser._actions}))

        parser.error = refuse
        return parser

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Our options, and defaults that fit this model where ESPnet's do not."""
        group = parser.add_argument_group("Task related")
        parser.get_default("required").append("token_list")
        group.add_argument("--token_list", type=str_or_none, default=None, help="tokens.txt: a piece a line, id = line")
        group.add_argument("--token_type", default="bpe", choices=["bpe", "unigram", "char"], help="unit of the text")
        group.add_argument("--bpemodel", type=str_or_none, default=None, help="sentencepiece or Whisper's token model")
        group.add_argument("--ema_decay", type=float, default=0.0, help="average of the weights over steps; 0 is off")
        group.add_argument(
            "--ema_start_share", type=float, default=0.0, help="share of the weights trained from, in those averages"
        )
        group.add_argument("--ema_start_share_of", action=NestedDictAction, default={},
                           help="part=share: another one for a part, e.g. decoder.causal_layers=0.7")
        for choices in cls.class_choices_list:
            choices.add_arguments(group)
        parser.set_defaults(
            optim="adamw",
            batch_type="numel",
            num_att_plot=0,
            best_model_criterion=[("valid", "loss", "min")],
            keep_nbest_models=[5],
        )

    @classmethod
    def main(cls, args: argparse.Namespace | None = None, cmd: Sequence[str] | None = None) -> None:
        """Train, or do nothing where the same training is already finished.

        Raises UserError for unknown keys, unusable files, a resume with changed settings, a loss that is not finite.
        """
        if args is None:
            args = cls.parse(sys.argv[1:] if cmd is None else list(cmd))
        if not args.print_config:
            absent = [name for name in args.required if getattr(args, name) is None]
            if absent:
                raise UserError(f"missing option: {', '.join(f'--{name}' for name in absent)}")
            check_values(cls.get_parser(), args)
            if is_finished(args):
                logging.warning(f"{args.output_dir}: this training is finished; nothing to do")
                return
            if is_first_process(args):
                begin_experiment(args)
        try:
            super().main(args=args)
        except ProcessExitedException as error:  # of one process a GPU; what the user did wrong it has said itself
            if error.exit_code != USER_ERROR:
                raise
            sys.exit(USER_ERROR)

    @classmethod
    def main_worker(cls, args: argparse.Namespace) -> None:
        """One process of the training. ESPnet leaves its process group to the exit, which then aborts at random."""
        spawned = multiprocessing.parent_process() is not None
        work = exits_cleanly(super().main_worker) if spawned else super().main_worker
        work(args)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    @classmethod
    def parse(cls, words: list[str]) -> argparse.Namespace:
        """Arguments of a command line; unlike in ESPnet, the YAML of `--config` may build on others (`base:`).

        Raises UserError for an unknown option or key.
        """
        parser = cls.get_parser()
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        first.add_argument("--config")
        first.error = parser.error  # type: ignore[method-assign]
        config, words = first.parse_known_args(words)
        if config.config:
            settings = read_yaml(config.config)
            known = {action.dest for action in parser._actions}
            for key in settings:
                if key not in known:
                    raise UserError(f"{config.config}: {suggest(f'unrecognized arguments: {key}', known)}")
            for choices in cls.class_choices_list:
                # The YAML's `_conf` belongs to the part that the YAML names, not to another one on the command line.
                named = words[words.index(f"--{choices.name}") + 1 :][:1] if f"--{choices.name}" in words else []
                if named not in ([], [settings.get(choices.name)]):
                    settings.pop(f"{choices.name}_conf", None)
            parser.set_defaults(**settings)
        args = parser.parse_args(words)
        args.config = config.config
        return args

    @classmethod
    def build_collate_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[[Collection[tuple[str, dict[str, np.ndarray]]]], tuple[list[str], dict[str, Tensor]]]:
        """Pads speech and states with 0, text with -1."""
        return CommonCollateFn(float_pad_value=0.0, int_pad_value=-1)

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool) -> TextToIds:
        """Text and language to ids with the tokenizer of the token list."""
        return TextToIds(load_tokenizer(args.token_list_file, token_type=args.token_type, model=args.bpemodel))

    @classmethod
    def required_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """What every batch has."""
        return ("text",)

    @classmethod
    def optional_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """What a batch may have: waveforms, or dumped states; a text model has neither. And its languages."""
        return ("speech", "states", "language")

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> AbsESPnetModel:
        """The model of a configuration; args.token_list becomes the list, so that config.yaml stands for itself."""
        if isinstance(args.token_list, str):
            args.token_list_file, args.token_list = args.token_list, read_tokens(args)
        network = build_network(vars(args), len(args.token_list))
        model_class = model_choices.get_class(args.model)
        check_keys("model_conf", args.model_conf, model_class, {"network", "vocab_size", "languages"})
        ids = special_ids(args.token_list)
        conf = {"eos_id": ids.eos, "bos_id": ids.bos, **args.model_conf}
        if ids.languages and args.model == "causal_asr":
            raise UserError("model: causal_asr writes one language: make its tokens without --languages")
        if ids.languages:
            conf["languages"] = tuple(ids.languages.values())
        return model_class(network, len(args.token_list), **conf)

    @classmethod
    def build_optimizers(cls, args: argparse.Namespace, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Optimiser over parameter groups. ESPnet has just set requires_grad, so frozen parts are also settled here."""
        check_patterns(model, args.freeze_param)
        check_tokens(args)
        hold_frozen(model)
        if args.scheduler is not None:
            check_keys("scheduler_conf", args.scheduler_conf, scheduler_classes[args.scheduler], {"optimizer"})
        optimizer = build_optimizer(optim_classes[args.optim], args.optim_conf, model)
        for key in ("ema_start_share", "ema_start_share_of"):
            if getattr(args, key) and not args.ema_decay:
                raise UserError(f"{key}: {getattr(args, key)} needs averaged weights; set ema_decay, as 0.998")
        if args.ema_decay:
            attach_shadow(model, optimizer, args.ema_decay, args.ema_start_share, flat(args.ema_start_share_of))
        for part, trainable, frozen in inventory(model):
            logging.info(f"{part}: {trainable:,} trainable, {frozen:,} frozen parameters")
        return [optimizer]

    @classmethod
    def build_dataset(cls, args: argparse.Namespace, iter_options: Any, keys_to_load: Any = None) -> Any:
        """ESPnet's dataset. Raises UserError when a data file lacks an utterance of the shape file."""
        dataset = super().build_dataset(args, iter_options, keys_to_load)
        for name, loader in dataset.loader_dict.items():
            missing = sorted(key for key in keys_to_load or () if key not in loader)
            if missing:
                raise UserError(
                    f"{dataset.debug_info[name][0]}: {len(missing)} utterances of {iter_options.shape_files[0]} are "
                    f"not in it (first: {missing[0]}); make the two from the same data directory"
                )
        return dataset

    @classmethod
    def build_model_from_file(
        cls, config_file: str | Path | None = None, model_file: str | Path | None = None, device: str = "cpu"
    ) -> tuple[AbsESPnetModel, argparse.Namespace]:
        """A trained model with all its parts, those of init_param included (ESPnet's own reads `model_file` only)."""
        if config_file is None and model_file is None:
            raise UserError("build_model_from_file needs a config_file or a model_file")
        exp_dir = Path(config_file or model_file).parent
        with open(config_file or exp_dir / "config.yaml", encoding="utf-8") as file:
            args = argparse.Namespace(**yaml.safe_load(file))
        model = cls.build_model(args)
        if model_file is not None:
            load_network_weights(model, exp_dir, Path(model_file).absolute())
        return model.to(device), args


def check_keys(where: str, conf: Mapping[str, Any], target: type, known: set[str]) -> None:
    """Raise UserError for a key of `conf` that the constructor of `target` does not take."""
    accepted = inspect.signature(target).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in accepted.values()):
        return
    unknown = sorted(set(conf) - set(accepted))
    if unknown:
        options = ", ".join(name for name in accepted if name not in known) or "no keys"
        raise UserError(f"{where}: unknown key {', '.join(unknown)} for {target.__name__}; it knows {options}")


def suggest(message: str, options: set[str]) -> str:
    """A parser's message with the nearest option for each unknown one."""
    if not message.startswith("unrecognized arguments: "):
        return message
    words = message.removeprefix("unrecognized arguments: ").split()
    near = [match for word in words for match in difflib.get_close_matches(word.lstrip("-"), options, 1)]
    return message + (f"; did you mean {', '.join(near)}?" if near else "")
