"""bf16 in training on a CPU."""

import logging
from types import MappingProxyType

import pytest
import torch
from torch import nn

from whisfusion_asr.training.precision import multiplies_in_bfloat16, use_bfloat16


@pytest.fixture
def cpu(monkeypatch):
    """Let the CPU have these capabilities only."""

    def has(**capabilities: bool) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: MappingProxyType(capabilities), raising=False)

    return has


@pytest.mark.parametrize("unit", ["avx512_bf16", "amx_bf16", "sve_bf16"])
def test_units_are_found(cpu, unit):
    """One kind is enough; avx512 alone is none of them, and a torch that does not tell has none."""
    cpu(avx512_f=True, **{unit: True})
    assert multiplies_in_bfloat16()
    cpu(avx512_f=True, **{unit: False})
    assert not multiplies_in_bfloat16()


def test_a_torch_that_does_not_tell(monkeypatch):
    """An older one."""
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not multiplies_in_bfloat16()


def test_products_are_rounded_to_bf16(cpu):
    """y = x w with both rounded to 8 bits of mantissa; the weight and its gradient stay in fp32."""
    cpu(avx512_bf16=True)
    torch.manual_seed(0)
    model, x = nn.Linear(64, 8, bias=False), torch.randn(4, 64)
    exact = model(x)
    use_bfloat16(model)
    y = model(x)
    expected = (x.bfloat16().double() @ model.weight.bfloat16().double().t()).bfloat16()
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=2**-7, atol=2**-8)
    assert not torch.equal(y.float(), exact)
    y.float().pow(2).sum().backward()
    assert model.weight.dtype == model.weight.grad.dtype == torch.float32
    gradient = 2 * exact.detach().t() @ x
    assert (model.weight.grad - gradient).norm() < 0.02 * gradient.norm()


def test_a_cpu_without_units_keeps_fp32(cpu, caplog):
    """And the log says so."""
    cpu(avx512_f=True)
    model, x = nn.Linear(64, 8), torch.randn(4, 64)
    exact = model(x)
    with caplog.at_level(logging.INFO):
        use_bfloat16(model)
    assert torch.equal(model(x), exact) and "use_amp: fp32" in caplog.text
