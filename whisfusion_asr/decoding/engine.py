"""The engine: samplers of a batch of utterances in lockstep, one evaluation of the network a pass for all of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from whisfusion_asr.decoding.fill import Filled, row_confidence, text_slots
from whisfusion_asr.decoding.given import Start
from whisfusion_asr.decoding.look import Foretold, Look, look_back
from whisfusion_asr.decoding.network import Answer, Ask, Predict, ask_network, taken
from whisfusion_asr.decoding.pdd import Candidate, candidate_of
from whisfusion_asr.decoding.samplers import Sampler
from whisfusion_asr.diffusion.canvas import CanvasSpec


@dataclass(frozen=True)
class Job:
    """One utterance to decode: its name, from which its random numbers come, and its canvas."""

    utt_id: str
    start: Start


@dataclass(frozen=True)
class Snapshot:
    """One pass for the trace. shown: (K, L) what the network saw; guess: (K, L) the same with its predictions.

    confidence: (K, L) probability of each token of the guess in the pass that filled it; rows: which candidate of the
    first pass each of the K is
    """

    shown: Tensor
    guess: Tensor
    confidence: Tensor
    rows: list[int]


@dataclass(frozen=True)
class Decoded:
    """Result of one utterance.

    candidates: K of them; passes: network evaluations it took part in; rows: canvases evaluated for it
    flags: "silence", "stalled", "budget"; unread: of each candidate, text tokens that stand behind its first end
    trace: its passes where they were asked for; kept: which row of the first of them each candidate is
    canvas: its slots after the first pass, None where they stayed as many as they were
    """

    candidates: list[Candidate]
    passes: int
    rows: int
    flags: list[str] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)
    trace: list[Snapshot] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    canvas: int | None = None


# (place of an utterance, slots of its prefix and first text) -> slots of its canvas in the passes that follow
Fit = Callable[[int, int], int]


@dataclass(frozen=True)
class EngineLimits:
    """budget: seconds for a batch, after which its best transcripts so far count, None for no limit; clock: its time

    silence: mean probability of the first pass's text and end, below which it is taken for no speech, as is an empty
        one; None takes everything for speech
    """

    budget: float | None = None
    silence: float | None = None
    clock: Callable[[], float] = time.perf_counter


class _Run:
    """One utterance on its way through its sampler."""

    def __init__(self, index: int, job: Job, sampler: Sampler, spec: CanvasSpec, limits: EngineLimits,
                 trace: bool, fit: Fit | None) -> None:
        self.index, self.spec, self.sampler, self.silence, self.trace = index, spec, sampler, limits.silence, trace
        self.start, self.fit, self.canvas = job.start, fit, None  # fit: until it has been asked
        self.begin = partial(sampler.fill, spec=spec, utt_id=job.utt_id, whole=trace or limits.budget is not None)
        self.steps = self.begin(job.start)
        self.snapshots: list[Snapshot] = []
        self.passes = self.rows = 0
        self.result: Decoded | None = None
        # The first pass decides on silence, unless something is known of the text.
        self.watch = limits.silence is not None and not job.start.fixed[spec.prefix :].any()
        self._advance(None)

    def ask(self) -> Ask | Look:
        """This pass's question; the first one asks for the whole text if that tells silence or the canvas's length."""
        if self.passes or not (self.watch or self.fit):
            return self.question
        assert isinstance(self.question, Ask)
        hidden = self.question.canvas == self.spec.mask_id
        return replace(self.question, asked=self.question.asked | hidden, sure=None)

    def take(self, answer: Answer | Foretold, rows: int) -> None:
        """Go on with the network's answer."""
        if self.trace:
            looked = isinstance(answer, Foretold)
            self.snapshots.append(self._looked_at(answer) if looked else self._guessed(answer))
        first = self.watch and not self.passes
        self.passes += rows > 0
        self.rows += rows
        if first and self._silent(answer):
            nothing = Candidate([], [], float(answer.probability[0, self.spec.prefix]))
            self.result = Decoded([nothing], self.passes, self.rows, ["silence"], [0], self.snapshots, [0])
        else:
            self._advance(answer if self.fit is None else self._fitted(answer, self.fit))

    def _fitted(self, answer: Answer, fit: Fit) -> Answer:
        """Begin again on a canvas with room for the first answer's longest text; returns that part of the answer.

        Nothing that it takes for text is cut off, and nothing given: behind it there are only ends.
        """
        assert isinstance(self.question, Ask), "what is asked does not tell where the text ends"
        self.fit = None
        token, _ = taken(self.question, answer)
        guess = torch.where(self.question.canvas == self.spec.mask_id, token, self.question.canvas)
        used = (guess != self.spec.eos_id).any(0).nonzero()
        length = fit(self.index, max(self.spec.prefix, int(used.max()) + 1 if len(used) else 0))
        if length == len(self.start.tokens):
            return answer
        self.canvas, self.start = length, self.start.cut(length)
        self.steps = self.begin(self.start)
        self._advance(None)
        return answer.cut(length)

    def _looked_at(self, foretold: Foretold) -> Snapshot:
        """What a look foretold, in the place of what it looked at."""
        look, more = self.question, (0, len(self.start.tokens) - len(self.question.canvas))
        shown, sure = F.pad(look.canvas, more, value=self.spec.eos_id), F.pad(look.filled_with, more)
        guess, place = shown.clone(), slice(look.first, look.last)
        guess[place], sure[place] = foretold.token, foretold.probability
        return Snapshot(shown[None], guess[None], sure[None], [0])

    def _guessed(self, answer: Answer) -> Snapshot:
        """The predictions of hidden slots, and what stands in the others."""
        ask, (token, probability) = self.question, taken(self.question, answer)
        hidden = ask.canvas == self.spec.mask_id
        guess, sure = torch.where(hidden, token, ask.canvas), torch.where(hidden, probability, ask.filled_with)
        return Snapshot(ask.canvas, guess, sure, _numbers(ask.rows, len(guess)))

    def _silent(self, answer: Answer) -> bool:
        """The best first canvas is empty, or not to be believed."""
        hidden = self.question.canvas[:1] == self.spec.mask_id
        # A sampler may show the end where nothing is known yet: a canvas of what it asked and what was there before.
        known = (hidden | (self.start.tokens != self.spec.mask_id))[0]
        canvas = torch.where(hidden, answer.token[:1], self.question.canvas[:1])[:, known]
        sure = torch.where(hidden, answer.probability[:1], self.start.confidence)[:, known]
        empty = not text_slots(canvas, self.spec).any()
        return empty or float(row_confidence(canvas, sure, self.spec)) < self.silence

    def _advance(self, answer: Answer | Foretold | None) -> None:
        try:
            self.question: Ask | Look = self.steps.send(answer)
        except StopIteration as end:
            self.result = self._read(end.value)

    def _read(self, filled: Filled) -> Decoded:
        largest = filled.filled_with if filled.largest is None else filled.largest
        rows = zip(filled.canvas, filled.filled_with, largest, strict=True)
        candidates = [candidate_of(*row, self.spec, self.sampler.scoring) for row in rows]
        behind = ((filled.canvas != self.spec.eos_id) & ~text_slots(filled.canvas, self.spec)).sum(1) - self.spec.prefix
        return Decoded(candidates, self.passes, self.rows, list(filled.flags), behind.tolist(), self.snapshots,
                       _numbers(filled.rows, len(candidates)), self.canvas)


def _numbers(rows: Tensor | None, count: int) -> list[int]:
    return list(range(count)) if rows is None else rows.tolist()


@torch.no_grad()
def decode(predict: Predict, jobs: Sequence[Job], spec: CanvasSpec, sampler: Sampler,
           limits: EngineLimits | None = None, trace: bool = False, before: Predict | None = None,
           fit: Fit | None = None) -> list[Decoded]:
    """Fill the canvases of some utterances; `predict` knows them by their places 0, 1, ... in `jobs`.

    trace: keep every pass's canvases; before: the network under a causal mask, for samplers that look back
    fit: how long the canvases are after the first pass, if that is to say it; never longer than before
    What one utterance gets does not depend on the others, unless there is a budget.
    """
    limits = limits or EngineLimits()
    begin = limits.clock()
    runs = [_Run(index, job, sampler, spec, limits, trace, fit) for index, job in enumerate(jobs)]
    while alive := [run for run in runs if run.result is None]:
        earlier = limits.clock()
        answers = [_answers(predict, before, group, spec) for group in _alike(alive)]
        now = limits.clock()
        late = limits.budget is not None and now - begin + (now - earlier) > limits.budget
        for run, answer, count in chain.from_iterable(answers):
            run.take(replace(answer, last=True) if late else answer, count)
    return [run.result for run in runs if run.result is not None]


def _alike(runs: Sequence[_Run]) -> list[list[_Run]]:
    """The utterances of a pass by what they ask: hidden slots, or a look back."""
    looks = [run for run in runs if isinstance(run.question, Look)]
    asks = [run for run in runs if not isinstance(run.question, Look)]
    return [group for group in (asks, looks) if group]


def _answers(predict: Predict, before: Predict | None, runs: Sequence[_Run],
             spec: CanvasSpec) -> list[tuple[_Run, Answer | Foretold, int]]:
    """What the network answers to utterances that ask alike, and how many canvases that took of each."""
    questions, places = [run.ask() for run in runs], [run.index for run in runs]
    if isinstance(questions[0], Look):
        assert before is not None, "this network does not look back"
        answers, rows = look_back(before, questions, places, spec.eos_id), [1] * len(runs)
    else:
        answers, rows = ask_network(predict, questions, places, spec.eos_id)
    return list(zip(runs, answers, rows, strict=True))
