"""Muon in fp32: matrices move along their orthogonalised momentum, all other parameters by AdamW.

`torch.optim.Muon` iterates in bfloat16, which is 75 times slower than fp32 on a CPU without bf16 units; here the
iteration keeps the parameters' precision, and matrices of equal shape are iterated as one batch.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """Push all singular values of each matrix near 1 by five Newton-Schulz steps.

    matrices: (N, R, C) in fp32 or fp64. Returns (N, R, C); singular values end between about 0.7 and 1.2.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.size(1) > matrices.size(2)
    x = matrices.mT if tall else matrices  # the Gram matrix of the short side is the cheap one
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Groups with `muon: True` (2-D parameters only) follow Muon, groups with `muon: False` AdamW.

    Muon:   m = momentum m + g;  u = g + momentum m;  p -= lr (weight_decay p + sqrt(max(1, R / C)) orthogonalise(u))
    AdamW:  torch's own, with `betas` and `eps`.
    Raises ValueError for a group that says neither, and for a parameter that is no matrix in a group with `muon: True`.
    """

    def __init__(self, params: Iterable[Any], lr: float = 3e-3, betas: tuple[float, float] = (0.9, 0.95),
                 eps: float = 1e-8, weight_decay: float = 0.01, momentum: float = 0.95) -> None:
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, defaults)
        for group in self.param_groups:
            if "muon" not in group:  # else a plain list of parameters would silently be trained by AdamW alone
                raise ValueError("each group of Muon must say muon: True or False; whisfusion_asr.training.groups does")
            if group["muon"] and any(p.dim() != 2 for p in group["params"]):
                raise ValueError("Muon orthogonalises matrices; put other parameters into a group with muon: False")

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One update; returns what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None]
            if moving:
                (self._step_matrices if group["muon"] else self._step_adamw)(group, moving)
        return loss

    def _step_matrices(self, group: dict[str, Any], matrices: list[Tensor]) -> None:
        stacks: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for matrix in matrices:
            stacks[matrix.shape].append(matrix)
        for (rows, columns), stack in stacks.items():
            directions = orthogonalise(torch.stack([self._nesterov(matrix, group["momentum"]) for matrix in stack]))
            scale = max(1.0, rows / columns) ** 0.5
            for matrix, direction in zip(stack, directions, strict=True):
                matrix.mul_(1.0 - group["lr"] * group["weight_decay"])
                matrix.add_(direction.to(matrix.dtype), alpha=-group["lr"] * scale)

    def _nesterov(self, matrix: Tensor, momentum: float) -> Tensor:
        gradient = matrix.grad.to(torch.promote_types(matrix.dtype, torch.float32))
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        state["momentum"].mul_(momentum).add_(gradient)
        return gradient + momentum * state["momentum"]

    def _step_adamw(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.tensor(0.0)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        states = [self.state[p] for p in parameters]
        adamw(
            parameters,
            [p.grad for p in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
