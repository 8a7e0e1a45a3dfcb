"""Decoding utterances and batches with a trained experiment."""

import copy
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from whisfusion_asr.api.alone import ALONE
from whisfusion_asr.api.canvases import estimated_slots, fit_of
from whisfusion_asr.api.drafts import Drafter, begin, continued, words_of
from whisfusion_asr.api.loading import canvas_spec, load_encoder, load_network, load_tokens
from whisfusion_asr.api.silence import read_bound, silent
from whisfusion_asr.api.word_times import check_can_time, token_spans
from whisfusion_asr.data.languages import language_id
from whisfusion_asr.decoding.batches import in_halves, token_batches
from whisfusion_asr.decoding.conf import options_from
from whisfusion_asr.decoding.engine import Decoded, EngineLimits, Job, Snapshot, decode
from whisfusion_asr.decoding.given import Given, start_canvas
from whisfusion_asr.decoding.output import Transcript
from whisfusion_asr.decoding.pdd import Candidate, best_candidate
from whisfusion_asr.decoding.sampler_gaps import GapsOptions
from whisfusion_asr.decoding.samplers import ENGINE_SAMPLERS, Sampler
from whisfusion_asr.decoding.selection import NEED_CTC, check_selection, select
from whisfusion_asr.decoding.settings import DecodingSettings, usual_conf
from whisfusion_asr.decoding.times import timed_words
from whisfusion_asr.decoding.words import Word
from whisfusion_asr.errors import UserError
from whisfusion_asr.models.causal_decoder import CausalDecoder
from whisfusion_asr.models.running import RunOptions, prepare
from whisfusion_asr.models.whisfusion import DumpedStates
from whisfusion_asr.models.whisper_encoder import TooLong
from whisfusion_asr.pretrained.pack import open_model
from whisfusion_asr.training.longest import read_longest

SAMPLE_RATE = 16000
SHORTEST = 0.1  # seconds of audio in which there may be a word


@dataclass(frozen=True)
class Utterance:
    """What is decoded: states (T, D) of an utterance of `duration` seconds, and what is known of its text.

    encode_seconds: what making the states took, for the report; language: its code, for a model of several
    """

    utt_id: str
    states: Tensor
    duration: float
    given: Given | None = None
    encode_seconds: float | None = None
    language: str | None = None


class Speech2Text:
    """Decode waveforms or dumped states with a trained experiment.

    exp_dir: experiment of a training stage; model_file: weights in it
    inference: mapping with the keys of a decoding YAML, or checked settings; default: usual_conf
    encoder_dir: experiment or imported encoder that makes the states, if exp_dir was trained on dumped ones
    draft_dir, draft_model: experiment on the same states whose CTC head writes the drafts of sampler gaps, and its
        weights; default: the CTC head of exp_dir
    running: mapping with the keys of RunOptions: dtype, quantize, compile; how the decoder computes, and the drafter
    trace: keep every pass's canvases in the transcripts; word_times: give each word its start and end
    lang: language of utterances that do not name their own, for a model of several
    """

    def __init__(self, exp_dir: str | Path, model_file: str = "valid.loss.ave.pth",
                 inference: Mapping[str, Any] | DecodingSettings | None = None,
                 encoder_dir: str | Path | None = None, device: str = "cpu", trace: bool = False,
                 word_times: bool = False, draft_dir: str | Path | None = None,
                 draft_model: str = "valid.loss.ave.pth", lang: str | None = None,
                 running: Mapping[str, Any] | None = None) -> None:
        settings = None if inference is None else _checked(inference)
        run = options_from(RunOptions, running or {}, "running")
        self.network, config = load_network(exp_dir, model_file, device)
        if word_times:
            check_can_time(self.network, f"{exp_dir}/config.yaml", run.compile is not None)
        model_conf = config.get("model_conf") or {}
        self._bound, self.longest = read_bound(exp_dir), read_longest(exp_dir)
        self._place, self._decoder = f"{exp_dir}/config.yaml", config.get("decoder")
        self._trained_canvas = model_conf.get("canvas_conf")
        self._ahead = (model_conf.get("gap_conf") or {}).get("ahead")
        self._looks = bool(model_conf.get("left_to_right"))
        self.tokenizer = load_tokens(config, self._place)
        self.drafter = None if self.network.ctc is None else Drafter(self.network, self.tokenizer)
        if draft_dir is not None and self.network.encoder is not None:
            self.drafter = Drafter.load(draft_dir, draft_model, device, self.network.encoder.output_size)
        self._use(settings or _checked(usual_conf(config, draft_dir is not None)))
        if run != RunOptions():
            prepare(self.network.decoder, run)
            if self.drafter is not None and self.drafter.network is not self.network:
                prepare(self.drafter.network.ctc, replace(run, compile=None))
        self.spec = replace(canvas_spec(config, self.tokenizer), inner=self.tokenizer.inner)
        if lang is not None:
            language_id(self.tokenizer.languages, lang)  # refuses one that the model does not write
        self.lang = lang
        self.encoder = self.network if encoder_dir is None else load_encoder(encoder_dir, device)
        self.device, self.trace, self.word_times = device, trace, word_times

    @classmethod
    def from_pretrained(cls, place: str | Path, device: str = "cpu", **others: Any) -> "Speech2Text":
        """Open an experiment directory, a packed model (`whisfusion pack`) or the name of one on the hub.

        others: arguments of Speech2Text in the place of the packed ones. Raises UserError for a damaged file.
        """
        return cls(**{**open_model(place), **others}, device=device)

    def with_settings(self, inference: Mapping[str, Any] | DecodingSettings) -> "Speech2Text":
        """The same model, its weights shared, with other settings. Raises what the constructor does for them."""
        other = copy.copy(self)
        other._use(_checked(inference))
        return other

    def _use(self, settings: DecodingSettings) -> None:
        self.settings = settings
        self.silence = self._bound if settings.engine.silence is None else settings.engine.silence
        sampler, part = settings.sampler, "ctc" if settings.sampler == "ctc_greedy" else "decoder"
        if getattr(self.network, part) is None or self.network.encoder is None:
            raise UserError(f"{self._place}: sampler {sampler} needs encoder: and {part}:; one is missing")
        causal = isinstance(self.network.decoder, CausalDecoder)
        if part == "decoder" and causal != (sampler == "autoregressive"):
            raise UserError(f"{self._place}: sampler {sampler} cannot run decoder: {self._decoder}; autoregressive "
                            "runs decoder: causal and nothing else does")
        if settings.engine.draft and (self.drafter is None if sampler == "gaps" else self.network.ctc is None):
            raise UserError(f"{self._place}: engine_conf.draft needs ctc: ctc_head; it is missing: set draft to 0, or "
                            "with sampler gaps name another experiment on these states by --draft_dir")
        if isinstance(settings.options, GapsOptions) and settings.options.ahead is None and self._ahead:
            self.settings = replace(settings, options=replace(settings.options, ahead=self._ahead))
        if isinstance(settings.options, GapsOptions) and settings.options.looks != 0 and not self._looks:
            raise UserError(f"{self._place}: sampler_conf.looks needs a decoder trained with model_conf.left_to_right: "
                            "set looks to 0, without budget, and engine_conf.draft to how sure a word must be to stand")
        if settings.selection != "score":
            check_selection(settings.selection, self.network.ctc is not None)
        self.canvas_rule = settings.canvas_rule(self._trained_canvas)

    def __call__(self, speech: np.ndarray, utt_id: str = "utt", given: Given | None = None,
                 ) -> list[tuple[str, list[str], list[int], Transcript]]:
        """speech: (S,) float waveform at 16 kHz. Returns ESPnet's n-best list with one entry."""
        result = next(self.decode_many([self.encode(utt_id, speech, given)]))
        return [(result.text, result.tokens, result.token_int, result)]

    @torch.no_grad()
    def encode(self, utt_id: str, speech: np.ndarray, given: Given | None = None) -> Utterance:
        """speech: (S,) float waveform at 16 kHz. Raises UserError when it is too short, or too long for the encoder."""
        start = time.perf_counter()
        waveform = torch.as_tensor(speech, dtype=torch.float32, device=self.device)
        duration = len(speech) / SAMPLE_RATE
        check_duration(utt_id, duration)
        if isinstance(self.encoder.encoder, DumpedStates):
            raise UserError(f"{self._place}: trained on dumped states: name what made them with --encoder_dir DIR")
        try:
            states, lengths = self.encoder.encode(waveform[None], torch.tensor([waveform.numel()], device=self.device))
        except TooLong as error:
            raise UserError(f"{utt_id} {error.reason}") from None
        return Utterance(utt_id, states[0, : lengths[0]], duration, given, time.perf_counter() - start)

    def decode_states(self, utt_id: str, states: np.ndarray | Tensor, duration: float,
                      given: Given | None = None) -> Transcript:
        """states: (T, D) encoder states; duration: seconds of audio. Returns the transcript with its candidates."""
        return next(self.decode_many([self.utterance(utt_id, states, duration, given)]))

    def utterance(self, utt_id: str, states: np.ndarray | Tensor, duration: float,
                  given: Given | None = None) -> Utterance:
        """An utterance of dumped states (T, D). Raises UserError for none, or for those of another width."""
        table = torch.as_tensor(states, dtype=torch.float32, device=self.device)
        width = self.network.encoder.output_size
        if table.dim() != 2 or not len(table):
            raise UserError(f"{utt_id}: states of shape {tuple(table.shape)}; expected (frames > 0, {width})")
        if table.size(1) != width:
            raise UserError(f"{utt_id}: states of width {table.size(1)}, but the model was trained on {width}: dump "
                            "the set again with the encoder that it was trained with")
        return Utterance(utt_id, table, duration, given)

    def given(self, *parts: str | int, ends: bool = False) -> Given:
        """Known words on the canvas, never changed: texts, and between them numbers of free slots.

        ends: nothing follows. given("the", 3, "mat", ends=True) lets 3 slots be filled; given("so") forces a beginning.
        """
        tokens: list[int | None] = []
        for part in parts:
            if isinstance(part, int):
                tokens += [None] * part
                continue
            tokens += continued(self.tokenizer, part, bool(tokens))
        return Given(tokens, ends=ends)

    @torch.no_grad()
    def decode_many(self, utterances: Iterable[Utterance]) -> Iterator[Transcript]:
        """Transcripts in the same order. Neighbours share batches: sorted by length they decode fastest.

        The text of an utterance does not depend on the others, unless there is a time budget.
        """
        if self.settings.sampler not in ENGINE_SAMPLERS:
            alone = ALONE[self.settings.sampler]
            for utterance in utterances:
                yield alone(self, utterance)
            return
        limit = self.settings.batch_tokens(torch.device(self.device).type)
        for batch in token_batches(utterances, self._tokens, limit):
            yield from in_halves(batch, self._decode)

    def _tokens(self, utterance: Utterance) -> int:
        """Slots and frames that an utterance takes, the canvas estimated by its duration."""
        frames = len(utterance.states)
        return frames + estimated_slots(self.canvas_rule, frames, self.settings.options.candidates)

    def _decode(self, batch: Sequence[Utterance]) -> list[Transcript]:
        """Decode a batch together."""
        start = time.perf_counter()
        states = pad_sequence([utterance.states for utterance in batch], batch_first=True)
        frames = torch.tensor([len(utterance.states) for utterance in batch], device=self.device)
        logits = None if self.network.ctc is None else self.network.ctc(states, frames)
        acoustics = self.network.acoustics(states, frames, logits)
        counts = [None] * len(batch) if acoustics.counts is None else acoustics.counts.tolist()
        first = begin(self, batch, states, frames, logits, counts)
        counts = first.counts
        jobs = [self.job(*of) for of in zip(batch, counts, first.given, strict=True)]
        quiet = silent(self, first.heard, counts)
        heard = [i for i, utterance in enumerate(batch) if not quiet[i] or utterance.given is not None]
        results = [Decoded([Candidate([], [], 1.0)], 0, 0, ["silence"], [0])] * len(batch)
        if heard:
            lengths = torch.tensor([len(jobs[i].start.tokens) for i in heard], device=self.device)
            predict = self.network.predictor(acoustics.select(heard), lengths)
            engine = Sampler(self.settings.sampler, self.settings.options)
            found = decode(predict, [jobs[i] for i in heard], self.spec, engine, self._limits(start), self.trace,
                           predict.before(), fit_of(self.canvas_rule, predict, lengths.tolist()))
            for i, result in zip(heard, found, strict=True):
                results[i] = result
        drafting = {} if first.seconds is None else {"draft": first.seconds / len(batch)}
        seconds = (time.perf_counter() - start - (first.seconds or 0.0)) / len(batch)
        slots = [found.canvas or len(job.start.tokens) for found, job in zip(results, jobs, strict=True)]
        made = [self.transcript(*each, counts[i], seconds, logits, i)
                for i, each in enumerate(zip(batch, results, slots, strict=True))]
        return [replace(transcript, timing=transcript.timing | drafting) for transcript in made]

    def _limits(self, start: float) -> EngineLimits:
        engine = self.settings.engine
        budget = None if engine.budget_ms is None else engine.budget_ms / 1000 - (time.perf_counter() - start)
        return EngineLimits(budget, self.silence if self.drafter is None else None)

    def job(self, utterance: Utterance, count: int | None, given: Given | None) -> Job:
        """Its canvas, as long as the model's rule has it, with what is given. count: CTC tokens, None without CTC."""
        length = self.canvas_rule.decoding_length(self.spec, len(utterance.states), count)
        if given is not None:
            length = max(length, self.spec.prefix + len(given.tokens) + self.canvas_rule.margin)
        return Job(utterance.utt_id, start_canvas(length, self.spec, given, self.language(utterance)))

    def language(self, utterance: Utterance) -> int | None:
        """Language token of an utterance, None for a model of one language. Raises UserError for an unknown one."""
        try:
            return language_id(self.tokenizer.languages, utterance.language or self.lang)
        except UserError as error:
            raise UserError(f"{utterance.utt_id}: {error}") from None

    def transcript(self, utterance: Utterance, decoded: Decoded, length: int, count: int | None, seconds: float,
                    logits: Tensor | None, row: int = 0) -> Transcript:
        """Select among the candidates and describe the result.

        length: of the canvas; count: tokens by CTC; seconds: that decoding took
        logits: the batch's (B, T, V + 1) of the CTC head, where there is one; row: the utterance's place in them
        """
        start = time.perf_counter()
        name, options = self.settings.selection, self.settings.selection_options
        heard = log_probs(logits, row, len(utterance.states)) if logits is not None and name in NEED_CTC else None
        if name == "score":  # a search has put them in order
            found = select("confidence", decoded.candidates[:1], self.words, self.tokenizer.encode)
        else:
            found = select(name, decoded.candidates, self.words, self.tokenizer.encode, options, heard)
        # What flags and canvas say of a composed text is what they say of the most confident candidate.
        chosen = best_candidate(decoded.candidates) if found.chosen is None else found.chosen
        flags, tokens = list(decoded.flags), len(decoded.candidates[chosen].tokens)
        full = tokens == length - self.spec.prefix and not (utterance.given and utterance.given.ends)
        if full and "canvas_full" not in flags:
            flags.append("canvas_full")
        if decoded.unread[chosen] or ("silence" not in flags and count is not None and 2 * tokens < count):
            flags.append("early_end")
        records = [{"text": self.tokenizer.decode(c.tokens), "tokens": c.tokens, "pieces": self.pieces(c.tokens),
                    "confidence": c.confidence, "token_confidence": [round(p, 5) for p in c.token_confidence]}
                   for c in decoded.candidates]
        trace = [self._pass(snapshot) for snapshot in decoded.trace]
        text = found.text if found.chosen is None else records[chosen]["text"]
        timing = {"decode": seconds, "select": time.perf_counter() - start}
        if utterance.encode_seconds is not None:
            timing["encode"] = utterance.encode_seconds
        words = self.timed(found.words, found.tokens, utterance, logits, row, timing)
        return Transcript(
            utterance.utt_id, utterance.duration, text, self.pieces(found.tokens), found.tokens, found.confidence,
            canvas=length, passes=decoded.passes, rows=decoded.rows, candidates=records, chosen=found.chosen,
            selection=name, words=words, flags=flags, timing=timing, trace=trace, kept=decoded.kept,
        )

    def timed(self, words: list[Word], tokens: list[int], utterance: Utterance, logits: Tensor | None, row: int,
               timing: dict[str, float]) -> list[dict[str, Any]]:
        """The words as candidates.jsonl has them, with their times and the seconds that took if they are wanted."""
        if self.word_times:
            start = time.perf_counter()
            heard = None if logits is None else log_probs(logits, row, len(utterance.states))
            spans = token_spans(self, utterance.states, tokens, heard)
            places = [places for _, places in self.words(tokens)]
            words = timed_words(words, places, spans, len(utterance.states), utterance.duration)
            timing["times"] = time.perf_counter() - start
        return [word.record() for word in words]

    def words(self, ids: list[int]) -> list[tuple[str, list[int]]]:
        """Words of the text, which ends at the first end token (one that CTC wrote)."""
        return words_of(self.tokenizer, ids)

    def pieces(self, ids: list[int]) -> list[str]:
        """The pieces of some ids."""
        return [self.tokenizer.pieces[i] for i in ids]

    def _pass(self, snapshot: Snapshot) -> dict[str, Any]:
        """A pass as candidates.jsonl has it."""
        sure = [[round(value, 5) for value in row] for row in snapshot.confidence.tolist()]
        return {"rows": snapshot.rows, "shown": self._canvases(snapshot.shown),
                "guess": self._canvases(snapshot.guess), "confidence": sure}

    def _canvases(self, rows: Tensor) -> list[str]:
        """Rows of a canvas to be read by people: pieces, <mask> where nothing stands."""
        names = [*self.tokenizer.pieces, "<mask>"]
        return [" ".join(names[i] for i in row) for row in rows.tolist()]


def check_duration(name: str, seconds: float) -> None:
    """Raise UserError for audio in which no word can be, an empty file first of all."""
    if seconds < SHORTEST:
        raise UserError(f"{name}: {seconds:.3f} s of audio are too short, expected {SHORTEST} s or more; leave it out")


def _checked(inference: Mapping[str, Any] | DecodingSettings) -> DecodingSettings:
    return inference if isinstance(inference, DecodingSettings) else DecodingSettings.of(inference, "inference")


def log_probs(logits: Tensor, row: int, frames: int) -> Tensor:
    """The CTC log-probabilities (T, V + 1) of one utterance. logits: (B, T', V + 1); frames: its own number T."""
    return logits[row, :frames].float().log_softmax(-1)
