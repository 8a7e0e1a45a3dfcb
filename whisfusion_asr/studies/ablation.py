"""An ablation: variants of a recipe, each run through its own run.sh under a tag of its own, and their comparison."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from whisfusion_asr.config import read_yaml
from whisfusion_asr.decoding.conf import check_choice, check_keys
from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write
from whisfusion_asr.recipe.options import Options
from whisfusion_asr.report.systems import shared_normalizer
from whisfusion_asr.report.tables import Columns, table
from whisfusion_asr.scoring import compare_systems, rate_interval, read_score_dir
from whisfusion_asr.studies.sweep_page import comparison_cells, interval_cell

KEYS = ("reference", "common", "runs", "published")
# What the command itself decides, or what would leave nothing to compare.
OURS = ("expdir", "dry_run")
COLUMNS: Columns = {
    "run": ("run", None), "wer": ("WER", 2), "interval": ("95 % interval by utterance", None),
    "interval_speaker": ("by speaker", None), "difference": ("above the reference", None),
    "mapsswe": ("p, MAPSSWE", None), "bootstrap": ("p, bootstrap", None), "bootstrap_speaker": ("p, by speaker", None),
    "published": ("published WER", 1),
}
NOTE = (
    "WER in percent of the reference words; differences and p-values are against the run `{reference}` on the same "
    "utterances. The number of speakers stands behind their interval: drawing few of them gives too short an interval "
    "and too small a p-value. One training of each run: the p-values hold the chance of the test set, not of training."
)


@dataclass(frozen=True)
class Ablation:
    """Runs by name: options of the recipe, `common` ones included; the reference is one of them.

    published: name of a run -> WER in percent that a paper gives for it, shown beside ours
    """

    reference: str
    runs: dict[str, dict[str, str]]
    published: dict[str, float]

    @property
    def order(self) -> list[str]:
        """The reference first: other runs may be made of what it leaves."""
        return [self.reference, *(name for name in self.runs if name != self.reference)]


def read_ablation(path: str | Path, tag: str) -> Ablation:
    """The runs of an ablation file. tag: stands for TAG in the values.

    raises UserError: an unknown key or option, a run without asr_tag, two with the same, no such reference
    """
    content = read_yaml(path)
    check_keys(content, KEYS, str(path))
    runs = content.get("runs")
    if not isinstance(runs, dict) or not runs:
        raise UserError(f"{path}: runs: expected names with options of the recipe, got {runs!r}")
    common = _options(path, "common", content.get("common"), tag)
    all_runs = {str(name): common | _options(path, f"runs: {name}", own, tag) for name, own in runs.items()}
    tags: dict[str, str] = {}
    for name, options in all_runs.items():
        own = options.get("asr_tag")
        if not own:
            raise UserError(f"{path}: runs: {name}: asr_tag is not set; name the run's model, as in TAG_variant")
        if own in tags:
            raise UserError(f"{path}: {tags[own]} and {name} have the same asr_tag {own}; each run needs its own")
        tags[own] = name
    check_choice(content.get("reference"), all_runs, f"{path}: reference")
    published = content.get("published") or {}
    check_keys(published, all_runs, f"{path}: published")
    return Ablation(content["reference"], all_runs, published)


def _options(path: str | Path, place: str, given: Any, tag: str) -> dict[str, str]:
    if not isinstance(given, dict | None):
        raise UserError(f"{path}: {place}: expected options of the recipe, got {given!r}")
    known = [field.name for field in fields(Options) if field.name not in OURS]
    check_keys(given or {}, known, f"{path}: {place}")
    return {key: _text(value).replace("TAG", tag) for key, value in (given or {}).items()}


def _text(value: Any) -> str:
    """A value as the command line writes it."""
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def run_words(recipe: str | Path, options: dict[str, str], expdir: str, more: Sequence[str] = ()) -> list[str]:
    """The command of one run. more: options for every run, weaker than those of the file."""
    own = [word for key, value in options.items() for word in (f"--{key}", value)]
    return [os.path.join(recipe, "run.sh"), *more, *own, "--expdir", expdir]


def compare_runs(ablation: Ablation, recipe: str | Path, expdir: str) -> dict[str, list[dict[str, Any]]]:
    """Rows of each decoded set that every run has: `<decoding>/<set>` -> name, WER, intervals, against reference.

    raises UserError: no set is scored in all runs, or one was with different normalizers
    """
    places = {name: Path(recipe, expdir, ablation.runs[name]["asr_tag"]) for name in ablation.order}
    shared = set.intersection(*(_scored_sets(place) for place in places.values()))
    if not shared:
        raise UserError(f"{Path(recipe, expdir)}: no set is decoded and scored by all of {', '.join(places)}; "
                        "let the runs reach --stop_stage score with the same inference_config")
    return {name: _rows(ablation, name, {run: place / name for run, place in places.items()})
            for name in sorted(shared)}


def _scored_sets(place: Path) -> set[str]:
    return {str(found.parent.parent.relative_to(place)) for found in place.glob("*/*/score_wer/ref.trn")}


def _rows(ablation: Ablation, name: str, decoded: dict[str, Path]) -> list[dict[str, Any]]:
    normalizer = shared_normalizer(name, decoded)
    scored = {run: read_score_dir(place / "score_wer") for run, place in decoded.items()}
    reference, rows = scored[ablation.reference], []
    for run, system in scored.items():
        counts = system.counts
        errors, words = sum(c.errors for c in counts), sum(c.reference_length for c in counts)
        intervals = {"interval_by_utterance": rate_interval(counts).as_json(),
                     "interval_by_speaker": rate_interval(counts, system.speakers).as_json()}
        compared = None if system is reference else compare_systems(reference, system)
        rows.append({"run": run, "options": ablation.runs[run], "wer": 100 * errors / words, "errors": errors,
                     "reference_length": words, "utterances": len(counts), "normalizer": normalizer,
                     **intervals, **comparison_cells(compared), "published": ablation.published.get(run),
                     "against_reference": compared and compared.as_json()})
    return rows


def write_ablation(ablation: Ablation, found: dict[str, list[dict[str, Any]]], out: str | Path,
                   commands: Sequence[str]) -> None:
    """Write OUT.md and OUT.json. commands: what made the page, and what it ran."""
    lines = ["# Ablation", "", "Made by:", "", "```sh", commands[0], "```", "", "which ran", "", "```sh", *commands[1:],
             "```", ""]
    for name, rows in found.items():
        cells = [{**row, "interval": interval_cell(row["interval_by_utterance"]),
                  "interval_speaker": f"{interval_cell(row['interval_by_speaker'])} "
                  f"({row['interval_by_speaker']['units']})"} for row in rows]
        first = rows[0]
        facts = (f"{first['utterances']} utterances, {first['reference_length']} reference words, normalizer "
                 f"{first['normalizer'] or 'not recorded'}.")
        lines += [f"## {name}", "", facts, "", *table(COLUMNS, cells)]
    lines += [NOTE.format(reference=ablation.reference)]
    with atomic_write(f"{out}.md") as file:
        file.write("\n".join(lines) + "\n")
    with atomic_write(f"{out}.json") as file:
        json.dump({"reference": ablation.reference, "commands": list(commands), "sets": found}, file, indent=2)
        file.write("\n")
