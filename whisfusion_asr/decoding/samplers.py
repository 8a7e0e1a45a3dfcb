"""Samplers by name, and their options out of a YAML's `sampler_conf`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from whisfusion_asr.decoding.conf import options_from
from whisfusion_asr.decoding.fill import Fill
from whisfusion_asr.decoding.given import Start
from whisfusion_asr.decoding.pdd import PddOptions
from whisfusion_asr.decoding.sampler_gaps import GapsOptions, gaps_fill
from whisfusion_asr.decoding.sampler_pdd import EnginePddOptions, pdd_fill
from whisfusion_asr.decoding.sampler_unmask import (
    EntropyOptions,
    PositionOptions,
    RandomOptions,
    SingleOptions,
    ThresholdOptions,
    TopkOptions,
    UnmaskOptions,
    unmask_fill,
)
from whisfusion_asr.diffusion.canvas import CanvasSpec

ENGINE_SAMPLERS: dict[str, type] = {
    "pdd": EnginePddOptions,
    "random": RandomOptions,
    "topk": TopkOptions,
    "eb": EntropyOptions,
    "pbeb": PositionOptions,
    "threshold": ThresholdOptions,
    "single": SingleOptions,
    "gaps": GapsOptions,
}


@dataclass(frozen=True)
class Sampler:
    """A rule that fills canvases, with its options."""

    name: str
    options: EnginePddOptions | UnmaskOptions | GapsOptions

    @classmethod
    def of(cls, name: str, conf: Mapping[str, Any] | None = None) -> "Sampler":
        """The sampler of a name in ENGINE_SAMPLERS. Raises UserError for unknown keys and bad values."""
        return cls(name, options_from(ENGINE_SAMPLERS[name], conf or {}, "sampler_conf"))

    @property
    def scoring(self) -> PddOptions:
        """How candidates are read off a filled canvas: confidence and after_end."""
        return self.options if isinstance(self.options, PddOptions) else PddOptions()

    def fill(self, start: Start, spec: CanvasSpec, utt_id: str, whole: bool = False) -> Fill:
        """Start on the canvases of one utterance. whole: every pass must leave complete texts."""
        if isinstance(self.options, EnginePddOptions):
            return pdd_fill(start, spec, self.options, utt_id, whole)
        if isinstance(self.options, GapsOptions):
            return gaps_fill(start, spec, self.options)
        return unmask_fill(start, spec, self.options, utt_id)
