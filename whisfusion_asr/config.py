"""YAML settings: a file may build on another (`base:`), and single keys may be overridden from a command line."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from whisfusion_asr.errors import UserError


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping of a YAML file. `base: other.yaml` (relative to the file) is read first; mappings are merged.

    Raises UserError: no such file, not YAML, not a mapping, a base that leads back to itself.
    """
    return _read(Path(path), ())


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise UserError(f"{path}: base: leads back to the file itself")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file" + (f" (base: of {above[-1]})" if above else "")) from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys and values, got a {type(content).__name__}")
    base = content.pop("base", None)
    return content if base is None else merged(_read(path.parent / base, (*above, path.resolve())), content)


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`under` with the values of `over`; mappings are merged key by key, everything else is replaced."""
    result = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; an empty mapping is a value."""
    values: dict[str, Any] = {}
    for key, value in content.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return values


def apply_overrides(config: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Settings with `key=value` or `key.inner=value` words applied; values are read as YAML.

    Raises UserError for a word of another form.
    """
    for word in overrides:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UserError(f"{word!r}: expected key=value, for example sampler_conf.candidates=5")
        change: Any = yaml.safe_load(value)
        for key in reversed(name.split(".")):
            change = {key: change}
        config = merged(config, change)
    return config
