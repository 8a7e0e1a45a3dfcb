"""The two layouts hold the same utterances, and where padding must not matter the gradients agree."""

import argparse
import dataclasses

import numpy as np
import pytest
import torch

from whisfusion_asr.benchmark import train
from whisfusion_asr.benchmark.train import Batch, Trainee, batches, build_decoder, phase_law, quantile, utterances
from whisfusion_asr.diffusion.canvas import CanvasRule, CanvasSpec
from whisfusion_asr.diffusion.corruption import MaskLaw
from whisfusion_asr.diffusion.loss import LossRule
from whisfusion_asr.diffusion.objective import Objective
from whisfusion_asr.errors import UserError

SIZE, VOCAB = 16, 11
FIXED, FITTED = CanvasRule(length=40), CanvasRule(fit="count")


def options(**settings: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    words = ["--size", str(SIZE), "--blocks", "2", "--heads", "2", "--vocab", str(VOCAB), "--utterances", "4"]
    args = parser.parse_args([*words, "--batch_size", "2"])
    common = {"device": "cpu", "dtype": "float32", "seed": 0, "warm_up": 0, "repeats": 1, "out": None, "what": "train"}
    return argparse.Namespace(**vars(args) | common | settings)


def trainee(rule: CanvasRule, weighting: str = "none", **settings: object) -> Trainee:
    objective = Objective(CanvasSpec(VOCAB), MaskLaw(0.3, 1.0), LossRule(weighting))
    return Trainee(build_decoder(options(**settings)), objective, rule)


def gradient(model: Trainee, made: list[Batch]) -> torch.Tensor:
    """Of the sum over utterances of the batches' losses, all parameters in a row."""
    model.decoder.zero_grad()
    for batch in made:
        (len(batch.names) * model.loss(batch, seed=3)).backward()
    return torch.cat([p.grad.flatten() for p in model.decoder.parameters() if p.grad is not None])


@pytest.fixture(scope="module")
def cut() -> list[Batch]:
    """Four utterances of 0.8 to 18 s in two batches, states of true length."""
    return batches(utterances(4, 1.0), 2, SIZE, VOCAB, padded=False, seed=0)


def test_quantiles_are_those_of_librispeech():
    assert [quantile(share) for share in (0.0, 0.25, 0.5, 1.0)] == [0.8, 10.2, 13.52, 29.7]
    assert quantile(0.375) == pytest.approx((10.2 + 13.52) / 2)
    mean = np.mean([quantile(share) for share in np.linspace(0.0005, 0.9995, 1000)])
    assert mean == pytest.approx(960.9 * 3600 / 281241, rel=0.01)  # hours and utterances of the corpus


def test_both_layouts_hold_the_same_utterances():
    rows = utterances(10, 2.0)
    padded, cut = (batches(rows, 4, SIZE, VOCAB, padded, seed=0) for padded in (True, False))
    assert [batch.states.size(1) for batch in padded] == [1500] * 3
    assert sorted(row.frames for row in rows) == [n for batch in cut for n in batch.lengths.tolist()]

    def content(made: list[Batch]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        return {n: (b.states[i], b.text[i][: b.text_lengths[i]]) for b in made for i, n in enumerate(b.names)}

    ours = content(cut)
    for name, (states, text) in content(padded).items():
        length = ours[name][0].size(0)
        assert torch.equal(states[:length], ours[name][0]) and not states[length:].any()
        assert torch.equal(text, ours[name][1])


@pytest.mark.parametrize("phase", ["adapter", "decoder"])
def test_padded_states_that_are_masked_leave_the_gradient(cut, phase):
    """Whatever stands beyond an utterance's length, and however far the padding goes."""
    model = trainee(FITTED, phase=phase)
    padded = []
    for batch in cut:
        states = torch.randn(len(batch.names), 1500, SIZE) * 9
        for row, (own, length) in enumerate(zip(batch.states, batch.lengths, strict=True)):
            states[row, :length] = own[:length]
        text = torch.cat((batch.text, torch.full((2, 7), 5)), 1)
        padded.append(dataclasses.replace(batch, states=states, text=text))
    expected = gradient(model, cut)
    assert expected.abs().max() > 1e-3
    assert torch.allclose(gradient(model, padded), expected, atol=1e-6)


def test_padded_states_that_are_attended_to_are_another_network(cut):
    """The published layout has no mask: its padding does change the gradient."""
    model = trainee(FITTED)
    unmasked = [
        Batch(b.names, torch.nn.functional.pad(b.states, (0, 0, 0, 1500 - b.states.size(1))), torch.tensor([1500] * 2),
              b.text, b.text_lengths) for b in cut
    ]  # fmt: skip
    assert not torch.allclose(gradient(model, unmasked), gradient(model, cut), atol=1e-4)


def test_bucketing_leaves_the_gradient_of_an_epoch():
    """With one canvas length and the bound's weighting, an utterance counts the same in every batch."""
    rows, model = utterances(6, 1.0), trainee(FIXED, "inverse_ratio")
    bucketed = batches(rows, 2, SIZE, VOCAB, padded=False, seed=0)
    alone = batches(rows, 1, SIZE, VOCAB, padded=False, seed=0)
    mixed = [train._batch(list(pair), SIZE, VOCAB, False, 0) for pair in zip(rows[:3], rows[3:], strict=True)]
    expected = gradient(model, bucketed)
    for other in (alone, mixed):
        assert torch.allclose(gradient(model, other), expected, atol=1e-5)


def test_slots_of_a_longer_canvas_are_tokens_and_do_matter(cut):
    assert not torch.allclose(gradient(trainee(FIXED), cut), gradient(trainee(FITTED), cut), atol=1e-4)


def test_phases_differ_in_what_learns_and_in_their_masks():
    names = {name for name, p in build_decoder(options(phase="adapter")).named_parameters() if p.requires_grad}
    assert names and all(name.startswith("adapters.") for name in names)
    assert (phase_law("adapter"), phase_law("decoder")) == (MaskLaw(0.0, 1.0), MaskLaw(0.7, 1.0))


def test_the_report(monkeypatch):
    monkeypatch.setattr(train, "PUBLISHED_STATES", 1000)
    report = train.run(options())
    assert [row["layout"] for row in report.rows] == ["published", "true lengths", "true lengths, bf16"]
    padded, cut, half = report.rows
    assert (half["slots"], half["states"]) == (cut["slots"], cut["states"])
    assert (padded["slots"], padded["states"]) == (256, 1000) and cut["slots"] < 256 and cut["states"] < 1000
    ratio = (4 / cut["wall s"]) / (4 / padded["wall s"])
    assert report.summary["speed-up in wall time"] == pytest.approx(ratio)
    assert report.summary["further speed-up by bf16 in wall time"] == pytest.approx(cut["wall s"] / half["wall s"])
    assert [row["layout"] for row in train.run(options(dtype="bfloat16")).rows] == ["published", "true lengths"]
    assert report.settings["batch_size"] == 2 and "out" not in report.settings


def test_sizes_that_make_no_network():
    with pytest.raises(UserError, match="--blocks and --vocab must be positive"):
        train.run(options(blocks=0))
