"""The autoregressive control in ESPnet's trainer."""

import math

import pytest
import torch

from whisfusion_asr.errors import UserError
from whisfusion_asr.tasks.causal_model import NextToken

CAUSAL = {
    "model": "causal_asr",
    "model_conf": {"canvas_conf": {"fit": "fixed", "length": 8}},
    "decoder": "causal",
    "freeze_param": [],
}


def test_the_loss_counts_the_text_and_its_first_end_only():
    """Two texts, of two tokens and of one, on canvases of four; the table of log probabilities is known."""
    target = torch.tensor([[2, 1, 0, 0], [3, 0, 0, 0]])
    logits = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    seen = []

    def score(canvas: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        seen.append(canvas)
        return logits[counted]

    result = NextToken(start_id=4, eos_id=0, label_smoothing=0.0).scored(score, target, ["a", "b"], 0)
    assert seen[0].tolist() == [[4, 2, 1, 0], [4, 3, 0, 0]]
    places = [(0, 0, 2), (0, 1, 1), (0, 2, 0), (1, 0, 3), (1, 1, 0)]
    table = logits.detach().double()
    expected = -sum(float(table[r, s, t]) - math.log(table[r, s].exp().sum()) for r, s, t in places) / 5
    assert float(result["loss"].detach()) == pytest.approx(expected, rel=1e-5)
    right = sum(int(table[r, s].argmax()) == t for r, s, t in places)
    assert float(result["acc"]) == pytest.approx(right / 5)
    result["loss"].backward()
    assert logits.grad[0, 3].abs().sum() == 0 and logits.grad[1, 2:].abs().sum() == 0


def test_label_smoothing_is_the_mean_over_all_tokens():
    target, logits = torch.tensor([[1, 0]]), torch.tensor([[[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]]])
    log_p = logits.log_softmax(-1)[0]
    plain = -(log_p[0, 1] + log_p[1, 0]) / 2
    expected = 0.9 * plain - 0.1 * log_p.mean()
    got = NextToken(3, 0, 0.1).scored(lambda _, counted: logits[counted], target, ["a"], 0)["loss"]
    torch.testing.assert_close(got, expected)


def test_espnets_trainer_lowers_the_loss(train, tmp_path):
    out = train(tmp_path / "exp", {**CAUSAL, "optim_conf": {"lr": 0.02}}, max_epoch=8, keep_nbest_models=1)
    stats = torch.load(out / "checkpoint.pth", weights_only=False)["reporter"]["stats"]
    losses = [stats[epoch]["train"]["loss"] for epoch in sorted(stats)]
    assert losses[-1] < 0.9 * losses[0], losses


def test_a_decoder_that_is_not_causal_is_refused(train, tmp_path):
    with pytest.raises(UserError, match="model: causal_asr needs decoder: causal"):
        train(tmp_path / "exp", {**CAUSAL, "decoder": "diffusion"}, max_epoch=1)
