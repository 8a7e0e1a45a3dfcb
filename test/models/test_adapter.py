"""The adapter and its position ruler against numpy in float64, and where it looks before any training."""

import numpy as np
import pytest
import torch

from whisfusion_asr.models.adapter import Acoustics, Adapter, Memory, PositionRuler, frame_clock
from whisfusion_asr.models.ctc_head import count_positions

SIZE, STATE, HEADS = 12, 5, 2
HEAD = SIZE // HEADS


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def turn(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Rotary positions of base 100 on one head, (S, E) and (S,), as complex numbers."""
    half = x.shape[1] // 2
    turned = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * positions[:, None] * 100.0 ** (-np.arange(half) / half))
    return np.concatenate((turned.real, turned.imag), 1)


def adapter_by_hand(adapter: Adapter, x, states, positions, allowed) -> np.ndarray:
    """x + Wo Attn(rope(Wq norm x + b_q, slot), rope(Wk e + b_k, position), Wv e), one utterance."""
    eps = adapter.norm.eps
    normed = x / np.sqrt((x**2).mean(1, keepdims=True) + eps) * array(adapter.norm.weight)
    query, kv = normed @ array(adapter.q_proj.weight).T, states @ array(adapter.kv_proj.weight).T
    key, value, mixed = kv[:, :SIZE], kv[:, SIZE:], []
    for head in range(HEADS):
        part = slice(head * HEAD, (head + 1) * HEAD)
        q, k = query[:, part], key[:, part]
        if positions is not None:
            q = turn(q + array(adapter.query_bias)[head], np.arange(len(x), dtype=float))
            k = turn(k + array(adapter.key_bias)[head], positions)
        scores = q @ k.T / np.sqrt(HEAD)
        weight = np.exp(scores) * allowed
        mixed.append(weight / weight.sum(1, keepdims=True) @ value[:, part])
    return x + np.concatenate(mixed, 1) @ array(adapter.out_proj.weight).T


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "x": torch.randn(2, 4, SIZE),
        "states": torch.randn(2, 9, STATE),
        "positions": torch.rand(2, 9) * 5 - 0.5,
        "allowed": torch.arange(9) < torch.tensor([[9], [6]]),
    }


@pytest.mark.parametrize("ruler", [False, True])
def test_adapter_equals_numpy(batch, ruler):
    adapter = Adapter(SIZE, STATE, HEADS, eps=1e-5, ruler=ruler, out_std=0.5)
    if ruler:  # other than their start values, so that heads and the two biases cannot be confused
        torch.nn.init.normal_(adapter.query_bias), torch.nn.init.normal_(adapter.key_bias)
    positions = batch["positions"] if ruler else None
    out = adapter(batch["x"], *adapter.read(batch["states"], positions), batch["allowed"], torch.arange(4))
    for b in range(2):
        expected = adapter_by_hand(adapter, array(batch["x"][b]), array(batch["states"][b]),
                                   array(positions[b]) if ruler else None, batch["allowed"][b].numpy())
        np.testing.assert_allclose(array(out[b]), expected, atol=2e-6)


@pytest.mark.parametrize("head_size", [4, 16, 48])
def test_before_training_a_slot_looks_where_slot_and_count_agree(head_size):
    adapter = Adapter(2 * head_size, STATE, 2, eps=1e-5, ruler=True)
    torch.nn.init.zeros_(adapter.q_proj.weight), torch.nn.init.zeros_(adapter.kv_proj.weight)  # the biases' part alone
    places = torch.arange(-1, 25, dtype=torch.float32) / 2  # -0.5, 0, 0.5, ...
    key, _ = adapter.read(torch.zeros(1, len(places), STATE), places[None])
    query, _ = adapter.read(torch.zeros(1, 10, STATE), torch.arange(10.0)[None])  # both biases start at 2
    scores = query @ key.transpose(2, 3) / head_size**0.5  # (1, H, slots, places)
    distance = np.arange(10)[:, None] - places.numpy()[None]
    frequencies = 100.0 ** (-np.arange(head_size // 2) * 2 / head_size)
    kernel = (8 * np.cos(distance[..., None] * frequencies)).sum(-1) / np.sqrt(head_size)
    np.testing.assert_allclose(array(scores[0, 0]), kernel, atol=1e-4)
    assert torch.equal(places[scores.argmax(-1)], torch.arange(10.0).expand(1, 2, 10)), "maximum at slot == position"


def test_query_and_key_biases_start_equal():
    adapter = Adapter(SIZE, STATE, HEADS, eps=1e-5, ruler=True)
    assert torch.equal(adapter.query_bias, adapter.key_bias)
    assert set(adapter.query_bias.flatten().tolist()) == {2.0}


def test_ruler_puts_an_end_state_at_every_slot_behind_the_text():
    ruler = PositionRuler(STATE)
    path = torch.tensor([[3, 0, 3, 1, 1, 3], [2, 3, 3, 3, 3, 3]])  # blank 3: two tokens, one token
    positions, counts = count_positions(path, 3)
    states, lengths = torch.randn(2, 6, STATE), torch.tensor([6, 4])
    out, places, mask = ruler(Acoustics(states, lengths, positions, counts), length=5)
    assert out.shape == (2, 11, STATE) and torch.equal(out[:, :6], states)
    assert torch.equal(out[:, 6:], ruler.end_state.expand(2, 5, STATE))
    assert places[0].tolist() == [-0.5, 0.0, 0.5, 1.0, 1.0, 1.5] + [0, 1, 2, 3, 4]
    assert mask[0].tolist() == [True] * 6 + [False, False, True, True, True], "at positions 2, 3, 4"
    assert mask[1].tolist() == [True] * 4 + [False] * 2 + [False, True, True, True, True], "at positions 1, 2, 3, 4"


def test_different_counts_in_one_batch_equal_one_utterance_at_a_time():
    torch.manual_seed(1)
    ruler, adapter = PositionRuler(STATE), Adapter(SIZE, STATE, HEADS, eps=1e-5, ruler=True, out_std=0.5)
    x, states, lengths = torch.randn(3, 7, SIZE), torch.randn(3, 8, STATE), torch.tensor([8, 5, 3])
    path = torch.tensor([[0, 3, 1, 3, 2, 2, 3, 1], [3, 0, 1, 1, 3, 3, 3, 3], [3] * 8])
    positions, counts = count_positions(path, 3)

    def run(rows: slice, frames: int) -> torch.Tensor:
        acoustics = Acoustics(states[rows, :frames], lengths[rows], positions[rows, :frames], counts[rows])
        with_ends, places, mask = ruler(acoustics, 7)
        return adapter(x[rows], *adapter.read(with_ends, places), mask, torch.arange(7))

    assert counts.tolist() == [4, 2, 0]
    together = run(slice(0, 3), 8)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(run(slice(row, row + 1), length)[0], together[row], atol=1e-6, rtol=0)


def test_gradient_reaches_end_state_and_biases_but_no_masked_frame(batch):
    ruler, adapter = PositionRuler(STATE), Adapter(SIZE, STATE, HEADS, eps=1e-5, ruler=True)
    states = batch["states"].requires_grad_()
    acoustics = Acoustics(states, torch.tensor([9, 6]), batch["positions"], torch.tensor([2, 1]))
    with_ends, places, mask = ruler(acoustics, 4)
    out = adapter(batch["x"], *adapter.read(with_ends, places), mask, torch.arange(4))
    (out * torch.randn(out.shape)).sum().backward()
    for name, parameter in [*ruler.named_parameters(), *adapter.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert states.grad[1, :6].any() and not states.grad[1, 6:].any()


def test_start_of_the_output_projection(batch):
    def run(adapter: Adapter) -> torch.Tensor:
        return adapter(batch["x"], *adapter.read(batch["states"], None), batch["allowed"], torch.arange(4))

    assert torch.equal(run(Adapter(SIZE, STATE, HEADS, 1e-5, ruler=False, out_std=0.0)), batch["x"])
    torch.manual_seed(0)
    released = Adapter(256, STATE, 4, 1e-5, ruler=False, out_std=None).out_proj.weight
    assert released.abs().max().item() == pytest.approx(1 / 16, rel=1e-2), "torch's default: uniform to 1 / sqrt(size)"
    ours = Adapter(256, STATE, 4, 1e-5, ruler=False).out_proj.weight
    assert ours.std().item() == pytest.approx(0.02, rel=0.02)


def test_memory_of_many_candidates_is_not_copied():
    key, value, mask = torch.randn(1, 2, 9, 6), torch.randn(1, 2, 9, 6), torch.ones(1, 9, dtype=torch.bool)
    many = Memory([key], [value], mask).repeat(15)
    assert many.keys[0].shape == (15, 2, 9, 6) and many.key_mask.shape == (15, 9)
    assert many.keys[0].data_ptr() == key.data_ptr() and many.keys[0].stride(0) == 0
    assert many.values[0].data_ptr() == value.data_ptr() and torch.equal(many.values[0][7], value[0])


@pytest.mark.parametrize("size", [6, 7])
def test_clock_is_sines_then_cosines_of_time(size):
    half = (size + 1) // 2
    angles = np.arange(30)[:, None] * 10000.0 ** (-np.arange(half) / half)
    expected = np.concatenate((np.sin(angles), np.cos(angles)), 1)[:, :size]
    np.testing.assert_allclose(frame_clock(30, size, torch.device("cpu")).numpy(), expected, atol=1e-5)
