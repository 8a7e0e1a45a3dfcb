"""Muon against a reference in float64 written from the formula, and its AdamW half against torch's."""

import numpy as np
import pytest
import torch

from whisfusion_asr.training.muon import Muon, orthogonalise


def reference_step(weight, gradient, momentum, lr, decay, beta=0.95):
    """One Muon step in float64, matrix by matrix, straight from the formula."""
    momentum = beta * momentum + gradient
    x = gradient + beta * momentum
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / np.sqrt((x * x).sum())
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    x = x.T if tall else x
    scale = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
    return weight * (1 - lr * decay) - lr * scale * x, momentum


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_three_steps_equal_the_reference_in_float64(decay):
    """Wide, tall and stacked matrices of two shapes."""
    torch.manual_seed(0)
    start = [torch.randn(shape, dtype=torch.float64) for shape in [(4, 6), (6, 4), (4, 6), (5, 5)]]
    weights = [torch.nn.Parameter(tensor.float()) for tensor in start]
    optimizer = Muon([{"params": weights, "muon": True, "lr": 0.02, "weight_decay": decay}])
    expected = [(tensor.numpy(), np.zeros(tensor.shape)) for tensor in start]
    for _ in range(3):
        gradients = [torch.randn(tensor.shape, dtype=torch.float64) for tensor in start]
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient.float()
        optimizer.step()
        expected = [
            reference_step(w, g.numpy(), m, 0.02, decay) for (w, m), g in zip(expected, gradients, strict=True)
        ]
    for weight, (wanted, _) in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight.detach().numpy(), wanted, atol=2e-6)


def test_orthogonalise_brings_singular_values_near_one():
    """Whatever the scale; rank and orientation kept."""
    torch.manual_seed(1)
    matrices = torch.randn(3, 12, 7) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.min() > 0.6 and values.max() < 1.3


def test_zero_gradient_moves_nothing():
    """No division by the zero norm."""
    weight = torch.nn.Parameter(torch.ones(3, 3))
    weight.grad = torch.zeros(3, 3)
    Muon([{"params": [weight], "muon": True}], weight_decay=0.0).step()
    assert torch.equal(weight, torch.ones(3, 3))


def test_other_groups_follow_adamw_bit_by_bit():
    """Same parameters, same gradients, torch.optim.AdamW beside it."""
    torch.manual_seed(2)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in [(5,), (3, 4), (2, 3, 2)]]
    theirs = [torch.nn.Parameter(parameter.detach().clone()) for parameter in ours]
    options = {"lr": 3e-3, "betas": (0.9, 0.98), "weight_decay": 0.01}
    optimizers = Muon([{"params": ours, "muon": False}], **options), torch.optim.AdamW(theirs, **options)
    for _ in range(4):
        for left, right in zip(ours, theirs, strict=True):
            left.grad = torch.randn_like(left)
            right.grad = left.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for left, right in zip(ours, theirs, strict=True):
        assert torch.equal(left, right)


def test_saved_state_continues_bit_by_bit():
    """Two steps, save, load into a new optimiser, one more step."""

    def run(reload: bool) -> torch.Tensor:
        torch.manual_seed(3)
        weight, bias = torch.nn.Parameter(torch.randn(4, 4)), torch.nn.Parameter(torch.randn(4))

        def make() -> Muon:
            return Muon([{"params": [weight], "muon": True, "lr": 0.02}, {"params": [bias], "muon": False}])

        optimizer = make()
        for step in range(3):
            if reload and step == 2:
                state = optimizer.state_dict()
                optimizer = make()
                optimizer.load_state_dict(state)
            weight.grad, bias.grad = torch.randn(4, 4), torch.randn(4)
            optimizer.step()
        return torch.cat((weight.flatten(), bias)).detach()

    assert torch.equal(run(False), run(True))


def test_groups_that_cannot_be_meant_are_refused():
    """A plain list would be trained by AdamW alone; a vector would fail inside the iteration."""
    with pytest.raises(ValueError, match="must say muon: True or False"):
        Muon([torch.nn.Parameter(torch.zeros(3, 3))])
    with pytest.raises(ValueError, match="orthogonalises matrices"):
        Muon([{"params": [torch.nn.Parameter(torch.zeros(3))], "muon": True}])
