"""YAML settings as the runner sees them: flat `part.key: value` pairs that can be compared and printed."""

import os
import re
import shlex
from pathlib import Path
from typing import Any

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
    """Flat settings of a YAML file with the `--key value` words of an `..._args` option laid over them."""
    return {**_flat(_read_yaml(path)), **_argument_settings(arguments)}


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


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml  # here, so that `--help` works on a bare machine

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected lines `key: value`")
    if "base" not in content:
        return content
    below = path.parent / str(content.pop("base"))
    if not below.is_file():
        raise UserError(f"{path}: base: {below} does not exist")
    return _merged(_read_yaml(below), content)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = dict(below)
    for key, value in above.items():
        nested = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = _merged(both[key], value) if nested else value
    return both


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def _argument_settings(arguments: str) -> dict[str, Any]:
    """`--max_epoch 3 --optim_conf lr=0.1` -> {"max_epoch": 3, "optim_conf.lr": 0.1} as ESPnet reads them."""
    import yaml

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
