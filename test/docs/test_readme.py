"""The commands of the READMEs are real: ours are run (long ones as a dry run), the stages are those of the code."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from whisfusion_asr.recipe.stages import STAGES, stage_list

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEMPLATE = (ROOT / "egs/TEMPLATE/asr1/README.md").read_text(encoding="utf-8")
OURS = ("egs/", "test/run.sh", "utils/", "python3 -m whisfusion_asr", "python -m whisfusion_asr")


def shell_lines(text: str) -> list[str]:
    """The lines of all ```sh blocks: continuations joined, comments gone."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line for raw in joined.splitlines() if (line := re.sub(r"(^|\s)#.*", "", raw).strip())]


def run(words: list[str], cwd: Path) -> subprocess.CompletedProcess:
    env = os.environ | {"VIRTUAL_ENV": sys.prefix, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    quiet = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
    return subprocess.run(words, cwd=cwd, env=env, timeout=300, **quiet)


def as_dry_run(line: str) -> list[str]:
    """A recipe's command as one that changes nothing."""
    words = shlex.split(line)
    return words if "list" in words or "--dry_run" in words else [*words, "--dry_run", "true"]


def test_blocks_are_found():
    assert len(shell_lines(README)) >= 6 and len(shell_lines(TEMPLATE)) >= 8


@pytest.mark.parametrize("line", [line for line in shell_lines(README) if line.startswith(("egs/", "./run.sh"))])
def test_recipe_commands_of_the_readme(line):
    place = ROOT if line.startswith("egs/") else ROOT / "egs/mini_synth/asr1"
    done = run(["bash", *as_dry_run(line)], place)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [line for line in shell_lines(README + TEMPLATE) if line.startswith(OURS)])
def test_named_files_and_modules_exist(line):
    words = shlex.split(line)
    if "-m" in words:
        module = words[words.index("-m") + 1]
        done = run([sys.executable, "-m", module, "--help"], ROOT)
        assert done.returncode == 0, done.stderr
        for option in (word for word in words if word.startswith("--")):
            group = words[words.index("-m") + 2]
            sub = [] if group.startswith("-") else [group]
            assert option in run([sys.executable, "-m", module, *sub, "--help"], ROOT).stdout
    elif words[0].startswith(("egs/", "test/", "utils/")):
        assert os.access(ROOT / words[0], os.X_OK)


def test_the_readme_shows_the_stages_of_the_runner():
    assert "./run.sh --stage list" in README
    picture = dict(re.findall(r"─(\d) (\w+)─*>", README))
    assert picture == {str(stage.number): stage.name for stage in STAGES if stage.steps}
    assert all(name in stage_list() for name in picture.values())


def test_files_and_rooms_named_in_the_readme_exist():
    for name in re.findall(r"`((?:whisfusion_asr|egs|conf|utils|test)/[\w./-]+)`", README):
        assert (ROOT / name).exists(), name
    for room in re.findall(r"^\| (`.*?/`)", README, re.MULTILINE):
        for name in re.findall(r"`(\w+)/`", room):
            assert (ROOT / "whisfusion_asr" / name).is_dir(), name


def test_the_code_of_the_readme_compiles():
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")

