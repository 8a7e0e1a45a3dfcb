"""A recipe with fake commands: what the runner does is seen in the file `calls`, in seconds."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

DATA = """\
echo "data $*" >> calls
for set in train dev test; do
    mkdir -p "${DATADIR}/${set}"
    printf '%s\\n' "$set-1 s" "$set-2 s" "$set-3 s" "$set-4 s" > "${DATADIR}/${set}/utt2spk"
    printf '%s\\n' "$set-1 a" "$set-2 b" "$set-3 c" "$set-4 d" > "${DATADIR}/${set}/text"
    sed 's/ s$/ x.wav/' "${DATADIR}/${set}/utt2spk" > "${DATADIR}/${set}/wav.scp"
done
"""
VALUES = """--train_set train --valid_set dev --test_sets test --nbpe 50 --nj 2 --inference_nj 2
    --encoder_config conf/encoder.yaml --text_config conf/text.yaml --adapter_config conf/adapter.yaml
    --asr_config conf/asr.yaml --asr_tag asr --inference_config conf/decode.yaml"""
CONFIGS = {
    "encoder": "encoder: whisper\nencoder_conf: {model: x}\n",
    "text": "max_epoch: 3\noptim_conf: {lr: 0.1}\n",
    "adapter": "max_epoch: 3\n",
    "asr": "max_epoch: 3\noptim_conf: {lr: 0.1}\n",
    "decode": "sampler: pdd\nsampler_conf: {candidates: 3}\n",
}


@dataclass
class Recipe:
    """egs/fake/asr1 in a folder of its own, with the real run.sh, asr.sh and runner."""

    path: Path
    env: dict[str, str]

    def start(self, *words: str, cwd: Path | None = None) -> subprocess.Popen:
        """Start run.sh with these words."""
        return subprocess.Popen(
            [self.path / "run.sh", *words],
            cwd=cwd or self.path, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *words: str, code: int = 0, cwd: Path | None = None) -> str:
        """Run run.sh to its end; returns standard output and error, after checking the exit code."""
        child = self.start(*words, cwd=cwd)
        out, err = child.communicate(timeout=60)
        assert child.returncode == code, out + err
        return out + err

    def calls(self) -> list[str]:
        """Commands that have run since the last look."""
        file = self.path / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines

    def write(self, name: str, text: str) -> None:
        """Write a file of the recipe."""
        (self.path / name).write_text(text)


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The recipe that tests get copies of; nothing has run in it."""
    root = tmp_path_factory.mktemp("fresh")
    path = root / "egs" / "fake" / "asr1"
    shutil.copytree(ROOT / "egs" / "TEMPLATE", root / "egs" / "TEMPLATE")
    (root / "whisfusion_asr").symlink_to(ROOT / "whisfusion_asr")
    _script(root / "utils" / "install.sh", "exit 0\n")
    subprocess.run([root / "egs/TEMPLATE/asr1/setup.sh", path], check=True, capture_output=True)
    _script(root / "fake_python", f'exec {sys.executable} -S -E {ROOT}/test/recipe/fake_python.py "$@"\n')
    _script(root / "bin" / "python3", f'exec {sys.executable} "$@"\n')
    values = " ".join(shlex.split(VALUES)) + f" --python {root / 'fake_python'}"
    _script(path / "run.sh", f'exec "$(dirname "$0")/asr.sh" {values} -- "$@"\n')
    _script(path / "local" / "data.sh", DATA)
    for name, text in CONFIGS.items():
        (path / "conf" / f"{name}.yaml").write_text(text)
    env = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "CUDA_VISIBLE_DEVICES")}
    return Recipe(path, env | {"PATH": f"{root / 'bin'}:{os.environ['PATH']}"})


@pytest.fixture(scope="session")
def finished_once(fresh: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A copy in which all stages have run."""
    recipe = _copy(fresh, tmp_path_factory.mktemp("finished"))
    recipe.run()
    recipe.calls()
    return recipe


@pytest.fixture
def recipe(fresh: Recipe, tmp_path: Path) -> Recipe:
    """A recipe in which nothing has run."""
    return _copy(fresh, tmp_path)


@pytest.fixture
def finished(finished_once: Recipe, tmp_path: Path) -> Recipe:
    """A recipe in which all stages have run."""
    return _copy(finished_once, tmp_path)


@pytest.fixture
def script() -> Callable[[Path, str], None]:
    """Writes an executable shell script."""
    return _script


def _copy(recipe: Recipe, to: Path) -> Recipe:
    shutil.copytree(recipe.path.parents[2], to / "root", symlinks=True)
    return Recipe(to / "root" / "egs" / "fake" / "asr1", recipe.env)


def _script(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\nset -euo pipefail\n{body}")
    path.chmod(0o755)

