"""Files of the released layouts into our decoder and back: bit for bit, strict, and equal to the formulas."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from released_files import (
    BLOCKS,
    FFN,
    HEADS,
    SIZE,
    STATES,
    adapter_part,
    released_shapes,
    released_weights,
    text_part,
)
from safetensors.torch import save_file
from torch import Tensor

from whisfusion_asr.errors import UserError
from whisfusion_asr.models.adapter import Acoustics
from whisfusion_asr.models.diffusion_decoder import DiffusionDecoder
from whisfusion_asr.pretrained.released import (
    ADAPTER,
    TEXT,
    WHOLE,
    merge_released,
    read_released,
    to_ours,
    to_released,
)

VOCAB = 20


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return released_weights(VOCAB)


def test_published_counts():
    """The true network: tensors and parameters of every file, and a way back through our names, on no memory."""
    shapes = released_shapes(32000, 768, 18, 3072, 768)
    with torch.device("meta"):
        whole = {name: torch.empty(shape) for name, shape in shapes.items()}
        network = DiffusionDecoder(32000, 768, size=768, num_blocks=18, attention_heads=12, ffn_size=3072, prefix=1)
    files = (whole, text_part(whole), adapter_part(whole))
    assert [len(file) for file in files] == [201, 129, 72]
    counts = [sum(tensor.numel() for tensor in file.values()) for file in files]
    assert counts == [261_531_648, 219_050_496, 42_481_152]
    assert counts[1] - shapes["lm_head.weight"][0] * 768 - 32001 * 768 == 169_897_728
    ours = to_ours(whole)
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in network.state_dict().items()
    }
    assert {name: tuple(tensor.shape) for name, tensor in to_released(ours).items()} == shapes
    assert list(to_released(ours)) == list(shapes)


def reference(
    weights: dict[str, np.ndarray], canvas: np.ndarray, condition: np.ndarray | None, blocks: int
) -> np.ndarray:
    """The network in float64 numpy, from the formulas alone. canvas: (L,); condition: (T, D). Returns (L, D)."""
    head = SIZE // HEADS

    def rms(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weights[f"{name}.weight"]

    def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        scores = q @ k.T / np.sqrt(head)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        return shares / shares.sum(-1, keepdims=True) @ v

    def turn(x: np.ndarray) -> np.ndarray:
        angle = np.arange(len(x))[:, None] * 10000.0 ** (-2 * np.arange(head // 2) / head)
        a, b = x[:, : head // 2], x[:, head // 2 :]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T

    x = weights["transformer.wte.weight"][canvas]
    for i in range(blocks):
        block = f"transformer.h.{i}"
        packed = linear(rms(x, f"{block}.norm_1"), f"{block}.attn.attn").reshape(-1, HEADS, 3, head)
        q, k, v = (packed[:, :, part] for part in range(3))
        heads = [attention(turn(q[:, h]), turn(k[:, h]), v[:, h]) for h in range(HEADS)]
        x = x + linear(np.concatenate(heads, -1), f"{block}.attn.proj")
        if condition is not None:
            q = linear(rms(x, f"{block}.norm_cross"), f"{block}.cross_attn.q_proj").reshape(-1, HEADS, head)
            keys, values = np.split(linear(condition, f"{block}.cross_attn.kv_proj"), 2, -1)
            keys, values = keys.reshape(-1, HEADS, head), values.reshape(-1, HEADS, head)
            heads = [attention(q[:, h], keys[:, h], values[:, h]) for h in range(HEADS)]
            x = x + linear(np.concatenate(heads, -1), f"{block}.cross_attn.proj")
        y = rms(x, f"{block}.norm_2")
        gate = linear(y, f"{block}.mlp.swiglu.w1")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(y, f"{block}.mlp.swiglu.w2"), f"{block}.mlp.swiglu.w3")
    return rms(x, "transformer.ln_f") @ weights["lm_head.weight"].T


@pytest.mark.parametrize("heard", [True, False])
@pytest.mark.parametrize("blocks", [1, BLOCKS])
@torch.no_grad()
def test_network_equals_the_formulas(weights, blocks, heard):
    sizes = dict(size=SIZE, num_blocks=blocks, attention_heads=HEADS, ffn_size=FFN)
    decoder = DiffusionDecoder(VOCAB, STATES, **sizes, prefix=1)
    kept = {n: t for n, t in weights.items() if not (m := re.match(r"transformer\.h\.(\d+)", n)) or int(m[1]) < blocks}
    decoder.load_state_dict(to_ours(kept))
    canvas = torch.tensor([[1, 5, VOCAB, VOCAB, 7, VOCAB, 2, 2, 2, VOCAB, 11]])
    condition = torch.randn(1, 9, STATES, generator=torch.Generator().manual_seed(3))
    memory = decoder.read(Acoustics(condition, torch.tensor([9])), canvas.size(1)) if heard else None
    doubles = {name: tensor.double().numpy() for name, tensor in kept.items()}
    wanted = reference(doubles, canvas[0].numpy(), condition[0].double().numpy() if heard else None, blocks)
    np.testing.assert_allclose(decoder(canvas, memory)[0].numpy(), wanted, atol=1e-5, rtol=0)


def flat(table: dict[str, Tensor]) -> dict:
    return table


def fabric(table: dict[str, Tensor]) -> dict:
    """last.ckpt of a training: the network among the states of everything else."""
    return {"model": table, "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]},
            "scheduler": {"last_epoch": 3}, "epoch": 3, "best_val_loss": 0.1, "patience_counter": 0}  # fmt: skip


def lightning(table: dict[str, Tensor]) -> dict:
    return {"state_dict": {f"_forward_module._orig_mod.{name}": tensor for name, tensor in table.items()}}


def parallel(table: dict[str, Tensor]) -> dict:
    return {f"module.{name}": tensor for name, tensor in table.items()}


@pytest.mark.parametrize("wrap", [flat, fabric, lightning, parallel])
@pytest.mark.parametrize(("part", "kind"), [(dict, WHOLE), (text_part, TEXT), (adapter_part, ADAPTER)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_layout_is_read_bit_for_bit(weights, tmp_path, part, kind, wrap: Callable, dtype):
    table = {name: tensor.to(dtype) for name, tensor in part(weights).items()}
    torch.save(wrap(table), tmp_path / "x.pt")
    released = read_released(tmp_path / "x.pt")
    assert released.kind == kind and released.dtypes == str(dtype).removeprefix("torch.")
    back = to_released(to_ours(released.tensors))
    assert list(back) == list(table)
    assert all(torch.equal(back[name], tensor) and back[name].dtype == dtype for name, tensor in table.items())


def test_averages_of_a_training(weights, tmp_path):
    shadows = [tensor + 1 for tensor in weights.values()]
    ema = {"decay": 0.995, "num_updates": 7, "shadow_params": shadows, "collected_params": None}
    torch.save(fabric(weights) | {"ema": ema}, tmp_path / "last.ckpt")
    released = read_released(tmp_path / "last.ckpt")
    assert released.averaged == "moving averages of 7 steps"
    assert all(torch.equal(released.tensors[name], tensor + 1) for name, tensor in weights.items())
    raw = read_released(tmp_path / "last.ckpt", averages=False)
    assert raw.averaged == "" and torch.equal(raw.tensors["lm_head.weight"], weights["lm_head.weight"])
    ema["shadow_params"] = shadows[:-1]
    torch.save(fabric(weights) | {"ema": ema}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=f"its {len(weights) - 1} averaged weights do not match its {len(weights)} t"):
        read_released(tmp_path / "last.ckpt")


def test_text_and_adapter_make_the_whole(weights, tmp_path):
    save_file(text_part(weights), tmp_path / "smdm.safetensors")
    torch.save(adapter_part(weights), tmp_path / "stage1.pt")
    torch.save(weights, tmp_path / "stage2.pt")
    text, adapter, whole = (read_released(tmp_path / name) for name in ("smdm.safetensors", "stage1.pt", "stage2.pt"))
    merged = merge_released(text, adapter, None)
    assert merged.kind == WHOLE and list(merged.tensors) == list(weights)
    assert all(torch.equal(merged.tensors[name], tensor) for name, tensor in weights.items())
    assert merge_released(None, None, whole).sizes == merged.sizes == merge_released(text, adapter, whole).sizes
    torch.save(released_weights(VOCAB + 1), tmp_path / "stage2.pt")
    with pytest.raises(UserError, match=rf"the text network beside .*lm_head\.weight \({VOCAB}, .* \({VOCAB + 1}, "):
        merge_released(text, None, read_released(tmp_path / "stage2.pt"))
    other = dict(adapter_part(weights))
    for name in [name for name in other if ".h.1." in name]:
        del other[name]
    torch.save(other, tmp_path / "stage1.pt")
    with pytest.raises(UserError, match=r"4 missing: transformer\.h\.1\.norm_cross\.weight, trans"):
        merge_released(text, read_released(tmp_path / "stage1.pt"), None)


@pytest.mark.parametrize("part", [dict, text_part, adapter_part])
@pytest.mark.parametrize("fault", ["missing", "renamed", "transposed", "three at once"])
def test_every_fault_is_listed(weights, tmp_path, part, fault):
    table = dict(part(weights))
    name = f"transformer.h.1.{'mlp.swiglu.w1' if part is text_part else 'cross_attn.kv_proj'}.weight"
    tensor, wanted = table[name], []
    if fault in ("renamed", "three at once"):
        first = next(n for n in table if ".h.0.norm" in n)
        table["transformer.h.0.extra.weight"] = table.pop(first)
        wanted += [f"1 missing: {first}", "1 unexpected: transformer.h.0.extra.weight"]
    if fault == "missing":
        del table[name]
        wanted.append(f"1 missing: {name}")
    if fault in ("transposed", "three at once"):
        table[name] = tensor.T.contiguous()
        wanted.append(f"1 of another shape: {name} {tuple(tensor.T.shape)}, expected {tuple(tensor.shape)}")
    torch.save(table, tmp_path / "x.pt")
    with pytest.raises(UserError) as stop:
        read_released(tmp_path / "x.pt")
    assert all(words in str(stop.value) for words in wanted), stop.value
    assert "\n" not in str(stop.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, expected a table of tensors"),
        ({"a": torch.zeros(1), "b": "text"}, r"not a table of tensors: b \(str\)"),
        ({"decoder.embed.weight": torch.zeros(1)}, "neither Whisfusion nor SMDM: .*found decoder.embed.weight"),
        ({}, "found nothing"),
        ({"x": torch.zeros(1), "module._orig_mod.x": torch.zeros(1), "module.y": torch.zeros(1)},
         "holds a tensor twice: x and module._orig_mod.x; expected the weights of one network"),
    ],
)
def test_other_content(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UserError, match=message):
        read_released(tmp_path / "x.pt")


def test_what_has_no_place_in_the_released_layout(weights):
    with pytest.raises(UserError, match="the released layout has no place for ruler.end_state, adapters.0.key_bias"):
        to_released(to_ours(weights) | {"ruler.end_state": torch.zeros(1), "adapters.0.key_bias": torch.zeros(1)})
    ours = to_ours(weights)
    del ours["blocks.1.mlp.w2.weight"]
    with pytest.raises(UserError, match=r"1 missing: transformer\.h\.1\.mlp\.swiglu\.w2\.weight"):
        to_released(ours)
