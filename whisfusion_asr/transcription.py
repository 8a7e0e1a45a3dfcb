"""Audio files of any length with Speech2Text: overlapping windows, words with times, seams predicted again.

In the memory of two windows. Where two windows wrote different words in their overlap, the audio around the dispute is
decoded once more on a canvas that keeps the words on which both agree, if the sampler can keep words.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from whisfusion_asr.api import Speech2Text, Utterance, check_duration, log_probs, token_spans
from whisfusion_asr.data.audio import Recording
from whisfusion_asr.decoding.output import Transcript
from whisfusion_asr.decoding.stitch import Dispute, Seam, Window, plan_windows, stitch
from whisfusion_asr.decoding.times import timed_words
from whisfusion_asr.decoding.words import Word, text_of

WINDOW = 25.0  # seconds; of a model that was trained on shorter utterances only, as long as the longest of them
OVERLAP = 5.0  # seconds, and a third of a window at most
CONTEXT = 4.0  # seconds of audio and of known words on either side of a dispute that is decoded again


@dataclass(frozen=True)
class Timed:
    """A word of a window with the places of its tokens in the transcript."""

    word: Word
    places: list[int]


class Transcriber:
    """Words of whole files. speech2text: a decoder that can encode audio

    window, overlap: seconds, None for what suits the model (WINDOW, OVERLAP)
    progress: called with the seconds that are done after each window.
    """

    def __init__(self, speech2text: Speech2Text, window: float | None = None, overlap: float | None = None,
                 progress: Callable[[float], None] = lambda seconds: None) -> None:
        window = min(WINDOW, speech2text.longest or WINDOW) if window is None else window
        overlap = min(OVERLAP, window / 3) if overlap is None else overlap
        plan_windows(1.0, window, overlap)  # refuses what cannot be
        self.speech2text, self.window, self.overlap, self.progress = speech2text, window, overlap, progress

    def __call__(self, path: str | Path) -> Iterator[Word]:
        """Words in order, timed from the file's start; each comes as soon as no later window can change it.

        Raises UserError for a file that is not readable as audio, or too short.
        """
        recording = Recording(path)
        check_duration(str(path), recording.duration)
        windows = plan_windows(recording.duration, self.window, self.overlap)
        name = Path(path).stem
        again = _SecondLook(self, recording, name)
        answers = again.answers if self.speech2text.settings.keeps_given else None
        return stitch(((window, self._words(recording, name, window)) for window in windows), answers)

    def _words(self, recording: Recording, name: str, window: Window) -> list[Word]:
        utterance = self.utterance(recording, name, window)
        found = [timed.word for timed in self.timed(utterance, self.decoded(utterance))]
        self.progress(window.end)
        return found

    def utterance(self, recording: Recording, name: str, window: Window) -> Utterance:
        """A window of a recording, encoded. name: begins its utterance id."""
        return self.speech2text.encode(f"{name}-{round(window.start * 1000):08d}",
                                       recording.piece(window.start, window.end))

    def decoded(self, utterance: Utterance) -> Transcript:
        """The transcript of a window, or of a part of one with known words."""
        return next(self.speech2text.decode_many([utterance]))

    @torch.no_grad()
    def timed(self, utterance: Utterance, transcript: Transcript) -> list[Timed]:
        """The transcript's words with their times in the window."""
        model, states = self.speech2text, utterance.states
        words = [Word(w["word"], w["confidence"]) for w in transcript.words]
        heard = None
        if model.network.ctc is not None:
            logits = model.network.ctc(states[None], torch.tensor([len(states)], device=states.device))
            heard = log_probs(logits, 0, len(states))
        spans = token_spans(model, states, transcript.token_int, heard)
        places = [p for _, p in model.tokenizer.words(transcript.tokens)]
        timed = timed_words(words, places, spans, len(states), utterance.duration)
        return [Timed(word, row) for word, row in zip(timed, places, strict=True)]


class _SecondLook:
    """New words for the disputes of a seam."""

    def __init__(self, transcriber: Transcriber, recording: Recording, name: str) -> None:
        self.transcriber, self.recording, self.name = transcriber, recording, name
        self.speech2text = transcriber.speech2text

    def answers(self, seam: Seam) -> list[Sequence[Word]]:
        """For each dispute the words of a second look, or its preferred side where that has found nothing better."""
        return [self._answer(seam, number) for number in range(len(seam.disputes))]

    def _answer(self, seam: Seam, number: int) -> Sequence[Word]:
        dispute = seam.disputes[number]
        sides = {len(self._tokens(side)) for side in (dispute.left, dispute.right)}
        if 0 in sides:  # there or not there: a canvas with room for words would always find some
            return dispute.preferred
        window = Window(max(0.0, dispute.start - CONTEXT), min(self.recording.duration, dispute.end + CONTEXT))
        before, after = _around(seam, number, window)
        utterance = self.transcriber.utterance(self.recording, self.name, window)
        looks = [self._look(utterance, text_of(before), slots, text_of(after)) for slots in sorted(sides)]
        best = max([dispute.preferred, *(look for look in looks if look)], key=_least)  # the first one on ties
        if best is dispute.preferred:
            return best
        return [replace(word, start=word.start + window.start, end=word.end + window.start) for word in best]

    def _look(self, utterance: Utterance, before: str, slots: int, after: str) -> list[Word]:
        """The words in `slots` free slots between known ones; none if they run into the known words."""
        parts = [part for part in (before, slots, after) if part]
        given = self.speech2text.given(*parts, ends=True)
        first = given.tokens.index(None)
        transcript = self.transcriber.decoded(replace(utterance, given=given))
        slots += len(transcript.token_int) - len(given.tokens)  # the sampler `gaps` may take more or fewer
        inside = [timed for timed in self.transcriber.timed(utterance, transcript)
                  if any(first <= place < first + slots for place in timed.places)]
        whole = all(first <= place < first + slots for timed in inside for place in timed.places)
        return [timed.word for timed in inside] if whole else []

    def _tokens(self, words: Sequence[Word]) -> list[int]:
        return self.speech2text.tokenizer.encode(text_of(words)) if words else []


def _least(words: Sequence[Word]) -> float:
    """Confidence of the least sure word."""
    return min(word.confidence for word in words)


def _around(seam: Seam, number: int, window: Window) -> tuple[list[Word], list[Word]]:
    """Words of a window before and behind a dispute; other disputes count as their preferred side."""
    before, after, seen = list(seam.before), [], -1
    for part in seam.parts:
        here = [part] if isinstance(part, Word) else list(part.preferred)
        if isinstance(part, Dispute):
            seen += 1
            if seen == number:
                continue
        (before if seen < number else after).extend(here)
    inside = [[w for w in words if w.start >= window.start and w.end <= window.end]
              for words in (before, [*after, *seam.after])]
    return inside[0], inside[1]
