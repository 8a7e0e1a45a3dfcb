"""The averaged weights: formula, place in the state dict, swapping."""

import copy

import pytest
import torch
from torch import nn

from whisfusion_asr.errors import UserError
from whisfusion_asr.training.ema import Shadow, attach_shadow


class Net(nn.Module):
    """Two layers, the first frozen."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(2, 3).requires_grad_(False), nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x))


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[torch.Tensor]:
    """SGD steps; returns the trainable weight after each."""
    path = []
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(4, 2)).square().sum().backward()
        optimizer.step()
        path.append(net.last.weight.detach().clone())
    return path


@pytest.mark.parametrize("decay", [0.15, 0.995])
def test_average_by_formula(decay):
    """Decay min(d, (1 + n) / (10 + n)) at update n, started at the initial weights."""
    net = Net()
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    wanted = net.last.weight.detach().clone().double()
    shadow = attach_shadow(net, optimizer, decay)
    for n, weight in enumerate(train(net, optimizer, 5), start=1):
        d = min(decay, (1 + n) / (10 + n))
        wanted = d * wanted + (1 - d) * weight.double()
    torch.testing.assert_close(shadow.get_buffer("last.weight").double(), wanted, atol=1e-6, rtol=0)
    assert int(shadow.updates) == 5


@pytest.mark.parametrize("share", [0.15, 0.5])
def test_share_of_the_start_weights(share):
    """At every step (1 - s) times the plain average + s times the start weights (Wortsman et al. 2022, eq. 1)."""
    plain, pulled = Net(), Net()
    start = plain.last.weight.detach().clone()
    for net, s in ((plain, 0.0), (pulled, share)):
        attach_shadow(net, optimizer := torch.optim.SGD(net.last.parameters(), lr=0.1), 0.9, s)
        torch.manual_seed(1)
        path = train(net, optimizer, 20)
    assert torch.equal(path[-1], plain.last.weight), "the training itself must not change"
    assert not torch.allclose(plain.ema.get_buffer("last.weight"), start, atol=0.01)
    wanted = (1 - share) * plain.ema.get_buffer("last.weight").double() + share * start.double()
    torch.testing.assert_close(pulled.ema.get_buffer("last.weight").double(), wanted, atol=1e-6, rtol=0)


def test_a_part_with_a_share_of_its_own():
    """The bias keeps half of its start, the weight a tenth."""
    nets = [Net(), Net()]
    start = copy.deepcopy(nets[0].last)
    for net, shares in zip(nets, ((0.0, {}), (0.1, {"last.bias": 0.5})), strict=True):
        attach_shadow(net, optimizer := torch.optim.SGD(net.last.parameters(), lr=0.1), 0.9, *shares)
        torch.manual_seed(1)
        train(net, optimizer, 20)
    for name, share in (("weight", 0.1), ("bias", 0.5)):
        plain, pulled = (net.ema.get_buffer(f"last.{name}") for net in nets)
        assert (plain - getattr(start, name)).abs().max() > 0.01
        torch.testing.assert_close(pulled, (1 - share) * plain + share * getattr(start, name))


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, "half"])
def test_share_that_is_none(share):
    """With 1 the averages would never move."""
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(UserError, match=f"ema_start_share: {share} is no share; give 0"):
        attach_shadow(net, optimizer, 0.9, share)
    with pytest.raises(UserError, match=f"ema_start_share_of.last: {share} is no share; give 0"):
        attach_shadow(net, optimizer, 0.9, 0.2, {"last": share})


@pytest.mark.parametrize("part", ["las", "decoder.causal_layers"])
def test_share_of_a_part_that_is_not_there(part):
    """Half a name, another model's; of a frozen part it is already whole."""
    net = Net()
    with pytest.raises(UserError, match=f"ema_start_share_of: '{part}' matches no parameter; there are"):
        attach_shadow(net, torch.optim.SGD(net.parameters(), lr=0.1), 0.9, 0.0, {"first": 0.5, part: 0.5})


def test_state_dict_has_the_averages_of_trainable_parameters_under_ema():
    """And they come back from it."""
    net = Net()
    attach_shadow(net, torch.optim.SGD(net.parameters(), lr=0.1), 0.9)
    state = copy.deepcopy(net.state_dict())
    assert {key for key in state if key.startswith("ema.")} == {"ema.updates", "ema.last.weight", "ema.last.bias"}
    state["ema.last.bias"] += 1.0
    net.load_state_dict(state)
    assert torch.equal(net.ema.get_buffer("last.bias"), state["ema.last.bias"])


def test_validation_sees_the_averages_and_training_gets_its_weights_back():
    """Also when the validation fails; the very same parameter objects all the time."""
    net = Net()
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    shadow = attach_shadow(net, optimizer, 0.9)
    raw = train(net, optimizer, 3)[-1]
    average, parameter = shadow.get_buffer("last.weight").clone(), net.last.weight
    with pytest.raises(RuntimeError, match="stop"), shadow.in_place(net):
        assert torch.equal(net.last.weight, average)
        raise RuntimeError("stop")
    assert net.last.weight is parameter and torch.equal(parameter, raw)
    assert torch.equal(shadow.get_buffer("last.weight"), average)


def test_restart_forgets():
    """After the initial weights were loaded the average begins at them, and is drawn to them."""
    net = Net()
    shadow = Shadow(net, 0.9, start_share=0.5)
    shadow.updates += 5
    with torch.no_grad():
        net.last.weight.fill_(3.0)
    shadow.restart(net)
    assert int(shadow.updates) == 0 and torch.equal(shadow.get_buffer("last.weight"), net.last.weight)
    for _ in range(200):
        with torch.no_grad():
            net.last.weight.fill_(5.0)
        shadow.update(net)
    torch.testing.assert_close(shadow.get_buffer("last.weight"), torch.full((1, 3), 4.0))
