"""Alignments against all paths counted one by one; times that are in order, inside the audio and honest."""

from itertools import groupby, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whisfusion_asr.decoding.times import attention_spans, ctc_spans, share_gaps, timed_words, word_times
from whisfusion_asr.decoding.words import Word


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def best_spans(scores: np.ndarray, tokens: list[int], is_right) -> list[tuple[int, int]]:
    """Spans of the best of all paths; scores: (T, C), a path's cell is a column, the last one the gap."""
    frames, gap = len(scores), scores.shape[1] - 1
    paths = [path for path in product(range(gap + 1), repeat=frames) if is_right(path)]
    best = max(paths, key=lambda path: sum(scores[t, path[t]] for t in range(frames)))
    spans, frame = [], 0
    for column, run in groupby(best):
        length = len(list(run))
        if column != gap:
            spans.append((frame, frame + length))
        frame += length
    assert len(spans) == len(tokens)
    return spans


@pytest.mark.parametrize("tokens", [[0], [0, 1], [1, 1], [2, 0, 2], [0, 0, 1], [2, 1, 0]])
@pytest.mark.parametrize("seed", range(6))
def test_ctc_path_is_the_best_of_all(tokens, seed):
    log_probs = random(6, 4, seed=seed).log_softmax(-1)
    expected = best_spans(log_probs.numpy(), tokens, lambda p: [t for t, _ in groupby(p) if t != 3] == tokens)
    assert ctc_spans(log_probs, tokens).tolist() == [list(span) for span in expected]


@pytest.mark.parametrize("seed", range(6))
def test_attention_path_is_the_best_of_all(seed):
    attention = random(3, 6, seed=seed).mul(2).softmax(-1)
    scores = np.concatenate((np.log(attention.numpy().T * 6), np.zeros((6, 1))), 1)
    expected = best_spans(scores, [0, 1, 2], lambda p: [t for t, _ in groupby(p) if t != 3] == [0, 1, 2])
    assert attention_spans(attention).tolist() == [list(span) for span in expected]
    assert attention_spans(attention * 7).tolist() == [list(span) for span in expected]


def test_ctc_by_hand():
    blank, rows = 2, [2, 0, 0, 2, 0, 1, 1, 2]
    log_probs = torch.full((8, 3), -9.0)
    log_probs[range(8), rows] = 0.0
    assert ctc_spans(log_probs, [0, 0, 1]).tolist() == [[1, 3], [4, 5], [5, 7]]
    assert log_probs.size(1) - 1 == blank


def test_words_of_a_transcript_by_hand():
    rows = [3, 0, 0, 3, 1, 2, 2, 3]  # 3 is the blank; the words are token 0 and tokens 1 2
    log_probs = torch.full((8, 4), -9.0)
    log_probs[range(8), rows] = 0.0
    words = [Word("a", 0.5), Word("bc", 0.25)]
    spans = ctc_spans(log_probs, [0, 1, 2])
    first, second = timed_words(words, [[0], [1, 2]], spans, 8, 4.0)
    # half-second frames; the gap from 1.5 to 2.0 s goes to the word with more letters, at most 0.2 s of it
    assert [first.start, first.end, second.start, second.end] == pytest.approx([0.5, 1.5, 1.8, 3.5])
    assert [w.interpolated for w in (first, second)] == [False, False]
    for places, known in (([[0], [1, 2]], np.full((3, 2), -1)), ([[0, 1, 2]], spans)):  # nothing heard, other words
        found = timed_words(words, places, known, 8, 3.0)
        assert [(w.start, w.end, w.interpolated) for w in found] == [(0.0, 1.0, True), (1.0, 3.0, True)]


def test_attention_finds_blobs_and_leaves_pauses():
    centres, width = [12, 20, 45], 3.0
    frames = torch.arange(60.0)
    attention = torch.stack([torch.exp(-((frames - c) / width) ** 2) for c in centres]) + 0.01
    spans = attention_spans(attention)
    assert np.abs(spans.mean(1) - centres).max() <= 1
    assert (spans[:, 1] - spans[:, 0] < 12).all()
    assert spans[2, 0] - spans[1, 1] > 10


@pytest.mark.parametrize(("frames", "tokens"), [(2, [0, 1, 0]), (3, [0, 0, 1]), (0, [0])])
def test_too_few_frames_are_reported_not_invented(frames, tokens):
    assert (ctc_spans(torch.zeros(frames, 3), tokens) == -1).all()


def test_a_token_of_probability_zero_is_reported():
    log_probs = random(6, 4, seed=0).log_softmax(-1)
    log_probs[:, 1] = -torch.inf
    assert (ctc_spans(log_probs, [0, 1]) == -1).all()
    assert (ctc_spans(log_probs, [0, 2]) >= 0).all()


def test_nothing_to_align():
    assert ctc_spans(torch.zeros(5, 3), []).shape == (0, 2)
    assert attention_spans(torch.zeros(0, 5)).shape == (0, 2)
    assert (attention_spans(torch.ones(3, 2)) == -1).all()
    assert attention_spans(torch.zeros(2, 4)).min() >= 0  # a token that looks nowhere still has its turn


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.lists(st.integers(0, 4), min_size=1, max_size=8), st.integers(0, 99))
def test_spans_are_in_order_and_inside(frames, tokens, seed):
    repeats = sum(a == b for a, b in zip(tokens, tokens[1:], strict=False))
    spans = ctc_spans(random(frames, 6, seed=seed), tokens)
    assert ((spans >= 0).all()) == (frames >= len(tokens) + repeats)
    if spans.min() >= 0:
        assert (spans[:, 0] < spans[:, 1]).all() and (spans[1:, 0] >= spans[:-1, 1]).all() and spans.max() <= frames


def words(*texts: str) -> list[Word]:
    return [Word(text, 0.5) for text in texts]


def test_times_by_hand():
    spans = np.array([[5, 7], [8, 10], [-1, -1], [-1, -1], [20, 22], [-1, -1]])
    timed = word_times(words("one", "a", "two", "x"), [[0, 1], [2], [3, 4], [5]], spans, 0.02, 0.5)
    # "two" is known by one of its tokens; the gap from .2 to .4 is the word's "a", that from .44 to the end is "x"
    assert [word.record() for word in timed] == [
        {"word": "one", "confidence": 0.5, "start": 0.1, "end": 0.2},
        {"word": "a", "confidence": 0.5, "start": 0.2, "end": 0.4, "interpolated": True},
        {"word": "two", "confidence": 0.5, "start": 0.4, "end": 0.44},
        {"word": "x", "confidence": 0.5, "start": 0.44, "end": 0.5, "interpolated": True},
    ]


def test_words_without_any_frame_share_the_time_by_letters():
    timed = word_times(words("a", "bcd"), [[0], [1]], np.full((2, 2), -1), 0.02, 2.0)
    assert [(word.start, word.end, word.interpolated) for word in timed] == [(0.0, 0.5, True), (0.5, 2.0, True)]
    assert word_times([], [], np.empty((0, 2)), 0.02, 2.0) == []


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 60), st.integers(0, 20)), max_size=8), st.floats(0, 1.5))
def test_times_are_in_order_and_inside_whatever_the_spans(rows, duration):
    spans = np.array([[a, a + d] if a >= 0 else [-1, -1] for a, d in rows], dtype=np.int64).reshape(-1, 2)
    names = words(*(f"w{i}" for i in range(len(rows))))
    timed = word_times(names, [[i] for i in range(len(rows))], spans, 0.02, duration)
    borders = [0.0, *(time for word in timed for time in (word.start, word.end)), duration]
    assert borders == pytest.approx(sorted(borders), abs=1e-9)
    assert [(word.word, word.interpolated) for word in timed] == [(f"w{i}", a < 0) for i, (a, _) in enumerate(rows)]


def at(*times: tuple[str, float, float]) -> list[Word]:
    return [Word(name, 0.5, start, end) for name, start, end in times]


def test_gaps_are_shared_by_letters_but_a_pause_stays():
    words = at(("abcd", 1.0, 1.1), ("ab", 1.5, 1.6), ("abc", 4.0, 4.1))
    # The pause behind it pulls the second word's end, and so the border before it, as far as they may go: to 1.5,
    # where it was aligned, and .2 s behind its end at 1.6; the third begins .3 s before 4.0.
    shared = share_gaps(words, slowest=0.1)
    assert [time for w in shared for time in (w.start, w.end)] == pytest.approx([1.0, 1.5, 1.5, 1.8, 3.7, 4.1])
    assert [w.word for w in shared] == ["abcd", "ab", "abc"]
    assert share_gaps([]) == [] and share_gaps(words[:1]) == words[:1]


def test_borders_are_the_evenest():
    words = at(("a", 0.0, 0.1), ("abcdef", 0.3, 0.4), ("abc", 1.2, 1.3), ("ab", 1.4, 2.0))
    grid = [np.linspace(one.end, other.start, 41) for one, other in zip(words, words[1:], strict=False)]
    first, second, third = np.meshgrid(*grid, indexing="ij")
    cost = first**2 / 1 + (second - first) ** 2 / 6 + (third - second) ** 2 / 3 + (2.0 - third) ** 2 / 2
    best = np.unravel_index(cost.argmin(), cost.shape)
    starts = [word.start for word in share_gaps(words, slowest=9.0)[1:]]
    assert starts == pytest.approx([grid[axis][place] for axis, place in enumerate(best)], abs=0.011)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 1), st.integers(1, 9)), max_size=12), st.floats(0, 0.5))
def test_words_only_grow_and_never_overlap(spans, slowest):
    words, now = [], 0.0
    for gap, seconds, letters in spans:
        words.append(Word("x" * letters, 0.5, now + gap, now + gap + seconds))
        now += gap + seconds
    shared = share_gaps(words, slowest)
    times = [time for word in shared for time in (word.start, word.end)]
    assert times == pytest.approx(sorted(times), abs=1e-9)
    for before, after in zip(words, shared, strict=True):
        growth = (before.start - after.start, after.end - before.end)
        assert min(growth) >= 0 and max(growth) <= slowest * len(before.word) + 1e-9
