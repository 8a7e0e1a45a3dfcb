"""Take a ready-made encoder into an experiment directory: check that its weights load, and write OUT/config.yaml.

The configuration is a YAML file with `encoder: whisper` and `encoder_conf` (see models/whisper_encoder.py). The
weights of a Hugging Face folder or hub model stay where they are; those of openai's .pt file and of a CTranslate2
(faster-whisper) folder are converted into OUT/whisper. config.yaml holds their absolute path and checksum, so that
states dumped with them can be told apart.
"""

import difflib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from whisfusion_asr.bin.arguments import command_parser
from whisfusion_asr.config import apply_overrides
from whisfusion_asr.errors import UserError, exits_cleanly
from whisfusion_asr.files import atomic_write, sha256
from whisfusion_asr.models.whisper_encoder import WhisperEncoder, check_model_name
from whisfusion_asr.pretrained.hub import WHISPER_FILES, fetch_model
from whisfusion_asr.pretrained.whisper import find_folder, weight_files


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Command line: --config YAML --out DIR [--whisper_dir DIR] [--encoder_conf KEY=VALUE ...]."""
    parser = command_parser(__doc__)
    parser.add_argument("--config", required=True, type=Path, help="YAML with encoder and encoder_conf")
    parser.add_argument("--out", required=True, type=Path, help="experiment directory of the encoder")
    parser.add_argument("--whisper_dir", help="folder or .pt file with the weights, not encoder_conf's model")
    parser.add_argument("--encoder_conf", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="single keys that replace those of the YAML: tail_seconds=0")
    args = parser.parse_args(argv)
    conf = read_encoder_conf(args.config, args.encoder_conf)
    if args.whisper_dir:
        if not Path(args.whisper_dir).exists():
            raise UserError(f"--whisper_dir {args.whisper_dir}: no such folder or file")
        conf["model"] = args.whisper_dir
    if "model" not in conf:
        raise UserError(
            f"{args.config}: encoder_conf has no model: name a folder or a hub model, or give --whisper_dir DIR"
        )
    config = import_whisper(conf, args.out)
    with atomic_write(args.out / "config.yaml") as file:
        yaml.safe_dump(config, file, sort_keys=False)
    size = f"{config['layers']} layers, width {config['output_size']}"
    print(f"{args.out}/config.yaml: whisper, {size}, from {config['encoder_conf']['model']}")


def read_encoder_conf(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The `encoder_conf` of a configuration with `encoder: whisper`, its keys checked and its defaults filled in.

    overrides: `key=value` words laid over it
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
    conf = apply_overrides(conf, overrides)
    options = inspect.signature(WhisperEncoder).parameters
    _refuse_unknown(path, conf, list(options))
    return {name: conf.get(name, o.default) for name, o in options.items() if name in conf or o.default is not o.empty}


def import_whisper(conf: dict[str, Any], out: Path) -> dict[str, Any]:
    """Find the weights, load the encoder once to be sure of them, and describe it.

    conf: options of WhisperEncoder; `model` in any layout of pretrained/whisper.py, or a name on the hub
    out: experiment directory; weights of a foreign layout are converted into its folder `whisper`
    returns: encoder, encoder_conf (model: absolute path), output_size, layers, heads, mel_bins, weights (file: sha256)
    """
    place = Path(conf["model"])
    if not place.exists():
        check_model_name(conf["model"])
        remedy = "download it on another machine and give the folder with --whisper_dir DIR"
        place = fetch_model(conf["model"], WHISPER_FILES, remedy)
    folder = find_folder(place, out / "whisper").resolve()
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


def _refuse_unknown(path: Path, found: dict[str, Any], known: list[str]) -> None:
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
            raise UserError(f"{path}: unknown key {key}{hint}")


if __name__ == "__main__":
    main()
