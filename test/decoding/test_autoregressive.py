"""Greedy and beam search against exhaustive search over small languages."""

import itertools
import math

import numpy as np
import pytest
import torch
from engine_fakes import TOKENS, WIDTH, experiment

from whisfusion_asr.api import Speech2Text
from whisfusion_asr.decoding.autoregressive import BeamOptions, beam_search
from whisfusion_asr.errors import UserError

EOS, START, WORDS = 0, 9, 4


class Language:
    """Random next-token probabilities that depend on the whole text before; counts its calls."""

    def __init__(self, seed: int) -> None:
        self.seed, self.texts, self.calls = seed, [()], 0

    def after(self, text: tuple[int, ...]) -> torch.Tensor:
        """Log probabilities (V,) after a text."""
        generator = torch.Generator().manual_seed(hash((self.seed, text)) % 2**31)
        return torch.randn(WORDS, generator=generator).mul(2).log_softmax(-1)

    def __call__(self, tokens: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        grown = [(*self.texts[r], t) for r, t in zip(rows.tolist(), tokens.tolist(), strict=True)]
        self.texts, self.calls = [tuple(t for t in text if t != START) for text in grown], self.calls + 1
        return torch.stack([self.after(text) for text in self.texts])


def exhaustive(language: Language, longest: int) -> tuple[list[int], float]:
    """The most probable ended text of at most `longest` tokens, and its log probability."""
    best: tuple[list[int], float] = ([], -math.inf)
    for size in range(longest + 1):
        for text in itertools.product(range(1, WORDS), repeat=size):
            total = sum(float(language.after(text[:i])[t]) for i, t in enumerate((*text, EOS)))
            best = max(best, (list(text), total), key=lambda pair: pair[1])
    return best


@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_finds_the_most_probable_text(seed):
    found = beam_search(Language(seed), START, EOS, 4, BeamOptions(beam=WORDS**4))
    text, total = exhaustive(Language(seed), 4)
    assert found.candidates[0].tokens == text and not found.stalled
    probabilities = [*found.candidates[0].token_confidence, math.exp(float(Language(seed).after(tuple(text))[EOS]))]
    assert sum(map(math.log, probabilities)) == pytest.approx(total, abs=1e-4)
    assert found.candidates[0].confidence == pytest.approx(sum(probabilities) / len(probabilities))


@pytest.mark.parametrize("seed", range(6))
def test_a_beam_of_one_takes_the_best_token_each_time(seed):
    language, text = Language(seed), ()
    while len(text) < 8 and int(language.after(text).argmax()) != EOS:
        text = (*text, int(language.after(text).argmax()))
    found = beam_search(Language(seed), START, EOS, 7, BeamOptions())
    assert found.candidates[0].tokens == list(text)
    assert found.passes == found.rows == min(len(text) + 1, 8)


def test_a_longer_beam_is_never_worse():
    def total(seed: int, beam: int) -> float:
        best = beam_search(Language(seed), START, EOS, 12, BeamOptions(beam=beam)).candidates[0].tokens
        return sum(float(Language(seed).after(tuple(best[:i]))[t]) for i, t in enumerate((*best, EOS)))

    pairs = [(total(seed, 1), total(seed, 32)) for seed in range(20)]
    assert all(wide >= narrow - 1e-6 for narrow, wide in pairs) and any(wide > narrow for narrow, wide in pairs)


def test_a_length_bonus_makes_longer_texts():
    def mean_length(bonus: float) -> float:
        options = BeamOptions(beam=3, length_bonus=bonus)
        return sum(len(beam_search(Language(s), START, EOS, 20, options).candidates[0].tokens) for s in range(20)) / 20

    assert mean_length(0.0) < mean_length(1.5)


def test_a_text_without_end_is_flagged_and_kept():
    def never_ends(tokens: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[-50.0, -0.1, -3.0]]).expand(len(tokens), -1)

    found = beam_search(never_ends, START, EOS, 5, BeamOptions(beam=2))
    assert found.stalled and found.candidates[0].tokens[:5] == [1] * 5 and found.passes == 6


def test_a_beam_of_nothing_is_refused():
    with pytest.raises(UserError, match="beam: expected at least 1, got 0"):
        BeamOptions(beam=0)


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    return experiment(tmp_path_factory.mktemp("causal") / "exp", decoder="causal")


def states_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(5 + number, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("number", range(4))
def test_speech2text_writes_what_whole_rows_without_a_cache_predict(causal, number):
    speech2text = Speech2Text(causal, inference={"sampler": "autoregressive"})
    found = speech2text.decode_states("u", states_of(number), 1.0)
    network = speech2text.network
    states = torch.from_numpy(states_of(number))[None]
    acoustics = network.acoustics(states, torch.tensor([states.size(1)]))
    row, length = [len(TOKENS)], int(acoustics.counts) + 3
    with torch.no_grad():
        while len(row) <= length:
            logits = network.decoder(torch.tensor([row]), network.decoder.read(acoustics, length))
            row.append(int(logits[0, -1].argmax()))
            if row[-1] == 0:
                break
    assert found.token_int == [token for token in row[1:] if token]
    assert found.passes == found.rows == len(row) - 1 and found.canvas == length
    assert ("stalled" in found.flags) == (row[-1] != 0) == ("canvas_full" in found.flags)


def test_a_beam_leaves_its_candidates_best_first(causal):
    def log_probability(record: dict) -> float:
        return sum(map(math.log, record["token_confidence"]))

    conf = {"sampler": "autoregressive", "sampler_conf": {"beam": 4}}
    found = Speech2Text(causal, inference=conf).decode_states("u", states_of(2), 1.0)
    assert (found.chosen, found.selection, found.text) == (0, "score", found.candidates[0]["text"])
    assert 1 < len(found.candidates) <= 4 and found.passes < found.rows <= 4 * found.passes
    if "stalled" in found.flags:  # no end: the tokens are all of the score
        scores = [log_probability(each) for each in found.candidates]
        assert scores == sorted(scores, reverse=True)


def test_a_sampler_of_the_other_kind_of_decoder_is_refused(causal, tmp_path):
    with pytest.raises(UserError, match="sampler pdd cannot run decoder: causal; autoregressive runs decoder: causal"):
        Speech2Text(causal, inference={"sampler": "pdd"})
    diffusion = experiment(tmp_path / "exp")
    with pytest.raises(UserError, match="sampler autoregressive cannot run decoder: diffusion"):
        Speech2Text(diffusion, inference={"sampler": "autoregressive"})
    assert Speech2Text(causal, inference={"sampler": "ctc_greedy"}).decode_states("u", states_of(1), 1.0).passes == 1
