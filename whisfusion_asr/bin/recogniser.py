"""A recogniser by command line: which model, how it decodes, where it computes."""

from argparse import ArgumentParser, Namespace
from typing import Any

from whisfusion_asr.api import Speech2Text
from whisfusion_asr.bin.arguments import (
    add_draft_options,
    add_encoder_option,
    add_model_options,
    add_running_options,
    running_options,
)
from whisfusion_asr.config import read_yaml


def add_recogniser_options(parser: ArgumentParser) -> None:
    """The options that `open_recogniser` reads."""
    add_model_options(parser)
    parser.add_argument("--model_file", default="valid.loss.ave.pth", help="weights inside exp_dir")
    add_draft_options(parser)
    add_encoder_option(parser)
    parser.add_argument("--config", help="decoding YAML; default: the packed one, or the usual one for the model")
    parser.add_argument("--lang", help="language to write, for a model of several")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    add_running_options(parser)


def open_recogniser(args: Namespace) -> Speech2Text:
    """The model that the command line names. Raises UserError as Speech2Text does."""
    given: dict[str, Any] = {"lang": args.lang, "running": running_options(args)}
    if args.config:
        given["inference"] = read_yaml(args.config)
    if args.encoder_dir:
        given["encoder_dir"] = args.encoder_dir
    if args.draft_dir:
        given |= {"draft_dir": args.draft_dir, "draft_model": args.draft_model}
    if args.model:
        return Speech2Text.from_pretrained(args.model, args.device, **given)
    return Speech2Text(args.exp_dir, args.model_file, device=args.device, **given)
