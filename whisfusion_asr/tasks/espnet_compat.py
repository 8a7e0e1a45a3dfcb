"""Everything ESPnet needs stubbed or mended, in one place; imported before any espnet2 module.

Stubs stand in for packages that ESPnet imports but speech recognition never calls (text-to-speech front ends), some
of which download data when imported. The mends concern files: weights are written atomically, the checkpoint before
the last one is kept, initial weights are checked while they are loaded.
"""

import importlib
import importlib.machinery
import importlib.util
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write
from whisfusion_asr.training.checkpoint import load_init_param

CHECKPOINT = "checkpoint.pth"
PREVIOUS_CHECKPOINT = "checkpoint.prev.pth"

# g2p_en looks for nltk data on the network at every import, so it is never wanted, installed or not.
_ALWAYS = {"g2p_en": {"G2p": None}}
_IF_MISSING: dict[str, dict[str, Any]] = {
    "jamo": {},
    "tacotron_cleaner": {},
    "tacotron_cleaner.cleaners": {},
    "jaconv": {},
    "jaconv.jaconv": {},
}

_save = torch.save


def install_stubs() -> None:
    """Put empty modules into sys.modules for what is missing (and for g2p_en). Called once, at import."""
    wanted = [name for name in _IF_MISSING if importlib.util.find_spec(name.split(".")[0]) is None]
    for name, attributes in {**_ALWAYS, **{name: _IF_MISSING[name] for name in wanted}}.items():
        module = stub(name)
        module.__dict__.update(attributes)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


def stub(name: str) -> ModuleType:
    """An empty module under `name`, with a spec, since other packages ask for it before they import."""
    module = sys.modules[name] = ModuleType(name, "stub: not needed for speech recognition")
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    return module


@contextmanager
def hidden(name: str) -> Iterator[None]:
    """Inside the block an import of the package fails, unless it is already imported."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  (the documented way)
    try:
        yield
    finally:
        del sys.modules[name]


def install_torchaudio_fallback() -> None:
    """Stub torchaudio where it cannot be imported: its wheel wants CUDA libraries that a CPU torch does not bring."""
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError, RuntimeError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        stub("torchaudio")


def save_atomically(obj: object, f: Any, *args: Any, **kwargs: Any) -> None:
    """torch.save that never leaves a half-written file under the wanted name; keeps the checkpoint before the last.

    Raises UserError when the disk is full: torch hides the system's error behind one of its own.
    """
    if not isinstance(f, (str, os.PathLike)):
        _save(obj, f, *args, **kwargs)
        return
    path = Path(f)
    try:
        with atomic_write(path, "wb") as file:
            _save(obj, file, *args, **kwargs)
            if path.name == CHECKPOINT and path.exists():
                keep_previous(path)
    except RuntimeError as error:
        if not isinstance(error.__context__, OSError):
            raise
        raise UserError(
            f"{path}: cannot be written ({error.__context__.strerror}); what was saved before is whole: make room and "
            "run the same command again"
        ) from error


def keep_previous(checkpoint: Path) -> None:
    """Give the checkpoint a second name, so that it survives being replaced."""
    previous = checkpoint.with_name(PREVIOUS_CHECKPOINT)
    temporary = previous.with_name(f".{previous.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(checkpoint, temporary)
    except OSError:  # a file system without hard links
        shutil.copyfile(checkpoint, temporary)
    os.replace(temporary, previous)


def load_pretrained_model(
    init_param: str, model: nn.Module, ignore_init_mismatch: bool, map_location: str = "cpu"
) -> None:
    """ESPnet's loader, checked: tensors only, every file must fit somewhere; notes the names in model.initialised."""
    names = load_init_param(model, init_param, ignore_init_mismatch)
    model.__dict__.setdefault("initialised", set()).update(names)


def is_curve(name: str) -> bool:
    """Whether a statistic is a loss or an accuracy: drawing all of them would cost seconds an epoch."""
    return name.startswith(("loss", "acc")) and name != "loss_scale"


def plot_curves(reporter: Any, output_dir: str | Path) -> None:
    """Reporter.matplotlib_plot for losses and accuracies only."""
    keys = list(reporter.get_keys())
    names = {name for key in keys for name in reporter.get_keys2(key) if is_curve(name)}
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    for name in sorted(names):
        figure = reporter._plot_stats([key for key in keys if name in reporter.get_keys2(key)], name)
        figure.savefig(Path(output_dir) / f"{name}.png")


def average_separately(
    reporter: Any, output_dir: Path, best_model_criterion: Sequence[Sequence[str]], nbest: Sequence[int] | int,
    suffix: str | None = None
) -> None:
    """ESPnet's n-best averaging, one average at a time.

    In 202511 one call for several criteria or sizes adds the second average to the first one's sums.
    """
    average = importlib.import_module("espnet2.main_funcs.average_nbest_models").average_nbest_models
    sizes = [nbest] if isinstance(nbest, int) else sorted(nbest)
    for phase, key, mode in best_model_criterion:
        if reporter.has(phase, key):
            epochs = len(reporter.sort_epochs(phase, key, mode))
            for size in [size for size in sizes if 0 < size <= epochs] or [1]:
                average(
                    output_dir=output_dir, reporter=reporter, best_model_criterion=[(phase, key, mode)], nbest=size,
                    suffix=suffix,
                )


def mend_espnet() -> None:
    """Apply the mends to the imported toolkit; doing it twice changes nothing."""
    abs_task = importlib.import_module("espnet2.tasks.abs_task")
    reporter = importlib.import_module("espnet2.train.reporter")
    trainer = importlib.import_module("espnet2.train.trainer")
    trainer.average_nbest_models = average_separately
    abs_task.load_pretrained_model = load_pretrained_model
    reporter.Reporter.matplotlib_plot = plot_curves
    torch.save = save_atomically
    warnings.filterwarnings("ignore", "`torch.cuda.amp", FutureWarning)


install_stubs()
install_torchaudio_fallback()
with hidden("transformers"):  # only ESPnet's Houlsby adapters want it, and it doubles the time of the import
    mend_espnet()
