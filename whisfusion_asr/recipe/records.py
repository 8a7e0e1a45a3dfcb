"""What an experiment directory tells about its making: `run.sh` to resume it and `versions.json`."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from whisfusion_asr import __version__
from whisfusion_asr.files import atomic_write
from whisfusion_asr.recipe.jobs import quoted

_PACKAGES = ("espnet", "torch", "numpy", "transformers", "sentencepiece", "PyYAML")


def write_records(directory: Path, argv: Sequence[str], stage: int, seed: int) -> None:
    """Write run.sh (the command that made the directory, from this stage on) and versions.json."""
    recipe = os.path.relpath(Path.cwd(), directory)
    with atomic_write(directory / "run.sh") as file:
        file.write("#!/usr/bin/env bash\n# Resumes this directory; more options may follow.\nset -euo pipefail\n")
        file.write(f'cd "$(dirname "${{BASH_SOURCE[0]}}")/{recipe}"\n')
        file.write(f'./asr.sh {quoted(argv)} --stage {stage} "$@"\n')
    (directory / "run.sh").chmod(0o755)
    with atomic_write(directory / "versions.json") as file:
        json.dump(versions() | {"seed": seed, "command": quoted(["./asr.sh", *argv])}, file, indent=1)
        file.write("\n")


def versions() -> dict[str, Any]:
    """Versions of Python, packages and this repository (`git` is None outside a checkout)."""
    packages = {name: version for name in _PACKAGES if (version := _package_version(name))}
    system = {"python": platform.python_version(), "platform": platform.platform()}
    return {"whisfusion_asr": __version__, **system, **packages, **_git()}


def _package_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any]:
    root = Path(__file__).resolve().parents[2]
    try:
        revision = _output("git", "-C", str(root), "rev-parse", "HEAD")
        changed = _output("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return {"git": None}
    return {"git": revision, "git_changed": bool(changed)}


def _output(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
