"""The systems of a comparison: where each was decoded, under what conditions, and what its training cost."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from whisfusion_asr.errors import UserError
from whisfusion_asr.report.files import read_json
from whisfusion_asr.report.tables import Row
from whisfusion_asr.report.training import Training, moved, trainings

# What a decoding needs of the network decides which trainings count as its own.
PARTS_OF_CTC = ("frontend", "encoder", "ctc")
ONE = "1 utterance"


@dataclass(frozen=True)
class System:
    """A decoding to compare: its name, and the directory that holds a directory for each decoded set.

    alone: directory of the same decoding one utterance at a time, of which the speed is taken
    """

    name: str
    directory: Path
    alone: Path | None = None

    @property
    def directories(self) -> list[Path]:
        """The directory, and that of the decoding one utterance at a time."""
        return [self.directory, *([self.alone] if self.alone else [])]

    def scores(self, name: str) -> Path:
        """The score directory of a set. raises UserError: the set was not scored."""
        path = self.directory / name / "score_wer"
        if not (path / "ref.trn").is_file():
            raise UserError(f"{path}/ref.trn: system {self.name} has no scores of {name}; score it first "
                            "(run.sh --stage score), or leave the system or the set out")
        return path

    @property
    def sets(self) -> list[str]:
        """Names of the scored sets."""
        return sorted(path.parent.parent.name for path in self.directory.glob("*/score_wer/ref.trn"))

    def meta(self, name: str) -> dict[str, Any]:
        """The settings and conditions of a decoded set, empty for a system that left none."""
        return _read_meta(self.directory / name)

    def meta_alone(self, name: str) -> dict[str, Any]:
        """The same of a decoding one utterance at a time: `alone`, or its own where that is one; else empty.

        raises UserError: `alone` did not decode the set, or did so in batches
        """
        meta = _read_meta((self.alone or self.directory) / name)
        if meta.get("batch") == ONE:
            return meta
        if self.alone:
            found = f"batch {meta.get('batch', 'not recorded')}" if meta else "no such file"
            raise UserError(f"{self.alone / name}/meta.json: {found}, expected '{ONE}' for the second directory of "
                            f"{self.name}; decode it with --inference_args engine_conf.batch_tokens=1, or leave it out")
        return {}

    @cached_property
    def uses_ctc_alone(self) -> bool:
        """True for CTC decoding, which needs no decoder."""
        return any(self.meta(name).get("sampler") == "ctc_greedy" for name in self.sets)

    @cached_property
    def trainings(self) -> list[Training]:
        """The trainings behind the weights that it uses."""
        if any(self.meta(name).get("decoder") == "whisper" for name in self.sets):
            return []  # the original one, wherever its results lie
        own = trainings(self.directory.parent, PARTS_OF_CTC if self.uses_ctc_alone else ())
        return list({each.place: each for each in (*self.drafting, *own)}.values())

    @cached_property
    def drafting(self) -> list[Training]:
        """Those of another experiment, whose CTC head writes its drafts."""
        named = {self.meta(name).get("draft_dir") for name in self.sets} - {None}
        places = [moved(Path(each) / "config.yaml", self.directory.parent).parent for each in sorted(named)]
        return [training for place in places for training in trainings(place, PARTS_OF_CTC)]

    def cost(self) -> Row:
        """Trained parameters and training minutes, None where no log tells them."""
        trained: dict[tuple[bool, str], int] = {}
        for training in self.trainings:
            drafts = training in self.drafting
            for part, (count, _) in training.parts.items():
                if part in PARTS_OF_CTC or not (self.uses_ctc_alone or drafts):
                    trained[drafts, part] = max(count, trained.get((drafts, part), 0))
        told = [training.seconds for training in self.trainings if training.seconds is not None]
        return {
            "parameters": f"{sum(trained.values()):,}" if trained else None,
            "minutes": f"{sum(told) / 60:.1f}" if told else None,
        }


def _read_meta(decoded: Path) -> dict[str, Any]:
    """meta.json of a decoded set, and whether its encoder was timed."""
    meta = read_json(decoded / "meta.json")
    candidates = decoded / "candidates.jsonl"
    if not meta or not candidates.is_file():  # ESPnet's own decoding has none
        return meta
    with open(candidates, encoding="utf-8") as file:
        first = file.readline()
    timed = "encode" in json.loads(first).get("timing", {}) if first.strip() else False
    return meta | {"encoder": "timed" if timed else "not timed (states from disk)"}


def parse_systems(words: Sequence[str]) -> list[System]:
    """Systems of words NAME=DIR or NAME=DIR,DIR1, where DIR1 is the same decoding one utterance at a time.

    raises UserError: another form, a name given twice, a directory without scored sets, less than two systems
    """
    systems: dict[str, System] = {}
    for word in words:
        name, _, places = word.partition("=")
        place, comma, alone = places.partition(",")
        if not (name and place) or (comma and not alone):
            raise UserError(f"{word!r}: expected NAME=DIR or NAME=DIR,DIR1, where DIR holds a directory for each "
                            "scored set, and DIR1 the same decoded one utterance at a time")
        if name in systems:
            raise UserError(f"system {name} is given twice: {systems[name].directory} and {place}")
        systems[name] = System(name, Path(place), Path(alone) if alone else None)
    for system in systems.values():
        if not system.sets:
            raise UserError(f"{system.directory}/*/score_wer/ref.trn: system {system.name} has no scored set; "
                            "decode and score it first (run.sh --stage decode)")
    if len(systems) < 2:
        raise UserError(f"nothing to compare with {', '.join(systems)}: name two systems or more")
    return list(systems.values())


def shared_normalizer(name: str, places: Mapping[str, Path]) -> str | None:
    """What all systems' texts of a set were normalised with, as summary.json tells; None where none tells.

    places: system -> its decode directory of the set; name: of the set, for the message
    raises UserError: different ones
    """
    used = {system: read_json(place / "summary.json").get("normalizer") for system, place in places.items()}
    told = {each for each in used.values() if each}
    if len(told) > 1:
        pairs = ", ".join(f"{system} {each}" for system, each in used.items() if each)
        raise UserError(f"{name}: the systems were scored with different normalizers ({pairs}); score them alike")
    return next(iter(told), None)
