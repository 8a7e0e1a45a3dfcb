"""Take a ready-made encoder into an experiment directory: check that its weights load, and write OUT/config.yaml.

The configuration is a YAML file with `encoder: whisper` and `encoder_conf` (see models/whisper_encoder.py). The
weights stay where they are; config.yaml holds their absolute path and checksum, so that states dumped with them can be
told apart.
"""

import difflib
import inspect
import json
from pathlib import Path
from typing import Any

import yaml

from whisfusion_asr.bin.arguments import command_parser
from whisfusion_asr.errors import UserError, exits_cleanly
from whisfusion_asr.files import atomic_write, sha256
from whisfusion_asr.models.whisper_encoder import WhisperEncoder, check_model_name
from whisfusion_asr.pretrained.hub import WHISPER_FILES, fetch_model

# In the order in which transformers looks for them.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Command line: --config YAML --out DIR [--whisper_dir DIR]."""
    parser = command_parser(__doc__)
    parser.add_argument("--config", required=True, type=Path, help="YAML with encoder and encoder_conf")
    parser.add_argument("--out", required=True, type=Path, help="experiment directory of the encoder")
    parser.add_argument("--whisper_dir", help="folder with the weights, instead of encoder_conf's model")
    args = parser.parse_args(argv)
    conf = read_encoder_conf(args.config)
    if args.whisper_dir:
        if not Path(args.whisper_dir).is_dir():
            raise UserError(f"--whisper_dir {args.whisper_dir}: no such folder")
        conf["model"] = args.whisper_dir
    if "model" not in conf:
        raise UserError(
            f"{args.config}: encoder_conf has no model: name a folder or a hub model, or give --whisper_dir DIR"
        )
    config = import_whisper(conf)
    with atomic_write(args.out / "config.yaml") as file:
        yaml.safe_dump(config, file, sort_keys=False)
    size = f"{config['layers']} layers, width {config['output_size']}"
    print(f"{args.out}/config.yaml: whisper, {size}, from {config['encoder_conf']['model']}")


def read_encoder_conf(path: Path) -> dict[str, Any]:
    """The `encoder_conf` of a configuration with `encoder: whisper`, its keys checked and its defaults filled in.

    raises UserError: another encoder, or a key that nothing would read
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict) or config.get("encoder") != "whisper":
        raise UserError(f"{path}: expected `encoder: whisper` (other encoders are trained, not imported)")
    _refuse_unknown(path, config, ["encoder", "encoder_conf"])
    conf = config.get("encoder_conf") or {}
    if not isinstance(conf, dict):
        raise UserError(f"{path}: encoder_conf is {conf!r}, expected keys and values")
    options = inspect.signature(WhisperEncoder).parameters
    _refuse_unknown(path, conf, list(options))
    return {name: conf.get(name, o.default) for name, o in options.items() if name in conf or o.default is not o.empty}


def import_whisper(conf: dict[str, Any]) -> dict[str, Any]:
    """Find the weights, load the encoder once to be sure of them, and describe it.

    conf: options of WhisperEncoder
    returns: encoder, encoder_conf (model: absolute path), output_size, layers, heads, mel_bins, weights (file: sha256)
    """
    check_model_name(conf["model"])
    folder = Path(conf["model"])
    if not folder.is_dir():
        remedy = "download it on another machine and give the folder with --whisper_dir DIR"
        folder = fetch_model(conf["model"], WHISPER_FILES, remedy)
    folder = folder.resolve()
    conf = conf | {"model": str(folder)}
    encoder = WhisperEncoder(**conf)
    dims = encoder.whisper.config
    return {
        "encoder": "whisper",
        "encoder_conf": conf,
        "output_size": encoder.output_size,
        "layers": dims.encoder_layers,
        "heads": dims.encoder_attention_heads,
        "mel_bins": dims.num_mel_bins,
        "weights": {file.name: sha256(file) for file in weight_files(folder)},
    }


def weight_files(folder: Path) -> list[Path]:
    """The files of a Hugging Face folder that hold the weights which transformers reads."""
    name = next((name for name in WEIGHTS if (folder / name).exists()), WEIGHTS[0])
    if not name.endswith(".json"):
        return [folder / name]
    shards = json.loads((folder / name).read_text(encoding="utf-8"))["weight_map"].values()
    return [folder / shard for shard in sorted(set(shards))]


def _refuse_unknown(path: Path, found: dict[str, Any], known: list[str]) -> None:
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
            raise UserError(f"{path}: unknown key {key}{hint}")


if __name__ == "__main__":
    main()
