"""COMPARISON.md: several systems on the same sets, each against one of them, with what each cost and how it was run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write
from whisfusion_asr.report.environment import environment_lines
from whisfusion_asr.report.figures import draw_trade
from whisfusion_asr.report.files import read_json
from whisfusion_asr.report.results import command_lines
from whisfusion_asr.report.systems import System, shared_normalizer
from whisfusion_asr.report.tables import Columns, Row, table
from whisfusion_asr.report.training import Training
from whisfusion_asr.scoring.bootstrap import REPLICATES, Interval, p_text, points_text
from whisfusion_asr.scoring.compare import Comparison, compare_systems, read_score_dir
from whisfusion_asr.scoring.error_rate import percent_text

CONDITIONS = ("device", "processor", "gpu", "threads", "jobs", "batch", "warm_up", "encoder", "dtype")
LEFT_OUT = "left out of RTFx"
SIGNIFICANT = 0.05
# Where all speakers differ in the same direction, however little, so do all draws of them: three would give p < 0.001.
FEWEST_SPEAKERS = 10

COLUMNS: Columns = {
    "system": ("system", None), "wer": ("WER", 2), "by_utterance": ("95 % by utterance", None),
    "by_speaker": ("95 % by speaker", None), "difference": ("difference", None), "p_mapsswe": ("p MAPSSWE", None),
    "p_utterance": ("p bootstrap by utterance", None), "p_speaker": ("p bootstrap by speaker", None),
    "rtfx": ("RTFx", 1), "rtfx_alone": ("RTFx at batch 1", 1), "passes": ("passes", None), "rows": ("rows", None),
    "parameters": ("trained parameters", None), "minutes": ("training minutes", None),
    "memory": ("peak memory MiB", 0), "gpu_memory": ("peak GPU memory MiB", 0), "device": ("device", None),
    "threads": ("threads", None), "jobs": ("jobs", None), "batch": ("batch", None),
}
TRAINING: Columns = {
    "place": ("experiment", None), "minutes": ("minutes", 1), "epochs": ("epochs", None),
    "parameters": ("parameters trained", None), "systems": ("used by", None),
}


def write_comparison(
    systems: Sequence[System], against: str, out: Path, sets: Sequence[str] = (), command: str = "",
    replicates: int = REPLICATES, seed: int = 0,
) -> list[str]:
    """Compare each system with one of them: OUT, beside it the same as JSON, and comparison.png.

    against: name of the reference system; sets: default all that it was scored on; command: to stand in the page
    returns: a line for each set and system, for a terminal
    raises UserError: an unknown reference system, a missing score, references or normalizers that differ
    """
    named = {system.name: system for system in systems}
    if against not in named:
        raise UserError(f"--against {against}: no such system; given are {', '.join(named)}")
    found = {name: compare_set(systems, named[against], name, replicates, seed) for name in sets or named[against].sets}
    contents = {
        out: "\n".join(_page(found, systems, against, command)).rstrip() + "\n",
        out.with_suffix(".json"): json.dumps({"against": against, "sets": found}, indent=2) + "\n",
    }
    for path, text in contents.items():
        with atomic_write(path) as file:
            file.write(text)
    with atomic_write(out.with_name("comparison.png"), "wb") as file:
        file.write(draw_trade({name: each["systems"] for name, each in found.items()}))
    return [f"{name}: {row['system']} WER {percent_text(row['wer'])}, MAPSSWE p {row['p_mapsswe'] or '-'}"
            for name, each in found.items() for row in each["systems"]]


def compare_set(systems: Sequence[System], against: System, name: str, replicates: int, seed: int) -> dict[str, Any]:
    """A set's `systems` (a row of COLUMNS each), their `comparisons` in full, `normalizer`, `utterances`, `words`."""
    normalizer = shared_normalizer(name, {each.name: each.directory / name for each in systems})
    reference = read_score_dir(against.scores(name))
    rows, comparisons = [], {}
    for system in systems:
        scored = read_score_dir(system.scores(name))
        comparison = compare_systems(reference, scored, replicates, seed)
        rows.append(_row(system, name, comparison, is_reference=system is against))
        comparisons[system.name] = comparison.as_json()
    _compare_speeds(rows)
    for row in rows:
        row["on_front"] = on_front(row, rows)
    first = comparisons[against.name]
    labelled = max(read_json(each.directory / name / "summary.json").get("labelled", 0) for each in systems)
    return {"normalizer": normalizer, "utterances": first["utterances"], "labelled": labelled,
            "words": first["b"]["reference_length"], "systems": rows, "comparisons": comparisons}


def _row(system: System, name: str, comparison: Comparison, is_reference: bool) -> Row:
    meta, rate = system.meta(name), comparison.b
    alone = system.meta_alone(name)
    row: Row = {
        "system": system.name + (f" (control: {meta['control']})" if meta.get("control") else ""),
        "place": str(system.directory / name), "is_reference": is_reference, "wer": rate.percent,
        "by_utterance": _ends(rate.by_utterance), "by_speaker": _ends(rate.by_speaker),
        "low": rate.by_utterance.low, "high": rate.by_utterance.high,
        **_speeds(meta), **{f"{key}_alone": speed for key, speed in _speeds(alone).items()},
        "alone": {key: alone.get(key) for key in CONDITIONS} if system.alone else None,
        "passes": meta.get("passes"), "rows": meta.get("rows"),
        "memory": meta.get("peak_memory_mib"), "gpu_memory": meta.get("peak_gpu_memory_mib"),
        **{key: meta.get(key) for key in CONDITIONS}, **system.cost(),
    }
    pairs = comparison.mapsswe, comparison.by_utterance, comparison.by_speaker
    names = "p_mapsswe", "p_utterance", "p_speaker"
    row["difference"] = None if is_reference else points_text(comparison.difference)
    row |= {key: None if is_reference else p_text(each.p_value) for key, each in zip(names, pairs, strict=True)}
    if comparison.by_speaker.units < FEWEST_SPEAKERS:
        row["p_speaker"] = None
    both = [each.p_value for each in pairs[:2]]
    row["differs"] = not is_reference and all(p is not None and p < SIGNIFICANT for p in both)
    return row


def _speeds(meta: Mapping[str, Any]) -> dict[str, float | None]:
    """Seconds of audio per second of a decoding, with and without its encoder; None where meta.json does not tell."""
    whole = meta.get("decode_seconds") or 0.0
    decoder = whole - meta["seconds"].get("encode", 0.0) if meta.get("seconds") else 0.0
    return {"rtfx": meta["audio_seconds"] / whole if whole else None,
            "decoder_rtfx": meta["audio_seconds"] / decoder if decoder > 0 else None}


def _compare_speeds(rows: Sequence[Row]) -> None:
    """Where some decodings read their states from disk and all tell their parts, nobody's encoder counts."""
    measured = [(row, "") for row in rows] + [(row, "_alone") for row in rows if row["alone"]]
    encoders = {(row["alone"] if end else row)["encoder"] for row, end in measured}
    if len(encoders) == 1 or not all(row[f"decoder_rtfx{end}"] for row, end in measured):
        return
    for row in rows:
        row |= {"rtfx": row["decoder_rtfx"], "rtfx_alone": row["decoder_rtfx_alone"], "encoder": LEFT_OUT}
        row["alone"] = row["alone"] and row["alone"] | {"encoder": LEFT_OUT}


def on_front(row: Row, rows: Sequence[Row]) -> bool:
    """True for a system that no other one beats in WER or RTFx without being worse in the other (Pareto)."""
    told = [each for each in rows if each["wer"] is not None and each["rtfx"] is not None]
    return row in told and not any(
        each["wer"] <= row["wer"] and each["rtfx"] >= row["rtfx"]
        and (each["wer"], each["rtfx"]) != (row["wer"], row["rtfx"]) for each in told
    )


def _ends(interval: Interval) -> str:
    return "-" if interval.low is None else f"{percent_text(interval.low)} to {percent_text(interval.high)}"


def _page(found: Mapping[str, dict[str, Any]], systems: Sequence[System], against: str, command: str) -> list[str]:
    lines = ["<!-- Generated by `whisfusion compare`. Do not edit: run the command again. -->", "# COMPARISON", "",
             f"Differences, in points of WER, and p-values: each system against {against}.", ""]
    for name, each in found.items():
        lines += [f"## {name}", "", _facts(each), "", *table(COLUMNS, each["systems"]), *_verdicts(each, against), ""]
        lines += [*_conditions(each["systems"]), ""]
    lines += ["![WER against RTFx; the line joins the systems that no other beats in both](comparison.png)", ""]
    lines += [*_legend(), "", "## Training", "", *_training(systems), "## Environments", *environment_lines(), ""]
    places = [place for system in systems for place in
              (*(each.place for each in system.trainings), system.directory.parent, *system.directories)]
    return [*lines, "## Commands", "", "```bash", command, "```", "", *command_lines(places)]


def _facts(found: Mapping[str, Any]) -> str:
    units = next(iter(found["comparisons"].values()))["b"]["by_speaker"]["units"]
    told = (f"{found['utterances']} utterances, {found['words']} reference words, {units} speakers, "
            f"normalizer {found['normalizer'] or 'not recorded'}.")
    if not found["labelled"]:
        return told
    return (f"{told}\n\n**The original Whisper wrote {found['labelled']} of the references (`labelled` in the data "
            "directory): there WER is disagreement with it, and its own is next to nothing.**")


def _verdicts(found: Mapping[str, Any], against: str) -> list[str]:
    """What the tests allow to be said, in words."""
    rows = [row for row in found["systems"] if not row["is_reference"]]
    groups = {
        f"Better than {against}": [row for row in rows if row["differs"] and row["difference"].startswith("-")],
        f"Worse than {against}": [row for row in rows if row["differs"] and row["difference"].startswith("+")],
        f"No difference from {against} shown": [row for row in rows if not row["differs"]],
    }
    return [f"- {title}: {', '.join(row['system'] for row in group)}." for title, group in groups.items() if group]


def _conditions(rows: Sequence[Row]) -> list[str]:
    """What the speeds hold under; a warning where the systems ran under different conditions."""
    same, different, unknown = [], [], []
    own = {row["system"]: row for row in rows}
    alone = {f"{row['system']} at batch 1": row["alone"] for row in rows if row["alone"]}
    for key in CONDITIONS:
        decodings = own if key == "batch" else own | alone
        values = {name: str(row[key]) for name, row in decodings.items() if row[key] is not None}
        if len(values) == len(decodings) and len(set(values.values())) == 1:
            same.append(f"{key} {next(iter(values.values()))}")
        elif values:
            different.append(f"{key}: " + ", ".join(f"{name} {values.get(name, 'not recorded')}" for name in decodings))
        else:
            unknown.append(key)
    lines = [f"Decoded by all alike: {'; '.join(same)}."] if same else []
    if unknown:
        lines.append(f"Told by none: {', '.join(unknown)}.")
    if different:
        lines += ["", "**RTFx and memory were measured under different conditions:**", "",
                  *(f"- {each}" for each in different)]
    return lines


def _legend() -> list[str]:
    return [
        "- A difference counts as shown when MAPSSWE and the paired bootstrap by utterance both give p < "
        f"{SIGNIFICANT}. One that is not shown may still be there: see the intervals. p-values are not corrected for "
        "the number of systems.",
        f"- By speaker: whole speakers are drawn. Few say little about others, and the interval is then too short; the "
        f"p-value is left out for fewer than {FEWEST_SPEAKERS} (the JSON has it).",
        "- RTFx: seconds of audio per second of decoding, wall clock, loading excluded; the sum over jobs; in batches "
        "as told, and one utterance at a time. Where only some systems encode, the encoder is left out of all.",
        "- passes, rows: evaluations of the network for an utterance, and token rows evaluated in them, means.",
        "- trained parameters, training minutes: of all trainings behind the weights in use, a part that was trained "
        "twice once; wall clock of training and validation.",
        "- peak memory: resident memory of the largest decoding process, with its libraries.",
    ]


def _training(systems: Sequence[System]) -> list[str]:
    """A row for each training behind the systems, with those that use its weights."""
    found: dict[Path, tuple[Training, list[str]]] = {}
    for system in systems:
        for training in system.trainings:
            found.setdefault(training.place, (training, []))[1].append(system.name)
    return table(TRAINING, [
        {"place": str(each.place), "minutes": None if each.seconds is None else each.seconds / 60,
         "epochs": each.epochs or None, "parameters": f"{sum(count for count, _ in each.parts.values()):,}",
         "systems": ", ".join(names)}
        for each, names in found.values()
    ])
