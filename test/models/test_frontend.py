"""Log-mel features against numpy in float64, and SpecAugment's masks."""

import numpy as np
import pytest
import torch

from whisfusion_asr.models.frontend import LogMel, SpecAugment, frames_mask

RATE = 16000


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)


def mel_by_hand(signal: np.ndarray, n_mels=80, n_fft=512, win=400, hop=160, fmin=20.0, fmax=7600.0) -> np.ndarray:
    """Triangles on the HTK mel scale over the power spectrum of Hann windows; log, band mean removed, / 4. (T, F)"""
    mel = lambda hertz: 2595 * np.log10(1 + hertz / 700)  # noqa: E731
    corners = 700 * (10 ** (np.linspace(mel(fmin), mel(fmax), n_mels + 2) / 2595) - 1)
    bins = np.arange(n_fft // 2 + 1) * RATE / n_fft
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win) / win)
    rows = []
    for start in range(0, len(signal) - win + 1, hop):
        power = np.abs(np.fft.rfft(signal[start : start + win] * window, n_fft)) ** 2
        rows.append([
            power @ np.maximum(0, np.minimum((bins - lo) / (mid - lo), (hi - bins) / (hi - mid)))
            for lo, mid, hi in zip(corners[:-2], corners[1:-1], corners[2:], strict=True)
        ])
    logs = np.log(np.maximum(np.array(rows), 1e-10))
    return (logs - logs.mean(0)) / 4


@pytest.fixture(scope="module")
def logmel() -> LogMel:
    return LogMel()


def test_frames_mask():
    assert frames_mask(torch.tensor([0, 2, 3]), 3).tolist() == [[False] * 3, [True, True, False], [True] * 3]


@pytest.mark.parametrize("signal", [noise(4000), 0.3 * np.sin(2 * np.pi * 440 * np.arange(3999) / RATE)])
def test_logmel_equals_numpy(logmel, signal):
    features, lengths = logmel(torch.from_numpy(signal).float()[None], torch.tensor([len(signal)]))
    expected = mel_by_hand(signal.astype(np.float32).astype(np.float64))
    assert lengths.tolist() == [len(expected)] and features.shape == (1, *expected.shape)
    # the bands that a pure tone leaves empty hold only fp32's rounding of the transform, under a logarithm
    np.testing.assert_allclose(features[0].numpy(), expected, atol=2e-4 if len(signal) == 4000 else 5e-2)


def test_logmel_of_other_sizes_equals_numpy():
    settings = {"n_mels": 20, "n_fft": 256, "hop": 100, "win": 200, "fmin": 0.0, "fmax": 8000.0}
    front = LogMel(n_mels=20, n_fft=256, win_length=200, hop_length=100, fmin=0.0, fmax=8000.0)
    features, _ = front(torch.from_numpy(noise(1900))[None], torch.tensor([1900]))
    assert front.output_size == 20
    np.testing.assert_allclose(features[0].numpy(), mel_by_hand(noise(1900).astype(np.float64), **settings), atol=2e-4)


def test_level_does_not_matter(logmel):
    speech = torch.from_numpy(noise(4000))[None]
    loud, quiet = (logmel(speech * gain, torch.tensor([4000]))[0] for gain in (1.0, 0.05))
    torch.testing.assert_close(loud, quiet, atol=1e-4, rtol=0)


def test_silence_is_finite_and_zero(logmel):
    features, lengths = logmel(torch.zeros(2, 1600), torch.tensor([1600, 800]))
    assert torch.equal(features, torch.zeros_like(features)) and lengths.tolist() == [8, 3]


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (399, 1), (400, 1), (559, 1), (560, 2), (720, 3)])
def test_number_of_frames_of_short_signals(logmel, samples, frames):
    features, lengths = logmel(torch.from_numpy(noise(samples))[None], torch.tensor([samples]))
    assert lengths.tolist() == [frames] and features.shape == (1, frames, 80)
    assert features.isfinite().all()


def test_neighbours_in_a_batch_change_nothing(logmel):
    signals = [noise(n, seed=n) for n in (5000, 1234, 400, 77)]
    batch = torch.zeros(4, 5000)
    for row, signal in zip(batch, signals, strict=True):
        row[: len(signal)] = torch.from_numpy(signal)
    together, lengths = logmel(batch, torch.tensor([len(s) for s in signals]))
    for row, frames, signal in zip(together, lengths, signals, strict=True):
        alone, _ = logmel(torch.from_numpy(signal)[None], torch.tensor([len(signal)]))
        torch.testing.assert_close(row[:frames], alone[0], atol=1e-5, rtol=0)
        assert not row[frames:].any()


def test_logmel_passes_the_gradient_and_keeps_nothing_in_checkpoints(logmel):
    speech = torch.from_numpy(noise(1000))[None].requires_grad_()
    logmel(speech, torch.tensor([1000]))[0].square().sum().backward()
    assert speech.grad[:, :880].abs().sum() > 0 and speech.grad.isfinite().all()
    assert not speech.grad[:, 880:].any(), "samples after the last whole frame are not read"
    assert not logmel.state_dict()


FEATURES = torch.ones(64, 50, 40)
FULL = torch.full((64,), 50)


def stripes(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Masked bands (B, F) and masked frames (B, T) of features that were all ones."""
    hidden = features == 0
    return hidden.all(1), hidden.all(2)


def test_specaug_does_nothing_in_evaluation():
    specaug = SpecAugment().eval()
    assert specaug(FEATURES, FULL) is FEATURES
    assert specaug.steps.item() == 0


def test_specaug_starts_after_start_step_batches_and_remembers_them():
    torch.manual_seed(0)
    specaug = SpecAugment(start_step=2)
    outputs = [specaug(FEATURES, FULL) for _ in range(3)]
    assert [bool((out == 0).any()) for out in outputs] == [False, False, True]
    resumed = SpecAugment(start_step=2)
    resumed.load_state_dict(specaug.state_dict())
    assert (resumed(FEATURES, FULL) == 0).any(), "a resumed training goes on where it was"


@pytest.mark.parametrize(("settings", "axis"), [({"time_masks": 0, "freq_masks": 1, "freq_width": 6}, "bands"),
                                                ({"freq_masks": 0, "time_masks": 1, "time_width": 6}, "times")])
def test_one_stripe_is_contiguous_and_of_every_width_up_to_the_largest(settings, axis):
    torch.manual_seed(0)
    out = torch.cat([SpecAugment(**settings)(FEATURES, FULL) for _ in range(20)])
    bands, times = stripes(out)
    wanted, other = (bands, times) if axis == "bands" else (times, bands)
    assert not other.any()
    widths = wanted.sum(1)
    assert set(widths.tolist()) == set(range(7))
    edges = torch.nn.functional.pad(wanted.int(), (1, 1)).diff(dim=1).abs().sum(1)
    assert torch.equal(edges, 2 * (widths > 0).int().to(edges.dtype)), "one stretch"
    reached = wanted.any(0)
    assert reached.all(), f"never masked: {(~reached).nonzero().flatten().tolist()}"


def test_masks_are_the_stripes_and_nothing_else_changes():
    torch.manual_seed(0)
    features = torch.randn(8, 50, 40) + 10
    out = SpecAugment()(features, torch.full((8,), 50))
    hidden = out == 0
    assert torch.equal(out[~hidden], features[~hidden])
    bands, times = hidden.all(1), hidden.all(2)
    assert torch.equal(hidden, bands[:, None, :] | times[:, :, None])
    assert (bands.sum(1) <= 16).all() and (times.sum(1) <= 24).all()
    assert len({tuple(row.tolist()) for row in times}) > 1, "each utterance has its own"


def test_time_masks_fall_into_the_utterance_not_into_its_padding():
    torch.manual_seed(0)
    lengths = torch.tensor([10, 50]).repeat(300)
    out = SpecAugment(freq_masks=0, time_masks=1, time_width=6)(torch.ones(600, 50, 4), lengths)
    _, times = stripes(out)
    assert not times[lengths == 10][:, 10:].any() and times[lengths == 10][:, :10].any(0).all()
    assert times[lengths == 50].any(0).all()


def test_masks_wider_than_the_features_are_harmless():
    torch.manual_seed(0)
    out = SpecAugment(freq_width=90, time_width=90)(torch.ones(4, 3, 5), torch.tensor([3, 3, 2, 1]))
    assert out.shape == (4, 3, 5)


def test_gradient_stops_at_the_masks():
    torch.manual_seed(0)
    features = torch.ones(4, 20, 16, requires_grad=True)
    out = SpecAugment()(features, torch.full((4,), 20))
    out.sum().backward()
    assert torch.equal(features.grad, (out != 0).float())
