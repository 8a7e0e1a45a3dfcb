"""What the documentation tells the reader to type works: every shell line that starts with a command of ours is run.

Recipes run dry, `whisfusion` and `python -m` commands print their help, which must name the options of the line;
scripts of the repository are called with a harmless argument. The template's lines are also run for real, by the
test of a newcomer's corpus, and the Python lines by that of the toy recipe.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from whisfusion_asr.recipe.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
PAGES = [path for path in (ROOT / "README.md", *sorted(ROOT.glob("egs/*/asr1/README.md"))) if path.is_file()]
MODULE = re.compile(r"(?:python3? -m whisfusion_asr\.bin\.|whisfusion )(\w+)")
# Programs that are not ours: their lines are not tried.
FOREIGN = {"ls", "cat", "echo", "git", "pip", "export", "less", "source", ".", "mkdir", "tensorboard"}
HARMLESS = {"test/run.sh": ["--version"], "utils/install.sh": ["--help"]}


def shell_lines(page: Path) -> list[str]:
    """Lines of the fenced shell blocks of a page, continuations joined, comments and prompts cut off."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:sh|bash|shell|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in ("cd .", *block.replace("\\\n", " ").splitlines())]
    return [stripped for line in lines if (stripped := re.sub(r"(^|\s)#.*", "", line.removeprefix("$ ")).strip())]


def commands() -> list[tuple[str, str, str]]:
    """(page, directory below the root where the reader is, line) of every line but `cd`."""
    found = []
    for page in PAGES:
        home = "." if page.parent == ROOT or "TEMPLATE" in page.parts else str(page.parent.relative_to(ROOT))
        place = home
        for line in shell_lines(page):
            if line == "cd .":  # a new block starts at home
                place = home
            elif line.startswith("cd "):
                place = os.path.normpath(os.path.join(place, line.split()[1]))
            else:
                found.append((str(page.relative_to(ROOT)), place, line))
    assert found
    return found


def generated(folder: str, names: list[str]) -> list[str]:
    """What recipes have written into their directories."""
    written = ("data", "dump", "exp", "downloads")
    return [name for name in names if Path(folder).name == "asr1" and name.startswith(written)]


def environment() -> dict[str, str]:
    """The tests' own interpreter as the active environment."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"VIRTUAL_ENV": sys.prefix, "PATH": path, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with a recipe egs/mine, as the template's README makes one."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "egs", root / "egs", symlinks=True, ignore=generated)
    for name in ("conf", "utils", "whisfusion_asr", "test", "setup.py", "pyproject.toml", "README.md"):
        (root / name).symlink_to(ROOT / name)
    subprocess.run([root / "egs/TEMPLATE/asr1/setup.sh", root / "egs/mine/asr1"], check=True, capture_output=True)
    return root


def harmless(line: str) -> list[str] | None:
    """The words that try a line without doing its work; None for a line that is not ours."""
    words = shlex.split(line)
    while "=" in words[0] or words[0] in ("bash", "nohup"):
        words = words[1:]
    if words[0].endswith("run.sh") and words[0] not in HARMLESS:
        return words if {"list", "--help"} & set(words) else [*words, "--dry_run", "true"]
    if words[0] in HARMLESS:
        return [words[0], *HARMLESS[words[0]]]
    if match := MODULE.match(line):
        part = words[2:3] if match[1] == "benchmark" else []  # each of its parts has options of its own
        return [sys.executable, "-m", "whisfusion_asr.bin.main", match[1], *part, "--help"]
    if words[0].startswith(("utils/", "./utils/")):
        return [words[0], "--help"]
    if words[0].endswith("setup.sh"):
        return ["bash", "-n", words[0]]
    assert words[0] in FOREIGN, f"{words[0]}: is it ours? Say in this test how it is tried"
    return None


@pytest.mark.parametrize(("page", "place", "line"), commands())
def test_a_line_of_the_documentation(checkout: Path, page: str, place: str, line: str) -> None:
    words = harmless(line)
    if words is None:
        return
    done = subprocess.run(words, cwd=checkout / place, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, f"{page}: {line}\n{done.stdout[-2000:]}{done.stderr}"
    if MODULE.match(line):
        options = {"--" + option.replace("-", "_") for option in re.findall(r"--([\w-]+)", line)}
        assert options <= set(re.findall(r"--\w+", done.stdout)), f"{page}: {line}"


def test_the_picture_of_the_stages() -> None:
    """README.md shows the stages that there are, by number and name."""
    shown = re.findall(r"─(\d) (\w+)─", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert shown == [(str(stage.number), stage.name) for stage in STAGES]


def test_the_list_of_the_stages(checkout: Path) -> None:
    """`--stage list` prints the same."""
    command = [checkout / "egs/mini_synth/asr1/run.sh", "--stage", "list"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    rows = re.findall(r"^(\d) +(\w+)", done.stdout, re.MULTILINE)
    assert rows == [(str(stage.number), stage.name) for stage in STAGES]


def test_files_and_rooms_that_the_readme_names_exist() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    names = re.findall(r"`((?:whisfusion_asr|egs|conf|utils|test)/[\w./-]+)`", page)
    rooms = [name for row in re.findall(r"^\| (`.*?/`)", page, re.MULTILINE) for name in re.findall(r"`(\w+)/`", row)]
    assert names and rooms
    assert [name for name in names if not (ROOT / name).exists()] == []
    assert [room for room in rooms if not (ROOT / "whisfusion_asr" / room).is_dir()] == []


def test_lines_are_found_and_tried(tmp_path: Path) -> None:
    """The extraction itself: continuations, comments, foreign programs, unknown ones."""
    page = tmp_path / "page.md"
    page.write_text("```sh\n./run.sh --a b \\\n   --c d  # why\n$ ls x\n```\n```python\nrun.sh\n```\n")
    assert shell_lines(page) == ["cd .", "./run.sh --a b     --c d", "ls x"]
    assert harmless("./run.sh --a b") == ["./run.sh", "--a", "b", "--dry_run", "true"]
    assert harmless("ls x") is None
    assert harmless("PYTHON=python3.12 bash test/run.sh test/scoring") == ["test/run.sh", "--version"]
    assert harmless("whisfusion score --ref a")[1:] == ["-m", "whisfusion_asr.bin.main", "score", "--help"]
    with pytest.raises(AssertionError, match="is it ours"):
        harmless("frobnicate --now")
