"""How samplers ask the network: every distinct row of a batch once, the head only where an answer is needed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from whisfusion_asr.decoding.rows import in_cache, largest

FAR = 1e4  # below the largest logit: its share of a probability is 0, and 0 times an infinite one would be no number

# predict(canvas (R, L), rows (R,) utterance of each row, asked (R, L) bool) -> logits of the asked slots in row-major
# order, in chunks (n, V) that together are (N, V): all logits of a pass never exist at once.
Predict = Callable[[Tensor, Tensor, Tensor], Iterable[Tensor]]


@dataclass(frozen=True)
class Ask:
    """What a sampler wants to know about the K canvases of one utterance.

    canvas: (K, L) int64; asked: (K, L) bool slots to predict; text: (L,) bool slots where the text cannot end
    sure: (K, L) bool slots whose probability is needed, None for all asked; entropy: whether it is needed
    draw: (K, L) numbers in [0, 1) by which to draw a token from each slot's distribution, None if nothing is drawn
    greedy: rows at the front that take the most probable token all the same
    filled_with: (K, L) probability of what stands, where it is not hidden; rows: (K,) which candidate each row has
        been since the first pass, None for all in order. Both are for the trace
    """

    canvas: Tensor
    asked: Tensor
    text: Tensor
    sure: Tensor | None = None
    entropy: bool = False
    draw: Tensor | None = None
    greedy: int = 0
    filled_with: Tensor | None = None
    rows: Tensor | None = None


@dataclass(frozen=True)
class Answer:
    """The network's answer, all (K, L) on the CPU, 0 where it was not asked.

    token: most probable id; probability: its probability; entropy: in nats; drawn, drawn_probability: see Ask.draw
    last: there is no time for another pass
    """

    token: Tensor
    probability: Tensor
    entropy: Tensor
    drawn: Tensor | None = None
    drawn_probability: Tensor | None = None
    last: bool = False

    def cut(self, length: int) -> "Answer":
        """What it says of the first slots."""
        tables = {name: table[:, :length] for name, table in vars(self).items() if isinstance(table, Tensor)}
        return replace(self, **tables)


def taken(ask: Ask, answer: Answer) -> tuple[Tensor, Tensor]:
    """The token of every slot, drawn where that was asked, and its probability, (K, L) each."""
    if answer.drawn is None or answer.drawn_probability is None:
        return answer.token, answer.probability
    token = torch.cat((answer.token[: ask.greedy], answer.drawn[ask.greedy :]))
    return token, torch.cat((answer.probability[: ask.greedy], answer.drawn_probability[ask.greedy :]))


@dataclass(frozen=True)
class _Distinct:
    """The distinct rows of one Ask. owner: (K,) which of them each candidate is; draw: (U, L, G), G equal rows."""

    ask: Ask
    canvas: Tensor
    asked: Tensor
    sure: Tensor
    owner: Tensor
    rank: Tensor
    draw: Tensor | None


def ask_network(predict: Predict, asks: Sequence[Ask], utterances: Sequence[int], eos_id: int,
                ) -> tuple[list[Answer], list[int]]:
    """One pass for several utterances. Returns their answers, and how many rows each of them cost.

    asks, utterances: of each utterance the question and the index by which `predict` knows it
    """
    parts = [_distinct(ask) for ask in asks]
    rows = [len(part.canvas) for part in parts]
    width = max(part.canvas.size(1) for part in parts)
    canvas, asked = _stacked([p.canvas for p in parts], width, eos_id), _stacked([p.asked for p in parts], width, False)
    found: list[tuple[Tensor, ...]] = []
    if asked.any():
        sure = _stacked([p.sure for p in parts], width, False)[asked]
        text = _stacked([p.ask.text.expand(len(p.canvas), -1) for p in parts], width, False)[asked]
        draw = _stacked_draws(parts, width)
        owners = torch.repeat_interleave(torch.tensor(utterances), torch.tensor(rows))
        start, entropy = 0, any(ask.entropy for ask in asks)
        for logits in in_cache(predict(canvas, owners, asked)):
            here = slice(start, start + len(logits))
            found.append(_read(_without_end(logits, text[here], eos_id), sure[here], entropy,
                               None if draw is None else draw[asked][here]))
            start += len(logits)
        assert start == int(asked.sum()), "predict must answer exactly the asked slots"
    tables = [_table(torch.cat(values).cpu(), asked) for values in zip(*found, strict=True)]
    answers, first = [], 0
    for part, count in zip(parts, rows, strict=True):
        answers.append(_answer(part, [t[first : first + count, : part.canvas.size(1)] for t in tables]))
        first += count
    return answers, rows


def _distinct(ask: Ask) -> _Distinct:
    """Rows with equal canvases become one, rows that ask nothing none (owner -1)."""
    active = ask.asked.any(1)
    canvas, inverse = ask.canvas[active], torch.arange(int(active.sum()))
    if len(canvas) > 1:
        canvas, inverse = canvas.unique(dim=0, return_inverse=True)
    owner = torch.full((len(active),), -1)
    owner[active] = inverse

    def together(mask: Tensor) -> Tensor:
        return torch.zeros(canvas.shape, dtype=torch.long).index_add_(0, inverse, mask[active].long()) > 0

    counts = inverse.bincount(minlength=len(canvas))
    rank, draw = torch.zeros(len(active), dtype=torch.long), None
    if ask.draw is not None:
        order = inverse.argsort(stable=True)
        place = torch.empty_like(inverse)
        place[order] = torch.arange(len(inverse)) - (counts.cumsum(0) - counts)[inverse[order]]
        rank[active] = place
        draw = torch.zeros(*canvas.shape, max(counts.tolist(), default=1))
        draw[inverse, :, place] = ask.draw[active].float()
    asked = together(ask.asked)
    sure = asked if ask.sure is None else together(ask.sure) & asked
    return _Distinct(ask, canvas, asked, sure, owner, rank, draw)


def _stacked(tables: Sequence[Tensor], width: int, value: int | bool) -> Tensor:
    """Tables (U, L) of several utterances below each other, filled up to the common width."""
    out = tables[0].new_full((sum(map(len, tables)), width), value)
    first = 0
    for table in tables:
        out[first : first + len(table), : table.size(1)] = table
        first += len(table)
    return out


def _stacked_draws(parts: Sequence[_Distinct], width: int) -> Tensor | None:
    draws = [part.draw for part in parts if part.draw is not None]
    if not draws:
        return None
    out, first = torch.zeros(sum(len(p.canvas) for p in parts), width, max(d.size(2) for d in draws)), 0
    for part in parts:
        if part.draw is not None:
            rows, length, group = part.draw.shape
            out[first : first + rows, :length, :group] = part.draw
        first += len(part.canvas)
    return out


def _without_end(logits: Tensor, text: Tensor, eos_id: int) -> Tensor:
    logits = logits.float()
    if text.any():
        logits = logits.clone()
        logits[text.to(logits.device), eos_id] = -torch.inf
    return logits


def _read(logits: Tensor, sure: Tensor, entropy: bool, draw: Tensor | None) -> tuple[Tensor, ...]:
    """Token, its probability where sure, entropy; with draw: drawn tokens and their probabilities (n, G).

    logits: (n, V) fp32; sure: (n,) bool; draw: (n, G)
    """
    most, token = largest(logits)
    if entropy or draw is not None:
        distribution = logits.softmax(-1)
        probability = distribution.gather(-1, token[:, None]).squeeze(-1)
        spread = _entropy(logits, most, distribution, probability) if entropy else torch.zeros_like(probability)
        if draw is None:
            return token, probability, spread
        total = distribution.cumsum(-1)
        drawn = torch.searchsorted(total, draw.to(logits.device) * total[:, -1:], right=True)
        drawn = drawn.clamp(max=logits.size(-1) - 1)
        return token, probability, spread, drawn, distribution.gather(-1, drawn)
    probability = torch.zeros_like(most)
    wanted = slice(None) if sure.all() else sure.to(logits.device)
    probability[wanted] = (most[wanted] - logits[wanted].logsumexp(-1)).exp()
    return token, probability, torch.zeros_like(probability)


def _entropy(logits: Tensor, most: Tensor, distribution: Tensor, probability: Tensor) -> Tensor:
    """Entropy of each row in nats: -log p of the largest + sum of p * (largest - logit), without a logarithm of all.

    logits, distribution: (n, V); most, probability: (n,) of the largest
    """
    below = (most[:, None] - logits).clamp_(max=FAR)
    return torch.linalg.vecdot(distribution, below) - probability.log()


def _table(values: Tensor, asked: Tensor) -> Tensor:
    """Values of the asked slots (N, ...) -> (U, L, ...), 0 elsewhere."""
    table = values.new_zeros(*asked.shape, *values.shape[1:])
    table[asked] = values
    return table


def _answer(part: _Distinct, tables: list[Tensor]) -> Answer:
    """Give each candidate what its distinct row was answered."""
    if not len(part.canvas):
        nothing = torch.zeros(part.ask.canvas.shape)
        drawn = (None, None) if part.draw is None else (nothing.long(), nothing)
        return Answer(nothing.long(), nothing, nothing, *drawn)
    silent = (part.owner < 0)[:, None]
    owner = part.owner.clamp(min=0)
    token, probability, entropy = (table[owner].masked_fill(silent, 0) for table in tables[:3])
    if part.draw is None:
        return Answer(token, probability, entropy)
    drawn, drawn_probability = (table[owner, :, part.rank].masked_fill(silent, 0) for table in tables[3:])
    return Answer(token, probability, entropy, drawn, drawn_probability)
