"""The settings of a decoding, as a YAML of conf/decode_*.yaml holds them: every key is checked before any work."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from whisfusion_asr.decoding.autoregressive import BeamOptions
from whisfusion_asr.decoding.conf import check_choice, check_keys, options_from
from whisfusion_asr.decoding.pdd import PddOptions
from whisfusion_asr.decoding.samplers import ENGINE_SAMPLERS, Sampler
from whisfusion_asr.decoding.selection import SELECTIONS, SelectionOptions
from whisfusion_asr.diffusion.canvas import CanvasRule
from whisfusion_asr.errors import UserError

SAMPLERS = (*ENGINE_SAMPLERS, "pdd_reference", "ctc_greedy", "autoregressive")
WHOLE_FIRST = tuple(name for name in ENGINE_SAMPLERS if name != "gaps")
SEARCH_SELECTIONS = ("score",)  # a beam search ranks its candidates itself
# A processor is fastest while a layer's activations stay in its cache, a GPU while it has enough to do.
BATCH_TOKENS = {"cpu": 500, "cuda": 131072}
KEYS = ("sampler", "sampler_conf", "budget", "selection", "selection_conf", "canvas_conf", "engine_conf")


@dataclass(frozen=True)
class Budget:
    """What `budget:` of the sampler gaps stands for: engine_conf.draft, and of sampler_conf the rest."""

    looks: int | None
    draft: float = 0.01  # every word of the draft that the tokens can spell stands until a look finds it wrong
    gamma: float = 100.0  # whatever is written may be mended at the next look
    margin: float = 1.0

    @property
    def sampler_conf(self) -> dict[str, Any]:
        """The keys of sampler_conf."""
        return {"gamma": self.gamma, "looks": self.looks, "margin": self.margin}


BUDGETS = {"accurate": Budget(None), "balanced": Budget(3), "fast": Budget(1)}


def usual_conf(config: Mapping[str, Any], drafted: bool) -> dict[str, Any]:
    """How a model is decoded where nothing else is said. config: its own; drafted: another experiment's head drafts.

    On mini_synth's development set `threshold` from CTC's draft makes as few errors in 1.2 passes as from an empty
    canvas in 3.6, and fewer than PDD with 5 candidates (15 canvases evaluated): sweep_mixture.md and
    sweep_samplers.md in egs/mini_synth/asr1/results/sweep.
    """
    if not config.get("decoder"):
        return {"sampler": "ctc_greedy"}
    if config["decoder"] == "causal":
        return {"sampler": "autoregressive"}
    if not (drafted or config.get("ctc")):
        return {"sampler": "threshold"}
    if (config.get("model_conf") or {}).get("left_to_right"):
        return {"sampler": "gaps", "budget": "balanced"}
    return {"sampler": "threshold", "engine_conf": {"draft": 0.9}}


def sampler_keys(sampler: str) -> list[str]:
    """Keys that the sampler_conf of this sampler may have; none for an unknown one."""
    record = PddOptions if sampler == "pdd_reference" else ENGINE_SAMPLERS.get(sampler)
    return [] if record is None else [item.name for item in fields(record)]


@dataclass(frozen=True)
class EngineOptions:
    """What the engine does around a sampler.

    batch_tokens: slots and frames that one batch may hold: utterances * (K * canvas + frames), padding included;
        null for what suits the device (BATCH_TOKENS)
    budget_ms: time for one utterance, from its encoder states to the last pass, after which its best transcript so far
        counts; null for no limit. Drafting and CTC are in it; encoding before it, selection and word times behind it
        are not. The first pass is made in any case, a further one if there is time for one as long as the last.
        Utterances are then decoded one by one, and the text depends on the machine's speed.
    silence: the transcript is empty if CTC hears no token, or none of a mean probability of at least this; without a
        CTC head if the first pass finds no token, or none so sure; null for the experiment's own bound (`whisfusion
        calibrate`, which a recipe calls), or for taking everything for speech where it has none
    draft: start from CTC's greedy tokens instead of an empty canvas, those below this probability hidden; with sampler
        gaps from its words, with a gap for those of which some token is below it; 0 is off
    """

    batch_tokens: int | None = None
    budget_ms: float | None = None
    silence: float | None = None
    draft: float = 0.0

    def __post_init__(self) -> None:
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise UserError(f"batch_tokens: expected at least 1, got {self.batch_tokens}")
        if self.budget_ms is not None and not self.budget_ms > 0:
            raise UserError(f"budget_ms: expected more than 0 milliseconds, got {self.budget_ms}")
        for name in ("silence", "draft"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{name}: expected a probability in [0, 1], got {value}")


@dataclass(frozen=True)
class DecodingSettings:
    """A checked decoding. options: of the sampler, None for ctc_greedy; canvas: replaces keys of the trained rule.

    budget: of BUDGETS, None where what it stands for is named one by one
    """

    sampler: str
    options: Any
    selection: str
    selection_options: SelectionOptions
    engine: EngineOptions
    canvas: dict[str, Any] = field(default_factory=dict)
    budget: str | None = None

    @classmethod
    def of(cls, conf: Mapping[str, Any] | None, place: str = "decoding") -> "DecodingSettings":
        """Settings of a mapping, defaults filled in. place: begins the message about a key.

        raises UserError: an unknown key (with the nearest one), a value of another type or out of its range
        """
        conf = conf or {}
        check_keys(conf, KEYS, place)
        name, own = conf.get("sampler", "pdd"), conf.get("sampler_conf") or {}
        check_choice(name, SAMPLERS, "sampler")
        budget, drafts = conf.get("budget"), {}
        if budget is not None:
            check_choice(budget, BUDGETS, "budget")
            if name != "gaps":
                raise UserError(f"budget: {budget} is a setting of sampler gaps; sampler {name} has none")
            own, drafts = BUDGETS[budget].sampler_conf | own, {"draft": BUDGETS[budget].draft}
        if name == "ctc_greedy":
            check_keys(own, (), "sampler_conf of ctc_greedy")
            options = None
        elif name in ("pdd_reference", "autoregressive"):
            options = options_from(PddOptions if name == "pdd_reference" else BeamOptions, own, "sampler_conf")
        else:
            options = Sampler.of(name, own).options
        selections = SEARCH_SELECTIONS if name == "autoregressive" else SELECTIONS
        selection = conf.get("selection", selections[0])
        check_choice(selection, selections, "selection")
        weights = options_from(SelectionOptions, conf.get("selection_conf") or {}, "selection_conf")
        engine = options_from(EngineOptions, drafts | (conf.get("engine_conf") or {}), "engine_conf")
        if name not in ENGINE_SAMPLERS and engine != replace(EngineOptions(), batch_tokens=engine.batch_tokens):
            raise UserError(f"engine_conf: sampler {name} is not run by the engine; set sampler: pdd")
        canvas = dict(conf.get("canvas_conf") or {})
        if options_from(CanvasRule, canvas, "canvas_conf").fit == "first_pass" and name not in WHOLE_FIRST:
            raise UserError(f"canvas_conf.fit: first_pass needs a sampler that asks for the whole canvas at first, one "
                            f"of {', '.join(WHOLE_FIRST)}; with sampler {name} set fit to fixed, count or frames")
        return cls(name, options, selection, weights, engine, canvas, budget)

    def as_conf(self) -> dict[str, Any]:
        """The complete settings as a YAML would hold them; what the sampler has no use for is left out."""
        conf: dict[str, Any] = {"sampler": self.sampler} | ({"budget": self.budget} if self.budget else {})
        if self.options is not None:
            conf["sampler_conf"] = asdict(self.options)
            conf |= {"selection": self.selection, "selection_conf": asdict(self.selection_options)}
        if self.sampler in ENGINE_SAMPLERS:
            conf["engine_conf"] = asdict(self.engine)
        if self.canvas:
            conf["canvas_conf"] = self.canvas
        return conf

    def batch_tokens(self, device_type: str) -> int:
        """Slots and frames that a batch may hold on "cpu" or "cuda"; 1 decodes utterances one by one."""
        if self.sampler not in ENGINE_SAMPLERS or self.engine.budget_ms is not None:
            return 1
        return self.engine.batch_tokens or BATCH_TOKENS[device_type]

    @property
    def keeps_given(self) -> bool:
        """Whether known words on the canvas are kept: greedy CTC, left-to-right search and the reference see none."""
        return self.sampler in ENGINE_SAMPLERS

    def canvas_rule(self, trained: Mapping[str, Any] | None) -> CanvasRule:
        """The rule of the trained model's canvas_conf with this decoding's keys in their place."""
        return CanvasRule.from_conf({**(trained or {}), **self.canvas})
