"""Selections by name through Speech2Text on a random network: what select() makes of the candidates, and no other."""

from pathlib import Path

import numpy as np
import pytest
import torch
from engine_fakes import WIDTH, experiment

from whisfusion_asr.api import Speech2Text
from whisfusion_asr.decoding.output import Transcript
from whisfusion_asr.decoding.pdd import Candidate
from whisfusion_asr.decoding.selection import NEED_CTC, SELECTIONS, Selected, SelectionOptions, select
from whisfusion_asr.decoding.times import ctc_spans, timed_words
from whisfusion_asr.decoding.words import Word
from whisfusion_asr.errors import UserError

LENGTHS = {"a": 5, "b": 23, "c": 18, "d": 12, "e": 30}
PIECES = ["<eos>", "<unk>", "<space>", "a", "b", "c", "d"]
OFTEN = [-2.0, -9.0, 1.0, 0.0, 0.0, 0.0, 0.0]  # so that a random network, unsure, writes several short words


@pytest.fixture(scope="module")
def exp(tmp_path_factory) -> Path:
    return experiment(tmp_path_factory.mktemp("selected") / "exp", token_list=PIECES)


def states_of(name: str) -> np.ndarray:
    return np.random.default_rng(ord(name)).normal(size=(LENGTHS[name], WIDTH)).astype(np.float32)


def decode(exp: Path, word_times: bool = False, **inference: object) -> tuple[Speech2Text, list[Transcript]]:
    """All utterances in one batch, canvases and states of unequal lengths."""
    conf = {"sampler_conf": {"candidates": 8, "mask_ratios": [1.0, 0.3], "first_pass": "sample"}, **inference}
    speech2text = Speech2Text(exp, inference=conf, word_times=word_times)
    speech2text.network.decoder.head.weight.data *= 0.2
    speech2text.network.decoder.head.bias = torch.nn.Parameter(torch.tensor(OFTEN))
    return speech2text, list(speech2text.decode_many([speech2text.utterance(n, states_of(n), 1.0) for n in LENGTHS]))


def heard_alone(speech2text: Speech2Text, name: str) -> torch.Tensor:
    """What the CTC head makes of one utterance without any batch, (T, V + 1)."""
    states = torch.from_numpy(states_of(name))[None]
    with torch.no_grad():
        return speech2text.network.ctc(states, torch.tensor([states.size(1)]))[0].log_softmax(-1)


def by_hand(speech2text: Speech2Text, name: str, transcript: Transcript, options: SelectionOptions) -> Selected:
    """The selection among the candidates of a transcript."""
    tokenizer, heard = speech2text.tokenizer, heard_alone(speech2text, transcript.utt_id)
    pool = [Candidate(c["tokens"], c["token_confidence"], c["confidence"]) for c in transcript.candidates]
    return select(name, pool, lambda ids: tokenizer.words([tokenizer.pieces[i] for i in ids]), tokenizer.encode,
                  options, heard)


@pytest.mark.parametrize("sampler", ["pdd", "pdd_reference"])
@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("conf", [{}, {"sharpness": 2.0, "risk_weight": 3.0, "vote_weight": 1.0, "ctc_weight": 1.0}])
def test_the_transcript_is_what_select_makes_of_the_candidates(exp, sampler, name, conf):
    speech2text, found = decode(exp, sampler=sampler, selection=name, selection_conf=conf)
    for transcript in found:
        wanted = by_hand(speech2text, name, transcript, SelectionOptions(**conf))
        assert (transcript.chosen, transcript.text, transcript.token_int) == (wanted.chosen, wanted.text, wanted.tokens)
        assert transcript.tokens == [speech2text.tokenizer.pieces[i] for i in wanted.tokens]
        assert transcript.confidence == pytest.approx(wanted.confidence, abs=1e-5)
        assert [w["word"] for w in transcript.words] == [w.word for w in wanted.words]
        assert [w["confidence"] for w in transcript.words] == pytest.approx(
            [w.confidence for w in wanted.words], abs=2e-5)
        assert transcript.selection == name and transcript.timing.keys() == {"decode", "select"}


def test_the_selections_differ_here(exp):
    """Or the test above would pass with any of them."""
    choices = {name: [(t.chosen, t.text) for t in decode(exp, selection=name)[1]] for name in SELECTIONS}
    assert len({tuple(chosen) for chosen in choices.values()}) >= 4
    assert any(chosen is None for chosen, _ in choices["rover"]), "a composed text is told as such"


def test_a_composed_text_keeps_the_flags_of_the_most_confident_candidate(exp):
    _, plain = decode(exp)
    _, voted = decode(exp, selection="rover")
    composed = [(a, b) for a, b in zip(plain, voted, strict=True) if b.chosen is None]
    assert composed and all((a.flags, a.canvas) == (b.flags, b.canvas) for a, b in composed)
    assert composed[0][1].record()["chosen"] is None


def test_a_selection_that_the_model_cannot_do_is_refused_at_once(tmp_path, exp):
    folder = experiment(tmp_path / "exp", ctc=None, decoder_conf={"size": 16, "attention_heads": 2})
    for name in NEED_CTC:
        with pytest.raises(UserError, match=f"^selection: {name} needs a model with a CTC head.*[^\n]$"):
            Speech2Text(folder, inference={"selection": name})
    for name in set(SELECTIONS) - set(NEED_CTC):
        Speech2Text(folder, inference={"selection": name})
    with pytest.raises(UserError, match="selection: 'rovver' is unknown; did you mean rover?"):
        Speech2Text(exp, inference={"selection": "rovver"})


@pytest.mark.parametrize("name", SELECTIONS)
def test_silence_has_one_empty_candidate(exp, name):
    speech2text = Speech2Text(exp, inference={"selection": name, "engine_conf": {"silence": 1.0}})
    blank = torch.zeros(1, 5, len(speech2text.tokenizer.pieces) + 1)
    blank[..., -1] = 9.0
    speech2text.network.ctc.forward = lambda states, lengths: blank
    found = speech2text.decode_states("a", states_of("a"), 1.0)
    assert (found.text, found.chosen, found.flags, found.words) == ("", 0, ["silence"], [])


CTC = {"sampler": "ctc_greedy", "sampler_conf": {}}


@pytest.mark.parametrize("inference", [{}, {"sampler": "pdd_reference"}, {"selection": "rover"}, CTC])
def test_words_have_times_on_request(exp, inference):
    """Those of the utterance alone, padded or not; without the request nothing changes."""
    few = {"fit": "frames", "tokens_per_frame": 0.2, "margin": 1}  # tokens, so that the frames can hold them
    _, plain = decode(exp, canvas_conf=few, **inference)
    speech2text, found = decode(exp, word_times=True, canvas_conf=few, **inference)
    heard: list[bool] = []
    for before, after in zip(plain, found, strict=True):
        words = [Word(w["word"], w["confidence"]) for w in after.words]
        end = [*after.tokens, "<eos>"].index("<eos>")  # an untrained CTC head may write one
        places = [places for _, places in speech2text.tokenizer.words(after.tokens[:end])]
        log_probs = heard_alone(speech2text, after.utt_id)
        wanted = timed_words(words, places, ctc_spans(log_probs, after.token_int), len(log_probs), 1.0)
        assert after.words == [word.record() for word in wanted]
        assert before.words == [word.record() for word in words] and " ".join(w.word for w in words) == before.text
        assert after.timing.keys() == before.timing.keys() | {"times"}
        heard += [not word.interpolated for word in wanted]
    assert any(heard)
