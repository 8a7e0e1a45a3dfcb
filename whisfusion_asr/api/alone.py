"""Decoders that take one utterance at a time: the reference PDD, the autoregressive control, greedy CTC."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whisfusion_asr.api.silence import silent
from whisfusion_asr.decoding.autoregressive import beam_search
from whisfusion_asr.decoding.engine import Decoded
from whisfusion_asr.decoding.output import Transcript
from whisfusion_asr.decoding.pdd import Candidate, candidate_uniforms, pdd
from whisfusion_asr.decoding.selection import words_with_confidence
from whisfusion_asr.models.adapter import Acoustics
from whisfusion_asr.models.causal_decoder import NextTokens

if TYPE_CHECKING:
    from whisfusion_asr.api.speech2text import Speech2Text, Utterance


def reference(model: "Speech2Text", utterance: "Utterance") -> Transcript:
    """PDD as decoding/pdd.py writes it down, every row of every pass computed."""
    start = time.perf_counter()
    acoustics, logits, _, length = _heard(model, utterance)
    decoder, options = model.network.decoder, model.settings.options
    memory = decoder.read(acoustics, length).repeat(options.candidates)
    candidates = pdd(lambda canvas: decoder(canvas.to(model.device), memory).cpu(), length, model.spec, options,
                     candidate_uniforms(options, utterance.utt_id, length), model.language(utterance))
    passes = len(options.mask_ratios)
    decoded = Decoded(candidates, passes, passes * options.candidates, [], [0] * len(candidates))
    return model.transcript(utterance, decoded, length, None, time.perf_counter() - start, logits)


def autoregressive(model: "Speech2Text", utterance: "Utterance") -> Transcript:
    """Left to right, with a cache of keys and values."""
    start = time.perf_counter()
    acoustics, logits, count, length = _heard(model, utterance)
    decoder = model.network.decoder
    search = NextTokens(decoder, decoder.read(acoustics, length))
    found = beam_search(search, decoder.start_id, model.spec.eos_id, length - 1, model.settings.options)
    flags = ["stalled"] if found.stalled else []
    decoded = Decoded(found.candidates, found.passes, found.rows, flags, [0] * len(found.candidates))
    return model.transcript(utterance, decoded, length, count, time.perf_counter() - start, logits)


def ctc_greedy(model: "Speech2Text", utterance: "Utterance") -> Transcript:
    """The CTC head's best class of each frame."""
    start = time.perf_counter()
    lengths = torch.tensor([len(utterance.states)], device=model.device)
    logits = model.network.ctc(utterance.states[None], lengths)
    ((ids, sure),) = model.network.greedy_draft(logits, lengths)
    nothing = silent(model, [(ids, sure)], [len(ids)])[0]
    if nothing:
        ids, sure = [], []
    found = Candidate(ids, sure, float(logits.softmax(-1).amax(-1).mean()))
    timing = {"decode": time.perf_counter() - start}
    if utterance.encode_seconds is not None:
        timing["encode"] = utterance.encode_seconds
    words = model.timed(words_with_confidence(found, model.words), ids, utterance, logits, 0, timing)
    return Transcript(utterance.utt_id, utterance.duration, model.tokenizer.decode(ids), model.pieces(ids), ids,
                      found.confidence, passes=1, rows=1, selection="ctc_greedy", words=words, timing=timing,
                      flags=["silence"] if nothing else [])


def _heard(model: "Speech2Text", utterance: "Utterance") -> tuple[Acoustics, Tensor | None, int | None, int]:
    """What is known of one utterance's audio: for the decoder, CTC's logits and count, and the canvas's length."""
    frames = torch.tensor([len(utterance.states)], device=model.device)
    logits = None if model.network.ctc is None else model.network.ctc(utterance.states[None], frames)
    acoustics = model.network.acoustics(utterance.states[None], frames, logits)
    count = None if acoustics.counts is None else int(acoustics.counts)
    return acoustics, logits, count, model.canvas_rule.decoding_length(model.spec, len(utterance.states), count)


ALONE: dict[str, Callable[["Speech2Text", "Utterance"], Transcript]] = {
    "pdd_reference": reference,
    "autoregressive": autoregressive,
    "ctc_greedy": ctc_greedy,
}
