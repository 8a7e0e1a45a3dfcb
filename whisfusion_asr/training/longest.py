"""How long the longest utterance of a training was: beyond that its model has heard nothing whole."""

import json
from pathlib import Path

from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write

LONGEST = "longest.json"  # in the experiment's directory


def record_longest(output_dir: str | Path, seconds: float) -> None:
    """Write it down."""
    with atomic_write(Path(output_dir) / LONGEST) as file:
        json.dump({"seconds": round(seconds, 3)}, file)
        file.write("\n")


def read_longest(exp_dir: str | Path) -> float | None:
    """Its seconds; None where no training wrote them down. Raises UserError for a damaged file."""
    path = Path(exp_dir) / LONGEST
    if not path.is_file():
        return None
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["seconds"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: expected a JSON object with a number `seconds`, found {error!r}; remove the file, "
                        "and give `whisfusion transcribe` a --window") from None
