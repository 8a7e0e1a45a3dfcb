"""What the architecture tests look at: the files of the repository, read once."""

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Written by recipes and tools, never part of the repository (see .gitignore).
GENERATED = ("data", "dump", "exp", "downloads")
PLACES = (".ci", "conf", "egs", "test", "utils", "whisfusion_asr")


@dataclass(frozen=True)
class Source:
    """One text file of the repository; `name` is its path from the root."""

    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree of a Python file."""
        return ast.parse(self.text, self.name)


def repository_files() -> list[Path]:
    """All files of the repository, generated ones left out."""
    found = [path for path in ROOT.iterdir() if path.is_file()]
    for place in PLACES:
        found += [path for path in (ROOT / place).rglob("*") if path.is_file()]
    return sorted(path for path in found if not _generated(path.relative_to(ROOT).parts))


def _generated(parts: tuple[str, ...]) -> bool:
    # .git is a file in a linked work tree
    if any(part in ("__pycache__", ".git") or part.endswith(".egg-info") for part in parts):
        return True
    return parts[0] == "egs" and len(parts) > 3 and parts[3].startswith(GENERATED)


@pytest.fixture(scope="session")
def texts() -> list[Source]:
    """Every text file of the repository."""
    found = []
    for path in repository_files():
        try:
            found.append(Source(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    assert len(found) > 20
    return found


@pytest.fixture(scope="session")
def package(texts: list[Source]) -> list[Source]:
    """The Python files of whisfusion_asr."""
    return [source for source in texts if source.name.startswith("whisfusion_asr/") and source.name.endswith(".py")]


@pytest.fixture(scope="session")
def programs(texts: list[Source]) -> list[Source]:
    """All Python files that a user runs: the package, utils, egs and setup.py, not the tests."""
    return [source for source in texts if source.name.endswith(".py") and not source.name.startswith("test/")]
