"""Where a decoder looks: the cross-attention weights of one evaluation, seen from outside its layers.

The layers compute with a fused attention that never has its weights. So they are computed a second time, beside it,
and only while somebody watches.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


def watched_weights(layers: Iterable[nn.Module], run: Callable[[], Any]) -> Tensor:
    """The attention weights of all layers while `run` evaluates the network once, (layers, B, H, L, S).

    layers: modules that are called once each, in order, and have `weights` for the arguments of that call
    """
    seen: list[Tensor] = []

    def look(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append(module.weights(*args, **named))

    hooks = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in layers]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(seen)
