"""From an experiment directory to its network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whisfusion_asr.data.text_form import TextForm, read_form
from whisfusion_asr.data.tokenizer import Tokenizer, make_tokenizer
from whisfusion_asr.diffusion.canvas import CanvasSpec
from whisfusion_asr.errors import UserError
from whisfusion_asr.models.build import ENCODERS, build_network
from whisfusion_asr.models.whisfusion import Whisfusion
from whisfusion_asr.training.checkpoint import load_network_weights, read_config


def load_network(exp_dir: str | Path, model_file: str, device: str = "cpu") -> tuple[Whisfusion, dict[str, Any]]:
    """Build the network of an experiment and load its weights (its own and those it was initialised from).

    Returns the network in eval mode, and the experiment's configuration. Raises UserError for a part that is unknown.
    """
    config = read_config(exp_dir)
    _know_encoder(config.get("encoder"), exp_dir)
    network = build_network(config, len(config["token_list"]))
    load_network_weights(network, exp_dir, model_file)
    return network.to(device).eval(), config


def _know_encoder(name: str | None, exp_dir: str | Path) -> None:
    """Register ESPnet's encoders where none of ours has the name. Raises UserError where ESPnet is not installed."""
    if name is None or name in ENCODERS:
        return
    try:
        import whisfusion_asr.tasks.choices  # noqa: F401  (late: espnet2 takes seconds, and may be missing)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "espnet2":
            raise
        raise UserError(f"{exp_dir}/config.yaml: encoder: {name} is none of {', '.join(sorted(ENCODERS))}; for one of "
                        "ESPnet's install it: pip install whisfusion-asr[espnet]") from error


def text_form(config: Mapping[str, Any]) -> TextForm:
    """How an experiment's texts are written: as its configuration says, or its token folder."""
    listed = config.get("bpemodel") or config.get("token_list_file")
    recorded = read_form(Path(listed).parent) if listed else TextForm()
    return TextForm(config.get("text_case") or recorded.text_case, config.get("punctuation") or recorded.punctuation)


def load_tokens(config: Mapping[str, Any], source: str) -> Tokenizer:
    """The tokenizer of an experiment's configuration, which comes from `source`."""
    return make_tokenizer(config["token_list"], config.get("bpemodel"), source, text_form(config))


def load_encoder(encoder_dir: str | Path, device: str = "cpu", model_file: str = "valid.loss.ave.pth") -> Whisfusion:
    """What makes the states: an encoder trained here, or an imported Whisper (its config.yaml names its weights)."""
    config = read_config(encoder_dir)
    if config.get("encoder") == "whisper":
        return build_network({key: config.get(key) for key in ("encoder", "encoder_conf")}, 1).to(device).eval()
    return load_network(encoder_dir, model_file, device)[0]


def canvas_spec(config: Mapping[str, Any], tokenizer: Tokenizer) -> CanvasSpec:
    """The ids of an experiment's canvases. A causal decoder has a start symbol of its own in the place of bos."""
    model_conf = config.get("model_conf") or {}
    if config.get("decoder") == "causal":
        return CanvasSpec(tokenizer.vocab_size, tokenizer.eos_id)
    bos_id = model_conf.get("bos_id", tokenizer.bos_id)
    return CanvasSpec(tokenizer.vocab_size, tokenizer.eos_id, bos_id, tuple(tokenizer.languages.values()))
