"""Exponential moving average of the weights: a shadow inside the model, so that checkpoints and averages carry it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from whisfusion_asr.errors import UserError
from whisfusion_asr.training.freeze import check_patterns, under

EMA = "ema"  # attribute of the model, and prefix in its state dict


class Shadow(nn.Module):
    """Averages of a model's trainable parameters, kept as buffers under the parameters' own names.

    Attached as `model.ema` they stand in the state dict as `ema.<name>`, move with `.to()`, and ordinary saving,
    resuming and averaging of files need to know nothing about them.
    decay: d; update n uses min(d, (1 + n) / (10 + n)), so that the start values are soon forgotten.
    start_share: s; the averages stay at (1 - s) times the weights' average + s times the weights that training started
    from (Wortsman et al. 2022, arXiv 2109.01903, eq. 1, with s = 1 - alpha): what fine-tuning on few data would lose.
    start_share_of: s of the parts whose names are the keys, in the place of start_share
    """

    def __init__(self, model: nn.Module, decay: float, start_share: float = 0.0,
                 start_share_of: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.decay = decay
        self.names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.shares = dict.fromkeys(self.names, start_share)
        for part, share in (start_share_of or {}).items():
            self.shares |= {name: share for name in self.names if under(name, part)}
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        for name in self.names:
            *parents, leaf = name.split(".")
            module: nn.Module = self
            for parent in parents:
                if parent not in module._modules:
                    module.add_module(parent, nn.Module())
                module = module._modules[parent]
            module.register_buffer(leaf, model.get_parameter(name).detach().clone())
        self._keep_start(model)

    @torch.no_grad()
    def restart(self, model: nn.Module) -> None:
        """Begin at the model's present weights."""
        self.updates.zero_()
        for name in self.names:
            self.get_buffer(name).copy_(model.get_parameter(name))
        self._keep_start(model)

    def _keep_start(self, model: nn.Module) -> None:
        # Not in the state dict: a resumed training builds the same start again before it reads its checkpoint.
        self.start = {name: model.get_parameter(name).detach().clone() for name, share in self.shares.items() if share}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """average += (1 - d) ((1 - s) weight + s start - average); called after each optimiser step."""
        self.updates += 1
        # A tensor, not a number: reading the counter would make the GPU wait at every step.
        share = 1.0 - ((1.0 + self.updates) / (10.0 + self.updates)).clamp(max=self.decay)
        for name in self.names:
            average, weight = self.get_buffer(name), model.get_parameter(name)
            if name in self.start:
                weight = weight.lerp(self.start[name], self.shares[name])
            average.lerp_(weight, share.to(average.dtype))

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Inside the block the model computes with the averages."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    def _swap(self, model: nn.Module) -> None:
        for name in self.names:
            parameter, average = model.get_parameter(name), self.get_buffer(name)
            parameter.data, average.data = average.data, parameter.data


def attach_shadow(
    model: nn.Module, optimizer: torch.optim.Optimizer, decay: float, start_share: float = 0.0,
    start_share_of: Mapping[str, float] | None = None,
) -> Shadow:
    """Add `model.ema` and update it after every step of the optimiser.

    Raises UserError: a share that is none, a part that the model does not have.
    """
    parts = start_share_of or {}
    shares = {"ema_start_share": start_share} | {f"ema_start_share_of.{part}": parts[part] for part in parts}
    for key, share in shares.items():
        if not isinstance(share, int | float) or not 0.0 <= share < 1.0:
            raise UserError(f"{key}: {share} is no share; give 0 (off) or more, and less than 1")
    check_patterns(model, list(parts), "ema_start_share_of")
    shadow = Shadow(model, decay, start_share, start_share_of)
    model.add_module(EMA, shadow)
    optimizer.register_step_post_hook(lambda *_: shadow.update(model))
    return shadow
