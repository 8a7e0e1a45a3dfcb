"""Durations, lengths, speed and silence: the parts of a report that need no candidates."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from whisfusion_asr.report.calibration import correlation
from whisfusion_asr.report.decoded import DecodedSet, Utterance, total
from whisfusion_asr.report.oracle import selection_quality

PARTS = ("encode", "decode", "select")
NOT_RECORDED = "not recorded"
CONDITIONS = ("device", "threads", "dtype", "batch", "warm_up", "torch")


def bucket_name(duration: float, edges: Sequence[float]) -> str:
    """`10-20` for 10 < seconds <= 20, as in the published tables; `>30` beyond the last edge."""
    lower = 0.0
    for edge in edges:
        if duration <= edge:
            return f"{lower:g}-{edge:g}"
        lower = edge
    return f">{lower:g}"


def buckets(utterances: Iterable[Utterance], edges: Sequence[float]) -> dict[str, list[Utterance]]:
    """The utterances by duration, shortest bucket first; empty buckets are left out."""
    found: dict[str, list[Utterance]] = {}
    for utterance in sorted(utterances, key=lambda each: each.duration):
        found.setdefault(bucket_name(utterance.duration, edges), []).append(utterance)
    return found


def duration_section(utterances: Sequence[Utterance], edges: Sequence[float]) -> list[dict[str, Any]]:
    """Errors, selection and time by duration, the last row for all (Table 4 of arXiv 2508.07048)."""
    groups = {**buckets(utterances, edges), "all": list(utterances)}
    rows = []
    for name, group in groups.items():
        quality = selection_quality(group) if all(each.candidates for each in group) else {}
        rows.append({
            "seconds": name,
            "utterances": len(group),
            "words": total(each.counts for each in group).reference_length,
            "wer": total(each.counts for each in group).percent,
            "cer": total(each.characters for each in group).percent,
            **{key: quality.get(key) for key in ("oracle_wer", "gap", "hit_percent")},
            **_times(group),
        })
    return rows


def _times(utterances: Sequence[Utterance]) -> dict[str, float | None]:
    """Mean milliseconds of an utterance by part, and rates of sums.

    rest_ms: parts of `timing` beside PARTS; a part that no utterance tells is None
    rtf: seconds of work per second of audio; rtfx: its inverse; tokens_per_second: emitted tokens per second of work;
    canvas_slots_per_second: slots of one canvas, padding included, per second of decoding
    """
    audio, seconds = sum(each.duration for each in utterances), sum(each.seconds for each in utterances)
    parts = {part: _mean_milliseconds(utterances, [part]) for part in PARTS}
    others = sorted({part for each in utterances for part in each.record["timing"]} - set(PARTS))
    decoding = sum(each.record["timing"].get("decode", 0.0) for each in utterances)
    slots = sum(each.record.get("canvas") or 0 for each in utterances)
    return {
        **{f"{part}_ms": value for part, value in parts.items()},
        "rest_ms": _mean_milliseconds(utterances, others),
        "total_ms": 1000 * seconds / len(utterances),
        "rtf": seconds / audio if audio else None,
        "rtfx": audio / seconds if seconds else None,
        "tokens_per_second": sum(each.emitted for each in utterances) / seconds if seconds else None,
        "canvas_slots_per_second": slots / decoding if decoding and slots else None,
    }


def _mean_milliseconds(utterances: Sequence[Utterance], parts: Sequence[str]) -> float | None:
    told = [each.record["timing"][part] for each in utterances for part in parts if part in each.record["timing"]]
    return 1000 * sum(told) / len(utterances) if told else None


def speed_section(decoded: DecodedSet) -> dict[str, Any]:
    """Time of the whole set, its spread, and the conditions that it holds under."""
    seconds = np.array([each.seconds for each in decoded.utterances])
    meta = decoded.meta | (decoded.meta.get("engine_conf") or {})
    parts = {part for each in decoded.utterances for part in each.record["timing"]}
    return {
        "audio_seconds": sum(each.duration for each in decoded.utterances),
        "work_seconds": float(seconds.sum()),
        **_times(decoded.utterances),
        "median_ms": 1000 * float(np.median(seconds)),
        "percentile_95_ms": 1000 * float(np.percentile(seconds, 95)),
        "includes": sorted(parts, key=lambda part: (*PARTS, part).index(part)),
        "encoder": "timed" if "encode" in parts else "not timed: decoded from dumped states",
        "emitted_tokens": sum(each.emitted for each in decoded.utterances),
        **{key: meta.get(key, NOT_RECORDED) for key in CONDITIONS},
    }


def length_section(utterances: Sequence[Utterance]) -> dict[str, Any]:
    """Predicted against true number of tokens (Figure 7), or under `missing` what it needs.

    returns: `pairs` (true, predicted) of every utterance; mean_difference (predicted - true), mean_absolute_difference
        and exact_percent; spearman; canvas_used: emitted tokens per canvas slot; canvas_full: utterances without an end
    """
    told = [each for each in utterances if each.reference_tokens is not None]
    if not told:
        return {"missing": "score with `--token_list`; score_ter/ref.trn then tells the true lengths"}
    true, predicted = (np.array(side) for side in zip(*((each.reference_tokens, each.emitted) for each in told),
                                                      strict=True))
    slots = sum(each.record.get("canvas") or 0 for each in told)
    return {
        "utterances": len(told),
        "mean_difference": float((predicted - true).mean()),
        "mean_absolute_difference": float(np.abs(predicted - true).mean()),
        "exact_percent": 100 * float((predicted == true).mean()),
        "spearman": correlation(true, predicted),
        "canvas_used": sum(each.emitted for each in told) / slots if slots else None,
        "canvas_full": sum("canvas_full" in (each.record.get("flags") or []) for each in told),
        "pairs": [[int(one), int(two)] for one, two in zip(true, predicted, strict=True)],
    }


def silence_section(utterances: Sequence[Utterance]) -> dict[str, Any] | None:
    """Words written where nobody speaks: utterances with an empty reference; None when there are none."""
    silent = [each for each in utterances if not each.reference]
    if not silent:
        return None
    minutes = sum(each.duration for each in silent) / 60
    words = sum(each.counts.insertions for each in silent)
    return {
        "utterances": len(silent),
        "minutes": minutes,
        "words": words,
        "words_per_minute": words / minutes if minutes else None,
        "utterances_with_words_percent": 100 * float(np.mean([each.counts.insertions > 0 for each in silent])),
    }
