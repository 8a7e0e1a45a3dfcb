"""canvas_conf.fit: first_pass: the first pass tells how long the canvas of the others is."""

from pathlib import Path

import pytest
import torch
from engine_fakes import CONFIG, WIDTH, FakePredict, Logits, certain, experiment, toy
from hypothesis import given, settings
from hypothesis import strategies as st

from whisfusion_asr.api import Speech2Text
from whisfusion_asr.decoding.engine import Decoded, Job, decode
from whisfusion_asr.decoding.given import Given, start_canvas
from whisfusion_asr.decoding.output import Transcript
from whisfusion_asr.decoding.samplers import Sampler
from whisfusion_asr.decoding.settings import WHOLE_FIRST, DecodingSettings
from whisfusion_asr.diffusion.canvas import CanvasRule, CanvasSpec
from whisfusion_asr.errors import UserError
from whisfusion_asr.models.adapter import Acoustics

PLAIN = CanvasSpec(vocab_size=5)
WITH_BOS = CanvasSpec(vocab_size=6, eos_id=2, bos_id=1)
NAMES = "abcdefgh"
CONFS = {"pdd": {"candidates": 3}, "random": {"tokens": "argmax"}}


def fitted(networks: list[Logits], starts: list[Job], sampler: Sampler, margin: int = 2, spec: CanvasSpec = PLAIN,
           trace: bool = False) -> tuple[list[Decoded], FakePredict]:
    """The engine with canvases of `margin` slots more than the first pass has written."""
    predict = FakePredict(*networks, lengths=[len(job.start.tokens) for job in starts])

    def fit(place: int, used: int) -> int:
        predict.lengths[place] = min(CanvasRule(margin=margin).with_margin(used), predict.lengths[place])
        return predict.lengths[place]

    return decode(predict, starts, spec, sampler, trace=trace, fit=fit), predict


def knows(row: list[int], vocab: int) -> Logits:
    """A network that knows a canvas, however much of it there is, and is not sure of it."""
    return lambda canvas: certain(row, vocab)(canvas)[:, : canvas.size(1)] / 15


def ending(seed: int, length: int) -> Logits:
    """A toy network that says nothing behind some slots, or now and then one token."""
    def logits(canvas: torch.Tensor) -> torch.Tensor:
        found = toy(seed, 5, 4.0)(canvas)
        found[:, length:, 0] += 5.0
        return found

    return logits


@pytest.mark.parametrize("name", WHOLE_FIRST)
@pytest.mark.parametrize("trace", [False, True])
def test_the_passes_behind_the_first_have_a_shorter_canvas(name, trace):
    row = [1, 5, 4, 2, 3, *[2] * 11]  # <bos> and three tokens, an end among them
    job = Job("utt", start_canvas(16, WITH_BOS))
    (found,), predict = fitted([knows(row, 6)], [job], Sampler.of(name, CONFS.get(name)), spec=WITH_BOS, trace=trace)
    assert predict.seen[0].shape == (1, 16), "one row"
    assert {canvas.size(1) for canvas in predict.seen[1:]} <= {7} and found.canvas == 7
    assert (len(predict.seen) == 1) == (name == "single") and found.passes == len(predict.seen)
    assert found.rows == sum(map(len, predict.seen))
    assert all(candidate.tokens == [5, 4] for candidate in found.candidates)
    assert name != "pdd" or found.unread == [1, 1, 1], "what stands behind the end is not cut off"
    if trace:
        assert [p.guess.size(1) for p in found.trace] == [canvas.size(1) for canvas in predict.seen]


@pytest.mark.parametrize("name", WHOLE_FIRST)
def test_given_words_are_never_cut_off(name):
    row = [3, *[0] * 11]
    for words, canvas in ((Given([None] * 6 + [4]), 9), (Given([3, None, None], ends=True), 5),
                          (Given([None, 4, None, 1]), 6)):
        job = Job("utt", start_canvas(12, PLAIN, words))
        (found,), predict = fitted([knows(row, 5)], [job], Sampler.of(name, CONFS.get(name)))
        assert found.canvas == canvas == predict.seen[-1].size(1) or name == "single"
        for candidate in found.candidates:
            kept = [token for token in words.tokens if token is not None]
            assert [candidate.tokens[place] for place, token in enumerate(words.tokens) if token is not None] == kept


@settings(deadline=None, max_examples=40)
@given(names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=6), cut=st.integers(0, 6),
       sampler=st.sampled_from([("pdd", {"candidates": 3}), ("random", {"rows": 3}), ("eb", {}), ("topk", {}),
                                ("pdd", {"candidates": 4, "keep": [4, 2, 1], "first_pass": "sample"}),
                                ("pbeb", {"gamma": 0.0}), ("threshold", {})]))
def test_a_transcript_depends_on_nothing_but_its_utterance(names, cut, sampler):
    """Any order, batch and repetition, canvases shortened to unequal lengths: each as on its own."""
    def decoded(keys: list[str]) -> list[Decoded]:
        jobs = [Job(key, start_canvas(8 + ord(key) % 9, PLAIN)) for key in keys]
        networks = [ending(ord(key), 2 + ord(key) % 3) for key in keys]
        return fitted(networks, jobs, Sampler.of(*sampler))[0] if keys else []

    for key, found in zip(names, decoded(names[:cut]) + decoded(names[cut:]), strict=True):
        (alone,) = decoded([key])
        assert [c.tokens for c in found.candidates] == [c.tokens for c in alone.candidates]
        assert (found.passes, found.rows, found.canvas) == (alone.passes, alone.rows, alone.canvas)
        assert found.canvas is None or found.canvas < 8 + ord(key) % 9


FIRST = {"fit": "first_pass", "length": 24, "margin": 2}
MODELS = {"ruler": {}, "no CTC": {"ctc": None, "decoder_conf": CONFIG["decoder_conf"] | {"ruler": "none"}},
          "bos": {"model_conf": {"bos_id": 1}, "decoder_conf": CONFIG["decoder_conf"] | {"prefix": 1}}}


@pytest.fixture(scope="module", params=MODELS)
def exp(request, tmp_path_factory) -> Path:
    """A random network that likes to end."""
    folder = experiment(tmp_path_factory.mktemp("first") / "exp", 1, **MODELS[request.param])
    weights = torch.load(folder / "valid.loss.ave.pth")
    weights["decoder.head.weight"][0] *= -3
    torch.save(weights, folder / "valid.loss.ave.pth")
    return folder


def transcripts(exp: Path, tokens: int = 10000, **inference: object) -> list[Transcript]:
    speech2text = Speech2Text(exp, inference={"engine_conf": {"batch_tokens": tokens}, **inference})
    states = [torch.randn(4 + n, WIDTH, generator=torch.Generator().manual_seed(n)) for n in range(8)]
    return list(speech2text.decode_many(speech2text.utterance(str(n), s, 1.0) for n, s in enumerate(states)))


def without_time(found: list[Transcript]) -> list[tuple[object, ...]]:
    return [(t.text, t.token_int, t.canvas, t.passes, t.rows, t.flags, [c["tokens"] for c in t.candidates])
            for t in found]


@pytest.mark.parametrize("sampler", WHOLE_FIRST)
def test_batches_change_nothing_and_a_large_margin_is_the_plain_canvas(exp, sampler):
    found = transcripts(exp, sampler=sampler, canvas_conf=FIRST)
    assert without_time(found) == without_time(transcripts(exp, 1, sampler=sampler, canvas_conf=FIRST))
    assert min(t.canvas for t in found) < 24, "some are shortened"
    plain = transcripts(exp, sampler=sampler, canvas_conf=FIRST | {"fit": "fixed"})
    ample = transcripts(exp, sampler=sampler, canvas_conf=FIRST | {"margin": 24})
    assert without_time(ample) == without_time(plain) and {t.canvas for t in plain} == {24}
    assert [t.confidence for t in ample] == pytest.approx([t.confidence for t in plain], abs=1e-5)


def test_a_shortened_canvas_is_rounded_and_tells_that_it_is_full(exp, monkeypatch):
    room = 2 - Speech2Text(exp).spec.prefix
    rounded = transcripts(exp, canvas_conf=FIRST | {"multiple": 5})
    assert {t.canvas % 5 for t in rounded if t.canvas < 24} == {0}
    monkeypatch.setattr(CanvasRule, "with_margin", lambda self, slots: 2)
    found = transcripts(exp, canvas_conf=FIRST, sampler="pdd", sampler_conf={"candidates": 1})
    full = ["canvas_full" in t.flags for t in found]
    assert full == [len(t.token_int) == room for t in found] and any(full) and {t.canvas for t in found} == {2}


def test_the_network_reads_a_shortened_canvas_as_one_of_that_length(exp):
    """In a batch with another: the keys that a ruler has for the slots that are gone are unseen."""
    speech2text = Speech2Text(exp)
    states, frames = torch.randn(2, 9, WIDTH), torch.tensor([9, 6])
    acoustics: Acoustics = speech2text.network.acoustics(states, frames)
    canvas, asked = torch.randint(0, 29, (3, 12)), torch.ones(3, 12, dtype=torch.bool)
    asked[:2, 7:] = False
    predictors = [speech2text.network.predictor(acoustics, torch.tensor(lengths)) for lengths in ([20, 12], [7, 12])]
    before = torch.cat(list(predictors[0](canvas, torch.tensor([0, 0, 1]), asked)))
    predictors[0].shorten(0, 7)
    found, wanted = (torch.cat(list(one(canvas, torch.tensor([0, 0, 1]), asked))) for one in predictors)
    assert torch.allclose(found, wanted, atol=1e-5) and not torch.allclose(found, before, atol=1e-3)


@pytest.mark.parametrize("sampler", ["gaps", "pdd_reference", "autoregressive", "ctc_greedy"])
def test_samplers_that_do_not_see_the_whole_canvas_first(sampler):
    with pytest.raises(UserError, match=f"canvas_conf.fit: first_pass needs a sampler .* with sampler {sampler} set"):
        DecodingSettings.of({"sampler": sampler, "canvas_conf": {"fit": "first_pass"}})
