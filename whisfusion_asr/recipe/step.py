"""A part of a stage: what it runs, reads, writes and depends on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisfusion_asr.recipe import stamps
from whisfusion_asr.recipe.estimates import Cost
from whisfusion_asr.recipe.jobs import Job


@dataclass(frozen=True)
class Step:
    """A part of a stage that is done or not done as a whole.

    reads: input files and the stage that writes each ("" for the user's own)
    writes: files that must be there afterwards
    keys: (reference, output): the output must hold exactly the reference's keys
    work: patterns of files in `out` that are too good to be lost by a changed setting; none for what is cheap to redo
    tag: the option that gives `out` another name
    notes, costs: what is told of it before it runs
    """

    title: str
    out: Path
    jobs: tuple[Job, ...]
    settings: Mapping[str, Any]
    reads: Mapping[Path, str]
    writes: tuple[Path, ...]
    keys: tuple[Path, Path] | None = None
    work: tuple[str, ...] = ()
    tag: str = ""
    training: bool = False
    stamp_name: str = stamps.NAME
    record: Path | None = None
    notes: tuple[str, ...] = ()
    costs: tuple[Cost, ...] = ()

    @property
    def stamp(self) -> Path:
        """File that says whether and with what the step was done."""
        return self.out / self.stamp_name

    def told(self, ngpu: int) -> list[str]:
        """Its notes and costs, a line each."""
        return [*self.notes, *(cost.line(ngpu) for cost in self.costs)]
