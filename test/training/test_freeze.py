"""Frozen parts: evaluation mode, no gradient, not in checkpoints."""

import copy

import pytest
import torch
from torch import nn

from whisfusion_asr.errors import UserError
from whisfusion_asr.training.freeze import check_patterns, frozen_names, frozen_roots, hold_frozen


def model() -> nn.Module:
    """A body with batch norm and dropout, and a head."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    return nn.ModuleDict({"body": body, "body2": nn.Linear(3, 3), "head": nn.Linear(3, 2)})


def frozen() -> nn.Module:
    """The same with its body frozen."""
    net = model()
    net["body"].requires_grad_(False)
    hold_frozen(net)
    return net


def test_frozen_part_stays_in_evaluation_mode():
    """train() on the whole puts everything else into training; no statistics drift, no dropout."""
    net = frozen()
    before = copy.deepcopy(dict(net["body"].named_buffers()))
    net.train()
    assert not any(module.training for module in net["body"].modules())
    assert net["head"].training and net["body2"].training
    x = torch.randn(8, 3) + 5.0
    torch.testing.assert_close(net["body"](x), net["body"](x), rtol=0, atol=0)
    for name, buffer in net["body"].named_buffers():
        assert torch.equal(buffer, before[name]), name
    net.eval()
    assert not net["head"].training


def test_frozen_part_gets_no_gradient():
    """And the trainable ones do."""
    net = frozen()
    net["head"](net["body"](torch.randn(4, 3))).sum().backward()
    assert all(parameter.grad is None for parameter in net["body"].parameters())
    assert net["head"].weight.grad is not None


def test_checkpoint_holds_only_what_is_trained_and_loads_strictly():
    """Neither weights nor running statistics of the frozen part; a missing trainable name is still an error."""
    net = frozen()
    state = copy.deepcopy(net.state_dict())
    assert set(state) == {"body2.weight", "body2.bias", "head.weight", "head.bias"}
    frozen().load_state_dict(state, strict=True)
    del state["head.bias"]
    with pytest.raises(RuntimeError, match="head.bias"):
        frozen().load_state_dict(state, strict=True)


def test_a_single_frozen_parameter():
    """No module is frozen then, only the name is left out."""
    net = model()
    net["head"].bias.requires_grad_(False)
    hold_frozen(net)
    assert frozen_roots(net) == []
    assert frozen_names(net) == {"head.bias"}
    assert "head.bias" not in net.state_dict() and "head.weight" in net.state_dict()


def test_nothing_frozen_changes_nothing():
    """The state dict is whole."""
    net = model()
    hold_frozen(net)
    assert set(net.state_dict()) == set(model().state_dict())


def test_patterns_are_whole_names():
    """`bod` matches nothing, `body` does not mean body2; the message lists what there is."""
    net = model()
    check_patterns(net, ["body", "head.bias", "body.0.weight"])
    with pytest.raises(UserError, match="'bod' matches no parameter; there are body, body2, head"):
        check_patterns(net, ["head", "bod"])
    with pytest.raises(UserError, match="'head.wight' matches no parameter; .*head.weight, head.bias"):
        check_patterns(net, ["head.wight"])
