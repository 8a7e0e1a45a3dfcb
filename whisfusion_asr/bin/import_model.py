"""Make an experiment directory of public weights: what it holds follows from the files given.

    whisfusion import --smdm F --whisper DIR --stage2 F --out exp/whisfusion     a model to decode and to train on
    whisfusion import --smdm F --out exp/smdm                                    the text model that stage 1 starts from
    whisfusion import --tokenizer F --out data/token_list/llama                  the token folder alone

A file is a path, or OWNER/MODEL:PATH for a file of a model on the Hugging Face hub; --whisper takes a folder or .pt
file in any of Whisper's layouts or a hub name, --tokenizer a file, a folder or a hub name.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
import yaml

from whisfusion_asr.bin.arguments import command_parser
from whisfusion_asr.bin.import_encoder import import_whisper
from whisfusion_asr.data.llama_tokens import import_llama
from whisfusion_asr.data.text_form import CASES, PUNCTUATION, TextForm
from whisfusion_asr.data.tokenizer import Tokenizer
from whisfusion_asr.errors import UserError, exits_cleanly
from whisfusion_asr.files import atomic_write, sha256
from whisfusion_asr.models.build import build_network
from whisfusion_asr.pretrained.hub import TOKENIZER_FILES, find_file, find_model
from whisfusion_asr.pretrained.keys import check_shapes
from whisfusion_asr.pretrained.released import (
    ADAPTER,
    HEAD_SIZE,
    TEXT,
    WHOLE,
    Released,
    check_kind,
    merge_released,
    read_released,
    to_ours,
)
from whisfusion_asr.recipe.commands import LLAMA

WEIGHTS = "valid.loss.ave.pth"  # the name under which a training leaves its result
ACCEPTED = {"smdm": (TEXT,), "stage1": (ADAPTER, WHOLE), "stage2": (WHOLE,)}


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Read the files, check them against each other, write OUT; config.yaml comes last."""
    args = arguments().parse_args(argv)
    files = {name: find_file(getattr(args, name)) for name in ACCEPTED if getattr(args, name)}
    if not files:
        if not args.tokenizer:
            raise UserError("nothing to import: give --smdm, --stage2 (with --stage1), or --tokenizer")
        tokenizer = read_tokens(args, args.out)
        print(f"{args.out}: {tokenizer.vocab_size} tokens, end {tokenizer.eos_id}, first {tokenizer.bos_id}, "
              f"mask {tokenizer.mask_id}, text_case {tokenizer.form.text_case}")  # fmt: skip
        return
    parts = {name: read_released(path, args.weights == "averaged") for name, path in files.items()}
    for name, part in parts.items():
        check_kind(files[name], f"--{name}", part, ACCEPTED[name])
    released = merge_released(*(parts.get(name) for name in ACCEPTED))
    if released.kind == ADAPTER:
        raise UserError(f"--stage1 {files['stage1']}: the adapter alone; give its text network with --smdm")
    import_network(args, released, {name: str(path.resolve()) for name, path in files.items()})
    for name, part in parts.items():
        told = [part.kind, f"{len(part.tensors)} tensors", part.dtypes, part.averaged]
        print(f"{name}: {', '.join(filter(None, told))}")
    count, sizes = sum(tensor.numel() for tensor in released.tensors.values()), released.sizes
    print(f"{args.out}: {released.kind}, {sizes.blocks} blocks of {sizes.width}, {count:,} parameters")


def arguments() -> Any:
    """The command's options."""
    parser = command_parser(__doc__)
    parser.prog = "whisfusion import"  # a module cannot have that name
    parser.add_argument("--smdm", help="SMDM's safetensors: the text network")
    parser.add_argument("--stage1", help="adapter of the paper's stage 1, or a checkpoint of its training")
    parser.add_argument("--stage2", help="network of the paper's stage 2, or a checkpoint of its training")
    parser.add_argument("--whisper", help="Whisper's encoder, for a network with an adapter")
    parser.add_argument("--context", default="padded", help="encoder_conf.context: padded, as published, or trimmed")
    parser.add_argument("--keep", default="padded", help="encoder_conf.keep: padded, as published, or true_length")
    parser.add_argument("--tokenizer", help=f"Llama's tokenizer.model; default with weights: {LLAMA}")
    parser.add_argument("--text_case", choices=CASES, help="case of transcripts; default: upper with an adapter")
    parser.add_argument("--punctuation", choices=PUNCTUATION, default="keep", help="punctuation of transcripts")
    parser.add_argument("--canvas", type=int, default=256, help="slots of the canvas, 256 as published")
    parser.add_argument("--weights", choices=("averaged", "raw"), default="averaged", help="of a checkpoint with both")
    parser.add_argument("--out", required=True, type=Path, help="directory to write")
    return parser


def read_tokens(args: Namespace, out: Path, text_case: str = "keep") -> Tokenizer:
    """Write the token folder. text_case: where the command line says nothing."""
    form = TextForm(args.text_case or text_case, args.punctuation)
    return import_llama(find_model(args.tokenizer or LLAMA, TOKENIZER_FILES, "--tokenizer"), out, form)


def import_network(args: Namespace, released: Released, sources: dict[str, str]) -> None:
    """Write OUT/config.yaml, weights and token folder, after comparing every tensor with the network they are for.

    raises UserError: a tokenizer or encoder that does not fit the network
    """
    out: Path = args.out
    hears = released.kind == WHOLE
    if hears and not args.whisper:
        raise UserError("--whisper: not given; a network with an adapter needs the encoder it was trained on")
    encoder: dict[str, Any] = {}
    if hears:
        encoder = import_whisper({"model": args.whisper, "context": args.context, "keep": args.keep}, out)
        if encoder["output_size"] != released.sizes.states:
            raise UserError(
                f"--whisper {args.whisper}: its states are {encoder['output_size']} wide, the adapter reads states of "
                f"{released.sizes.states}: give the Whisper it was trained on"
            )
    tokenizer = read_tokens(args, out / "tokens", "upper" if hears else "keep")
    if tokenizer.vocab_size != released.sizes.vocab:
        raise UserError(
            f"--tokenizer {args.tokenizer or LLAMA}: {tokenizer.vocab_size} pieces, the network predicts "
            f"{released.sizes.vocab}: give the model it was trained with"
        )
    config = network_config(released, tokenizer, encoder, args.canvas)
    weights = {f"decoder.{name}": tensor for name, tensor in to_ours(released.tensors).items()}
    check_weights(config, released, weights)
    with atomic_write(out / WEIGHTS, "wb") as file:
        torch.save(weights, file)
    record = {"imported": {name: {"path": path, "sha256": sha256(path)} for name, path in sources.items()}}
    place = {"bpemodel": str((out / "tokens" / "tokens.model").resolve())}
    with atomic_write(out / "config.yaml") as file:
        yaml.safe_dump(config | place | record, file, sort_keys=False, allow_unicode=True)


def network_config(released: Released, tokenizer: Tokenizer, encoder: dict[str, Any], canvas: int) -> dict[str, Any]:
    """The experiment's configuration, as a training of the same network would have written it."""
    sizes = released.sizes
    decoder = {"size": sizes.width, "num_blocks": sizes.blocks, "attention_heads": sizes.width // HEAD_SIZE,
               "ffn_size": sizes.ffn, "ruler": "none", "adapter_out_std": None, "prefix": 1}  # fmt: skip
    return {
        "model": "diffusion_asr",
        "model_conf": {"bos_id": tokenizer.bos_id, "canvas_conf": {"fit": "fixed", "length": canvas}},
        **{key: encoder[key] for key in ("encoder", "encoder_conf") if encoder},
        "decoder": "diffusion",
        "decoder_conf": decoder,
        "init_param": [],
        "token_type": "bpe",
        "text_case": tokenizer.form.text_case,
        "punctuation": tokenizer.form.punctuation,
        "token_list": tokenizer.pieces,
    }


def check_weights(config: dict[str, Any], released: Released, weights: dict[str, torch.Tensor]) -> None:
    """Raise UserError unless the weights are exactly those of the decoder that the configuration builds."""
    states = {"encoder": "states", "encoder_conf": {"size": released.sizes.states}} if "encoder" in config else {}
    decoder = {key: config[key] for key in ("decoder", "decoder_conf")}
    with torch.device("meta"):
        network = build_network(states | decoder, released.sizes.vocab)
    check_shapes("imported weights", {name: tuple(t.shape) for name, t in network.state_dict().items()}, weights)


if __name__ == "__main__":
    main()
