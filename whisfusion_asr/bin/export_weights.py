"""Write the weights of an experiment in a public layout: its decoder as released, or the Whisper of its encoder.

    whisfusion export_weights --exp_dir exp/whisfusion --out whisfusion_stage2_decoder.pt
    whisfusion export_weights --exp_dir exp/encoder --layout ctranslate2 --storage int8 --out whisper-ct2

Without --layout it is the decoder in the layout of the released Whisfusion and SMDM weights. A name that ends in
.safetensors gives that format, any other torch's. An experiment with adapters gives the whole network (201 tensors at
the published size), `--part adapter` its adapters alone (72), a text model 129.

With --layout it is the Whisper that `encoder: whisper` names in config.yaml, as import_encoder wrote it: a folder for
transformers (hugging_face), a .pt file for openai's package (openai), a folder for CTranslate2 and faster-whisper
(ctranslate2). If that Whisper is complete the result is too, and its own program loads it; an encoder alone is for
`import_encoder --whisper_dir`, which reads all three to the last bit (int8: to half a step).
"""

from pathlib import Path

import torch
from torch import Tensor

from whisfusion_asr.bin.arguments import command_parser
from whisfusion_asr.errors import UserError, exits_cleanly
from whisfusion_asr.files import atomic_write
from whisfusion_asr.pretrained.hub import WHISPER_FILES, find_model
from whisfusion_asr.pretrained.released import HEAD_SIZE, to_released
from whisfusion_asr.pretrained.weight_files import write_safetensors
from whisfusion_asr.pretrained.whisper_export import BESIDE, LAYOUTS, STORAGES, export_whisper
from whisfusion_asr.training.checkpoint import InitParam, find_init_file, read_config, read_weights

WHOLE, ADAPTER = "whole", "adapter"
RELEASED = "released"


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Write the decoder or the encoder's Whisper, by --layout."""
    parser = command_parser(__doc__)
    parser.add_argument("--exp_dir", required=True, type=Path, help="experiment with config.yaml")
    parser.add_argument("--layout", choices=(RELEASED, *LAYOUTS), default=RELEASED, help="see above")
    parser.add_argument("--model_file", default="valid.loss.ave.pth", help="released: weights inside exp_dir")
    parser.add_argument("--part", choices=(WHOLE, ADAPTER), default=WHOLE, help="released: what to write")
    parser.add_argument("--storage", choices=STORAGES, help="Whisper's layouts: type of the weights; default: as they "
                        "are; int8: 8-bit integers with a scale per row, ctranslate2 only")
    parser.add_argument("--out", required=True, type=Path, help="file to write; a folder: hugging_face, ctranslate2")
    args = parser.parse_args(argv)
    if args.layout == RELEASED and args.storage:
        raise UserError(f"--storage {args.storage}: only Whisper's layouts have it; give --layout {'|'.join(LAYOUTS)}")
    if args.layout != RELEASED and args.part != WHOLE:
        raise UserError(f"--part {args.part}: --layout {args.layout} writes a Whisper, which has none; leave it out")
    if args.layout == RELEASED:
        write_decoder(args.exp_dir, args.model_file, args.part, args.out)
    else:
        write_whisper(args.exp_dir, args.layout, args.storage, args.out)


def write_decoder(exp_dir: Path, model_file: str, part: str, out: Path) -> None:
    """Gather the weights of an experiment and of what it was built on, rename and write them."""
    released = to_released(decoder_weights(exp_dir, model_file))
    if part == ADAPTER:
        released = {name: tensor for name, tensor in released.items() if "cross" in name}
    if not released:
        raise UserError(f"{exp_dir}: has no adapter; leave --part out for its text network")
    if out.suffix == ".safetensors":
        write_safetensors(out, released)
    else:
        with atomic_write(out, "wb") as file:
            torch.save(released, file)
    print(f"{out}: {len(released)} tensors, {sum(tensor.numel() for tensor in released.values()):,} parameters")


def write_whisper(exp_dir: Path, layout: str, storage: str | None, out: Path) -> None:
    """Write the Whisper that an experiment's encoder is of. Raises UserError: another encoder than Whisper's."""
    config = read_config(exp_dir)
    if config.get("decoder") == "whisper_diffusion":
        raise UserError(f"{exp_dir}/config.yaml: decoder: whisper_diffusion fills in masks among tokens of its own, "
                        f"which is no Whisper in --layout {layout}; `whisfusion pack` hands it on")  # fmt: skip
    if config.get("encoder") != "whisper":
        raise UserError(f"{exp_dir}/config.yaml: has encoder: {config.get('encoder')}, --layout {layout} is for "
                        "encoder: whisper; give the directory that import_encoder wrote")  # fmt: skip
    folder = find_model(config["encoder_conf"]["model"], (*WHISPER_FILES, *BESIDE), "encoder_conf.model")
    model = export_whisper(folder, layout, out, storage)
    tensors = [tensor for part in model.tensors.values() for tensor in part.values()]
    size = f"{len(tensors)} tensors, {sum(tensor.numel() for tensor in tensors):,} parameters"
    print(f"{out}: {'complete Whisper' if model.decoder else 'the encoder alone'}, {size}")


def decoder_weights(exp_dir: Path, model_file: str) -> dict[str, Tensor]:
    """Weights of an experiment's decoder, those of its init_param files included, without the prefix `decoder.`.

    raises UserError: a missing or changed file, no diffusion decoder, heads of another width than the released ones
    """
    config = read_config(exp_dir)
    conf = config.get("decoder_conf") or {}
    if config.get("decoder") != "diffusion" or conf.get("size", 1) != HEAD_SIZE * conf.get("attention_heads", 1):
        raise UserError(f"{exp_dir}/config.yaml: only decoder: diffusion with heads of {HEAD_SIZE} has a released "
                        f"form; a Whisper is written with --layout {'|'.join(LAYOUTS)}")  # fmt: skip
    weights: dict[str, Tensor] = {}
    for text in config.get("init_param") or []:
        weights |= InitParam.parse(text).select(read_weights(find_init_file(exp_dir, config, text)))
    weights |= read_weights(exp_dir / model_file)
    return {name.removeprefix("decoder."): t for name, t in weights.items() if name.startswith("decoder.")}


if __name__ == "__main__":
    main()
