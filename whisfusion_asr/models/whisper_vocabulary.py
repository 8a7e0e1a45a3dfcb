"""Whisper's vocabulary as its folder describes it: ids of pieces, and the prefix that asks for a transcript."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whisfusion_asr.errors import UserError

END = "<|endoftext|>"


def read_json(model: str, name: str) -> dict[str, Any]:
    """A JSON file of a Whisper folder, or of a model on the hub. Raises UserError when there is none."""
    path = Path(model) / name
    if not Path(model).is_dir():
        from transformers.utils import cached_file  # late: costs seconds

        try:
            path = Path(cached_file(model, name))
        except OSError as error:
            raise UserError(f"{model}: no {name} ({str(error).splitlines()[0]}): give a complete folder") from error
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a complete Whisper folder in Hugging Face's layout has it") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); fetch the model again") from None


def read_vocabulary(model: str) -> dict[str, int]:
    """Piece -> id, special tokens included, of the folder's tokenizer.json."""
    content = read_json(model, "tokenizer.json")
    return {**content["model"]["vocab"], **{token["content"]: token["id"] for token in content["added_tokens"]}}


def whisper_ids(vocabulary: dict[str, int], pieces: Sequence[str], model: str) -> list[int]:
    """The ids of a token list's pieces. Raises UserError for a piece that Whisper does not have."""
    unknown = [piece for piece in pieces if piece not in vocabulary]
    if unknown:
        raise UserError(
            f"token_list: {len(unknown)} of {len(pieces)} tokens are none of {model} (first: {unknown[0]!r}); "
            "make the list with --token_type whisper from the same folder"
        )
    return [vocabulary[piece] for piece in pieces]


def prefix_ids(vocabulary: dict[str, int], model: str, language: str, task: str) -> list[int]:
    """Ids before the text: start, language and task (multilingual models), no timestamps.

    Raises UserError for a language or task that the model does not know.
    """
    words = ["<|startoftranscript|>"]
    if read_json(model, "generation_config.json").get("is_multilingual", True):
        words += [f"<|{language}|>", f"<|{task}|>"]
    words.append("<|notimestamps|>")
    for word, key in zip(words[1:3], ("language", "task"), strict=False):
        if word not in vocabulary:
            raise UserError(f"decoder_conf.{key}: {model} has no token {word}")
    return whisper_ids(vocabulary, words, model)
