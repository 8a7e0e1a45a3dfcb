"""A Whisper folder written again in each of its public layouts, as its own program reads it.

A complete folder gives a complete model: for transformers, for openai's package, for CTranslate2 and faster-whisper. A
folder that holds the encoder alone gives that, which `import_encoder` reads, but no program that transcribes.
"""

import json
import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write
from whisfusion_asr.models.whisper_vocabulary import read_json, read_vocabulary
from whisfusion_asr.pretrained.ctranslate2 import write_model_bin
from whisfusion_asr.pretrained.keys import check_shapes
from whisfusion_asr.pretrained.weight_files import write_safetensors
from whisfusion_asr.pretrained.whisper import (
    EMBEDDINGS,
    decoder_part,
    encoder_part,
    read_sizes,
    read_stored,
    write_encoder,
)
from whisfusion_asr.pretrained.whisper_names import DecoderSizes, EncoderSizes, ctranslate2_names, openai_names

HUGGING_FACE, OPENAI, CTRANSLATE2 = "hugging_face", "openai", "ctranslate2"
LAYOUTS = (HUGGING_FACE, OPENAI, CTRANSLATE2)
INT8 = "int8"
STORAGES = ("float32", "float16", INT8)
# What a complete Hugging Face folder has beside config.json and the weights.
BESIDE = (
    "generation_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json",
    "merges.txt", "normalizer.json", "added_tokens.json", "special_tokens_map.json",
)  # fmt: skip
# Scalars of CTranslate2's decoder: GELU, norms before the layers, no ALiBi, embeddings as they are.
DECODER_SETTINGS = {
    "activation": (3, torch.int8), "alibi": (0, torch.int8), "alignment_heads": (1, torch.int16),
    "alignment_layer": (-1, torch.int16), "pre_norm": (1, torch.int8), "scale_embeddings": (0, torch.int8),
    "start_from_zero_embedding": (0, torch.int8),
}  # fmt: skip


@dataclass(frozen=True)
class Whisper:
    """What a folder in Hugging Face's layout holds.

    decoder: None for an encoder alone; tensors: part (`encoder`, `decoder`) -> name without the part -> values
    """

    folder: Path
    encoder: EncoderSizes
    decoder: DecoderSizes | None
    tensors: dict[str, dict[str, Tensor]]


def export_whisper(folder: Path, layout: str, out: Path, storage: str | None = None) -> Whisper:
    """Write a Whisper folder in another layout, complete if it is complete. Returns what was written.

    folder: in Hugging Face's layout; layout: one of LAYOUTS; out: a .pt file for openai, else a folder
    storage: one of STORAGES, None for the weights' own type; int8 stands for CTranslate2's weights alone, the biases,
        norms and positions keep their type
    raises UserError: weights that are no Whisper's, a tokenizer that is missing or does not fit them, a storage or a
        name of `out` that the layout does not have
    """
    if storage == INT8 and layout != CTRANSLATE2:
        raise UserError(f"--storage {INT8}: only --layout {CTRANSLATE2} has it; take float16 or float32")
    if layout == OPENAI and out.suffix != ".pt":
        raise UserError(f"--out {out}: --layout {OPENAI} writes a file, expected a name that ends in .pt")
    if out.resolve() == folder.resolve():
        raise UserError(f"--out {out}: holds the weights that are to be exported; name another folder")
    model = read_whisper(folder, None if storage in (None, INT8) else getattr(torch, storage))
    if layout == HUGGING_FACE:
        _write_hugging_face(model, out, storage)
    elif layout == OPENAI:
        _write_openai(model, out)
    else:
        _write_ctranslate2(model, out, storage == INT8)
    return model


def read_whisper(folder: Path, dtype: torch.dtype | None = None) -> Whisper:
    """All of a folder in Hugging Face's layout, every shape checked. dtype: of the values, None as they are stored.

    raises UserError: tensors that are missing, too many or of another shape, an output layer of its own
    """
    stored = read_stored(folder)
    encoder, decoder = read_sizes(EncoderSizes, folder), None
    tensors = {"encoder": encoder_part(folder, stored)[1]}
    check_shapes(f"{folder}: encoder", encoder.shapes(), tensors["encoder"])
    if found := decoder_part(stored):
        decoder = read_sizes(DecoderSizes, folder)
        check_shapes(f"{folder}: decoder", decoder.shapes(), found)
        if not torch.equal(stored.get("proj_out.weight", found["embed_tokens.weight"]), found["embed_tokens.weight"]):
            raise UserError(f"{folder}: proj_out.weight differs from the embedding, but a Whisper has one table for "
                            "both: tie them in transformers and save the model again")  # fmt: skip
        tensors["decoder"] = found
    if dtype is not None:
        tensors = {part: {name: value.to(dtype) for name, value in inner.items()} for part, inner in tensors.items()}
    return Whisper(folder, encoder, decoder, tensors)


def _write_hugging_face(model: Whisper, out: Path, storage: str | None) -> None:
    if model.decoder is None:
        write_encoder(out, model.encoder, model.tensors["encoder"])
        return
    config = read_json(str(model.folder), "config.json") | {"architectures": ["WhisperForConditionalGeneration"]}
    if storage is not None:
        config = {key: value for key, value in config.items() if key != "torch_dtype"} | {"dtype": storage}
    _write_json(out / "config.json", config)
    _copy(model.folder, out, BESIDE)
    write_safetensors(out / "model.safetensors", {
        f"model.{part}.{name}": value for part, inner in model.tensors.items() for name, value in inner.items()
    })  # fmt: skip


def _write_openai(model: Whisper, out: Path) -> None:
    heard, written = model.encoder, model.decoder or DecoderSizes(model.encoder.d_model, 0, 0, 0, 0, 0)
    dims = {
        "n_mels": heard.num_mel_bins, "n_audio_ctx": heard.max_source_positions, "n_audio_state": heard.d_model,
        "n_audio_head": heard.encoder_attention_heads, "n_audio_layer": heard.encoder_layers,
        "n_vocab": heard.vocab_size, "n_text_ctx": written.max_target_positions, "n_text_state": written.d_model,
        "n_text_head": written.decoder_attention_heads, "n_text_layer": written.decoder_layers,
    }  # fmt: skip
    state = {f"{part}.{theirs}": inner[name].contiguous() for part, inner in model.tensors.items()
             for name, theirs in openai_names(part, inner).items()}  # fmt: skip
    with atomic_write(out, "wb") as file:
        torch.save({"dims": dims, "model_state_dict": state}, file)


def _write_ctranslate2(model: Whisper, out: Path, int8: bool) -> None:
    if model.decoder is not None:  # model.bin comes last: it is what makes the folder a model
        size, given = model.decoder.vocab_size, read_json(str(model.folder), "generation_config.json")
        _write_json(out / "vocabulary.json", _vocabulary(model.folder, size))
        _write_json(out / "config.json", _ctranslate2_config(model.folder, model.decoder, given))
        # faster-whisper takes 80 bins where it is told nothing.
        _write_json(out / "preprocessor_config.json", {"feature_size": model.encoder.num_mel_bins})
        _copy(model.folder, out, ("tokenizer.json", "preprocessor_config.json"))
    write_model_bin(out / "model.bin", ctranslate2_variables(model), int8)


def ctranslate2_variables(model: Whisper) -> dict[str, Tensor]:
    """CTranslate2's name -> values, packed as its converter packs them; equal ones stand under all of their names."""
    numbers = {"encoder": (model.encoder.encoder_layers, model.encoder.encoder_attention_heads)}
    found: dict[str, Tensor] = {}
    if model.decoder is not None:
        numbers["decoder"] = model.decoder.decoder_layers, model.decoder.decoder_attention_heads
        found |= {f"decoder/{name}": torch.tensor(value, dtype=dtype)
                  for name, (value, dtype) in DECODER_SETTINGS.items()}  # fmt: skip
    for part, (layers, heads) in numbers.items():
        found[f"{part}/num_heads"] = torch.tensor(heads, dtype=torch.int16)
        for variable, names in ctranslate2_names(part, layers).items():
            values = [model.tensors[part].get(name) for name in names]  # None: the bias of a key
            found[variable] = torch.cat([torch.zeros_like(values[-1]) if value is None else value for value in values])
    if EMBEDDINGS in found:
        found["decoder/projection/weight"] = found[EMBEDDINGS]
    return found


def _ctranslate2_config(folder: Path, decoder: DecoderSizes, given: dict[str, Any]) -> dict[str, Any]:
    """What CTranslate2 must be told of tokens and heads. given: generation_config.json"""
    heads = product(range(decoder.decoder_layers // 2, decoder.decoder_layers), range(decoder.decoder_attention_heads))
    languages = given.get("lang_to_id") or {
        piece: i for piece, i in read_vocabulary(str(folder)).items() if re.fullmatch(r"<\|[a-z]{2,3}\|>", piece)
    }
    return {
        "alignment_heads": given.get("alignment_heads") or list(heads),
        "lang_ids": sorted(languages.values()),
        "suppress_ids": given.get("suppress_tokens") or [],
        "suppress_ids_begin": given.get("begin_suppress_tokens") or [],
    }


def _vocabulary(folder: Path, size: int) -> list[str]:
    """All pieces in the order of their ids; the timestamps, which older tokenizers lack, stand at the end.

    raises UserError: a tokenizer with gaps in its ids, or with more of them than the model
    """
    ids = read_vocabulary(str(folder))
    pieces = sorted(ids, key=ids.__getitem__)
    if len(pieces) > size or [ids[piece] for piece in pieces] != list(range(len(pieces))):
        raise UserError(f"{folder}/tokenizer.json: {len(pieces)} pieces with ids up to {ids[pieces[-1]]}, expected one "
                        f"for each of the model's {size} ids: take the tokenizer.json that belongs to the weights")
    return pieces + [f"<|{0.02 * step:.2f}|>" for step in range(size - len(pieces))]


def _write_json(path: Path, content: object) -> None:
    with atomic_write(path) as file:
        json.dump(content, file, ensure_ascii=False, indent=2)
        file.write("\n")


def _copy(folder: Path, out: Path, names: tuple[str, ...]) -> None:
    """Copy the files of these names that are there."""
    for name in names:
        if (folder / name).is_file():
            with atomic_write(out / name, "wb") as file:
                file.write((folder / name).read_bytes())
