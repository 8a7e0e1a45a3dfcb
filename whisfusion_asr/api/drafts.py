"""A first text by a CTC head, for the decoder to correct: the model's own head, or another experiment's."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whisfusion_asr.api.loading import load_network, load_tokens
from whisfusion_asr.data.tokenizer import SPACE, Tokenizer
from whisfusion_asr.decoding.given import Given
from whisfusion_asr.decoding.pdd import Candidate
from whisfusion_asr.decoding.selection import words_with_confidence
from whisfusion_asr.decoding.words import Word
from whisfusion_asr.errors import UserError
from whisfusion_asr.models.whisfusion import Whisfusion

if TYPE_CHECKING:
    from whisfusion_asr.api.speech2text import Speech2Text, Utterance

Heard = tuple[list[int], list[float]]  # token ids, and the largest probability of each


class Drafter:
    """A network whose CTC head reads the states that the decoder reads, with a tokenizer of its own."""

    def __init__(self, network: Whisfusion, tokenizer: Tokenizer) -> None:
        self.network, self.tokenizer = network, tokenizer

    @classmethod
    def load(cls, exp_dir: str | Path, model_file: str, device: str, width: int) -> "Drafter":
        """The drafter of an experiment. width: of the states that it will read.

        raises UserError: it has no CTC head, or reads states of another width
        """
        network, config = load_network(exp_dir, model_file, device)
        if network.ctc is None:
            raise UserError(f"--draft_dir {exp_dir}: {exp_dir}/config.yaml has no ctc: ctc_head; give an experiment "
                            "that has one, on the same states")
        if network.encoder.output_size != width:
            raise UserError(f"--draft_dir {exp_dir}: reads states of width {network.encoder.output_size}, but those of "
                            f"the decoder have {width}: give an experiment on the same states")
        return cls(network, load_tokens(config, f"{exp_dir}/config.yaml"))

    @torch.no_grad()
    def hear(self, states: Tensor, frames: Tensor, logits: Tensor | None = None) -> list[Heard]:
        """CTC's greedy tokens of each utterance, and how sure it is of each.

        states: (B, T, D); frames: (B,); logits: (B, T, V + 1) of this head where they are known
        """
        steps = frames
        if logits is None:
            logits, steps = self.network.ctc.scores(states, frames)
        return self.network.greedy_draft(logits, steps)

    def words(self, ids: list[int], sure: list[float]) -> list[Word]:
        """The words of what `hear` returned, each as sure as its least sure token; not sure at all if it holds a piece
        that the tokenizer does not know."""
        tokenizer = self.tokenizer
        sure = [0.0 if token == tokenizer.unk_id else value for token, value in zip(ids, sure, strict=True)]
        return words_with_confidence(Candidate(ids, sure), lambda tokens: words_of(tokenizer, tokens))


@dataclass(frozen=True)
class Beginning:
    """What decoding begins with. given: of each utterance the canvas; counts: of each the tokens that CTC has heard;
    heard: the greedy tokens of the drafter's CTC head; seconds: that drafting took, None without a draft"""

    given: list[Given | None]
    counts: list[int | None]
    heard: list[Heard] | None = None
    seconds: float | None = None


def begin(model: "Speech2Text", batch: Sequence["Utterance"], states: Tensor, frames: Tensor, logits: Tensor | None,
          counts: list[int | None]) -> Beginning:
    """The given or drafted canvases of a batch.

    states: (B, T, D); frames: (B,); logits: (B, T, V + 1) and counts of the model's own CTC head, where it has one
    """
    start, engine, drafter = time.perf_counter(), model.settings.engine, model.drafter
    given = [utterance.given for utterance in batch]
    heard = None
    if drafter is not None and (engine.draft or model.silence is not None):
        heard = drafter.hear(states, frames, logits if drafter.network is model.network else None)
        counts = [len(ids) for ids, _ in heard] if logits is None else counts
    if not engine.draft:
        return Beginning(given, counts, heard)
    if model.settings.sampler == "gaps":
        rows = [drafter.words(*tokens) for tokens in heard]
        drafts = [word_draft(words, engine.draft, model.tokenizer) for words in rows]
        if drafter.network is not model.network:  # its tokens are others than the decoder's
            counts = [len(model.tokenizer.encode(" ".join(word.word for word in words))) for words in rows]
    else:
        drafts = [_token_draft(*row, engine.draft) for row in model.network.greedy_draft(logits, frames)]
    given = [own or draft for own, draft in zip(given, drafts, strict=True)]
    return Beginning(given, counts, heard, time.perf_counter() - start)


def word_draft(words: Sequence[Word], threshold: float, tokenizer: Tokenizer) -> Given:
    """The words whose confidence reaches the threshold; a gap (one free slot) where others stood. The end is open.

    tokenizer: of the decoder. A word that it cannot spell is a gap, too.
    """
    tokens: list[int | None] = []
    sure: list[float] = []
    for word in words:
        ids = continued(tokenizer, word.word, bool(tokens))
        unknown = not ids or (tokenizer.unk_id != tokenizer.eos_id and tokenizer.unk_id in ids)
        if word.confidence >= threshold and not unknown:
            tokens += ids
            sure += [word.confidence] * len(ids)
        elif not tokens or tokens[-1] is not None:
            tokens.append(None)
            sure.append(0.0)
    return Given(tokens, [False] * len(tokens), sure)


def continued(tokenizer: Tokenizer, text: str, behind: bool) -> list[int]:
    """Ids of a text; behind others a list without pieces that begin a word needs a blank before it."""
    ids = tokenizer.encode(text)
    if ids and behind and not tokenizer.starts_word(tokenizer.pieces[ids[0]]):
        ids = [tokenizer.pieces.index(SPACE), *ids]
    return ids


def words_of(tokenizer: Tokenizer, ids: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Words of a text with the places of their tokens; it ends at the first end token (one that CTC wrote)."""
    return tokenizer.words([tokenizer.pieces[token] for token in takewhile(lambda i: i != tokenizer.eos_id, ids)])


def _token_draft(ids: list[int], confidence: list[float], threshold: float) -> Given:
    """CTC's tokens as a start that may be changed, doubtful ones hidden."""
    sure = [value >= threshold for value in confidence]
    return Given([i if s else None for i, s in zip(ids, sure, strict=True)], [False] * len(ids), confidence)
