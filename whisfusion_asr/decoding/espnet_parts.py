"""The decode directory of ESPnet's own programs: the jobs' parts, `logdir/output.N/1best_recog/`, joined into one."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whisfusion_asr.decoding.output import LINE_FILES, job_conditions, part_dir
from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write

_TENSOR = re.compile(r"tensor\((.*?)(?:, .*)?\)")  # asr_inference writes a score as it prints a tensor


def merge_espnet_parts(
    out: Path, num_jobs: int, durations: Mapping[str, float], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Join the parts into text, token, token_int, score (also under 1best_recog/) and meta.json.

    durations: seconds of every utterance of the set; settings: go into meta.json, with the jobs' conditions and the
        totals that are returned: `utterances`, `audio_seconds`, `decode_seconds`, `rtf`
    raises UserError: a part is missing, or the parts do not hold exactly the utterances
    """
    tables = {name: _table(out, num_jobs, name) for name in LINE_FILES}
    for name, table in tables.items():
        missing, extra = sorted(durations.keys() - table.keys()), sorted(table.keys() - durations.keys())
        if missing or extra:
            raise UserError(f"{out}: {name} differs from the set: {len(missing)} utterances missing {missing[:5]}, "
                            f"{len(extra)} too many {extra[:5]}; remove {out} and decode again")
    for name, table in tables.items():
        for directory in (out, out / "1best_recog"):
            with atomic_write(directory / name) as file:
                file.writelines(f"{key} {table[key]}".rstrip() + "\n" for key in sorted(table))
    told = job_conditions(out, num_jobs)
    seconds = sum(_seconds(part_dir(out, job) / "conditions.json") for job in range(1, num_jobs + 1))
    duration = sum(durations.values())
    totals = {"utterances": len(durations), "audio_seconds": round(duration, 3), "decode_seconds": round(seconds, 3),
              "rtf": round(seconds / duration, 5)}
    with atomic_write(out / "meta.json") as file:
        json.dump({**settings, **told, "jobs": num_jobs, **totals}, file, indent=2, sort_keys=True)
        file.write("\n")
    return totals


def _table(out: Path, num_jobs: int, name: str) -> dict[str, str]:
    """Key -> value of one file of all parts."""
    table: dict[str, str] = {}
    for job in range(1, num_jobs + 1):
        path = part_dir(out, job) / "1best_recog" / name
        if not path.is_file():
            raise UserError(f"{path}: the part of job {job} of {num_jobs} is missing; run the decode stage again")
        for line in path.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(" ")
            table[key] = _TENSOR.sub(r"\1", value) if name == "score" else " ".join(value.split())
    return table


def _seconds(conditions: Path) -> float:
    """What decoding took in one job; raises UserError: the job was not ended."""
    if not conditions.is_file():
        raise UserError(f"{conditions}: missing, the job did not come to its end; run the decode stage again")
    return json.loads(conditions.read_text(encoding="utf-8"))["decode_seconds"]
