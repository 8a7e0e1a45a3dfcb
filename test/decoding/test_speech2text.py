"""Speech2Text on a random network: any batch gives the same text, and what is said about bad input."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_fakes import CONFIG, TOKENS, WIDTH, experiment
from hypothesis import given, settings
from hypothesis import strategies as st

from whisfusion_asr.api import Speech2Text
from whisfusion_asr.decoding.given import Given
from whisfusion_asr.decoding.output import Transcript
from whisfusion_asr.errors import UserError
from whisfusion_asr.report.decoded import Vocabulary, read_decoded, total
from whisfusion_asr.report.steps import steps_section
from whisfusion_asr.scoring import get_normalizer


@pytest.fixture(scope="module")
def exp(tmp_path_factory) -> Path:
    return experiment(tmp_path_factory.mktemp("api") / "exp")


def states_of(name: str) -> np.ndarray:
    """States of an utterance: 4 to 13 frames."""
    number = ord(name)
    return np.random.default_rng(number).normal(size=(4 + number % 10, WIDTH)).astype(np.float32)


def decode(speech2text: Speech2Text, names: str) -> list[Transcript]:
    utterances = [speech2text.utterance(name, states_of(name), 1.0) for name in names]
    return list(speech2text.decode_many(iter(utterances)))


DECODINGS = [
    {"sampler": "pdd", "sampler_conf": {"candidates": 4}},
    {"sampler": "pdd", "sampler_conf": {"candidates": 3, "first_pass": "sample", "keep": [3, 2, 1]}},
    {"sampler": "pdd", "sampler_conf": {"candidates": 3}, "engine_conf": {"draft": 0.3, "silence": 0.9}},
    {"sampler": "pbeb"}, {"sampler": "random", "sampler_conf": {"rows": 2}},
    {"sampler": "gaps", "sampler_conf": {"gamma": 1.0}, "engine_conf": {"draft": 0.15, "silence": 0.1}},
    {"sampler": "topk", "canvas_conf": {"multiple": 8}}, {"sampler": "single", "canvas_conf": {"fit": "fixed"}},
]


@pytest.fixture(scope="module")
def loaded(exp) -> list[tuple[Speech2Text, dict[str, Transcript]]]:
    """Each decoding, and what it makes of each utterance alone."""
    decoders = [Speech2Text(exp, inference=inference) for inference in DECODINGS]
    return [(one, {name: decode(one, name)[0] for name in "abcdefghij"}) for one in decoders]


@settings(deadline=None, max_examples=40)
@given(names=st.text("abcdefghij", min_size=1, max_size=7), which=st.integers(0, len(DECODINGS) - 1),
       tokens=st.integers(1, 600))
def test_the_text_does_not_depend_on_the_batch(loaded, names, which, tokens):
    """Any order, repetition and batch size, canvases and states of unequal lengths."""
    speech2text, alone = loaded[which]
    engine = replace(speech2text.settings.engine, batch_tokens=tokens)
    speech2text.settings = replace(speech2text.settings, engine=engine)
    for name, found in zip(names, decode(speech2text, names), strict=True):
        wanted = alone[name]
        assert (found.utt_id, found.text, found.token_int) == (name, wanted.text, wanted.token_int)
        assert [c["tokens"] for c in found.candidates] == [c["tokens"] for c in wanted.candidates]
        assert (found.passes, found.rows, found.canvas, found.flags) == (
            wanted.passes, wanted.rows, wanted.canvas, wanted.flags)
        assert found.confidence == pytest.approx(wanted.confidence, abs=1e-4)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("conf", [
    {}, {"first_pass": "sample"}, {"remask": "exact"}, {"confidence": "published", "after_end": "skip"}, {"seed": 5},
])
@pytest.mark.parametrize("changed", [{}, {"ctc": None, "decoder_conf": CONFIG["decoder_conf"] | {"ruler": "none"},
                                          "model_conf": {"bos_id": 1, "canvas_conf": {"fit": "fixed", "length": 20}}}])
def test_pdd_equals_the_reference(tmp_path, seed, conf, changed):
    folder = experiment(tmp_path / "exp", seed, **changed)
    sampler = {"sampler_conf": {"candidates": 5, **conf}}
    found = decode(Speech2Text(folder, inference={"sampler": "pdd", **sampler}), "acfk")
    wanted = decode(Speech2Text(folder, inference={"sampler": "pdd_reference", **sampler}), "acfk")
    for one, two in zip(found, wanted, strict=True):
        assert [c["tokens"] for c in one.candidates] == [c["tokens"] for c in two.candidates]
        assert (one.text, one.canvas, one.passes, two.passes, two.rows) == (two.text, two.canvas, 4, 4, 20)
        assert [c["confidence"] for c in one.candidates] == pytest.approx([c["confidence"] for c in two.candidates],
                                                                          abs=1e-5)
        assert 4 <= one.rows <= 16


@pytest.mark.parametrize("running", [{"dtype": "bfloat16"}, {"quantize": "int8"}])
@pytest.mark.parametrize("sampler", ["pdd", "pdd_reference", "pbeb", "autoregressive", "ctc_greedy"])
def test_other_arithmetic_changes_the_confidence_a_little(tmp_path, sampler, running):
    """The CTC head, which counts the tokens, is left as it is."""
    changed = {"decoder": "causal"} if sampler == "autoregressive" else {}
    folder = experiment(tmp_path / "exp", **changed)
    plain, other = (Speech2Text(folder, inference={"sampler": sampler}, running=how) for how in (None, running))
    wanted, found = decode(plain, "abcd"), decode(other, "abcd")
    assert [t.canvas for t in found] == [t.canvas for t in wanted] and all(t.confidence <= 1 for t in found)
    if sampler == "ctc_greedy":
        assert [t.confidence for t in found] == [t.confidence for t in wanted]
        return
    assert [t.confidence for t in found] != [t.confidence for t in wanted], "the option is followed"
    alike = [(a, b) for a, b in zip(found, wanted, strict=True) if a.token_int == b.token_int]
    assert alike and max(abs(a.confidence - b.confidence) for a, b in alike) < 0.05


def test_how_it_runs_is_checked(exp):
    with pytest.raises(UserError, match="running: unknown key quantise; did you mean quantize?"):
        Speech2Text(exp, running={"quantise": "int8"})
    with pytest.raises(UserError, match="running: dtype: 'half' is unknown"):
        Speech2Text(exp, running={"dtype": "half"})


def test_memory_that_runs_out_halves_the_batch(exp, monkeypatch):
    speech2text = Speech2Text(exp, inference=DECODINGS[0])
    wanted = [t.text for t in decode(speech2text, "abcd")]
    predictor, sizes = speech2text.network.predictor, []

    def narrow(acoustics, lengths):
        sizes.append(len(lengths))
        if len(lengths) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predictor(acoustics, lengths)

    monkeypatch.setattr(speech2text.network, "predictor", narrow)
    assert [t.text for t in decode(speech2text, "abcd")] == wanted and sizes == [4, 2, 1, 1, 2, 1, 1]


def test_known_words(exp):
    speech2text = Speech2Text(exp, inference=DECODINGS[0])
    free = speech2text.decode_states("a", states_of("a"), 1.0)
    known = speech2text.given("so", 2, "it is", ends=True)
    assert known == Given([*map(TOKENS.index, "so"), None, None, *map(TOKENS.index, ["<space>", "i", "t", "<space>",
                                                                                       "i", "s"])], ends=True)
    bound = speech2text.decode_states("a", states_of("a"), 1.0, known)
    pieces = bound.tokens
    assert pieces[:2] == ["s", "o"] and pieces[4:] == ["<space>", "i", "t", "<space>", "i", "s"] and len(pieces) == 10
    assert bound.text != free.text and "canvas_full" not in bound.flags
    started = speech2text.decode_states("a", states_of("a"), 1.0, speech2text.given("so"))
    assert started.text.startswith("so")


def heard(ids: list[int], sure: float) -> torch.Tensor:
    """CTC logits of one frame a class, with that probability: (1, T, V + 1)."""
    rest = (1 - sure) / len(TOKENS)
    table = torch.full((1, len(ids), len(TOKENS) + 1), rest)
    table[0, torch.arange(len(ids)), torch.tensor(ids)] = sure
    return table.log()


def test_a_ctc_draft_starts_the_canvas(exp):
    blank = len(TOKENS)
    logits = heard([blank, 3, 3, blank, 4, 5, blank], 0.9)
    logits[0, 4] = heard([4], 0.5)[0, 0]
    logits[0, 1] = heard([3], 0.6)[0, 0]
    speech2text = Speech2Text(exp, inference={"sampler": "single", "engine_conf": {"draft": 0.8}}, trace=True)
    (draft,) = speech2text.network.greedy_draft(logits, torch.tensor([7]))
    assert draft[0] == [3, 4, 5] and draft[1] == pytest.approx([0.9, 0.5, 0.9]), "the surest frame counts"
    speech2text.network.ctc.forward = lambda states, lengths: logits
    found = speech2text.decode_states("a", np.zeros((7, WIDTH)), 1.0)
    assert found.trace[0]["shown"] == ["a <mask> c" + " <mask>" * 3]
    assert found.tokens[0] == "a" and found.canvas == 6


def test_silence_is_empty_and_costs_nothing(exp):
    speech2text = Speech2Text(exp, inference={"sampler": "pdd", "engine_conf": {"silence": 1.0}})
    speech2text.network.ctc.forward = lambda states, lengths: heard([len(TOKENS)] * states.size(1), 0.9).expand(
        len(states), -1, -1)
    first, second = decode(speech2text, "ab")
    assert (first.text, first.flags, first.passes, first.rows) == ("", ["silence"], 0, 0)
    assert second.candidates == [{"text": "", "tokens": [], "pieces": [], "confidence": 1.0, "token_confidence": []}]


def test_a_transcript_far_shorter_than_ctcs_is_flagged(exp):
    speech2text = Speech2Text(exp, inference={"sampler": "single"})
    speech2text.network.decoder.head.weight.data.zero_()  # all tokens alike: the first, which is the end, wins
    ids = [3, 4, 5, 6]
    speech2text.network.ctc.forward = lambda states, lengths: heard(ids, 0.9)
    assert speech2text.decode_states("a", np.zeros((4, WIDTH)), 1.0).flags == ["early_end"]
    speech2text.network.ctc.forward = lambda states, lengths: heard([len(TOKENS)] * 4, 0.9)
    assert speech2text.decode_states("a", np.zeros((4, WIDTH)), 1.0).flags == []


def test_the_trace_is_in_the_record_only_when_it_was_asked_for(exp):
    plain, traced = (Speech2Text(exp, inference=DECODINGS[0], trace=trace) for trace in (False, True))
    assert "trace" not in plain.decode_states("a", states_of("a"), 1.0).record()
    record = traced.decode_states("a", states_of("a"), 1.0).record()
    assert len(record["trace"]) == 4
    first = record["trace"][0]
    assert len(first["shown"]) == len(first["guess"]) == 4
    assert set(first["shown"][0].split()) == {"<mask>"} and "<mask>" not in first["guess"][0]


@pytest.mark.parametrize("which", [0, 1, 4])
def test_the_report_reads_the_trace(exp, tmp_path, which):
    """Also of pruned candidates: in the last pass the chosen one has the errors of the transcript."""
    speech2text = Speech2Text(exp, inference=DECODINGS[which], trace=True)
    found = decode(speech2text, "abc")
    (tmp_path / "candidates.jsonl").write_text("".join(json.dumps(each.record()) + "\n" for each in found))
    (tmp_path / "text").write_text("".join(f"{name} a short text of words\n" for name in "abc"))
    decoded = read_decoded(tmp_path, tmp_path)
    vocabulary = Vocabulary(TOKENS, speech2text.tokenizer.decode)
    rows = steps_section(decoded.utterances, vocabulary, get_normalizer("none"))["passes"]
    assert len(rows) == max(each.passes for each in found)
    assert rows[-1]["chosen_wer"] == pytest.approx(total(each.counts for each in decoded.utterances).percent)
    assert all(0 < row["confidence"] < 1 for row in rows)
    (one,) = decode(speech2text, "a")
    assert [len(each["rows"]) for each in one.trace] == [[4] * 4, [3, 3, 2, 1], [], [], [2] * 8][which]


def test_bad_input_is_named(exp, tmp_path):
    speech2text = Speech2Text(exp)
    with pytest.raises(UserError, match="x: states of width 5, but the model was trained on 8: dump"):
        speech2text.decode_states("x", np.zeros((4, 5)), 1.0)
    with pytest.raises(UserError, match=r"x: states of shape \(0, 8\); expected \(frames > 0, 8\)"):
        speech2text.decode_states("x", np.zeros((0, WIDTH)), 0.0)
    with pytest.raises(UserError, match=r"x: 0.000 s of audio are too short, expected 0.1 s or more"):
        speech2text(np.zeros(0), "x")
    with pytest.raises(UserError, match=r"x: 0.050 s of audio are too short"):
        speech2text(np.zeros(800), "x")
    with pytest.raises(UserError, match="exp/config.yaml: trained on dumped states: name what made them with --enc"):
        speech2text(np.zeros(1600), "x")
    no_ctc = experiment(tmp_path / "exp", ctc=None, decoder_conf={"size": 16, "attention_heads": 2})
    with pytest.raises(UserError, match="engine_conf.draft needs ctc: ctc_head"):
        Speech2Text(no_ctc, inference={"engine_conf": {"draft": 0.5}})
    with pytest.raises(UserError, match="canvas_conf.fit: count needs a CTC head"):
        Speech2Text(no_ctc).decode_states("x", states_of("a"), 1.0)


@pytest.mark.parametrize("conf", [{"sampler": "ctc_greedy"}, *DECODINGS], ids=lambda conf: str(conf)[12:40])
def test_other_settings_share_the_weights_and_decode_as_if_loaded_with_them(exp, conf):
    first = Speech2Text(exp, inference={"sampler": "pdd", "sampler_conf": {"candidates": 2}})
    before = decode(first, "abc")
    other = first.with_settings(conf)
    assert other.network is first.network
    assert [r.record() | {"timing": 0} for r in decode(other, "abc")] == [
        r.record() | {"timing": 0} for r in decode(Speech2Text(exp, inference=conf), "abc")
    ]
    assert [r.token_int for r in decode(first, "abc")] == [r.token_int for r in before], "the first one is as it was"
    with pytest.raises(UserError, match="unknown key beam"):
        first.with_settings({"beam": 3})


SPOKEN = {"token_list": ["<eos>", "<unk>", "<de>", "<en>", *TOKENS[2:]], "ctc": None, "decoder_conf":
          {**CONFIG["decoder_conf"], "ruler": "none"}, "model_conf": {"canvas_conf": {"fit": "fixed", "length": 7}}}


@pytest.fixture(scope="module")
def spoken(tmp_path_factory) -> Path:
    return experiment(tmp_path_factory.mktemp("spoken") / "exp", **SPOKEN)


@pytest.mark.parametrize("sampler", ["pdd", "pbeb"])
def test_the_language_stands_in_front_of_every_canvas(spoken, sampler):
    speech2text = Speech2Text(spoken, inference={"sampler": sampler}, trace=True, lang="en")
    german = replace(speech2text.utterance("a", states_of("a"), 1.0), language="de")
    english = speech2text.utterance("a", states_of("a"), 1.0)
    found = list(speech2text.decode_many([german, english]))
    for transcript, piece in zip(found, ("<de>", "<en>"), strict=True):
        rows = [row for step in transcript.trace for row in (*step["shown"], *step["guess"])]
        assert rows and all(row.split()[0] == piece and len(row.split()) == 7 for row in rows)
        assert piece not in transcript.tokens
    assert found[0].confidence != found[1].confidence, "the network sees which it is"


def test_the_reference_writes_the_same_in_either_language(spoken):
    for language in ("de", "en"):
        found = [Speech2Text(spoken, inference={"sampler": name}, lang=language).decode_states("a", states_of("a"), 1.0)
                 for name in ("pdd", "pdd_reference")]
        assert found[0].token_int == found[1].token_int


def test_a_language_that_the_model_does_not_write(exp, spoken):
    with pytest.raises(UserError, match="language 'fr' is unknown; the tokens have de, en"):
        Speech2Text(spoken, lang="fr")
    with pytest.raises(UserError, match="language 'en' is unknown; the tokens have none"):
        Speech2Text(exp, lang="en")
    with pytest.raises(UserError, match="a: which language.*de, en; name one .lang., or give a file utt2lang"):
        decode(Speech2Text(spoken), "a")
