"""The small conformer against numpy in float64, its length formula and its independence of padding."""

import numpy as np
import pytest
import torch

from whisfusion_asr.errors import UserError
from whisfusion_asr.models.light_conformer import ConformerBlock, LightConformer


@pytest.fixture
def encoder() -> LightConformer:
    torch.manual_seed(0)
    return LightConformer(input_size=6, output_size=8, num_blocks=2, attention_heads=2, kernel=3).eval()


class ByHand:
    """The network of one utterance written out; weights by name, (T, D) arrays in float64."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.weights = {name: value.double().numpy() for name, value in module.state_dict().items()}

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def strided(self, name, x):
        weight = self.weights[f"{name}.weight"]  # (out, in, 5), stride 2, two zeros on either side
        x = np.pad(x, ((2, 2), (0, 0)))
        return np.array([
            np.einsum("oik,ki->o", weight, x[t : t + 5]) + self.weights[f"{name}.bias"] for t in range(0, len(x) - 4, 2)
        ])

    def depthwise(self, name, x):
        weight = self.weights[f"{name}.weight"][:, 0]  # (D, kernel)
        reach = weight.shape[1] // 2
        padded = np.pad(x, ((reach, reach), (0, 0)))
        return np.array([
            (weight.T * padded[t : t + 2 * reach + 1]).sum(0) for t in range(len(x))
        ]) + self.weights[f"{name}.bias"]

    def block(self, name, x, heads):
        gate = self.linear(f"{name}conv.gate", self.norm(f"{name}conv.norm", x))
        half = gate.shape[1] // 2
        conv = self.depthwise(f"{name}conv.depthwise", gate[:, :half] / (1 + np.exp(-gate[:, half:])))
        x = x + self.linear(f"{name}conv.out", np.maximum(0, self.norm(f"{name}conv.norm_conv", conv)))
        query, key, value = np.split(self.linear(f"{name}attention.qkv", self.norm(f"{name}attention.norm", x)), 3, 1)
        mixed = []
        for q, k, v in zip(*(np.split(part, heads, 1) for part in (query, key, value)), strict=True):
            weight = np.exp(q @ k.T / np.sqrt(q.shape[1]))
            mixed.append(weight / weight.sum(1, keepdims=True) @ v)
        x = x + self.linear(f"{name}attention.out", np.concatenate(mixed, 1))
        inner = np.maximum(0, self.linear(f"{name}ffn.1", self.norm(f"{name}ffn.0", x)))
        return x + self.linear(f"{name}ffn.3", inner)


def test_block_equals_numpy():
    torch.manual_seed(1)
    block = ConformerBlock(size=12, heads=3, kernel=5)
    x = torch.randn(1, 9, 12)
    out = block(x, torch.ones(1, 9, dtype=torch.bool))
    np.testing.assert_allclose(out[0].detach().numpy(), ByHand(block).block("", x[0].double().numpy(), 3), atol=1e-5)


def test_encoder_equals_numpy(encoder):
    features = torch.randn(1, 21, 6)
    states, lengths = encoder(features, torch.tensor([21]))
    hand, x = ByHand(encoder), features[0].double().numpy()
    for index in range(2):
        x = np.maximum(0, hand.strided(f"subsample.{index}", x))
    for index in range(2):
        x = hand.block(f"blocks.{index}.", x, 2)
    assert lengths.tolist() == [len(x)]
    np.testing.assert_allclose(states[0].detach().numpy(), hand.norm("norm", x), atol=1e-5)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 8, 9, 100, 101, 102, 103])
def test_four_frames_become_one_state(encoder, frames):
    states, lengths = encoder(torch.randn(1, frames, 6), torch.tensor([frames]))
    assert lengths.tolist() == [((frames + 1) // 2 + 1) // 2] == [states.size(1)]
    assert states.size(2) == encoder.output_size == 8


def test_padding_and_its_content_change_nothing(encoder):
    lengths = torch.tensor([40, 17, 1])
    features = torch.randn(3, 40, 6)
    together, out_lengths = encoder(features, lengths)
    for row, length, frames in zip(range(3), lengths, out_lengths, strict=True):
        alone, _ = encoder(features[row : row + 1, :length], length[None])
        torch.testing.assert_close(together[row, :frames], alone[0], atol=1e-5, rtol=0)
        assert not together[row, frames:].any(), "nothing stands behind the end"


def test_order_of_the_batch_does_not_matter(encoder):
    features, lengths, order = torch.randn(3, 24, 6), torch.tensor([24, 20, 9]), [2, 0, 1]
    states, _ = encoder(features, lengths)
    shuffled, _ = encoder(features[order], lengths[order])
    torch.testing.assert_close(states[order], shuffled, atol=1e-6, rtol=0)


def test_gradient_reaches_every_parameter_and_no_padding(encoder):
    features = torch.randn(2, 24, 6, requires_grad=True)
    states, _ = encoder(features, torch.tensor([24, 10]))
    (states * torch.randn(states.shape)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert features.grad[1, :10].abs().sum() > 0 and not features.grad[1, 10:].any()


def test_a_branch_starts_halved():
    torch.manual_seed(3)
    block = ConformerBlock(size=16, heads=2, kernel=3)
    for last in (block.conv.out, block.attention.out, block.ffn[-1]):
        bound = 0.5 / np.sqrt(last.in_features)  # torch draws from +-1 / sqrt(inputs)
        assert 0.8 * bound < last.weight.abs().max().item() <= bound


@pytest.mark.parametrize(("settings", "message"), [
    ({"kernel": 4}, "kernel: 4 must be odd"),
    ({"attention_heads": 3}, r"size 8 must be a multiple of attention_heads \(3\)"),
])
def test_impossible_sizes_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        LightConformer(input_size=6, output_size=8, **settings)
