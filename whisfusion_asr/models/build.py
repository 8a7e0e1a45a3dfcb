"""From a configuration (the YAML as a mapping) to the network. Parts are chosen by registered name."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from whisfusion_asr.errors import UserError
from whisfusion_asr.models.anchored_whisper import AnchoredWhisper
from whisfusion_asr.models.causal_decoder import CausalDecoder
from whisfusion_asr.models.ctc_head import CTCHead
from whisfusion_asr.models.diffusion_decoder import DiffusionDecoder
from whisfusion_asr.models.frontend import LogMel, SpecAugment
from whisfusion_asr.models.light_conformer import LightConformer
from whisfusion_asr.models.whisfusion import DumpedStates, Whisfusion
from whisfusion_asr.models.whisper_decoder import WhisperDiffusionDecoder
from whisfusion_asr.models.whisper_encoder import WhisperEncoder

FRONTENDS: dict[str, type] = {"logmel": LogMel}
SPECAUGS: dict[str, type] = {"specaug": SpecAugment}
# Encoders of feature frames take (input_size, **encoder_conf); other rooms may add theirs under a lower-case name.
ENCODERS: dict[str, type] = {"light_conformer": LightConformer, "states": DumpedStates, "whisper": WhisperEncoder}
CTCS: dict[str, type] = {"ctc_head": CTCHead, "anchored_whisper": AnchoredWhisper}
DECODERS: dict[str, type] = {
    "diffusion": DiffusionDecoder, "causal": CausalDecoder, "whisper_diffusion": WhisperDiffusionDecoder
}


def build_part(part: str, choices: Mapping[str, type], config: Mapping[str, Any], **known: Any) -> nn.Module | None:
    """Build `config[part]` with `config[part + "_conf"]`; None when the configuration names none.

    known: arguments that the other parts decide; those that the part takes are passed on, and none is a key of YAML.
    Raises UserError for an unknown name or key, with the ones that exist, and for a missing key.
    """
    name = config.get(part)
    if name is None:
        return None
    if name not in choices:
        raise UserError(f"{part}: {name!r} is unknown; choose one of {', '.join(sorted(choices))}")
    conf = config.get(f"{part}_conf") or {}
    accepted = inspect.signature(choices[name]).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values())
    own = {key: p for key, p in accepted.items() if key not in known and p.kind is not inspect.Parameter.VAR_KEYWORD}
    unknown = sorted(key for key in conf if key in known or (key not in own and not open_ended))
    if unknown:
        raise UserError(f"{part}_conf: unknown key {', '.join(unknown)} for {part}: {name}; it knows {', '.join(own)}")
    missing = [key for key, p in own.items() if p.default is inspect.Parameter.empty and key not in conf]
    if missing:
        raise UserError(f"{part}_conf: {part}: {name} needs the key {', '.join(missing)}")
    return choices[name](**{key: value for key, value in known.items() if key in accepted or open_ended}, **conf)


def build_network(config: Mapping[str, Any], vocab_size: int) -> Whisfusion:
    """Network of a configuration with the keys frontend, specaug, encoder, ctc, decoder and their `_conf`.

    A decoder that starts from published weights finds its rows in them by the pieces of `token_list`.

    vocab_size: V, number of pieces in the token list. Raises UserError for unknown names or keys.
    """
    frontend = build_part("frontend", FRONTENDS, config)
    specaug = build_part("specaug", SPECAUGS, config)
    features = getattr(frontend, "output_size", None)
    reader = ENCODERS.get(config.get("encoder"))
    if features is None and reader is not None and "input_size" in inspect.signature(reader).parameters:
        raise UserError(f"encoder: {config['encoder']} needs frontend: in the same YAML, to make the features it reads")
    encoder = build_part("encoder", ENCODERS, config, input_size=features)
    size = getattr(encoder, "output_size", None)
    if size is None and config.get("ctc") is not None:
        raise UserError("ctc: a CTC head reads encoder states; set encoder: in the same YAML")
    tokens = {"vocab_size": vocab_size, "pieces": config.get("token_list")}
    ctc = build_part("ctc", CTCS, config, input_size=size, **tokens)
    decoder = build_part("decoder", DECODERS, config, encoder_output_size=size, **tokens)
    return Whisfusion(frontend, specaug, encoder, ctc, decoder)
