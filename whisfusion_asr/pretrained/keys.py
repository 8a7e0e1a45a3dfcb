"""Strict comparison of a table of tensors with what is expected: nothing is skipped, every fault is named."""

from collections.abc import Mapping
from typing import Protocol

from whisfusion_asr.errors import UserError


class Shaped(Protocol):
    """A tensor, or what stands for one that is not read yet."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its dimensions."""


def check_shapes(where: str, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Shaped]) -> None:
    """Raise UserError listing all missing, extra and misshaped tensors.

    where: file or folder, for the message; expected: name -> shape
    """
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    shapes = [
        f"{name} {tuple(found[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    faults = (("missing", missing), ("unexpected", extra), ("of another shape", shapes))
    told = "; ".join(f"{len(names)} {fault}: {', '.join(names)}" for fault, names in faults if names)
    if told:
        raise UserError(f"{where}: not the expected {len(expected)} tensors: {told}")
