"""Which room may import which, and where the heavy or replaceable third parties may appear."""

import ast
import subprocess
import sys

import pytest

OURS = "whisfusion_asr"
GROUND = {"errors", "files", "config"}
ROOMS = {
    "data": set(),
    "diffusion": set(),
    "models": set(),
    "training": set(),
    "scoring": set(),
    "recipe": set(),
    "pretrained": {"models"},
    "decoding": {"diffusion"},
    "report": {"scoring"},
    "tasks": {"data", "diffusion", "models", "training", "pretrained"},
    # beside the rooms that it shows to the user: the canvas's description, the reader of trained weights, and tasks,
    # which registers ESPnet's encoders (late, when an experiment names one)
    "api": {"data", "models", "pretrained", "decoding", "diffusion", "training", "tasks"},
    # whole files with api's Speech2Text
    "transcription": {"api", "data", "decoding"},
    # an experiment as one file: the network through api, its weights, tokens, settings and card by their rooms
    "packing": {"api", "data", "decoding", "models", "pretrained", "report", "training"},
    # the original Whisper over a data directory, beside what api decodes
    "original": {"data", "decoding", "pretrained"},
    # its transcripts as those of a data directory
    "labels": {"data"},
    # other systems' hypotheses with api's Speech2Text
    "refinement": {"api", "decoding"},
    # measures the others from outside: everything but what ESPnet or a recipe drives
    "benchmark": {
        "data", "diffusion", "models", "training", "scoring", "pretrained", "decoding", "report", "api"
    },
    # decodes, scores and tabulates many settings of one model; runs a recipe and reads its option table
    "studies": {"api", "data", "decoding", "scoring", "report", "recipe"},
    "errors": set(),
    "files": set(),
    "config": set(),
    "__init__": {"api"},
}
ROOMS["bin"] = set(ROOMS) | {"bin"}
# Rooms that must stay light enough to import in a fraction of a second: all of their third parties.
LIGHT = {
    "scoring": {"numpy", "jiwer", "rapidfuzz", "scipy", "whisper_normalizer"},
    "report": {"numpy", "yaml", "matplotlib"},
    "recipe": {"yaml"},
    "errors": set(),
    "files": set(),
    "config": {"yaml"},
    "__init__": set(),
}
# Third parties that may be replaced some day: where they may be imported.
ONLY_IN = {
    "espnet": "whisfusion_asr/tasks/",
    "espnet2": "whisfusion_asr/tasks/",
    "flash_attn": "whisfusion_asr/models/flash.py",
    "kaldiio": "whisfusion_asr/data/ark.py",
    "omniio": "whisfusion_asr/data/ark.py",
}


def imported_names(tree: ast.Module, name: str) -> list[tuple[int, str]]:
    """(line, dotted name) of every import, relative ones resolved, `import_module("...")` included."""
    folder = name.split("/")[:-1]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from whisfusion_asr import data` names the room only in its last part
            names = [f"{module}.{alias.name}" for alias in node.names] if module == OURS else [module]
            found += [(node.lineno, name) for name in names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            if node.args and isinstance(node.args[0], ast.Constant):
                found.append((node.lineno, node.args[0].value))
    return found


def room_of(name: str) -> str:
    """The room of a file: whisfusion_asr/data/audio.py -> data, whisfusion_asr/api.py -> api."""
    return name.split("/")[1].removesuffix(".py")


def bad_imports(tree: ast.Module, name: str) -> list[str]:
    """What this file of the package imports against the tables above."""
    room = room_of(name)
    if room not in ROOMS:
        return [f"{name}: {room} is no room of the design"]
    problems = []
    for line, target in imported_names(tree, name):
        top, _, rest = target.partition(".")
        if top == OURS:
            other = rest.split(".")[0]
            if other in ROOMS and other not in ROOMS[room] | GROUND | {room, "__init__"}:
                problems.append(f"{name}:{line}: {room} imports {other}")
            continue
        if room in LIGHT and top not in LIGHT[room] | set(sys.stdlib_module_names):
            problems.append(f"{name}:{line}: {room} imports {top}")
        if top in ONLY_IN and not name.startswith(ONLY_IN[top]):
            problems.append(f"{name}:{line}: {top} is imported outside {ONLY_IN[top]}")
    return problems


def test_rooms_import_only_downwards(package):
    problems = [problem for source in package for problem in bad_imports(source.tree, source.name)]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("name", "code", "problem"),
    [
        ("data/audio.py", "from whisfusion_asr.models import x", "data imports models"),
        ("data/audio.py", "from whisfusion_asr import models", "data imports models"),
        ("data/audio.py", "from ..models.decoder import x", "data imports models"),
        ("data/audio.py", "def f():\n    import whisfusion_asr.bin.train", "data imports bin"),
        ("data/audio.py", "import kaldiio", "kaldiio is imported outside"),
        ("decoding/engine.py", "import importlib\nimportlib.import_module('espnet2.tasks.asr')", "espnet2 is imported"),
        ("scoring/wer.py", "import torch.nn as nn", "scoring imports torch"),
        ("recipe/run.py", "import numpy", "recipe imports numpy"),
        ("models/block.py", "import flash_attn", "flash_attn is imported outside"),
        ("errors.py", "from whisfusion_asr.data import x", "errors imports data"),
        ("misc/x.py", "", "misc is no room"),
    ],
)
def test_a_bad_import_is_found(name, code, problem):
    problems = bad_imports(ast.parse(code), f"whisfusion_asr/{name}")
    assert len(problems) == 1
    assert problem in problems[0]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("data/audio.py", "from .ark import read\nfrom whisfusion_asr.errors import UserError\nimport numpy, torch"),
        ("data/ark.py", "import kaldiio"),
        ("tasks/asr.py", "from espnet2.tasks.abs_task import AbsTask\nfrom ..data import states"),
        ("bin/train.py", "import whisfusion_asr\nfrom whisfusion_asr.tasks import asr\nimport whisfusion_asr.recipe.x"),
        ("models/flash.py", "import flash_attn"),
    ],
)
def test_a_good_import_is_left_alone(name, code):
    assert bad_imports(ast.parse(code), f"whisfusion_asr/{name}") == []


@pytest.mark.parametrize("room", ["scoring", "recipe", "bin.main", "bin.doctor"])
def test_light_rooms_never_load_torch(room, package):
    folder = f"{OURS}/{room.replace('.', '/')}"
    files = [source.name for source in package if source.name.startswith((f"{folder}/", f"{folder}."))]
    assert files
    names = ", ".join(name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in files)
    code = f"import {names}, sys; print([m for m in ('torch', 'espnet2', 'transformers') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
