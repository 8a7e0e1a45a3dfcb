"""Whisper's encoder from its public layouts, as a folder in Hugging Face's layout.

Layouts: Hugging Face folder (one file or shards; names under `model.encoder.`, `encoder.` or bare), openai `.pt` file,
CTranslate2 / faster-whisper folder. Sizes come from the weights, tiny to large-v3 and turbo.
"""

import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write
from whisfusion_asr.pretrained.ctranslate2 import ModelBin
from whisfusion_asr.pretrained.keys import check_shapes
from whisfusion_asr.pretrained.weight_files import AGAIN, read_content, write_safetensors
from whisfusion_asr.pretrained.whisper_names import DecoderSizes, EncoderSizes, ctranslate2_names, openai_names

# In the order in which transformers looks for them.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
EMBEDDINGS = "decoder/embeddings/weight"
NAMING_FILES = ("config.json", "generation_config.json", "tokenizer.json")
READ_IN_PLACE = ("model.encoder.", "encoder.")
Sizes = TypeVar("Sizes", EncoderSizes, DecoderSizes)


def find_folder(place: str | Path, out: str | Path) -> Path:
    """The folder in Hugging Face's layout for weights in any layout; a foreign layout is converted.

    place: folder or `.pt` file; out: folder for the converted weights, written only then
    raises UserError: none of the layouts, tensors that are missing, too many or of another shape, other positions
        than Whisper's sinusoids
    """
    place, out = Path(place), Path(out)
    prefix, sizes, tensors = _read(place)
    check_shapes(str(place), sizes.shapes(), tensors)
    positions = tensors["embed_positions.weight"].double()
    difference = float((positions - sinusoids(*positions.shape)).abs().max())
    fault = f"{place}: its positions differ from Whisper's sinusoids by up to {difference:.2g}"
    wrong = difference > 5e-3  # bfloat16 rounds by 2e-3, float16 by 2.4e-4
    if prefix in READ_IN_PLACE:  # named in full there: a fine-tuned model may well have moved them
        if wrong:
            logging.warning(fault)
        return place
    if wrong:
        raise UserError(f"{fault}: not a Whisper encoder, or tensors under wrong names")
    write_encoder(out, sizes, tensors)
    return out


def copy_encoder(folder: str | Path, out: str | Path) -> None:
    """Write the encoder of a Whisper folder, and nothing else of it, as a folder in Hugging Face's layout."""
    _, sizes, tensors = _read(Path(folder))
    write_encoder(Path(out), sizes, tensors)


def copy_decoder(folder: str | Path, out: str | Path) -> None:
    """Write the decoder of a Whisper folder and the files that name its tokens, as a folder in Hugging Face's layout.

    raises UserError: not a complete folder
    """
    folder, out = Path(folder), Path(out)
    tensors = decoder_part(read_stored(folder))
    write_safetensors(out / "model.safetensors", {f"model.decoder.{name}": value for name, value in tensors.items()})
    for name in NAMING_FILES:
        if not (folder / name).is_file():
            raise UserError(f"{folder}/{name}: no such file; a complete Whisper folder in Hugging Face's layout has it")
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        alone = {"encoder_layers": 0} if name == "config.json" else {}
        with atomic_write(out / name) as file:
            json.dump(content | alone, file, ensure_ascii=False)


def sinusoids(length: int, width: int) -> Tensor:
    """Whisper's positions: sines, then cosines. Returns (length, width) float64."""
    half = width // 2
    rates = torch.exp(-math.log(10000) / (half - 1) * torch.arange(half, dtype=torch.float64))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), 1)


def weight_files(folder: Path) -> list[Path]:
    """The files of a Hugging Face folder that hold the weights which transformers reads."""
    name = next((name for name in WEIGHTS if (folder / name).exists()), WEIGHTS[0])
    if not name.endswith(".json"):
        return [folder / name]
    shards = json.loads((folder / name).read_text(encoding="utf-8"))["weight_map"].values()
    return [folder / shard for shard in sorted(set(shards))]


def _read(place: Path) -> tuple[str, EncoderSizes, dict[str, Tensor]]:
    """Prefix of the names in a Hugging Face folder ("-" for other layouts), sizes, tensors under bare names."""
    if place.is_file():
        return "-", *_from_openai(place)
    if (place / "model.bin").is_file():
        return "-", *_from_ctranslate2(place / "model.bin")
    parts = sorted(file.name for file in place.glob("model.bin.part*"))
    if parts:
        joining = f"cd {place} && cat {' '.join(parts)} > model.bin"
        raise UserError(f"{place}: model.bin is in pieces: join them first, {joining}")
    if not place.is_dir() or not any((place / name).exists() for name in (*WEIGHTS, "config.json")):
        raise UserError(
            f"{place}: no Whisper weights; expected a folder with config.json and model.safetensors (Hugging Face), "
            "one with model.bin (faster-whisper), or a .pt file (openai)"
        )
    return _from_hugging_face(place)


def read_sizes(kind: type[Sizes], folder: Path) -> Sizes:
    """The sizes of the encoder or the decoder of a Hugging Face folder, as its config.json tells them."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return kind(**{name: int(config[name]) for name in kind.__dataclass_fields__})
    except FileNotFoundError:
        raise UserError(f"{folder}/config.json: no such file; it comes with the weights: copy it there") from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{folder}/config.json: not the configuration of a Whisper ({error!r}): {AGAIN}") from None


def read_stored(folder: Path) -> dict[str, Tensor]:
    """All tensors of a Hugging Face folder, under the names of its files."""
    stored: dict[str, Tensor] = {}
    for file in weight_files(folder):
        stored |= read_content(file)
    return stored


def encoder_part(folder: Path, stored: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """What stands before the names of the encoder's tensors, and these without it. stored: of read_stored."""
    first = next((name for name in stored if name.endswith("conv1.weight")), None)
    if first is None:
        raise UserError(f"{folder}: no conv1.weight among {len(stored)} tensors: the weights of no Whisper encoder")
    prefix = first.removesuffix("conv1.weight")
    tensors = {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
    if not prefix:  # a bare encoder beside a bare decoder would be told apart by nothing
        tensors = {name: value for name, value in tensors.items() if not name.startswith(("decoder.", "proj_out."))}
    return prefix, tensors


def decoder_part(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """The decoder's tensors without what stands before their names; none for an encoder alone."""
    named = {name.removeprefix("model."): value for name, value in stored.items()}
    return {name.removeprefix("decoder."): value for name, value in named.items() if name.startswith("decoder.")}


def _from_hugging_face(folder: Path) -> tuple[str, EncoderSizes, dict[str, Tensor]]:
    sizes = read_sizes(EncoderSizes, folder)
    prefix, tensors = encoder_part(folder, read_stored(folder))
    return prefix, sizes, tensors


def _from_openai(path: Path) -> tuple[EncoderSizes, dict[str, Tensor]]:
    content = read_content(path)
    if not isinstance(content, dict) or not {"dims", "model_state_dict"} <= set(content):
        raise UserError(f"{path}: expected openai's Whisper file, a table with dims and model_state_dict")
    dims, state = content["dims"], content["model_state_dict"]
    inner = state.get("encoder.blocks.0.mlp.0.bias")
    sizes = EncoderSizes(
        d_model=dims["n_audio_state"],
        encoder_layers=dims["n_audio_layer"],
        encoder_attention_heads=dims["n_audio_head"],
        encoder_ffn_dim=4 * dims["n_audio_state"] if inner is None else inner.numel(),
        num_mel_bins=dims["n_mels"],
        max_source_positions=dims["n_audio_ctx"],
        vocab_size=dims["n_vocab"],
    )
    ours = {theirs: name for name, theirs in openai_names("encoder", sizes.shapes()).items()}
    bare = {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
    return sizes, {ours.get(name, name): value for name, value in bare.items()}


def _from_ctranslate2(path: Path) -> tuple[EncoderSizes, dict[str, Tensor]]:
    model = ModelBin(path)
    sizes = _check_variables(model)
    shapes = sizes.shapes()
    tensors: dict[str, Tensor] = {}
    for variable, names in ctranslate2_names("encoder", sizes.encoder_layers).items():
        parts = model.read(variable).chunk(len(names))
        for name, part in zip(names, parts, strict=True):
            if name in shapes:
                tensors[name] = part.clone()
            elif part.any():
                raise UserError(f"{path}: {variable} is not zero for the keys, as it is in every Whisper")
    return sizes, tensors


def _check_variables(model: ModelBin) -> EncoderSizes:
    """Sizes of the encoder in a model.bin, once all of its variables are as expected.

    Scalars (settings of CTranslate2, the scale of int16) may be there as they like; zero points are refused by `read`.
    raises UserError: naming every variable that is missing, unknown or of another shape
    """
    found = {name: variable for name, variable in model.variables.items() if name.startswith("encoder/")}

    def dim(name: str, axis: int, otherwise: int) -> int:
        shape = found[name].shape if name in found else ()
        return shape[axis] if axis < len(shape) else otherwise

    numbers = [int(match[1]) for name in found if (match := re.match(r"encoder/layer_(\d+)/", name))]
    width = dim("encoder/layer_norm/gamma", 0, dim("encoder/conv1/weight", 0, 0))
    sizes = EncoderSizes(
        d_model=width,
        encoder_layers=max(numbers, default=-1) + 1,
        encoder_attention_heads=int(model.read("encoder/num_heads")) if "encoder/num_heads" in found else 0,
        encoder_ffn_dim=dim("encoder/layer_0/ffn/linear_0/weight", 0, 4 * width),
        num_mel_bins=dim("encoder/conv1/weight", 1, 80),
        max_source_positions=dim("encoder/position_encodings/encodings", 0, 1500),
        vocab_size=model.shape(EMBEDDINGS)[0] if EMBEDDINGS in model.variables else 0,
    )
    expected = _variable_shapes(sizes)
    weights = [name for name in expected if name.endswith("/weight")]
    expected |= {f"{name}_scale": expected[name][:1] for name in weights if dim(f"{name}_scale", 0, 0)}
    zeros = {f"{name}_zero" for name in weights}
    check_shapes(str(model.path), expected, {
        name: variable for name, variable in found.items() if (variable.shape or name in expected) and name not in zeros
    })  # fmt: skip
    return sizes


def _variable_shapes(sizes: EncoderSizes) -> dict[str, tuple[int, ...]]:
    """CTranslate2's name -> shape of the encoder's variables, without scales."""
    shapes, found = sizes.shapes(), {"encoder/num_heads": ()}
    for variable, names in ctranslate2_names("encoder", sizes.encoder_layers).items():
        rows, *rest = shapes[names[0]]
        found[variable] = (len(names) * rows, *rest)
    return found


def write_encoder(out: Path, sizes: EncoderSizes, tensors: Mapping[str, Tensor]) -> None:
    """The encoder alone: config.json and model.safetensors, in the one type that loses nothing."""
    kinds = {value.dtype for value in tensors.values()}
    dtype = kinds.pop() if len(kinds) == 1 else torch.float32
    write_safetensors(out / "model.safetensors", {f"model.encoder.{n}": t.to(dtype) for n, t in tensors.items()})
    config = {"architectures": ["WhisperModel"], "model_type": "whisper", "dtype": str(dtype).removeprefix("torch.")}
    no_decoder = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
    with atomic_write(out / "config.json") as file:
        json.dump(config | vars(sizes) | {"decoder_layers": 0, **no_decoder}, file, indent=1)
        file.write("\n")
