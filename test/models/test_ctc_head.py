"""CTC: the loss against all paths counted one by one, greedy transcripts, and the count that makes the ruler."""

from itertools import groupby, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whisfusion_asr.models.ctc_head import CTCHead, count_positions, greedy_path, greedy_tokens, new_tokens

BLANK = 3
paths = st.lists(st.lists(st.integers(0, BLANK), min_size=12, max_size=12), min_size=1, max_size=4)


def collapse(path) -> list[int]:
    return [token for token, _ in groupby(path) if token != BLANK]


def negative_log_likelihood(logits: np.ndarray, text: list[int]) -> float:
    """Sum over every path of T frames that collapses to the text, (T, V + 1) -> nats."""
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    frames = range(len(logits))
    total = sum(
        np.prod([probability[t, path[t]] for t in frames])
        for path in product(range(logits.shape[1]), repeat=len(logits)) if collapse(path) == text
    )
    return -np.log(total)


def test_loss_is_the_sum_over_all_paths_per_token():
    torch.manual_seed(0)
    head, logits = CTCHead(5, BLANK), torch.randn(3, 5, BLANK + 1)
    lengths, texts = torch.tensor([5, 4, 3]), [[0, 1], [2, 2], [1]]
    text = torch.tensor([[0, 1], [2, 2], [1, -1]])
    loss = head.loss(logits, lengths, text, torch.tensor([2, 2, 1]))
    values = logits.double().numpy()
    expected = sum(negative_log_likelihood(values[b, : lengths[b]], texts[b]) for b in range(3)) / 5
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_text_longer_than_its_frames_allow_counts_as_zero_and_gives_a_finite_gradient():
    torch.manual_seed(0)
    head, logits = CTCHead(5, BLANK), torch.randn(2, 4, BLANK + 1, requires_grad=True)
    text, text_lengths = torch.tensor([[0, 1, -1], [2, 2, 2]]), torch.tensor([2, 3])  # 2 2 2 needs five frames
    loss = head.loss(logits, torch.tensor([4, 4]), text, text_lengths)
    expected = negative_log_likelihood(logits[0].detach().double().numpy(), [0, 1]) / 5
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert logits.grad.isfinite().all() and not logits.grad[1].any() and logits.grad[0].any()


def test_an_empty_text_is_all_blanks():
    logits = torch.randn(1, 4, BLANK + 1, generator=torch.Generator().manual_seed(0))
    loss = CTCHead(5, BLANK).loss(logits, torch.tensor([4]), torch.zeros(1, 0, dtype=torch.int64), torch.tensor([0]))
    assert loss.item() == pytest.approx(-logits.log_softmax(-1)[0, :, BLANK].sum().item(), rel=1e-5)


def test_plain_head_is_one_linear_layer():
    torch.manual_seed(0)
    head, states = CTCHead(5, BLANK), torch.randn(2, 4, 5)
    assert head.blank == BLANK
    weight, bias = (t.detach().double().numpy() for t in (head.output.weight, head.output.bias))
    expected = states.double().numpy() @ weight.T + bias
    np.testing.assert_allclose(head(states, torch.tensor([4, 2])).detach().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("num_blocks", [0, 2])
def test_padding_changes_nothing_inside(num_blocks):
    torch.manual_seed(0)
    head = CTCHead(6, 9, num_blocks=num_blocks, hidden_size=8, attention_heads=2, kernel=3).eval()
    states, lengths = torch.randn(3, 11, 6), torch.tensor([11, 6, 1])
    together = head(states, lengths)
    assert together.shape == (3, 11, 10)
    for row, length in enumerate(lengths):
        alone = head(states[row : row + 1, :length], length[None])
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-5, rtol=0)


def test_gradient_reaches_the_trunk_and_the_states_but_no_padding():
    torch.manual_seed(0)
    head = CTCHead(6, 9, num_blocks=1, hidden_size=8, attention_heads=2, kernel=3)
    states, lengths = torch.randn(2, 8, 6, requires_grad=True), torch.tensor([8, 5])
    head.loss(head(states, lengths), lengths, torch.tensor([[1, 2], [3, -1]]), torch.tensor([2, 1])).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert states.grad[1, :5].any() and not states.grad[1, 5:].any()


def test_dropout_works_in_training_only():
    torch.manual_seed(0)
    head, states, lengths = CTCHead(6, 9, dropout=0.5), torch.randn(1, 8, 6), torch.tensor([8])
    assert not torch.equal(head(states, lengths), head(states, lengths))
    head.eval()
    assert torch.equal(head(states, lengths), head(states, lengths))


def test_greedy_path_is_blank_beyond_the_length():
    logits = torch.nn.functional.one_hot(torch.tensor([[1, 0, 3, 2], [2, 2, 1, 1]]), 4).float()
    assert greedy_path(logits, torch.tensor([4, 2])).tolist() == [[1, 0, 3, 2], [2, 2, 3, 3]]


def test_greedy_tokens_by_hand():
    path = torch.tensor([[3, 1, 1, 3, 1, 0, 0, 3], [3] * 8, [2] * 8])
    assert greedy_tokens(path, BLANK) == [[1, 1, 0], [], [2]]
    assert new_tokens(path, BLANK)[0].nonzero().flatten().tolist() == [1, 4, 5]


def test_ruler_by_hand():
    #                     lead-in   token 0    gap  token 1  token 2  gap behind
    path = torch.tensor([[3, 3, 1, 1, 3, 1, 0, 3]])
    positions, counts = count_positions(path, BLANK)
    assert positions.tolist() == [[-0.5, -0.5, 0.0, 0.0, 0.5, 1.0, 2.0, 2.5]]
    assert counts.tolist() == [3] and counts.dtype == torch.int64


@settings(deadline=None, max_examples=100)
@given(rows=paths)
def test_ruler_and_transcripts_agree_with_a_count_by_groups(rows):
    path = torch.tensor(rows)
    positions, counts = count_positions(path, BLANK)
    assert greedy_tokens(path, BLANK) == [collapse(row) for row in rows]
    for row, places, count in zip(rows, positions.tolist(), counts.tolist(), strict=True):
        expected, index = [], -1
        for token, group in groupby(row):
            index += token != BLANK
            expected += [index + 0.5 if token == BLANK else float(index)] * len(list(group))
        assert places == expected and count == len(collapse(row))


def test_ruler_does_not_depend_on_the_padding():
    logits = torch.randn(2, 9, BLANK + 1, generator=torch.Generator().manual_seed(3))
    positions, counts = count_positions(greedy_path(logits, torch.tensor([9, 4])), BLANK)
    alone, count = count_positions(greedy_path(logits[1:, :4], torch.tensor([4])), BLANK)
    assert torch.equal(positions[1, :4], alone[0]) and counts[1] == count[0]
