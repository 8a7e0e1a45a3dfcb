"""The result of a sweep as a Markdown page, a JSON file and a figure."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whisfusion_asr.files import atomic_write
from whisfusion_asr.report.figures import draw_costs
from whisfusion_asr.report.tables import Columns, table
from whisfusion_asr.scoring import Comparison, Interval, compare_systems, read_score_dir, seed_spread
from whisfusion_asr.scoring.bootstrap import p_text, points_text
from whisfusion_asr.scoring.error_rate import percent_text
from whisfusion_asr.studies.front import pareto_front, recommended

COLUMNS: Columns = {
    "shown": ("point", None), "wer": ("WER", 2), "interval": ("95 % interval by utterance", None),
    "interval_speaker": ("by speaker", None), "oracle_wer": ("oracle WER", 2), "passes": ("passes", 2),
    "rows": ("rows", 2), "decode_seconds": ("seconds", 2), "selecting": ("selection %", 1),
    "cpu_seconds": ("CPU seconds", 2), "rtf": ("RTF", 5), "difference": ("above {}", None),
    "mapsswe": ("p, MAPSSWE", None), "bootstrap": ("p, bootstrap", None),
    "bootstrap_speaker": ("p, by speaker", None), "fronts": ("on the front", None),
}
SEEDS: Columns = {
    "shown": ("setting", None), "seeds": ("seeds", None), "mean": ("mean WER", 2), "deviation": ("deviation", 2),
    "lowest": ("lowest", 2), "highest": ("highest", 2),
}
SEEDS_NOTE = "The deviation is the decoder's own chance between seeds; the test set's comes on top: the intervals."
NOTE = (
    "WER in percent of the reference words; the oracle takes the best candidate of each utterance and is no result. "
    "Passes and rows (canvases evaluated) are means of an utterance, seconds are those of the whole set: decoding and "
    "selection, states given, after a warm-up, in the median of the repeats; selection % is its share of them; CPU "
    "seconds are the process's, which other work on the machine disturbs less. The one row of ctc_greedy is the CTC "
    "head's, not the decoder's. A point is on a front if no other has fewer rows (or seconds) at no more errors, or "
    "fewer errors at no higher cost."
)
CHOSEN = (
    "That one was chosen on this very set, among all of them: its WER flatters it, and the p-values are too small by "
    "that choice; confirm a setting on another set. "
)
SPEAKERS = (
    "The number of speakers stands behind their interval: drawing few of them gives too short an interval and too "
    "small a p-value."
)


def place_of(rows: Sequence[dict[str, Any]], name: str = "") -> int:
    """Place of the point of this name; without a name that of the lowest WER, the first one on ties."""
    if name:
        return [row["name"] for row in rows].index(name)
    return min(range(len(rows)), key=lambda i: rows[i]["wer"])


def compare_points(rows: Sequence[dict[str, Any]], reference: int) -> list[Comparison | None]:
    """Every point compared with the one at this place, None for itself."""
    scored = [read_score_dir(Path(row["place"], "score_wer")) for row in rows]
    return [None if i == reference else compare_systems(scored[reference], each) for i, each in enumerate(scored)]


def comparison_cells(compared: Comparison | None) -> dict[str, str]:
    """Cells of a table for a difference and its p-values; `-` where there is nothing to compare with."""
    if compared is None:
        return dict.fromkeys(("difference", "mapsswe", "bootstrap", "bootstrap_speaker"), "-")
    return {"difference": points_text(compared.difference), "mapsswe": p_text(compared.mapsswe.p_value),
            "bootstrap": p_text(compared.by_utterance.p_value),
            "bootstrap_speaker": p_text(compared.by_speaker.p_value)}


def over_seeds(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and deviation of the WER for each setting that was decoded with several seeds, as `seed_spread`.

    rows: of `run_sweep`; a setting is called by what the names of its points have in common
    """
    groups: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        conf = row["settings"]
        options = dict(conf.get("sampler_conf") or {})
        if (seed := options.pop("seed", None)) is not None:
            groups.setdefault(json.dumps({**conf, "sampler_conf": options}, sort_keys=True), {})[seed] = row
    found = []
    for points in groups.values():
        if len(points) > 1:
            first, *others = [row["name"].split() for row in points.values()]
            shown = " ".join(word for word in first if all(word in other for other in others))
            found.append({"shown": shown or "-", **seed_spread({s: row["wer"] for s, row in points.items()}).as_json()})
    return found


def interval_cell(found: Interval | dict[str, Any]) -> str:
    """Both ends of an interval, or of its form in a JSON file."""
    ends = (found["low"], found["high"]) if isinstance(found, dict) else (found.low, found.high)
    return " to ".join(map(percent_text, ends))


def write_sweep(rows: Sequence[dict[str, Any]], out: str | Path, name: str, target: str, tolerance: float | None,
                facts: dict[str, str], command: str, figures: bool, against: str = "") -> dict[str, Any]:
    """Write OUT/NAME.md, OUT/NAME.json and OUT/NAME.png; returns what the JSON file holds.

    rows: of `run_sweep`; facts: conditions for the head of the page; figures: draw one (needs matplotlib)
    against: name of the point that the others are tested against, "" for that of the lowest WER
    raises UserError: as `recommended`; no matplotlib
    """
    out = Path(out)
    place, rule = recommended(rows, target, tolerance)
    compared = compare_points(rows, place_of(rows, against))
    errors = [row["wer"] for row in rows]
    fronts = {"rows": pareto_front([row["rows"] for row in rows], errors),
              "seconds": pareto_front([row["decode_seconds"] for row in rows], errors)}
    names = {cost: [rows[i]["name"] for i in front] for cost, front in fronts.items()}
    found = {
        "facts": facts, "command": command, "lowest_wer": rows[place_of(rows)]["name"],
        "against": against or None, "fronts": names,
        "recommended": {"name": rows[place]["name"], "target": target, "rule": rule,
                        "settings": rows[place]["settings"]},
        "over_seeds": over_seeds(rows),
        "points": [{**row, "comparison": each and each.as_json()} for row, each in zip(rows, compared, strict=True)],
    }
    if figures:
        with atomic_write(out / f"{name}.png", "wb") as file:
            file.write(draw_costs(rows, fronts))
    with atomic_write(out / f"{name}.json") as file:
        json.dump(found, file, indent=2)
        file.write("\n")
    cells = [_cells(row, each, i, fronts) for i, (row, each) in enumerate(zip(rows, compared, strict=True))]
    with atomic_write(out / f"{name}.md") as file:
        file.write("\n".join(_page(name, found, cells, figures)) + "\n")
    return found


def _cells(row: dict[str, Any], compared: Comparison | None, place: int,
           fronts: dict[str, list[int]]) -> dict[str, Any]:
    by_speaker = row["interval_by_speaker"]
    on = [cost for cost, front in fronts.items() if place in front]
    whole = row["decode_seconds"]
    return {**row, **comparison_cells(compared), "shown": row["name"], "fronts": ", ".join(on) or "-",
            "selecting": 100 * row["seconds"].get("select", 0.0) / whole if whole else None,
            "interval": interval_cell(row["interval_by_utterance"]),
            "interval_speaker": f"{interval_cell(by_speaker)} ({by_speaker['units']})"}


def _page(name: str, found: dict[str, Any], cells: list[dict[str, Any]], figures: bool) -> list[str]:
    chosen, against = found["recommended"], found["against"]
    heading, decimals = COLUMNS["difference"]
    columns = COLUMNS | {"difference": (heading.format(against or "the lowest"), decimals)}
    lowest = "the one of lowest WER. " + CHOSEN
    tested = f"The p-values compare a point with {f'`{against}`. ' if against else lowest}{SPEAKERS}"
    lines = [f"# {name}", "", "Made by:", "", "```sh", found["command"], "```", "",
             "; ".join(f"{key}: {value}" for key, value in found["facts"].items()) + ".", "", *table(columns, cells),
              NOTE, "", tested, ""]
    if found["over_seeds"]:
        lines += ["Over seeds:", "", *table(SEEDS, found["over_seeds"]), SEEDS_NOTE, ""]
    lines += [f"Front, WER against {cost}: {', '.join(names)}." for cost, names in found["fronts"].items()]
    lines += ["", f"Recommended for {chosen['target']}: **{chosen['name']}** ({chosen['rule']})."]
    if figures:
        lines += ["", f"![WER against cost]({name}.png)"]
    return lines
