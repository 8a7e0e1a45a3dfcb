"""Stage 7: which systems are compared, and the step that compares them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from whisfusion_asr.errors import UserError
from whisfusion_asr.recipe.jobs import Job
from whisfusion_asr.recipe.settings import find_config, read_decoding_settings
from whisfusion_asr.recipe.step import Step
from whisfusion_asr.recipe.steps import Steps

SCORES = ("score_wer/ref.trn", "score_wer/hyp.trn")  # all that a system of another toolkit must have
FILES = {**dict.fromkeys(SCORES, "score"), "summary.json": "score", "meta.json": "decode"}


def compare_steps(steps: Steps) -> Iterator[Step]:
    """COMPARISON.md of the systems on all test sets. raises UserError: an unknown --compare_to"""
    o = steps.options
    systems = compared(steps)
    if o.compare_to and o.compare_to not in systems:
        raise UserError(f"--compare_to {o.compare_to}: no such system; there are {', '.join(systems) or 'none'}")
    if not systems:
        raise UserError(f"nothing to compare: no decoding below {o.expdir} has scores of all of {o.test_sets}; run "
                        "--stage decode, or name systems by --compare")
    against = o.compare_to or usual_reference(steps, systems)
    own = set(own_decodings(steps).values())
    reads: dict[Path, str] = {}
    for decoded in (place / name for place in systems.values() for name in o.words("test_sets")):
        is_own = decoded.parent in own
        reads |= {decoded / file: stage if is_own else "" for file, stage in FILES.items()
                  if is_own or file in SCORES or (decoded / file).is_file()}
    out = Path(o.expdir)
    yield Step(
        title="COMPARISON.md",
        out=out,
        jobs=(Job(tuple(steps.commands.compare(systems, against))),),
        settings={"systems": {name: str(place) for name, place in systems.items()}, "against": against,
                  "sets": o.words("test_sets")},
        reads=reads,
        writes=tuple(out / file for file in ("COMPARISON.md", "COMPARISON.json", "comparison.png")),
        stamp_name=".compare.stamp.json",
    )


def compared(steps: Steps) -> dict[str, Path]:
    """Name -> directory of the decodings to compare, above those of the sets.

    Those of --compare; without it, this recipe's own ones, and all below expdir that have scores of every test set,
    named by their place there. Control decodings are left out: they are no systems.
    """
    o = steps.options
    if o.compare:
        return {name: Path(place) for name, _, place in (word.partition("=") for word in o.words("compare"))}
    scored = {path.parents[2] for path in Path(o.expdir).glob("*/*/*/score_wer/ref.trn")}
    others = sorted(place for place in scored if all(_counts(place / name) for name in o.words("test_sets")))
    found = own_decodings(steps) | {str(place.relative_to(o.expdir)): place for place in others}
    return found


def usual_reference(steps: Steps, systems: Mapping[str, Path]) -> str:
    """What the others are tested against unless --compare_to names one: the first autoregressive one, else the first.

    Own decodings are known by their configuration, which is there before they are; others by meta.json.
    """
    own = _own_settings(steps)
    for name, place in systems.items():
        settings = own.get(place)
        told = [_meta(place / each) for each in steps.options.words("test_sets")] if settings is None else [settings]
        if any(each.get("sampler") == "autoregressive" or each.get("decoder") == "whisper" for each in told):
            return name
    return next(iter(systems))


def own_decodings(steps: Steps) -> dict[str, Path]:
    """The decodings that this recipe's options ask for, control decodings left out."""
    return {str(place.relative_to(steps.options.expdir)): place
            for place, settings in _own_settings(steps).items() if not settings.get("control")}


def _own_settings(steps: Steps) -> dict[Path, dict[str, Any]]:
    """The settings of the decodings that this recipe's options ask for, by directory."""
    o, layout = steps.options, steps.layout
    if not o.inference_config or not (o.asr_tag or o.asr_config):
        return {}
    return {layout.model / layout.decoding_name(config): read_decoding_settings(find_config(config), o.inference_args)
            for config in o.words("inference_config")}


def _counts(decoded: Path) -> bool:
    """True for a set that was scored and is no control experiment."""
    return (decoded / "score_wer" / "ref.trn").is_file() and not _meta(decoded).get("control")


def _meta(decoded: Path) -> dict[str, Any]:
    """meta.json of a decoded set; another toolkit leaves none."""
    path = decoded / "meta.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
