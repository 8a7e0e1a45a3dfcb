"""The decode directory: what one job writes, and how the jobs' parts become the whole."""

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write

LINE_FILES = ("text", "token", "token_int", "score")
PEAKS = ("peak_memory_mib", "peak_gpu_memory_mib")


@dataclass(frozen=True)
class Transcript:
    """Result of one utterance, a line of candidates.jsonl.

    passes, rows: network evaluations, and canvases evaluated in all; words: of the chosen text, each with the
    confidence of its least sure token
    trace: where it was asked for, of every pass the canvases that the network was `shown` and its `guess` at them, as
    pieces joined by blanks, the `confidence` of each token of the guess, and which of the first pass's `rows` each of
    these canvases is; kept: with a trace, which of them each candidate is
    candidates: of each its text, ids (`tokens`), their `pieces` and probabilities (`token_confidence`), and confidence
    chosen: index of the candidate that the text is; None for a text that is composed of several
    flags: canvas_full (no room left), early_end (text behind the end, or less than half of what CTC counted), stalled
        (slots filled without the sampler's consent), budget (out of time), silence (nothing was said)
    """

    utt_id: str
    duration: float
    text: str
    tokens: list[str]
    token_int: list[int]
    confidence: float
    canvas: int = 0
    passes: int = 0
    rows: int = 0
    candidates: list[dict[str, Any]] = field(default_factory=list)
    chosen: int | None = 0
    selection: str = ""
    words: list[dict[str, Any]] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    timing: dict[str, float] = field(default_factory=dict)
    trace: list[dict[str, Any]] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """What candidates.jsonl holds; no trace where there is none."""
        values = asdict(self)
        return values if self.trace else {key: value for key, value in values.items() if key not in ("trace", "kept")}


def part_dir(out: Path, job: int) -> Path:
    """Where job JOB leaves its part."""
    return out / "logdir" / f"output.{job}"


def write_part(
    out: Path, job: int, transcripts: Iterable[Transcript], conditions: Callable[[], dict[str, Any]] = dict
) -> None:
    """Write one job's part; the directory appears under its name only when all of it is there.

    conditions: what the job ran on and the memory that it took, asked after its last utterance
    """
    final = part_dir(out, job)
    temporary = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with open(temporary / "candidates.jsonl", "w", encoding="utf-8") as file:
        for transcript in transcripts:
            file.write(json.dumps(transcript.record(), ensure_ascii=False) + "\n")
    (temporary / "conditions.json").write_text(json.dumps(conditions()) + "\n", encoding="utf-8")
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)


def merge_parts(out: Path, num_jobs: int, keys: Sequence[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Join the parts into text, token, token_int, score (also under 1best_recog/), candidates.jsonl and meta.json.

    Where there are several candidates, 2best_recog/, 3best_recog/ and so on have the same four files of the others, the
    most confident first (a beam search's own order); an utterance that has fewer is in fewer of them.

    keys: every utterance of the set. settings: go into meta.json, with the jobs' conditions (the largest memory of a
        job, a list where other values differ) and the totals that are returned: `rtf` (decoding seconds per second of
        audio, loading excluded), `seconds` (of encode, decode and select apart), `utterances`, `passes` and `rows`
        (means), `flags` (counts).
    raises UserError: a part is missing, or the parts do not hold exactly the keys
    """
    found: dict[str, dict[str, Any]] = {}
    for job in range(1, num_jobs + 1):
        path = part_dir(out, job) / "candidates.jsonl"
        if not path.is_file():
            raise UserError(f"{path}: the part of job {job} of {num_jobs} is missing; run the decode stage again")
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            found[record["utt_id"]] = record
    missing, extra = sorted(set(keys) - set(found)), sorted(set(found) - set(keys))
    if missing or extra:
        raise UserError(
            f"{out}: decoded utterances differ from the set: {len(missing)} missing {missing[:5]}, "
            f"{len(extra)} too many {extra[:5]}; remove {out} and decode again"
        )
    records = [found[key] for key in sorted(keys)]
    _write_lines(out, records)
    _write_lines(out / "1best_recog", records)
    _write_others(out, records)
    with atomic_write(out / "candidates.jsonl") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    totals = _totals(records)
    with atomic_write(out / "meta.json") as file:
        told = {**settings, **job_conditions(out, num_jobs), "jobs": num_jobs, **totals}
        json.dump(told, file, indent=2, sort_keys=True)
        file.write("\n")
    return totals


def job_conditions(out: Path, num_jobs: int) -> dict[str, Any]:
    """What all jobs tell of their conditions: the largest memory, a list where other values differ."""
    files = [part_dir(out, job) / "conditions.json" for job in range(1, num_jobs + 1)]
    told = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    together: dict[str, Any] = {}
    for key in sorted({key for each in told for key in each}):
        values = [each[key] for each in told if key in each]
        distinct = [value for place, value in enumerate(values) if value not in values[:place]]
        together[key] = max(values) if key in PEAKS else distinct[0] if len(distinct) == 1 else distinct
    return together


def _write_others(out: Path, records: list[dict[str, Any]]) -> None:
    """The candidates that were not chosen, a directory for each place; those of an earlier decoding are removed."""
    for old in out.glob("[0-9]*best_recog"):
        if old.name != "1best_recog":
            shutil.rmtree(old)
    places: dict[int, list[dict[str, Any]]] = {}
    for record in records:
        others = [each for number, each in enumerate(record["candidates"]) if number != record["chosen"]]
        if record["selection"] != "score":
            others.sort(key=lambda each: -each["confidence"])
        for place, other in enumerate(others, start=2):
            line = {**other, "utt_id": record["utt_id"], "tokens": other["pieces"], "token_int": other["tokens"]}
            places.setdefault(place, []).append(line)
    for place, lines in places.items():
        _write_lines(out / f"{place}best_recog", lines)


def _write_lines(directory: Path, records: list[dict[str, Any]]) -> None:
    values = {"text": lambda r: r["text"], "token": lambda r: " ".join(r["tokens"]),
              "token_int": lambda r: " ".join(map(str, r["token_int"])), "score": lambda r: f"{r['confidence']:.6f}"}
    for name in LINE_FILES:
        with atomic_write(directory / name) as file:
            file.writelines(f"{r['utt_id']} {values[name](r)}".rstrip() + "\n" for r in records)


def _totals(records: list[dict[str, Any]]) -> dict[str, Any]:
    duration = sum(r["duration"] for r in records)
    seconds = sum(sum(r["timing"].values()) for r in records)
    parts = sorted({part for r in records for part in r["timing"]})
    flags = sorted({flag for r in records for flag in r["flags"]})
    return {
        "utterances": len(records),
        "audio_seconds": round(duration, 3),
        "decode_seconds": round(seconds, 3),
        "seconds": {part: round(sum(r["timing"].get(part, 0.0) for r in records), 3) for part in parts},
        "rtf": round(seconds / duration, 5) if duration else None,
        "passes": round(sum(r["passes"] for r in records) / len(records), 3),
        "rows": round(sum(r["rows"] for r in records) / len(records), 3),
        "flags": {flag: sum(flag in r["flags"] for r in records) for flag in flags},
    }
