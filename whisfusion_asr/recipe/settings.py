"""YAML settings as the runner sees them: flat `part.key: value` pairs that can be compared and printed."""

import os
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from whisfusion_asr.config import apply_overrides, flat, read_yaml
from whisfusion_asr.errors import UserError

_SHARED = Path(__file__).resolve().parents[2]  # the repository: conf/ holds the presets that recipes share


def find_config(path: str) -> Path:
    """A YAML file of the recipe, or the shared one of that name (conf/ of the repository)."""
    if Path(path).is_file():
        return Path(path)
    shared = _SHARED / path
    if shared.is_file():
        return Path(os.path.relpath(shared))
    raise UserError(f"{path}: no such file in {Path.cwd()} or in {_SHARED}")


def read_settings(path: Path, arguments: str = "") -> dict[str, Any]:
    """Flat settings of a training's YAML file with the `--key value` words of an `..._args` option laid over them."""
    return {**flat(read_yaml(path)), **_argument_settings(arguments)}


def read_decoding_settings(path: Path, overrides: str) -> dict[str, Any]:
    """Flat settings of a decoding's YAML file with the `key.inner=value` words of --inference_args laid over them."""
    return flat(apply_overrides(read_yaml(path), overrides.split()))


def split_arguments(arguments: str) -> list[str]:
    """Words of an `..._args` option, quoted as in a shell."""
    try:
        return shlex.split(arguments)
    except ValueError as error:
        raise UserError(f"{arguments!r}: {error}; quote the value as in a shell") from error


def described_downloads(path: Path) -> list[str]:
    """Texts of the comments `# downloads: ...` of a script or YAML file, for the dry run."""
    if not path.is_file():
        return []
    return re.findall(r"^#\s*downloads:\s*(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)


def _argument_settings(arguments: str) -> dict[str, Any]:
    """`--max_epoch 3 --optim_conf lr=0.1` -> {"max_epoch": 3, "optim_conf.lr": 0.1} as ESPnet reads them."""
    settings: dict[str, Any] = {}
    key = ""
    for word in split_arguments(arguments):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            key = name.replace("-", "_")
            settings[key] = yaml.safe_load(value) if equals else None
        elif "=" in word and key:
            settings.pop(key, None)
            part, _, value = word.partition("=")
            settings[f"{key}.{part}"] = yaml.safe_load(value)
        else:
            settings[key] = yaml.safe_load(word) if settings.get(key) is None else f"{settings[key]} {word}"
    return settings
