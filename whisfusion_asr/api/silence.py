"""Whether anything was said, and the bound that tells it: a property of the model, calibrated on speech.

The measure is the mean probability of CTC's greedy tokens, by the model's own head or its drafter's; without one that
of the tokens of the first pass, which the engine looks at (EngineLimits.silence). How sure a model is of speech, and of
noise, differs from model to model, so no constant serves all.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from whisfusion_asr.api.drafts import Heard
from whisfusion_asr.errors import UserError

if TYPE_CHECKING:
    from whisfusion_asr.api.speech2text import Speech2Text, Utterance

FILE = "silence.json"  # in the experiment's directory
SHARE = 0.005  # of the utterances with speech, the least sure ones, are left out
SLACK = 2.0  # other speech may be expected to have so many times the wrong tokens of the least sure one of the rest


def silent(model: "Speech2Text", heard: Sequence[Heard] | None, counts: Sequence[int | None]) -> list[bool]:
    """In which utterances of a batch CTC hears nothing, or nothing that it is sure of.

    heard: greedy tokens of the drafter's CTC head, None without one; counts: tokens that CTC has heard
    """
    if model.silence is None:
        return [False] * len(counts)
    if heard is None:
        return [count == 0 for count in counts]
    return [not sure or _mean(sure) < model.silence for _, sure in heard]


@torch.no_grad()
def confidence(model: "Speech2Text", utterance: "Utterance") -> float:
    """What the bound is compared with; 0 where no token is heard. Without a CTC head the sampler must be `single`."""
    if model.drafter is None:
        return model.decode_states(utterance.utt_id, utterance.states, utterance.duration).confidence
    frames = torch.tensor([len(utterance.states)], device=utterance.states.device)
    ((_, sure),) = model.drafter.hear(utterance.states[None], frames)
    return _mean(sure)


def calibrate(model: "Speech2Text", utterances: Iterable["Utterance"]) -> dict[str, Any]:
    """What FILE holds, of utterances that hold speech: `bound`, the quantile it is made of, their number, the measure.

    bound = 1 - SLACK * (1 - q), q the SHARE quantile of their confidences: words on noise are a nuisance, but speech
    that is taken for noise is lost, so the bound leaves room below. Raises UserError without utterances.
    """
    found = [confidence(model, utterance) for utterance in utterances]
    if not found:
        raise UserError("calibrate: the set holds no utterances; expected speech of the kind that is to be recognised")
    quantile = float(np.quantile(found, SHARE))
    measure = "first_pass" if model.drafter is None else "ctc"
    return {"bound": round(max(0.0, 1 - SLACK * (1 - quantile)), 4), "measure": measure,
            "quantile": round(quantile, 4), "utterances": len(found)}


def read_bound(exp_dir: str | Path) -> float | None:
    """The calibrated bound of an experiment, None where there is none. Raises UserError for a damaged file."""
    path = Path(exp_dir) / FILE
    if not path.is_file():
        return None
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["bound"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: expected a JSON object with a number `bound`, found {error!r}; remove the file or "
                        "run `whisfusion calibrate` again") from None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
