"""The toy recipe through its real command line, in directories of the test session."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs" / "mini_synth" / "asr1"


def environment() -> dict[str, str]:
    """The tests' own interpreter as the active environment, one thread: equal numbers however busy the machine is."""
    removed = ("PYTHONPATH", "DATADIR", "CUDA_VISIBLE_DEVICES")
    kept = {name: value for name, value in os.environ.items() if name not in removed}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return kept | {"VIRTUAL_ENV": sys.prefix, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


@dataclass(frozen=True)
class Toy:
    """`run.sh --preset toy` of a recipe, or another of its scripts, with data, dump and exp below `root`.

    data: folder of the data, where another one's is used; script: of the recipe, for its controls
    """

    root: Path
    data: Path
    recipe: Path = RECIPE
    script: str = "run.sh"

    @property
    def exp(self) -> Path:
        """Directory of the experiments."""
        return self.root / "exp"

    @property
    def model(self) -> Path:
        """Directory of the recognition model."""
        return self.exp / "mini_synth"

    @property
    def states(self) -> Path:
        """Directory of the dumped states."""
        return self.root / "dump" / "states"

    def command(self, *words: str | Path) -> list[str]:
        """The command line."""
        places = {"datadir": self.data, "dumpdir": self.root / "dump", "expdir": self.exp}
        places |= {name: self.data / "local/text_train.txt" for name in ("token_text", "text_data")}
        places["text_valid"] = self.data / "local/text_valid.txt"
        options = [word for name, value in places.items() for word in (f"--{name}", value)]
        return [str(word) for word in (self.recipe / self.script, "--preset", "toy", *options, *words)]

    def start(self, *words: str | Path) -> subprocess.Popen:
        """Start it in a process group of its own; output and error go to files below `root`."""
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / "stdout", "w") as out, open(self.root / "stderr", "w") as err:
            return subprocess.Popen(
                self.command(*words), env=environment(), stdout=out, stderr=err, start_new_session=True, cwd="/"
            )

    def run(self, *words: str | Path, code: int = 0) -> subprocess.CompletedProcess:
        """Run it to its end and check the exit code."""
        done = subprocess.run(self.command(*words), env=environment(), capture_output=True, text=True, cwd="/")
        assert done.returncode == code, done.stdout[-3000:] + done.stderr
        return done

    def stages(self, first: int, last: int | None = None) -> list[str]:
        """Options that choose stages."""
        return ["--stage", str(first), "--stop_stage", str(first if last is None else last)]


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """All stages, undisturbed."""
    for module, meaning in (("espeakng_loader", "eSpeak NG speaks the corpus"), ("espnet2", "ESPnet trains")):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module} ({meaning}); utils/install.sh installs it")
    root = tmp_path_factory.mktemp("toy")
    recipe = Toy(root, root / "data")
    recipe.run()
    return recipe


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which a recipe may be made: the template is copied, everything else is a link."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "egs" / "TEMPLATE", root / "egs" / "TEMPLATE")
    for name in ("conf", "utils", "whisfusion_asr", "setup.py"):
        (root / name).symlink_to(ROOT / name)
    return root


@pytest.fixture(scope="session")
def toy_environment() -> dict[str, str]:
    """Environment in which recipes run."""
    return environment()


@pytest.fixture(scope="session")
def snapshot() -> Callable[[Path], dict[str, tuple[int, int, int]]]:
    """Every file and folder below with its inode, size and time: equal means that nothing was written."""

    def take(folder: Path) -> dict[str, tuple[int, int, int]]:
        stats = {str(path.relative_to(folder)): path.lstat() for path in folder.rglob("*")}
        return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}

    return take
