"""Mixed precision of a training on a CPU; ESPnet's `use_amp` knows GPUs only."""

import logging

import torch
from torch import nn

BF16_UNITS = ("avx512_bf16", "amx_bf16", "sve_bf16")


def multiplies_in_bfloat16() -> bool:
    """Whether this CPU has units for bf16. Without them bf16 is slower than fp32.

    An older torch does not tell; there the answer is no.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(unit, False) for unit in BF16_UNITS)


def use_bfloat16(model: nn.Module) -> None:
    """Let a model on a CPU compute in bf16 what autocast chooses; weights, losses and optimiser stay in fp32."""
    if not multiplies_in_bfloat16():
        logging.info(f"use_amp: fp32, since this CPU has none of {', '.join(BF16_UNITS)}")
        return
    logging.info("use_amp: bf16 on the CPU")
    model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
