"""Weight files: each training step writes only what it trained; a network is put together from a chain of such files.

An experiment directory holds `config.yaml` (with its `init_param` list), `init.json` (the files of that list with
their SHA-256) and the weights of its own step.
"""

import json
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write, sha256
from whisfusion_asr.training.ema import EMA
from whisfusion_asr.training.freeze import ready_made, under

INIT_RECORD = "init.json"
WEIGHTS, PACKED_WEIGHTS = "valid.loss.ave.pth", "model.safetensors"  # what a training leaves; what a packed model holds


@dataclass(frozen=True)
class InitParam:
    """ESPnet's `file[:source[:target[:exclude]]]`.

    Of the file, names beginning with one of `exclude` are left out, then those under `source` are taken and put
    under `target`. Prefixes are whole components: `decoder` is not a prefix of `decoder2.weight`.
    """

    path: str
    source: str = ""
    target: str = ""
    exclude: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "InitParam":
        """Raises UserError for more than four parts."""
        parts = text.split(":")
        if len(parts) > 4 or not parts[0]:
            raise UserError(f"init_param: {text!r} is not of the form file:source:target:exclude")
        path, source, target, exclude = parts + [""] * (4 - len(parts))
        return cls(path, source, target, tuple(part for part in exclude.split(",") if part))

    def select(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the file under their names in the model."""
        chosen = {}
        for name, tensor in weights.items():
            if under(name, self.source) and not any(under(name, prefix) for prefix in self.exclude):
                inner = name[len(self.source) :].lstrip(".")
                chosen[".".join(part for part in (self.target, inner) if part)] = tensor
        return chosen


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Weights of a file on the CPU; where it holds averaged weights (`ema.*`) they replace the raw ones.

    Raises UserError: no such file, not a weight file, a training state, or a file that wants to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such weight file; train the step that writes it first, or correct the path")
    try:
        state = _read_safetensors(path) if path.suffix == ".safetensors" else _load(path)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: holds more than weights ({_first_line(error)}); {_WANTED}") from error
    except (RuntimeError, EOFError, OSError) as error:
        raise UserError(f"{path}: cannot be read as a weight file ({_first_line(error)}); {_WANTED}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: is not a table of weights; {_WANTED}")
    averages = {key[len(EMA) + 1 :]: value for key, value in state.items() if key.startswith(f"{EMA}.")}
    averages.pop("updates", None)
    return {key: averages.get(key, value) for key, value in state.items() if not key.startswith(f"{EMA}.")}


_WANTED = "give an epoch or averaged model such as valid.loss.ave.pth, never checkpoint.pth"


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: cannot be read as a weight file ({error}); copy it again") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:120]


def copy_weights(
    model: nn.Module, weights: Mapping[str, Tensor], where: str, ignore_mismatch: bool = False
) -> set[str]:
    """Copy tensors into the model's parameters and buffers; returns the names that were set.

    where: the file (and its selection), for messages
    ignore_mismatch: leave out what does not fit, as long as something does
    Raises UserError: nothing fits, a name the model does not have, another shape.
    """
    targets = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    unexpected = sorted(name for name in weights if name not in targets)
    misshapen = sorted(n for n, value in weights.items() if n in targets and targets[n].shape != value.shape)
    fitting = {n: value for n, value in weights.items() if n in targets and targets[n].shape == value.shape}
    if not weights or (not fitting and ignore_mismatch):
        raise UserError(f"init_param: {where} gives the model no tensor; check the source and target prefixes")
    if misshapen and not ignore_mismatch:
        name = misshapen[0]
        raise UserError(
            f"{where}: {name} has shape {tuple(weights[name].shape)} there and {tuple(targets[name].shape)} in the "
            f"model ({len(misshapen)} such); the two were made with different settings"
        )
    if unexpected and not ignore_mismatch:
        raise UserError(f"{where}: the model has no {shorten(unexpected)}; take a part, file:source:target:exclude")
    with torch.no_grad():
        for name, value in fitting.items():
            targets[name].copy_(value)
    return set(fitting)


def shorten(names: Sequence[str], shown: int = 3) -> str:
    """The first few of the names and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def load_init_param(model: nn.Module, text: str, ignore_mismatch: bool = False) -> set[str]:
    """Initialise `model` by one item of init_param; returns the names that were set. Raises UserError (see above)."""
    init = InitParam.parse(text)
    return copy_weights(model, init.select(read_weights(init.path)), text, ignore_mismatch)


def record_init(output_dir: str | Path, init_params: Sequence[str]) -> None:
    """Write init.json: the initial files with their absolute paths and SHA-256."""
    rows = []
    for text in init_params:
        path = Path(InitParam.parse(text).path)
        rows.append({"init_param": text, "path": str(path.absolute()), "sha256": sha256(path)})
    with atomic_write(Path(output_dir) / INIT_RECORD) as file:
        json.dump(rows, file, indent=1)
        file.write("\n")


def read_init_record(exp_dir: str | Path) -> dict[str, dict[str, str]]:
    """init_param item -> its row of init.json; empty without that file."""
    path = Path(exp_dir) / INIT_RECORD
    if not path.exists():
        return {}
    return {row["init_param"]: row for row in json.loads(path.read_text(encoding="utf-8"))}


def find_init_file(exp_dir: Path, config: Mapping[str, Any], text: str) -> Path:
    """The file that one init_param item of an experiment means, wherever the recipe was moved since.

    Tried in turn: the recipe directory (exp_dir without the output_dir of its configuration), the recorded absolute
    path, the working directory. Raises UserError: none is there, or its content is not what training started from.
    """
    path, record = Path(InitParam.parse(text).path), read_init_record(exp_dir).get(text)
    candidates = [] if record is None else [Path(record["path"])]
    candidates = [*(root / path for root in _recipe(exp_dir, config)), *candidates, path]
    for candidate in candidates:
        if candidate.is_file():
            if record is not None and sha256(candidate) != record["sha256"]:
                raise UserError(
                    f"{candidate}: changed since {exp_dir} was trained on it (SHA-256 differs from "
                    f"{exp_dir / INIT_RECORD}); restore the file, or train {exp_dir} again"
                )
            return candidate
    tried = ", ".join(dict.fromkeys(map(str, candidates)))
    raise UserError(
        f"{exp_dir}: its initial weights {path} are missing (looked for {tried}); "
        "keep the experiment directories it was built on beside it"
    )


def _recipe(exp_dir: Path, config: Mapping[str, Any]) -> list[Path]:
    """The recipe directory that an experiment lies in, by the output_dir of its configuration; else nothing."""
    output_dir, here = Path(str(config.get("output_dir", ""))).parts, exp_dir.resolve().parts
    inside = bool(output_dir) and here[-len(output_dir) :] == output_dir
    return [Path(*here[: -len(output_dir)])] if inside else []


def read_config(exp_dir: str | Path) -> dict[str, Any]:
    """config.yaml of an experiment directory. Raises UserError when there is none.

    Its token model and Whisper folder are found from any working directory: relative to the experiment (a packed
    model holds them itself), or to its recipe.
    """
    path = Path(exp_dir) / "config.yaml"
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected the directory of a trained model")
    with open(path, encoding="utf-8") as file:
        config = yaml.safe_load(file)
    parts = (config.get(f"{part}_conf") or {} for part in ("encoder", "ctc", "decoder"))
    for part, key in ((config, "bpemodel"), *((part, "model") for part in parts)):
        if part.get(key):
            places = [folder / str(part[key]) for folder in (path.parent, *_recipe(path.parent, config))]
            part[key] = next((str(place) for place in places if place.exists()), part[key])
    return config


def load_network_weights(network: nn.Module, exp_dir: str | Path, model_file: str | Path) -> None:
    """Fill a network with what an experiment's training ended with.

    exp_dir: with config.yaml; its init_param files are read in order, then `model_file` (name in exp_dir, or a path).
    Averaged weights are preferred, nothing but tensors is unpickled, and every parameter and persistent buffer must
    be set by these files. Raises UserError: a file that is missing, changed or does not fit, parameters left over.
    """
    exp_dir = Path(exp_dir)
    config = read_config(exp_dir)
    ignore = bool(config.get("ignore_init_mismatch", False))
    covered = ready_made(network)
    for text in config.get("init_param") or []:
        file = find_init_file(exp_dir, config, text)
        covered |= copy_weights(network, InitParam.parse(text).select(read_weights(file)), str(file), ignore)
    inside = [exp_dir / model_file, *([exp_dir / PACKED_WEIGHTS] if str(model_file) == WEIGHTS else [])]
    own = next((place for place in inside if place.exists()), Path(model_file))
    covered |= copy_weights(network, read_weights(own), str(own))
    check_covered(network.state_dict(), covered, f"{own} and the init_param files of {exp_dir}/config.yaml")


def check_covered(names: Iterable[str], covered: set[str], files: str) -> None:
    """Raise UserError when a name was set by none of the files."""
    missing = [name for name in names if name not in covered]
    if missing:
        raise UserError(
            f"{len(missing)} tensors of the model are in none of its files ({files}): {shorten(missing)}; "
            "add the file that has them to init_param"
        )
