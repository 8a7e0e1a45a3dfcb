"""What a step was made with, kept beside its output, so that the same step is not done twice and a change is named.

`.stamp.json` of a step's directory says `running` from before the first command until after the last one.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from whisfusion_asr import __version__
from whisfusion_asr.files import atomic_write, sha256

NAME = ".stamp.json"
_HASHED = 1 << 26  # bytes; larger files (weights) are known by size and time


@dataclass(frozen=True)
class Stamp:
    """State of a step: `running` or `done`, and everything that its result depends on."""

    step: str
    state: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    version: str
    seconds: float = 0.0

    @property
    def identity(self) -> str:
        """Hash of what the result depends on."""
        content = json.dumps([self.step, self.settings, self.inputs, self.version], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def make_stamp(step: str, settings: Mapping[str, Any], inputs: Iterable[Path]) -> Stamp:
    """Stamp of a step that is about to run."""
    plain = json.loads(json.dumps(settings, default=str, sort_keys=True))  # as it will read back
    return Stamp(step, "running", plain, {str(path): fingerprint(path) for path in inputs}, __version__)


def read_stamp(path: Path) -> Stamp | None:
    """A stamp file, None when there is none (or one that cannot be read: then nothing is known of the step)."""
    try:
        return Stamp(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, TypeError):
        return None


def write_stamp(path: Path, stamp: Stamp) -> None:
    """Write atomically."""
    with atomic_write(path) as file:
        json.dump(asdict(stamp), file, indent=1, sort_keys=True)
        file.write("\n")


def fingerprint(path: Path) -> str:
    """What stands for a file's content; `missing` for one that is not there."""
    if not path.is_file():
        return "missing"
    status = path.stat()
    if status.st_size <= _HASHED:
        return "sha256 " + sha256(path)[:32]
    return f"size {status.st_size} mtime {status.st_mtime_ns}"


def changed_settings(old: Stamp, new: Stamp) -> dict[str, str]:
    """Settings that differ, as `key -> "old -> new"`."""
    keys = sorted(old.settings.keys() | new.settings.keys())
    return {
        key: f"{_shown(old.settings, key)} -> {_shown(new.settings, key)}"
        for key in keys
        if _shown(old.settings, key) != _shown(new.settings, key)
    }


def changed_inputs(old: Stamp, new: Stamp) -> list[str]:
    """What else differs: input files and the version of the code."""
    paths = sorted(old.inputs.keys() | new.inputs.keys())
    changed = [f"input {path} changed" for path in paths if old.inputs.get(path) != new.inputs.get(path)]
    if old.version != new.version:
        changed.append(f"code version {old.version} -> {new.version}")
    return changed


def _shown(settings: Mapping[str, Any], key: str) -> str:
    return json.dumps(settings[key]) if key in settings else "(unset)"
