"""Settings of a decoding: complete, checked, and the same when they are read again."""

from pathlib import Path

import pytest

from whisfusion_asr.config import read_yaml
from whisfusion_asr.decoding.pdd import PddOptions
from whisfusion_asr.decoding.settings import SAMPLERS, DecodingSettings, usual_conf
from whisfusion_asr.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_settings_are_complete(sampler):
    settings = DecodingSettings.of({"sampler": sampler})
    assert settings.as_conf()["sampler"] == sampler
    assert DecodingSettings.of(settings.as_conf()) == settings


def test_the_default_is_the_engines_pdd():
    settings = DecodingSettings.of(None)
    assert settings.sampler == "pdd" and isinstance(settings.options, PddOptions)
    assert DecodingSettings.of({"sampler": "pdd_reference"}).options == PddOptions()


def test_a_decoding_may_change_the_trained_canvas():
    settings = DecodingSettings.of({"canvas_conf": {"margin": 9, "multiple": 8}})
    rule = settings.canvas_rule({"fit": "count", "margin": 4})
    assert (rule.fit, rule.margin, rule.multiple) == ("count", 9, 8)
    assert DecodingSettings.of({}).canvas_rule({"fit": "count", "margin": 4}).margin == 4


def test_whole_numbers_are_numbers_and_lists_are_ratios():
    options = DecodingSettings.of({"sampler": "pbeb", "sampler_conf": {"gamma": 1}}).options
    assert options.gamma == 1.0 and isinstance(options.gamma, float)
    assert DecodingSettings.of({"sampler_conf": {"mask_ratios": [1, 0.5]}}).options.mask_ratios == (1.0, 0.5)


@pytest.mark.parametrize(("conf", "draft", "gamma", "looks"), [
    ({"budget": "accurate"}, 0.01, 100, None), ({"budget": "balanced"}, 0.01, 100, 3),
    ({"budget": "fast"}, 0.01, 100, 1),
    ({"budget": "fast", "sampler_conf": {"gamma": 0.3}}, 0.01, 0.3, 1), ({}, 0.0, 0.5, 0),
    ({"budget": "fast", "engine_conf": {"draft": 0.7}, "sampler_conf": {"looks": None}}, 0.7, 100, None),
])
def test_a_budget_is_some_keys_and_single_ones_stand_above_it(conf, draft, gamma, looks):
    settings = DecodingSettings.of({"sampler": "gaps", **conf})
    assert (settings.engine.draft, settings.options.gamma, settings.options.looks) == (draft, gamma, looks)
    assert settings.as_conf().get("budget") == conf.get("budget")
    assert DecodingSettings.of(settings.as_conf()) == settings


@pytest.mark.parametrize(("conf", "message"), [
    ({"sampler": "gaps", "budget": "quick"}, "budget: 'quick' is unknown; choose one of accurate, balanced, fast"),
    ({"sampler": "pdd", "budget": "fast"}, "budget: fast is a setting of sampler gaps; sampler pdd has none"),
    ({"samplr": "pdd"}, "decoding: unknown key samplr; did you mean sampler?"),
    ({"sampler": "ppd"}, "sampler: 'ppd' is unknown; did you mean pdd"),
    ({"sampler_conf": 3}, "sampler_conf: expected keys and values, got 3"),
    ({"sampler": "ctc_greedy", "sampler_conf": {"seed": 1}}, "sampler_conf of ctc_greedy: unknown key seed"),
    ({"sampler": "ctc_greedy", "engine_conf": {"silence": 0.5}}, "sampler ctc_greedy is not run by the engine"),
    ({"sampler": "pdd_reference", "engine_conf": {"draft": 0.9}}, "sampler pdd_reference is not run by the engine"),
    ({"sampler": "autoregressive", "sampler_conf": {"beam": 0}}, "sampler_conf: beam: expected at least 1, got 0"),
    ({"sampler": "autoregressive", "selection": "confidence"}, "selection: .confidence. is unknown; choose one of s"),
    ({"selection": "confidense"}, "selection: 'confidense' is unknown; did you mean confidence"),
    ({"selection": "oracle"}, "selection: 'oracle' is unknown"),
    ({"selection_conf": {"sharpnes": 1}}, "selection_conf: unknown key sharpnes; did you mean sharpness?"),
    ({"selection_conf": {"vote_weight": 2}}, r"selection_conf: vote_weight: expected a number in \[0, 1\], got 2.0"),
    ({"selection_conf": {"vote_weight": "much"}}, "selection_conf.vote_weight: expected a number or null, got 'much'"),
    ({"engine_conf": {"batch_tokens": 0}}, "engine_conf: batch_tokens: expected at least 1, got 0"),
    ({"engine_conf": {"budget_ms": 0}}, "budget_ms: expected more than 0 milliseconds, got 0"),
    ({"engine_conf": {"budget_ms": float("nan")}}, "budget_ms: expected more than 0 milliseconds, got nan"),
    ({"engine_conf": {"budget_ms": "soon"}}, "engine_conf.budget_ms: expected a number or null, got 'soon'"),
    ({"engine_conf": {"silence": 2}}, r"silence: expected a probability in \[0, 1\], got 2.0"),
    ({"engine_conf": {"batch_token": 2}}, "engine_conf: unknown key batch_token; did you mean batch_tokens?"),
    ({"canvas_conf": {"marginn": 2}}, "canvas_conf: unknown key marginn; did you mean margin?"),
    ({"canvas_conf": {"margin": 0}}, "margin 0 must be at least 1"),
    ({"canvas_conf": {"multiple": 0}}, "multiple 0 must be at least 1"),
    ({"sampler_conf": {"stop_when_stable": 1}}, "stop_when_stable: expected true or false, got 1"),
])
def test_wrong_settings_are_named(conf, message):
    with pytest.raises(UserError, match=message):
        DecodingSettings.of(conf)


@pytest.mark.parametrize(("config", "drafted", "sampler", "draft"), [
    ({"decoder": "diffusion"}, False, "threshold", 0), ({"decoder": "diffusion"}, True, "threshold", 0.9),
    ({"decoder": "diffusion", "ctc": "ctc_head"}, False, "threshold", 0.9),
    ({"decoder": None, "ctc": "ctc_head"}, False, "ctc_greedy", 0),
    ({"decoder": "causal", "ctc": "ctc_head"}, False, "autoregressive", 0),
    ({"decoder": "whisper_diffusion", "model_conf": {"left_to_right": 1.0}}, True, "gaps", 0.01),
    ({"decoder": "whisper_diffusion", "ctc": "ctc_head", "model_conf": {"left_to_right": 1.0}}, False, "gaps", 0.01),
    ({"decoder": "whisper_diffusion", "model_conf": {"left_to_right": 1.0}}, False, "threshold", 0),
    ({"decoder": "whisper_diffusion", "model_conf": None}, True, "threshold", 0.9),
])
def test_the_usual_decoding_is_one_that_the_model_can_do(config, drafted, sampler, draft):
    settings = DecodingSettings.of(usual_conf(config, drafted))
    assert (settings.sampler, settings.engine.draft) == (sampler, draft)


def test_the_usual_decoding_of_a_model_with_a_head_is_that_of_its_yaml():
    named, usual = read_yaml(ROOT / "conf/decode_threshold_draft.yaml"), usual_conf({"decoder": "x", "ctc": "y"}, False)
    assert DecodingSettings.of(named) == DecodingSettings.of(usual)
