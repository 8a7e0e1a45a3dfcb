"""What each pass changes (Table 7 of arXiv 2508.07048), from the optional `trace` of candidates.jsonl.

`trace` is a list of N passes, each `{"guess": canvases}` or the canvases themselves, with what the network fills in in
this pass. A canvas is its L pieces joined by blanks, or a list of L token ids. A pass may tell the `confidence`, a list
of L probabilities for each canvas, of each slot's token in the pass that filled it last. Where candidates are dropped
between the passes, each pass has `rows`, which of the K canvases of the first pass each of its own is, and the line
`kept`, the same of the candidates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from whisfusion_asr.report.decoded import Utterance, Vocabulary, scored_words
from whisfusion_asr.report.oracle import percent_of
from whisfusion_asr.scoring.align import align
from whisfusion_asr.scoring.error_rate import count_edits
from whisfusion_asr.scoring.normalize import Normalizer

HOW_TO_GET = "decode with `--trace true`; candidates.jsonl then tells every pass"

Canvas = Sequence[int]
Row = TypeVar("Row")


@dataclass(frozen=True)
class Trace:
    """The passes of one utterance. A candidate that was dropped keeps its last state.

    canvases: (N, K, L) token ids; confidence: (N, K, L), or empty; chosen: a row
    candidates: of each candidate of the record its row
    """

    canvases: list[list[list[int]]]
    confidence: list[list[list[float]]]
    chosen: int
    candidates: list[int]

    def at(self, step: int) -> list[list[int]]:
        """The K rows after a pass, counted from 0; beyond the last pass its rows."""
        return self.canvases[min(step, len(self.canvases) - 1)]


def read_trace(utterance: Utterance, vocabulary: Vocabulary | None) -> Trace | None:
    """The trace of an utterance; None where there is none, or no vocabulary to read it with, or where candidates were
    dropped and it does not tell which.

    A text that was put together from several candidates counts as the first one.
    """
    passes = [each if isinstance(each, dict) else {"guess": each} for each in utterance.record.get("trace") or []]
    if not passes or vocabulary is None:
        return None
    numbers = list(range(len(passes[0]["guess"])))
    rows = [each.get("rows", numbers) for each in passes]
    if any(len(each["guess"]) != len(known) for each, known in zip(passes, rows, strict=True)):
        return None
    canvases = [[vocabulary.canvas(canvas) for canvas in each["guess"]] for each in passes]
    sure = [each["confidence"] for each in passes if "confidence" in each]
    kept, chosen = utterance.record.get("kept", numbers), utterance.record.get("chosen")
    is_row = isinstance(chosen, int) and 0 <= chosen < len(kept)
    confidence = _carried(sure, rows) if len(sure) == len(passes) else []
    return Trace(_carried(canvases, rows), confidence, kept[chosen if is_row else 0], kept)


def _carried(passes: Sequence[Sequence[Row]], rows: Sequence[Sequence[int]]) -> list[list[Row]]:
    """All rows after each pass: those that it does not have are as they were. rows: numbers of each pass's own."""
    found: list[list[Row]] = []
    for own, numbers in zip(passes, rows, strict=True):
        known = dict(enumerate(found[-1] if found else [])) | dict(zip(numbers, own, strict=True))
        found.append([known[number] for number in sorted(known)])
    return found


def finalised(trace: Trace, vocabulary: Vocabulary, candidate: int) -> list[int]:
    """For each emitted token of a candidate of the record the pass, from 1, since which its slot has not changed."""
    canvases = [rows[trace.candidates[candidate]] for rows in trace.canvases]
    last = canvases[-1]
    places = range(vocabulary.prefix, vocabulary.prefix + len(vocabulary.emitted(last)))
    return [1 + max((n + 1 for n, canvas in enumerate(canvases) if canvas[p] != last[p]), default=0) for p in places]


def steps_section(utterances: Sequence[Utterance], vocabulary: Vocabulary | None, clean: Normalizer) -> dict[str, Any]:
    """The step-by-step table, or under `missing` what it needs.

    returns: `passes`, a row for each pass up to the longest trace (an utterance that was done earlier keeps its last
        state, as does a candidate that was dropped): WER in percent of the chosen candidate, of all candidates
        together and of the best one; mean confidence of the emitted tokens and the first end; changed_percent: slots,
        up to the later one of the two ends, whose token differs from the one before the pass (100 in the first, where
        all was masked)
    """
    if not any(each.record.get("trace") for each in utterances):
        return {"missing": HOW_TO_GET}
    if vocabulary is None:
        return {"missing": "the experiment's config.yaml has no token_list to read the trace with"}
    traced = [(each, trace) for each in utterances if (trace := read_trace(each, vocabulary))]
    if not traced:
        return {"missing": f"the trace does not tell which candidates were dropped: {HOW_TO_GET}"}
    errors_of = _counter(vocabulary, clean)
    words = sum(len(each.reference) for each, _ in traced)
    rows = []
    for step in range(max(len(trace.canvases) for _, trace in traced)):
        errors = [[errors_of(each, row) for row in trace.at(step)] for each, trace in traced]
        chosen = [found[trace.chosen] for (_, trace), found in zip(traced, errors, strict=True)]
        sure = [value for _, trace in traced for value in _confidences(trace, step, vocabulary)]
        rows.append({
            "pass": step + 1,
            "chosen_wer": percent_of(sum(chosen), words),
            "mean_wer": percent_of(sum(float(np.mean(found)) for found in errors), words),
            "oracle_wer": percent_of(sum(map(min, errors)), words),
            "confidence": float(np.mean(sure)) if sure else None,
            "changed_percent": _changed_percent([trace for _, trace in traced], step, vocabulary),
        })
    return {"utterances": len(traced), "passes": rows}


def _counter(vocabulary: Vocabulary, clean: Normalizer) -> Callable[[Utterance, Canvas], int]:
    """Errors of a canvas row against the utterance's reference; equal rows are aligned once."""
    known: dict[tuple[str, tuple[int, ...]], int] = {}

    def errors_of(utterance: Utterance, row: Canvas) -> int:
        ids = vocabulary.emitted(row)
        key = utterance.utt_id, tuple(ids)
        if key not in known:
            words = scored_words(vocabulary.text_of(ids), clean)
            known[key] = count_edits(align(utterance.reference, words)).errors
        return known[key]

    return errors_of


def _text_end(row: Canvas, vocabulary: Vocabulary) -> int:
    """Slots of the prefix, the text and its first end."""
    return min(vocabulary.prefix + len(vocabulary.emitted(row)) + 1, len(row))


def _confidences(trace: Trace, step: int, vocabulary: Vocabulary) -> list[float]:
    if not trace.confidence:
        return []
    confidence = trace.confidence[min(step, len(trace.confidence) - 1)]
    return [value for row, sure in zip(trace.at(step), confidence, strict=True)
            for value in sure[vocabulary.prefix : _text_end(row, vocabulary)]]


def _changed_percent(traces: Sequence[Trace], step: int, vocabulary: Vocabulary) -> float:
    if step == 0:
        return 100.0
    changed = slots = 0
    for trace in traces:
        for old, new in zip(trace.at(step - 1), trace.at(step), strict=True):
            end = max(_text_end(old, vocabulary), _text_end(new, vocabulary))
            pairs = zip(old[vocabulary.prefix : end], new[vocabulary.prefix : end], strict=True)
            changed += sum(one != two for one, two in pairs)
            slots += end - vocabulary.prefix
    return 100 * changed / slots if slots else 0.0
