"""What an experiment's own files tell about its training: parameters, epochs, time, versions."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from whisfusion_asr.report.files import read_config, read_json

PARAMETERS = re.compile(r"INFO: ([\w.]+): ([\d,]+) trainable, ([\d,]+) frozen parameters")
EPOCH = re.compile(r"INFO: (\d+)epoch results: (.*)")
TIME = re.compile(r"\btime=((?:[\d.]+ (?:day|hour|minute|second)s?(?:, and |, | and )?)+)")
SECONDS = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}
VERSIONS = ("whisfusion_asr", "torch", "espnet", "python", "platform", "git")


@dataclass(frozen=True)
class Training:
    """What one experiment's logs tell.

    parts: name of each part of the network -> its parameters, trained and frozen; epochs: their number
    seconds: sum over epochs of training and validation, None without a log; epoch_seconds: of each. An epoch counts by
        its last run: one that a crash cut off and that was trained again counts once.
    """

    place: Path
    parts: dict[str, tuple[int, int]]
    epochs: int
    seconds: float | None
    epoch_seconds: dict[int, float]


def read_training(exp_dir: Path) -> Training:
    """The training of an experiment, also one that was resumed: the logs of its earlier calls are read first."""
    older = sorted(exp_dir.glob("train.[0-9].log"), reverse=True)
    logs = [path for path in (*older, exp_dir / "train.log") if path.is_file()]
    text = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in logs)
    parts = {name: (_number(trained), _number(frozen)) for name, trained, frozen in PARAMETERS.findall(text)}
    epochs = {int(number): sum(map(duration, TIME.findall(line))) for number, line in EPOCH.findall(text)}
    return Training(exp_dir, parts, len(epochs), sum(epochs.values()) if epochs else None, epochs)


def trainings(exp_dir: Path, kept: Collection[str] = ()) -> list[Training]:
    """The trainings behind an experiment's weights, in the order in which they were made, each once.

    They are found by the init_param of config.yaml, and by that of each experiment found there.

    kept: follow only the weights of these parts of the network, and leave trainings of other parts out; empty: all
    """
    found: dict[Path, Training] = {}
    for item in read_config(exp_dir / "config.yaml").get("init_param") or []:
        path, _, part = (item.split(":") + ["", ""])[:3]
        if not kept or part in kept:
            found |= {each.place: each for each in trainings(moved(Path(path), exp_dir).parent, kept)}
    own = read_training(exp_dir)
    if not kept or any(own.parts.get(part, (0, 0))[0] for part in kept):
        found[exp_dir] = own
    return list(found.values())


def moved(path: Path, exp_dir: Path) -> Path:
    """A file that a configuration names from its recipe directory, which is above the experiment."""
    places = [path, *(above / path for above in exp_dir.absolute().parents)]
    return next((place for place in places if place.is_file()), path)


def training_lines(exp_dir: Path) -> list[str]:
    """Markdown list: training seed, and what train.log and versions.json tell; a file that is missing adds nothing."""
    lines = [f"- training seed: `{read_config(exp_dir / 'config.yaml').get('seed', '-')}`"]
    training = read_training(exp_dir)
    if training.parts:
        trained, frozen = (sum(side) for side in zip(*training.parts.values(), strict=True))
        lines.append(f"- parameters: {trained:,} trained, {frozen:,} frozen")
    if training.seconds is not None:
        lines.append(f"- training: {training.epochs} epochs in {training.seconds / 60:.1f} minutes")
    versions = read_json(exp_dir / "versions.json")
    told = [f"{name} `{versions[name]}`" for name in VERSIONS if versions.get(name)]
    if versions.get("git_changed"):
        told.append("with local changes")
    return lines + ([f"- trained with: {', '.join(told)}"] if told else [])


def duration(text: str) -> float:
    """Seconds of a time as ESPnet's log writes it: `1 hour, 2 minutes and 3.5 seconds`."""
    return sum(float(number) * SECONDS[unit] for number, unit in re.findall(r"([\d.]+) (day|hour|minute|second)", text))


def _number(text: str) -> int:
    return int(text.replace(",", ""))
