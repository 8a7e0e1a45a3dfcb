"""A learning curve: an experiment's kept epochs, each decoded with every setting of a grid."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write
from whisfusion_asr.report.figures import draw_learning
from whisfusion_asr.report.tables import Columns, table
from whisfusion_asr.report.training import read_training
from whisfusion_asr.studies.grid import Point
from whisfusion_asr.studies.sweep import SweepInputs, run_sweep
from whisfusion_asr.studies.sweep_page import interval_cell

COLUMNS: Columns = {
    "epoch": ("epochs", 0), "minutes": ("minutes of training", 1), "name": ("setting", None), "wer": ("WER", 2),
    "interval": ("95 % interval by utterance", None), "passes": ("passes", 2), "cpu_seconds": ("CPU seconds", 1),
}
KEPT = re.compile(r"(\d+)epoch\.pth")


def kept_epochs(exp_dir: Path) -> dict[int, str]:
    """Number -> weights of the epochs that a training has kept. Raises UserError for none."""
    found = {int(match[1]): path.name for path in exp_dir.glob("*epoch.pth") if (match := KEPT.fullmatch(path.name))}
    if not found:
        raise UserError(f"{exp_dir}: no Nepoch.pth; train with --keep_nbest_models as large as --max_epoch")
    return dict(sorted(found.items()))


def learning_curve(inputs: SweepInputs, points: Sequence[Point], out: Path) -> list[dict[str, Any]]:
    """Decode and score; what is there already is kept.

    inputs: their model_file is of no importance
    returns: a row for each epoch and point: as of `run_sweep`, and epoch, minutes (of training so far)
    raises UserError: no kept epochs, or no log that tells their time; as `run_sweep`
    """
    exp_dir, rows = Path(inputs.exp_dir), []
    seconds = read_training(exp_dir).epoch_seconds
    sums = dict(zip(sorted(seconds), accumulate(seconds[number] for number in sorted(seconds)), strict=True))
    for epoch, name in kept_epochs(exp_dir).items():
        if epoch not in sums:
            raise UserError(f"{exp_dir}/train.log: tells no time of epoch {epoch}, whose weights are there")
        for row in run_sweep(replace(inputs, model_file=name), points, out / f"{epoch}epoch"):
            rows.append({"epoch": epoch, "minutes": sums[epoch] / 60, **row})
    return rows


def write_curve(rows: Sequence[dict[str, Any]], out: Path, facts: dict[str, str], command: str) -> None:
    """Write OUT/learning_curve.md, .json and .png (needs matplotlib)."""
    with atomic_write(out / "learning_curve.png", "wb") as file:
        file.write(draw_learning(rows))
    with atomic_write(out / "learning_curve.json") as file:
        json.dump({"facts": facts, "command": command, "points": rows}, file, indent=2)
        file.write("\n")
    cells = [{**row, "interval": interval_cell(row["interval_by_utterance"])} for row in rows]
    lines = ["# Learning curve", "", "Made by:", "", "```sh", command, "```", "",
             "; ".join(f"{key}: {value}" for key, value in facts.items()) + ".", "", *table(COLUMNS, cells), "",
             "WER in percent of the reference words; minutes are those of the training's own log, validation included; "
             "passes are means of an utterance.", "", "![Learning curve](learning_curve.png)"]
    with atomic_write(out / "learning_curve.md") as file:
        file.write("\n".join(lines) + "\n")
