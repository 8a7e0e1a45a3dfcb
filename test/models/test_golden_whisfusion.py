"""The released Whisfusion v1 on a toy network: its logits and its decoding trace, recorded once from its own code.

The network has the released sizes' structure (qkv packed per head, adapter in every block) and weights by formula;
the numbers below are the released code's fp32 output, with attention and norms computed by plain torch.
"""

import numpy as np
import pytest
import torch

from whisfusion_asr.decoding.pdd import PddOptions, best_candidate, pdd
from whisfusion_asr.diffusion.canvas import CanvasSpec
from whisfusion_asr.models.adapter import Acoustics
from whisfusion_asr.models.diffusion_decoder import DiffusionDecoder

LAYERS, HEADS, SIZE, FFN, VOCAB, FRAMES = 2, 3, 24, 48, 32, 6
SPEC = CanvasSpec(VOCAB, eos_id=2, bos_id=1)


def released_shapes() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a released checkpoint of this size."""
    shapes: dict[str, tuple[int, ...]] = {
        "lm_head.weight": (VOCAB, SIZE),
        "transformer.wte.weight": (VOCAB + 1, SIZE),
        "transformer.ln_f.weight": (SIZE,),
    }
    for i in range(LAYERS):
        block = {
            "norm_1": (SIZE,), "attn.attn": (3 * SIZE, SIZE), "attn.proj": (SIZE, SIZE),
            "norm_cross": (SIZE,), "cross_attn.q_proj": (SIZE, SIZE), "cross_attn.kv_proj": (2 * SIZE, SIZE),
            "cross_attn.proj": (SIZE, SIZE), "norm_2": (SIZE,), "mlp.swiglu.w1": (FFN, SIZE),
            "mlp.swiglu.w2": (FFN, SIZE), "mlp.swiglu.w3": (SIZE, FFN),
        }
        shapes |= {f"transformer.h.{i}.{name}.weight": shape for name, shape in block.items()}
    return shapes


def wave(shape: tuple[int, ...], scale: float, step: float, start: float = 0.0) -> np.ndarray:
    """scale * sin(step * j + start) for j in row-major order, float64."""
    return scale * np.sin(step * np.arange(np.prod(shape)) + start).reshape(shape)


def released_weights() -> dict[str, torch.Tensor]:
    weights = {}
    for t, (name, shape) in enumerate(sorted(released_shapes().items())):
        is_norm = "norm" in name or "ln_f" in name
        weights[name] = torch.from_numpy(wave(shape, 0.3, 0.7, 1.3 * t) + is_norm).float()
    return weights


def our_weights(released: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Released names to ours; q, k, v lie together per head there, and as three whole matrices here."""
    ours = {
        "embed.weight": released["transformer.wte.weight"],
        "norm.weight": released["transformer.ln_f.weight"],
        "head.weight": released["lm_head.weight"],
    }
    text = {"norm_1": "norm_1", "attn.proj": "attn.out", "norm_2": "norm_2", "mlp.swiglu.w1": "mlp.w1",
            "mlp.swiglu.w2": "mlp.w2", "mlp.swiglu.w3": "mlp.w3"}
    adapter = {"norm_cross": "norm", "cross_attn.q_proj": "q_proj", "cross_attn.kv_proj": "kv_proj",
               "cross_attn.proj": "out_proj"}
    for i in range(LAYERS):
        source = f"transformer.h.{i}."
        packed = released[f"{source}attn.attn.weight"].view(HEADS, 3, SIZE // HEADS, SIZE)
        ours[f"blocks.{i}.attn.qkv.weight"] = packed.transpose(0, 1).reshape(3 * SIZE, SIZE)
        ours |= {f"blocks.{i}.{new}.weight": released[f"{source}{old}.weight"] for old, new in text.items()}
        ours |= {f"adapters.{i}.{new}.weight": released[f"{source}{old}.weight"] for old, new in adapter.items()}
    return ours


def toy(**replaced: torch.Tensor) -> DiffusionDecoder:
    decoder = DiffusionDecoder(VOCAB, SIZE, size=SIZE, num_blocks=LAYERS, attention_heads=HEADS, ffn_size=FFN,
                               norm_eps=1e-5, rope_base=10000.0, ruler="none", prefix=1)
    decoder.load_state_dict(our_weights(released_weights() | replaced))
    return decoder.eval()


@pytest.fixture
def acoustics() -> Acoustics:
    condition = torch.from_numpy(0.5 * np.cos(0.3 * np.arange(FRAMES * SIZE)).reshape(1, FRAMES, SIZE)).float()
    return Acoustics(condition, torch.tensor([FRAMES]))


CANVAS = torch.tensor([[1, 5, 32, 32, 7, 32, 2, 2]])


@torch.no_grad()
def test_logits_with_condition(acoustics):
    assert len(released_shapes()) == 25
    decoder = toy()
    logits = decoder(CANVAS, decoder.read(acoustics, 8))
    expected = [[-0.452423, -0.045241, 0.494106, -0.410007, -0.116343, 0.517200],
                [-0.384453, -0.110315, 0.486092, -0.337550, -0.175088, 0.498869]]
    np.testing.assert_allclose(logits[0, [1, 7], :6].numpy(), expected, atol=1e-5)
    assert logits.double().sum().item() == pytest.approx(-3.869367, abs=1e-4)
    assert logits.double().abs().sum().item() == pytest.approx(114.480592, abs=1e-4)
    assert logits.argmax(-1).tolist() == [[1, 11, 29, 29, 4, 29, 8, 8]]


@torch.no_grad()
def test_logits_without_condition():
    logits = toy()(CANVAS)
    expected = [-0.451728, -0.043682, 0.491975, -0.409603, -0.114584, 0.515176]
    np.testing.assert_allclose(logits[0, 1, :6].numpy(), expected, atol=1e-5)
    assert logits.double().abs().sum().item() == pytest.approx(113.939903, abs=1e-4)


class Lcg:
    """x <- (1103515245 x + 12345) mod 2^31, u = x / 2^31, filled row by row and continued over the passes."""

    def __init__(self, rows: int, length: int) -> None:
        self.x, self.shape = 12345, (rows, length)

    def __call__(self) -> torch.Tensor:
        values = []
        for _ in range(self.shape[0] * self.shape[1]):
            self.x = (1103515245 * self.x + 12345) % 2**31
            values.append(self.x / 2**31)
        return torch.tensor(values, dtype=torch.float64).reshape(self.shape)


@torch.no_grad()
def test_decoding_trace(acoustics):
    decoder = toy(**{"lm_head.weight": torch.from_numpy(wave((VOCAB, SIZE), 3.0, 1.9)).float(),
                     "transformer.wte.weight": torch.from_numpy(wave((VOCAB + 1, SIZE), 1.5, 2.3, 0.5)).float()})
    memory = decoder.read(acoustics, 16).repeat(3)
    inputs = []

    def predict(canvas: torch.Tensor) -> torch.Tensor:
        inputs.append(canvas.clone())
        return decoder(canvas, memory)

    options = PddOptions(3, (1.0, 0.9, 0.85, 0.8), confidence="published", after_end="skip")
    candidates = pdd(predict, 16, SPEC, options, Lcg(3, 16))

    masked = [(canvas == SPEC.mask_id).sum(1).tolist() for canvas in inputs]
    assert masked == [[15, 15, 15], [14, 13, 12], [14, 13, 12], [11, 9, 12]]
    rows_after = [
        [[25] * 15] * 3,
        [[25] + [29] * 14, [29] * 7 + [25] + [29] * 4 + [25, 29, 29],
         [29] * 5 + [25, 29, 29, 25] + [29] * 5 + [25]],
        [[25] + [29] * 14, [29] * 15, [29] * 14 + [25]],
    ]
    for canvas, rows in zip(inputs[1:], rows_after, strict=True):  # the visible slots of pass n + 1 are pass n's
        after = torch.tensor([[1, *row] for row in rows])
        assert torch.equal(canvas, torch.where(canvas == SPEC.mask_id, SPEC.mask_id, after))
    assert [c.tokens for c in candidates] == [[25] + [29] * 14, [29] * 15, [29] * 15]
    assert [c.confidence for c in candidates] == pytest.approx([0.262221, 0.263061, 0.263189], abs=1e-5)
    assert best_candidate(candidates) == 2
