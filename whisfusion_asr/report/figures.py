"""PNG figures of an analysis. matplotlib is imported when the first one is drawn."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from whisfusion_asr.errors import UserError
from whisfusion_asr.report.decoded import Utterance, Vocabulary
from whisfusion_asr.report.steps import finalised, read_trace

DPI = 110
MOST_TOKENS = 60


def draw_set(found: dict[str, Any], utterances: Sequence[Utterance]) -> dict[str, tuple[bytes, str]]:
    """The figures of a set: short name -> (PNG, caption); one whose data is missing is left out."""
    drawn = {"durations": (_durations(found["durations"]), "WER and time by duration"),
             "confidence": (_confidence(found["confidence"], utterances), "Confidence against errors")}
    if found["candidates"]:
        drawn["candidates"] = (_candidates(found["candidates"]), "WER with the first k candidates")
    if "pairs" in found["length"]:
        drawn["length"] = (_length(found["length"]["pairs"]), "Predicted against true number of tokens")
    if "passes" in found["steps"]:
        drawn["steps"] = (_steps(found["steps"]["passes"]), "WER, confidence and changed tokens by pass")
    return drawn


def draw_utterance(utterance: Utterance, vocabulary: Vocabulary | None) -> bytes:
    """Confidence of the tokens of each candidate, and with a trace the pass that each token dates from (Appendix F).

    Only the first MOST_TOKENS tokens are drawn. A candidate's row ends where its text ends.
    """
    trace = read_trace(utterance, vocabulary)
    width = min(MOST_TOKENS, max((len(each.token_confidence) for each in utterance.candidates), default=1))
    height = len(utterance.candidates)
    grids = 1 if trace is None else 2
    figure, axes = _subplots(grids, 1, (max(5.0, 0.28 * width), grids * (1.6 + 0.16 * height)))
    grid = [(each.token_confidence + [None] * width)[:width] for each in utterance.candidates]
    _grid(figure, axes[0], grid, "viridis", (0, 1), "confidence", [0, 0.5, 1])
    axes[0].set_ylabel("candidate")
    axes[0].set_title(utterance.utt_id, fontsize=9)
    if trace:
        rows = [(finalised(trace, vocabulary, row) + [None] * width)[:width] for row in range(height)]
        passes = len(trace.canvases)
        _grid(figure, axes[1], rows, "cividis_r", (1, passes), "pass", range(1, passes + 1))
        axes[1].set_ylabel("candidate")
    if vocabulary:
        pieces = [vocabulary.piece(token) for token in (utterance.record.get("token_int") or [])[:width]]
        axes[-1].set_xticks(range(len(pieces)), pieces, rotation=90, fontsize=7)
    return _png(figure)


def draw_trade(sets: Mapping[str, Sequence[dict[str, Any]]]) -> bytes:
    """WER against RTFx, axes for each set; systems without a speed are left out.

    sets: name -> rows with system, wer, low, high (in percent, the ends of its interval), rtfx, on_front
    """
    figure, axes = _subplots(1, len(sets), (5.5 * len(sets), 4.0))
    for axis, (name, rows) in zip(axes, sets.items(), strict=True):
        shown = [row for row in rows if row["rtfx"] is not None and row["wer"] is not None]
        front = sorted((row["rtfx"], row["wer"]) for row in shown if row["on_front"])
        axis.plot([speed for speed, _ in front], [wer for _, wer in front], color="grey", linewidth=1, zorder=0)
        for row in shown:
            ends = [[row["wer"] - row["low"]], [row["high"] - row["wer"]]] if row["low"] is not None else None
            axis.errorbar(row["rtfx"], row["wer"], yerr=ends, marker="o" if row["on_front"] else "x", capsize=3)
            axis.annotate(row["system"], (row["rtfx"], row["wer"]), (6, 4), textcoords="offset points", fontsize=8)
        axis.set(xlabel="RTFx (seconds of audio per second)", ylabel="WER %", title=name)
        axis.margins(x=0.15)
        if shown:
            axis.set_xscale("log")
        axis.set_ylim(bottom=0)
    return _png(figure)


def draw_costs(rows: Sequence[dict[str, Any]], fronts: dict[str, Sequence[int]]) -> bytes:
    """WER of the points of a sweep against what they cost: a panel for rows and one for seconds, fronts joined.

    rows: with name, wer, rows, decode_seconds; fronts: "rows" and "seconds" -> places in rows, by rising cost
    """
    figure, axes = _subplots(1, 2, (11.0, 4.6))
    panels = (("rows", "rows", "canvases evaluated for an utterance"), ("seconds", "decode_seconds", "seconds"))
    for axis, (cost, key, label) in zip(axes, panels, strict=True):
        front = [(rows[i][key], rows[i]["wer"]) for i in fronts[cost]]
        axis.step(*zip(*front, strict=True), where="post", color="grey", linewidth=0.8)
        axis.scatter([row[key] for row in rows], [row["wer"] for row in rows], s=14)
        for i in fronts[cost]:
            axis.annotate(rows[i]["name"], (rows[i][key], rows[i]["wer"]), fontsize=6, rotation=20,
                          xytext=(2, 3), textcoords="offset points")
        axis.set(xlabel=label, ylabel="WER %", xscale="log")
    return _png(figure)


def draw_learning(rows: Sequence[dict[str, Any]]) -> bytes:
    """WER and passes against minutes of training, a line for each setting. rows: with name, minutes, wer, passes."""
    figure, axes = _subplots(1, 2, (9.0, 3.6))
    for axis, (key, label) in zip(axes, (("wer", "WER %"), ("passes", "decoder passes")), strict=True):
        for name in dict.fromkeys(row["name"] for row in rows):
            points = [(row["minutes"], row[key]) for row in rows if row["name"] == name]
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        axis.set(xlabel="minutes of training", ylabel=label)
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=8)
    return _png(figure)


def _grid(figure: Any, axis: Any, rows: list[list[Any]], colors: str, limits: tuple[float, float], label: str,
          ticks: Sequence[float]) -> None:
    values = np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=float)
    image = axis.imshow(values, aspect="auto", cmap=colors, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    axis.set_xticks([])
    figure.colorbar(image, ax=axis, label=label, ticks=list(ticks))


def _candidates(found: dict[str, Any]) -> bytes:
    figure, (axis,) = _subplots(1, 1, (5.5, 3.6))
    names = {"mean_candidate_wer": "at random", "confident_wer": "most confident", "oracle_wer": "oracle",
             "composition_wer": "composition oracle"}
    for key, name in names.items():
        points = [(row["k"], row[key]) for row in found["at_k"] if row[key] is not None]
        axis.plot([k for k, _ in points], [wer for _, wer in points], marker="o", markersize=3, label=name)
    axis.set(xlabel="candidates k", ylabel="WER %")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8)
    return _png(figure)


def _durations(rows: list[dict[str, Any]]) -> bytes:
    rows = [row for row in rows if row["seconds"] != "all"]
    figure, axes = _subplots(1, 2, (7.5, 3.2))
    names = [f"{row['seconds']} s\n{row['utterances']}" for row in rows]
    axes[0].bar(names, [row["wer"] or 0 for row in rows], label="WER")
    if any(row["oracle_wer"] is not None for row in rows):
        axes[0].bar(names, [row["oracle_wer"] or 0 for row in rows], width=0.4, label="oracle")
    axes[0].set_ylabel("%")
    axes[0].legend(fontsize=8)
    bottom = [0.0] * len(rows)
    for part in ("encode_ms", "decode_ms", "select_ms", "rest_ms"):
        heights = [row[part] or 0.0 for row in rows]
        if any(heights):
            axes[1].bar(names, heights, bottom=bottom, label=part.removesuffix("_ms"))
            bottom = [low + high for low, high in zip(bottom, heights, strict=True)]
    axes[1].set_ylabel("ms an utterance")
    axes[1].legend(fontsize=8)
    return _png(figure)


def _length(pairs: list[list[int]]) -> bytes:
    figure, (axis,) = _subplots(1, 1, (4.4, 4.0))
    longest = max(max(pair) for pair in pairs) + 1
    axis.plot([0, longest], [0, longest], color="grey", linewidth=0.8)
    axis.scatter([one for one, _ in pairs], [two for _, two in pairs], s=8, alpha=0.4)
    axis.set(xlabel="true tokens", ylabel="predicted tokens")
    return _png(figure)


def _confidence(found: dict[str, Any], utterances: Sequence[Utterance]) -> bytes:
    kinds = [kind for kind in ("words", "utterances") if found[kind] and found[kind]["bins"]]
    figure, axes = _subplots(1, 1 + len(kinds), (3.7 * (1 + len(kinds)), 3.5))
    spoken = [each for each in utterances if each.reference]
    axes[0].scatter([each.confidence for each in spoken], [each.counts.percent for each in spoken], s=8, alpha=0.4)
    axes[0].set(xlabel="confidence of the utterance", ylabel="WER %")
    for axis, kind in zip(axes[1:], kinds, strict=True):
        bins = found[kind]["bins"]
        axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        axis.bar([each["from"] + 0.05 for each in bins], [each["accuracy"] for each in bins], width=0.09)
        axis.plot([each["confidence"] for each in bins], [each["accuracy"] for each in bins], "o", color="black",
                  markersize=3)
        axis.set(xlabel=f"confidence of {kind}", ylabel="right", xlim=(0, 1), ylim=(0, 1))
        axis.set_title(f"ECE {found[kind]['ece']:.3f}", fontsize=9)
    return _png(figure)


def _steps(rows: list[dict[str, Any]]) -> bytes:
    figure, axes = _subplots(1, 2, (7.5, 3.2))
    passes = [row["pass"] for row in rows]
    for key, name in {"mean_wer": "all candidates", "chosen_wer": "chosen", "oracle_wer": "oracle"}.items():
        axes[0].plot(passes, [row[key] for row in rows], marker="o", markersize=3, label=name)
    axes[0].set(xlabel="pass", ylabel="WER %", xticks=passes)
    axes[1].plot(passes, [row["changed_percent"] for row in rows], marker="o", markersize=3, label="tokens changed %")
    if all(row["confidence"] is not None for row in rows):
        axes[1].plot(passes, [100 * row["confidence"] for row in rows], marker="o", markersize=3, label="confidence %")
    axes[1].set(xlabel="pass", xticks=passes)
    for axis in axes:
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=8)
    return _png(figure)


def _subplots(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    """An empty figure of rows x columns axes, size in inches.

    raises UserError: matplotlib is not installed
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("figures need the package matplotlib, which is not installed; "
                        "run utils/install.sh, or give --figures false") from None
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
