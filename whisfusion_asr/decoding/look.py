"""A second look: a written text is read from left to right, each token foretold from those before it, in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from whisfusion_asr.decoding.network import Predict
from whisfusion_asr.decoding.rows import in_cache, largest


@dataclass(frozen=True)
class Look:
    """What a sampler wants checked of one utterance: slots first to last - 1.

    canvas: (L,) int64 without masks; filled_with: (L,) probability of what stands there, for the trace
    """

    canvas: Tensor
    first: int
    last: int
    filled_with: Tensor | None = None


@dataclass(frozen=True)
class Foretold:
    """The network's own continuation at each of the N slots, all (N,) on the CPU.

    token: most probable id, given the slots before it; probability: its probability; shown: that of the token there
    last: as of an Answer, there is no time for another pass
    """

    token: Tensor
    probability: Tensor
    shown: Tensor
    last: bool = False


def look_back(predict: Predict, looks: Sequence[Look], utterances: Sequence[int], eos_id: int) -> list[Foretold]:
    """One pass for several utterances. predict: of the network under a causal mask.

    utterances: of each look the index by which `predict` knows it
    """
    canvas = pad_sequence([look.canvas for look in looks], batch_first=True, padding_value=eos_id)
    slots = torch.arange(canvas.size(1))
    asked = torch.stack([(slots >= look.first) & (slots < look.last) for look in looks])
    standing, found, start = canvas[asked], [], 0
    for logits in in_cache(predict(canvas, torch.tensor(utterances), asked)):
        distribution, (_, best) = logits.float().softmax(-1), largest(logits)
        here = standing[start : start + len(logits)].to(logits.device)
        found.append([best, *distribution.gather(-1, torch.stack((best, here), -1)).unbind(-1)])
        start += len(logits)
    assert start == len(standing), "predict must answer exactly the asked slots"
    token, probability, shown = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
    sizes = [look.last - look.first for look in looks]
    columns = (column.split(sizes) for column in (token, probability, shown))
    return [Foretold(*parts) for parts in zip(*columns, strict=True)]
