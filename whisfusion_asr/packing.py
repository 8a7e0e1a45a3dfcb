"""From an experiment to a packed model: its weights, tokens, settings and card, without a path of this machine."""

import filecmp
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from whisfusion_asr import __version__
from whisfusion_asr.api import Drafter, load_encoder, load_network, load_tokens, text_form
from whisfusion_asr.api.silence import FILE as SILENCE
from whisfusion_asr.data.tokenizer import WHISPER_EOS, write_tokens
from whisfusion_asr.decoding.settings import DecodingSettings, usual_conf
from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write
from whisfusion_asr.models.anchored_whisper import AnchoredWhisper
from whisfusion_asr.models.build import build_network
from whisfusion_asr.models.whisfusion import DumpedStates, Whisfusion
from whisfusion_asr.models.whisper_decoder import WhisperDiffusionDecoder
from whisfusion_asr.models.whisper_encoder import WhisperEncoder
from whisfusion_asr.pretrained.hub import WHISPER_FILES, find_model
from whisfusion_asr.pretrained.pack import DECODING, DRAFTER, ENCODER, write_pack
from whisfusion_asr.pretrained.weight_files import write_safetensors
from whisfusion_asr.pretrained.whisper import NAMING_FILES, copy_decoder, copy_encoder
from whisfusion_asr.report.model_card import Packed, model_card
from whisfusion_asr.training.checkpoint import PACKED_WEIGHTS, WEIGHTS, read_config
from whisfusion_asr.training.freeze import ready_made
from whisfusion_asr.training.longest import LONGEST

SPEECH_PARTS = ("frontend", "specaug", "encoder")  # what makes the states
PARTS = (*SPEECH_PARTS, "ctc", "decoder", "model")
TEXT_KEYS = ("token_type", "text_case", "punctuation")
LIBRARIES = ("torch", "numpy", "sentencepiece", "safetensors", "transformers")
WHISPER, WHISPER_DECODER, CARD = "whisper", "whisper_decoder", "README.md"


def pack_experiment(exp_dir: str | Path, out: str | Path, settings: DecodingSettings | None, model_file: str = WEIGHTS,
                    encoder_dir: str | Path | None = None, license: str = "", draft_dir: str | Path | None = None,
                    draft_model: str = WEIGHTS) -> None:
    """Write an experiment, the encoder that made its states and the CTC head that drafts for it, as one tar.

    settings: of the decoding that Speech2Text.from_pretrained takes by default, None for what is usual for the model
    license: line of the card
    draft_dir, draft_model: experiment of the CTC head, where it is not the model's own, and its weights
    raises UserError: an experiment without its weights, one on dumped states without encoder_dir, a decoding that needs
        a draft without draft_dir, one of these that does not fit
    """
    exp_dir, out = Path(exp_dir), Path(out)
    network, config = load_network(exp_dir, model_file)
    settings = settings or DecodingSettings.of(usual_conf(config, draft_dir is not None))
    encoder = None if encoder_dir is None else load_encoder(encoder_dir)
    _check_encoder(exp_dir, network, encoder_dir, encoder)
    drafter = None
    if draft_dir is not None:
        drafter = Drafter.load(draft_dir, draft_model, "cpu", network.encoder.output_size)
    elif settings.sampler == "gaps" and settings.engine.draft and network.ctc is None:
        raise UserError(f"{exp_dir} has no CTC head for engine_conf.draft: name what drafts with --draft_dir DIR")
    folder = out.with_name(f".{out.name}.parts")  # one name, so that what a killed run left does not pile up
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        tokens = _write_tokens(exp_dir, config, folder)
        own = _write_network(network, config, PARTS, folder)
        if drafter is not None:
            _write_drafter(drafter, Path(draft_dir), folder / DRAFTER)
        _write_yaml(folder / "config.yaml", own | tokens)
        if encoder is not None:
            parts = _write_network(encoder, read_config(encoder_dir), SPEECH_PARTS, folder / ENCODER)
            _write_yaml(folder / ENCODER / "config.yaml", parts | {"token_list": []})  # without head it has no tokens
        _write_yaml(folder / DECODING, settings.as_conf())
        for name in (SILENCE, LONGEST):
            if (exp_dir / name).is_file():
                shutil.copyfile(exp_dir / name, folder / name)
        packed = Packed(license, _parameters(network, encoder, drafter), _describe_tokens(config, tokens),
                        _describe_states(network if encoder is None else encoder),
                        None if encoder_dir is None else Path(encoder_dir), settings.as_conf())
        with atomic_write(folder / CARD) as file:
            file.write(model_card(exp_dir, packed))
        write_pack(folder, out, {"name": exp_dir.resolve().name, "versions": _versions()})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_encoder(exp_dir: Path, network: Whisfusion, encoder_dir: str | Path | None,
                   encoder: Whisfusion | None) -> None:
    if network.encoder is None:
        raise UserError(f"{exp_dir}/config.yaml: names no encoder: it cannot transcribe audio; pack a speech model")
    dumped = isinstance(network.encoder, DumpedStates)
    if encoder is None and dumped:
        raise UserError(f"{exp_dir} was trained on dumped states: name what made them with --encoder_dir DIR")
    if encoder is not None and not dumped:
        raise UserError(f"--encoder_dir {encoder_dir}: {exp_dir} has its own encoder; leave the option out")
    if encoder is not None and encoder.encoder.output_size != network.encoder.output_size:
        raise UserError(f"--encoder_dir {encoder_dir}: makes states of width {encoder.encoder.output_size}, {exp_dir} "
                        f"reads states of width {network.encoder.output_size}: give the encoder it was trained with")


def _write_tokens(exp_dir: Path, config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write the token folder. Returns the keys of config.yaml that tell of tokens."""
    model = config.get("bpemodel")
    tokenizer, form = load_tokens(config, f"{exp_dir}/config.yaml"), text_form(config)
    write_tokens(folder / "tokens", tokenizer)
    keys = {"token_type": config.get("token_type"), "text_case": form.text_case, "punctuation": form.punctuation}
    if model:
        shutil.copyfile(model, folder / "tokens" / "tokens.model")
        keys["bpemodel"] = "tokens/tokens.model"
    return keys | {"token_list": tokenizer.pieces}


def _write_network(network: Whisfusion, config: Mapping[str, Any], parts: tuple[str, ...],
                   folder: Path) -> dict[str, Any]:
    """Write the weights of some parts. Returns their keys of config.yaml, no path outside of the folder in them."""
    brought = _unchanged(network, config)
    chosen = {name: tensor.clone() for name, tensor in network.state_dict().items()
              if name not in brought and name.split(".")[0] in parts}
    if chosen:  # Whisper's encoder alone is all in its own folder
        write_safetensors(folder / PACKED_WEIGHTS, chosen)
    keys = {key: config[key] for part in parts for key in (part, f"{part}_conf") if config.get(key)}
    if isinstance(network.encoder, WhisperEncoder) and "encoder" in parts:
        place = find_model(keys["encoder_conf"]["model"], WHISPER_FILES, "encoder_conf.model")
        copy_encoder(place, folder / WHISPER)
        keys["encoder_conf"] = keys["encoder_conf"] | {"model": WHISPER}
    for part in [part for part in _made_of_whisper(network) if part in parts]:
        place = find_model(keys[f"{part}_conf"]["model"], WHISPER_FILES + NAMING_FILES, f"{part}_conf.model")
        copy_decoder(place, folder / WHISPER_DECODER)
        keys[f"{part}_conf"] = keys[f"{part}_conf"] | {"model": WHISPER_DECODER}
    return keys


def _made_of_whisper(network: Whisfusion) -> list[str]:
    """The parts that start from the decoder of a Whisper folder."""
    kinds = {"ctc": AnchoredWhisper, "decoder": WhisperDiffusionDecoder}
    return [part for part, kind in kinds.items() if isinstance(getattr(network, part), kind)]


def _unchanged(network: Whisfusion, config: Mapping[str, Any]) -> set[str]:
    """Names of the tensors that came with a Whisper folder and are as they are there."""
    brought = ready_made(network)
    if not _made_of_whisper(network):
        return brought
    fresh, now = build_network(config, len(config["token_list"])).state_dict(), network.state_dict()
    return {name for name in brought if name not in now or torch.equal(now[name].cpu(), fresh[name])}


def _write_drafter(drafter: Drafter, exp_dir: Path, folder: Path) -> None:
    """Write the CTC head and its tokens as an experiment on states."""
    config = read_config(exp_dir)
    tokens = _write_tokens(exp_dir, config, folder)
    head = _write_network(drafter.network, config, ("ctc",), folder)
    own, shared = folder / WHISPER_DECODER, folder.parent / WHISPER_DECODER
    if own.is_dir() and shared.is_dir() and not filecmp.dircmp(own, shared).diff_files:
        shutil.rmtree(own)
        head["ctc_conf"]["model"] = f"../{WHISPER_DECODER}"
    states = {"encoder": "states", "encoder_conf": {"size": drafter.network.encoder.output_size}}
    _write_yaml(folder / "config.yaml", head | states | tokens)


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as file:
        yaml.safe_dump(dict(content), file, sort_keys=False, allow_unicode=True)


def _parameters(network: Whisfusion, encoder: Whisfusion | None, drafter: Drafter | None) -> dict[str, int]:
    """Number of parameters by part, the encoder's from where it is."""
    parts = {"encoder": (encoder or network).encoder, "ctc": network.ctc, "decoder": network.decoder,
             "ctc (drafter)": None if drafter is None else drafter.network.ctc}
    return {name: _count(part) for name, part in parts.items() if part is not None}


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _describe_tokens(config: Mapping[str, Any], tokens: Mapping[str, Any]) -> str:
    kind = "sentencepiece" if config.get("bpemodel") else "character"
    kind = "Whisper's" if tokens["token_list"][0] == WHISPER_EOS else kind
    form = [f"{key} {tokens[key]}" for key in ("text_case", "punctuation")]
    return f"{len(tokens['token_list'])} {kind} tokens, {', '.join(form)}"


def _describe_states(network: Whisfusion) -> str:
    encoder = network.encoder
    if isinstance(encoder, WhisperEncoder):
        dims = encoder.whisper.config
        return f"Whisper's encoder, {dims.encoder_layers} layers of width {encoder.output_size}"
    return f"{type(encoder).__name__} of width {encoder.output_size}"


def _versions() -> dict[str, str]:
    found = {"whisfusion_asr": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
