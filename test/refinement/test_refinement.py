"""Hypotheses through the toy experiment: only doubtful words change, and the command writes what decode writes."""

import json
from dataclasses import replace
from math import inf, log
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_fakes import WIDTH, experiment

from whisfusion_asr.api import Speech2Text, Utterance
from whisfusion_asr.bin.refine import main
from whisfusion_asr.data.states import StatesWriter, merge
from whisfusion_asr.decoding.given import Given
from whisfusion_asr.refinement import Refiner, Scored

TEXTS = {"u1": "so it is", "u2": "be", "u3": "", "u4": "a b cd a"}
REFERENCES = {"u1": "so it was", "u2": "be", "u3": "x", "u4": "a b cd"}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """An experiment, a data directory, its states and texts."""
    folder = tmp_path_factory.mktemp("refine")
    experiment(folder / "exp")
    (folder / "data").mkdir()
    (folder / "data/utt2spk").write_text("".join(f"{key} s\n" for key in TEXTS))
    (folder / "data/utt2num_samples").write_text("".join(f"{key} 16000\n" for key in TEXTS))
    for name, texts in (("hyp", TEXTS), ("ref", REFERENCES)):
        (folder / name).write_text("".join(f"{key} {text}\n" for key, text in texts.items()))
    with StatesWriter(folder / "states", 1, "float32") as writer:
        for key in TEXTS:
            writer.write(key, states_of(key))
    merge(folder / "states", 1, TEXTS)
    (folder / "decode.yaml").write_text("sampler: pdd\nsampler_conf: {candidates: 3}\n")
    return folder


def states_of(key: str) -> np.ndarray:
    return np.random.default_rng(int(key[1])).normal(size=(9 + int(key[1]), WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def speech2text(place) -> Speech2Text:
    return Speech2Text(place / "exp", inference={"sampler_conf": {"candidates": 3}})


def hypotheses(speech2text: Speech2Text) -> list[tuple[Utterance, str]]:
    return [(speech2text.utterance(key, states_of(key), 1.0), text) for key, text in TEXTS.items()]


def run(place: Path, out: str, *words: str) -> list[dict]:
    options = {"hyp": "hyp", "exp_dir": "exp", "config": "decode.yaml", "data_dir": "data", "states_dir": "states",
               "out": out, "ref": "ref"}
    main([word for name, value in options.items() for word in (f"--{name}", str(place / value))] + list(words))
    return [json.loads(line) for line in (place / out / "candidates.jsonl").read_text().splitlines()]


def test_a_word_is_as_sure_as_its_least_probable_hidden_token(speech2text):
    utterance, text = hypotheses(speech2text)[0]
    encoded = speech2text.tokenizer.encode(text)
    tokenizer, network = speech2text.tokenizer, speech2text.network
    scored = Refiner(speech2text).score(utterance, encoded)
    acoustics = network.acoustics(utterance.states[None], torch.tensor([len(utterance.states)]))
    for number, places in enumerate([[0, 1], [2, 3, 4], [5, 6, 7]]):
        row = torch.full((1, scored.canvas), tokenizer.eos_id)
        row[0, :8] = torch.tensor(encoded)
        row[0, places] = tokenizer.mask_id
        with torch.no_grad():
            logits = network.predict(row, acoustics)[0]
        logits[:, tokenizer.eos_id] = -torch.inf
        wanted = [float(logits[place].softmax(-1)[scored.tokens[place]]) for place in places]
        assert [scored.confidence[place] for place in places] == pytest.approx(wanted, abs=1e-5)
        assert scored.words[number].confidence == pytest.approx(min(wanted), abs=1e-5)
    assert [word.word for word in scored.words] == ["so", "it", "is"]


def test_only_doubtful_words_change(speech2text):
    utterance, text = hypotheses(speech2text)[0]
    encoded = speech2text.tokenizer.encode(text)
    sure = [word.confidence for word in Refiner(speech2text).score(utterance, encoded).words]
    middle = sorted(sure)[1]
    refiner = Refiner(speech2text, (middle + min(sure)) / 2)  # the least sure word is the only doubtful one
    scored = refiner.score(utterance, encoded)
    (word,) = refiner.doubtful(scored)
    assert sure[word] == min(sure)
    (found,) = refiner([(utterance, text)])
    free = scored.places[word]
    slots = [None if i in free else t for i, t in enumerate(scored.tokens)]
    alone = speech2text.decode_states("u1", states_of("u1"), 1.0, Given(slots, ends=True))
    again = refiner.score(utterance, alone.token_int)
    assert refiner.evidence(again) > refiner.evidence(scored) and found.token_int == alone.token_int != encoded
    assert all(new == old for i, (new, old) in enumerate(zip(found.token_int, encoded, strict=True)) if i not in free)
    assert (found.passes, found.rows) == (alone.passes + 2, alone.rows + 3 + len(again.words))


def test_the_hypothesis_stands_against_a_text_that_is_less_probable(speech2text, monkeypatch):
    utterance, text = hypotheses(speech2text)[0]
    refiner = Refiner(speech2text, 1.0)
    monkeypatch.setattr(refiner, "evidence", lambda scored: float(scored.tokens == speech2text.tokenizer.encode(text)))
    (found,) = refiner([(utterance, text)])
    assert (found.text, found.selection) == (text, "hypothesis") and found.passes > 2


def test_evidence_is_the_mean_log_probability(speech2text):
    refiner = Refiner(speech2text)
    scored = Scored([], [], [5, 6], [0.5, 0.125], 4, 0.0)
    assert refiner.evidence(scored) == pytest.approx(-2 * log(2))
    assert refiner.evidence(replace(scored, tokens=[5, speech2text.tokenizer.unk_id])) == -inf


def test_without_doubt_nothing_changes_and_no_pass_fills(speech2text):
    found = {t.utt_id: t for t in Refiner(speech2text, 0.0)(hypotheses(speech2text))}
    assert {key: t.text for key, t in found.items()} == TEXTS
    assert [found[key].rows for key in TEXTS] == [3, 1, 0, 4] and found["u1"].passes == 1
    assert found["u3"].words == [] and found["u1"].selection == "hypothesis"


def test_a_spare_slot_is_taken_where_it_makes_the_text_more_probable(speech2text):
    both = {t.utt_id: t for t in Refiner(speech2text, 1.0, spare=True)(hypotheses(speech2text))}
    refiner = Refiner(speech2text)
    for utterance, text in hypotheses(speech2text):
        tokens, key = speech2text.tokenizer.encode(text), utterance.utt_id
        looks = [speech2text.decode_states(key, states_of(key), 1.0, Given([None] * (len(tokens) + more), ends=True))
                 for more in (0, 1) if tokens]
        checks = [refiner.score(utterance, each) for each in (tokens, *(look.token_int for look in looks))]
        assert both[key].token_int == max(checks, key=refiner.evidence).tokens
        assert both[key].rows == sum(len(check.words) for check in checks) + sum(look.rows for look in looks)


def test_a_word_that_cannot_be_spelt_is_doubtful(speech2text):
    utterance, _ = hypotheses(speech2text)[0]
    (found,) = Refiner(speech2text, 0.0)([(utterance, "so caf\u00e9 is")])
    assert found.text.startswith("so") and found.tokens[-2:] == ["i", "s"] and found.selection == "confidence"


def test_the_command(place, capsys):
    records = run(place, "out", "--doubt", "0")
    assert (place / "out/text").read_text() == (place / "hyp").read_text().replace("u3 \n", "u3\n")
    assert records[0]["timing"].keys() == {"score"}
    changes = json.loads((place / "out/changes.json").read_text())
    compared = changes.pop("comparison")
    assert changes == {"fixed": 0, "broken": 0, "unchanged": 8, "errors_before": 3, "errors_after": 3}
    assert compared["difference"] == 0 and compared["a"]["errors"] == compared["b"]["errors"] == 3
    told = capsys.readouterr().out
    assert "words fixed 0, broken 0, unchanged 8; word errors 3 before, 3 after" in told
    assert "interval" in told and "MAPSSWE: p 1.000" in told
    meta = json.loads((place / "out/meta.json").read_text())
    assert meta["doubt"] == 0 and meta["sampler"] == "pdd" and meta["utterances"] == 4
    run(place, "other", "--doubt", "1")
    assert json.loads((place / "other/changes.json").read_text())["broken"] > 0, "a random network knows nothing"


@pytest.mark.parametrize(("words", "message"), [
    (["--doubt", "2"], "doubt: expected a probability in [0, 1], got 2.0"),
    (["--inference_args", "sampler=ctc_greedy"], "sampler: ctc_greedy cannot keep given words"),
    (["--inference_args", "control=shuffled_states"], "control: shuffled_states decodes from other audio"),
])
def test_what_is_refused(place, capsys, words, message):
    with pytest.raises(SystemExit) as stopped:
        run(place, "refused", *words)
    assert stopped.value.code == 2 and message in capsys.readouterr().err and not (place / "refused").exists()


def test_a_missing_hypothesis_is_named(place, tmp_path, capsys):
    (tmp_path / "hyp").write_text("u1 so\nu9 so\n")
    with pytest.raises(SystemExit):
        run(place, "refused", "--hyp", str(tmp_path / "hyp"))
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/hyp: 3 utterances of {place}/data are missing ['u2', 'u3', 'u4'], 1 are too many" in line
