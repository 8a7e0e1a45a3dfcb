"""When each word was said: tokens aligned to frames through the CTC head or through cross-attention, then words.

Both alignments are one search for the best monotone path through the states

    gap, token 1, gap, token 2, ..., token N, gap

in which every token has at least one frame and a gap may be empty (Graves et al., ICML 2006; dynamic time warping with
room for pauses).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from whisfusion_asr.decoding.words import Word

SETTLED = 1e-4  # seconds: a border that moves less stands still
STAY, STEP, JUMP = 0, 1, 2  # from the same state, the one before, the one before that


def ctc_spans(log_probs: Tensor, tokens: Sequence[int]) -> np.ndarray:
    """Frames of each token on the likeliest CTC path.

    log_probs: (T, V + 1), blank last, this utterance's frames only
    tokens: N ids
    returns: (N, 2) int64, first frame and the one after the last; all -1 when no path of T frames holds them
    """
    columns = [*tokens, log_probs.size(1) - 1]
    used = log_probs[:, columns].double().cpu().numpy()
    differs = np.array([a != b for a, b in zip(tokens, tokens[1:], strict=False)], dtype=bool)
    return _token_spans(used[:, :-1], used[:, -1], differs)


def attention_spans(attention: Tensor) -> np.ndarray:
    """Frames of each token by its cross-attention, for models without a CTC head.

    A frame belongs to a token if the token looks at it more than a token that looks everywhere alike would; the path
    has the largest sum of log(attention * T), 0 in gaps.
    attention: (N, T) >= 0, row = token; the mean over the heads (and layers) that listen; rows need not sum to 1
    returns: (N, 2) int64 as in ctc_spans; all -1 when T < N
    """
    weight = attention.double().cpu().numpy()
    smallest = np.finfo(np.float64).tiny
    share = weight / np.maximum(weight.sum(1, keepdims=True), smallest)
    scores = np.log(np.maximum(share * weight.shape[1], smallest)).T
    return _token_spans(scores, np.zeros(len(scores)), np.ones(max(0, len(weight) - 1), dtype=bool))


def word_times(words: Sequence[Word], places: Sequence[Sequence[int]], spans: np.ndarray, frame_shift: float,
               duration: float) -> list[Word]:
    """The words with start and end in seconds: in order, without overlap, within [0, duration].

    places: for each word the rows of `spans` that are its tokens
    spans: (N, 2) frames, first and one after the last, -1 = unknown; frame_shift: seconds from frame to frame
    A word without a known token shares the time between its neighbours with the others there, by number of letters, and
    is flagged as interpolated.
    """
    timed: list[Word] = []
    waiting: list[Word] = []
    for word, rows in zip(words, places, strict=True):
        known = spans[[row for row in rows if spans[row, 0] >= 0]]
        if not len(known):
            waiting.append(word)
            continue
        before = timed[-1].end if timed else 0.0
        start, end = np.clip([known[:, 0].min() * frame_shift, known[:, 1].max() * frame_shift], before, duration)
        timed += _spread(waiting, before, float(start))
        timed.append(replace(word, start=float(start), end=float(end), interpolated=False))
        waiting = []
    return timed + _spread(waiting, timed[-1].end if timed else 0.0, duration)


def timed_words(words: Sequence[Word], places: Sequence[Sequence[int]], spans: np.ndarray, frames: int,
                duration: float) -> list[Word]:
    """The words of a transcript with start and end in seconds, pauses shared out.

    places: for each word the rows of `spans` that are its tokens; if the tokenizer cuts the tokens of a composed text
        into another number of words, nothing is known of them
    spans: (N, 2) as in `ctc_spans`; frames: T, in `duration` seconds of audio
    """
    if len(places) != len(words):
        places = [[]] * len(words)
    return share_gaps(word_times(words, places, spans, duration / frames, duration))


def share_gaps(words: Sequence[Word], slowest: float = 0.1) -> list[Word]:
    """Words that reach into the gaps between them: CTC marks a word by a frame or two somewhere inside it.

    The borders between words, each within its gap, make the letters per second of all words as even as they can be
    (least sum of duration ** 2 / letters); no word grows by more than `slowest` seconds per letter on either side, so
    that pauses stay. The first start and the last end remain.
    words: with times, in order, without overlap
    """
    letters = [max(1, len(word.word)) for word in words]
    borders = [word.start for word in words] + [word.end for word in words[-1:]]
    moved = SETTLED
    while moved >= SETTLED:
        moved = 0.0
        for i in range(1, len(words)):
            one, other = letters[i - 1 : i + 1]
            even = (other * borders[i - 1] + one * borders[i + 1]) / (one + other)
            even = min(max(even, words[i - 1].end), words[i].start)
            moved, borders[i] = max(moved, abs(even - borders[i])), even
    grown = [(max(border, word.start - slowest * count), min(after, word.end + slowest * count))
             for word, count, border, after in zip(words, letters, borders, borders[1:], strict=False)]
    return [replace(word, start=start, end=max(end, word.end))
            for word, (start, end) in zip(words, grown, strict=True)]


def _spread(words: Sequence[Word], start: float, end: float) -> list[Word]:
    """Words laid side by side over a span of time."""
    letters = np.cumsum([0, *(len(word.word) for word in words)])
    borders = start + (end - start) * letters / max(1, letters[-1])
    return [replace(word, start=float(a), end=float(b), interpolated=True)
            for word, a, b in zip(words, borders, borders[1:], strict=False)]


def _token_spans(tokens: np.ndarray, gap: np.ndarray, may_touch: np.ndarray) -> np.ndarray:
    """Best path. tokens: (T, N) scores; gap: (T,) scores; may_touch: (N - 1,) bool, no gap needed to the next one."""
    frames, count = tokens.shape
    spans = np.full((count, 2), -1, dtype=np.int64)
    if not count or frames < count + np.count_nonzero(~may_touch):
        return spans
    scores = np.repeat(gap[:, None], 2 * count + 1, axis=1)
    scores[:, 1::2] = tokens
    may_jump = np.zeros(2 * count + 1, dtype=bool)
    may_jump[3::2] = may_touch
    path = _best_path(scores, may_jump)
    if path is None:
        return spans
    first_of = np.flatnonzero(np.diff(path, prepend=-1))
    last_of = np.append(first_of[1:], frames)
    token = path[first_of] % 2 == 1
    spans[path[first_of[token]] // 2] = np.stack((first_of[token], last_of[token]), 1)
    return spans


def _best_path(scores: np.ndarray, may_jump: np.ndarray) -> np.ndarray | None:
    """States of the path with the largest sum, (T,), from state 0 or 1 to one of the last two; None if all are -inf.

    scores: (T, S); may_jump: (S,) bool, whether a state can be reached from the last but one
    """
    frames, states = scores.shape
    came = np.empty((frames, states), dtype=np.uint8)
    best = np.full(states, -np.inf)
    best[:2] = scores[0, :2]
    options = np.full((3, states), -np.inf)
    column = np.arange(states)
    for frame in range(1, frames):
        options[STAY] = best
        options[STEP, 1:] = best[:-1]
        options[JUMP, 2:] = np.where(may_jump[2:], best[:-2], -np.inf)
        came[frame] = options.argmax(0)
        best = options[came[frame], column] + scores[frame]
    if best[-2:].max() == -np.inf:
        return None
    path = np.empty(frames, dtype=np.int64)
    path[-1] = states - 1 if best[-1] > best[-2] else states - 2
    for frame in range(frames - 1, 0, -1):
        path[frame - 1] = path[frame] - came[frame, path[frame]]
    return path
