"""The options of how a decoder runs: the plain decoder's answer but for rounding, and what is refused."""

import os
import shutil
from collections.abc import Callable

import pytest
import torch
from torch import nn

from whisfusion_asr.errors import UserError
from whisfusion_asr.models.adapter import Acoustics
from whisfusion_asr.models.causal_decoder import CausalDecoder
from whisfusion_asr.models.diffusion_decoder import DiffusionDecoder
from whisfusion_asr.models.running import Int8Linear, RunOptions, prepare
from whisfusion_asr.models.whisfusion import Predictor

VOCAB, WIDTH, FRAMES = 40, 16, 30


def decoder(kind: type[DiffusionDecoder] = DiffusionDecoder, device: str = "cpu") -> DiffusionDecoder:
    """The same random decoder in every call."""
    torch.manual_seed(0)
    return kind(VOCAB, WIDTH, 32, 2, 4, 48, adapter_out_std=0.3).to(device).eval()


@torch.no_grad()
def asked(network: DiffusionDecoder, slots: int = 9, rows: tuple[int, ...] = (0, 0, 1), frames: int = FRAMES,
          shorter: int = 2) -> torch.Tensor:
    """Logits of some slots of some rows of utterances, as the engine asks for them.

    shorter: by how many slots the last utterance's canvas is shorter than the others'
    """
    generator, others = torch.Generator().manual_seed(slots), max(rows)
    states = torch.randn(others + 1, frames, WIDTH, generator=generator)
    device = next(network.parameters()).device
    acoustics = Acoustics(states.to(device), torch.tensor([*[frames] * others, 20], device=device))
    canvas = torch.randint(0, VOCAB + 1, (len(rows), slots), generator=generator)
    lengths = torch.tensor([*[slots] * others, slots - shorter])
    predict = Predictor(network, network.read(acoustics, lengths), lengths)
    wanted = (canvas != 0) & (torch.arange(slots) < lengths[torch.tensor(rows)][:, None])
    return torch.cat(list(predict(canvas, torch.tensor(rows), wanted))).float().cpu()


def far(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Root mean square of the difference, relative to what is wanted."""
    return float((found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


@pytest.mark.parametrize(("options", "least", "most"), [
    (RunOptions(), 0.0, 0.0),
    (RunOptions("bfloat16"), 1e-4, 0.02),  # 8 bits of a number: 2^-9 in each product
    (RunOptions(quantize="int8"), 1e-4, 0.05),  # half of one of 127 steps
])
def test_the_answer_differs_by_rounding_only(options, least, most):
    wanted = asked(decoder())
    found = asked(prepare(decoder(), options))
    assert least <= far(found, wanted) <= most


def test_only_matrix_products_are_in_the_type():
    network = prepare(decoder(), RunOptions("bfloat16"))
    kinds = {name: parameter.dtype for name, parameter in network.named_parameters()}
    assert kinds["blocks.0.mlp.w1.weight"] == kinds["head.weight"] == torch.bfloat16
    assert kinds["embed.weight"] == kinds["blocks.0.norm_1.weight"] == torch.float32
    seen = []
    network.norm.register_forward_hook(lambda _, given, out: seen.extend([given[0].dtype, out.dtype]))
    asked(network)
    assert seen == [torch.float32, torch.float32], "the sum of the layers is float32"
    assert not torch.is_autocast_enabled("cpu")


def test_the_causal_decoder_takes_the_type_too():
    plain, half = decoder(CausalDecoder), prepare(decoder(CausalDecoder), RunOptions("bfloat16"))
    memory = [one.read(Acoustics(torch.ones(1, 3, WIDTH), torch.tensor([3])), 4) for one in (plain, half)]
    assert memory[1].keys[0].dtype == torch.bfloat16
    with torch.no_grad():
        (wanted, _), (found, past) = (one.step(torch.tensor([5]), m) for one, m in zip((plain, half), memory,
                                                                                       strict=True))
        assert 1e-4 < far(found.float(), wanted) < 0.02 and past[0][0].dtype == torch.bfloat16
        half(torch.tensor([[5]]), memory[1])
    assert not torch.is_autocast_enabled("cpu")


def test_int8_by_hand():
    linear = nn.Linear(2, 2)
    linear.weight.data = torch.tensor([[127.0, 1.4], [0.0, -254.0]])
    linear.bias.data = torch.tensor([0.0, 10.0])
    found = Int8Linear(linear.weight, linear.bias)(torch.tensor([[[1.27, 0.014], [0.0, 0.0]]]))
    # Weights: scales 1 and 2, integers (127, 1) and (0, -127). The row: scale 0.01, integers (127, 1).
    assert found.tolist() == [[pytest.approx([0.01 * (127 * 127 + 1), 0.01 * 2 * -127 + 10]), [0.0, 10.0]]]


def test_an_int8_row_does_not_depend_on_the_others():
    linear = nn.Linear(24, 7)
    layer = Int8Linear(linear.weight, linear.bias)
    rows = torch.randn(5, 24) * torch.tensor([[1.0], [100.0], [0.01], [3.0], [0.0]])
    together = layer(rows)
    assert all(torch.equal(layer(row[None])[0], found) for row, found in zip(rows, together, strict=True))


def test_compiled_is_the_same_for_any_shape():
    """Traced, but not compiled: what dynamo makes of the decoder needs no compiler."""
    plain, traced = decoder(), prepare(decoder(), RunOptions(compile="default"), backend="eager")
    for slots, rows in ((9, (0, 0, 1)), (12, (1, 0, 1, 0)), (5, (0, 1))):
        assert torch.allclose(asked(traced, slots, rows), asked(plain, slots, rows), atol=1e-5)
    half = prepare(decoder(), RunOptions("bfloat16", compile="default"), backend="eager")
    assert 1e-4 < far(asked(half), asked(plain)) < 0.02


def test_a_compiled_decoder_never_runs_uncompiled():
    """Whatever rows, utterances, slots and frames come together, a few variants are made, not more than are kept."""
    torch._dynamo.reset()
    graphs: list[torch.fx.GraphModule] = []

    def counting(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    plain, traced = decoder(), prepare(decoder(), RunOptions(compile="default"), backend=counting)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True, recompile_limit=6):
        for slots, frames, shorter in ((9, 30, 2), (12, 21, 0)):
            for rows in ((0,), (0, 0, 0), (0, 1), (1, 0), (0, 0, 1, 1), (0, 1, 1), (2, 0, 1, 2, 1)):
                found, wanted = (asked(one, slots, rows, frames, shorter) for one in (traced, plain))
                assert torch.allclose(found, wanted, atol=1e-5)
    assert 1 < len(graphs) <= 6


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.skipif("WHISFUSION_SLOW" not in os.environ, reason="compiles for half a minute: set WHISFUSION_SLOW=1")
def test_inductor():
    found = asked(prepare(decoder(), RunOptions(compile="default")))
    assert torch.allclose(found, asked(decoder()), atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("options", [
    RunOptions("bfloat16"), RunOptions("float16"), RunOptions("bfloat16", compile="reduce-overhead"),
])
def test_on_a_gpu(options):
    wanted, network = asked(decoder()), prepare(decoder(device="cuda"), options)
    assert max(far(asked(network), wanted) for _ in range(4)) < 0.02, "the later calls replay a CUDA graph"


def refused(make: Callable[[], object], message: str) -> None:
    """Assert that a UserError says so."""
    with pytest.raises(UserError, match=message):
        make()


def test_what_cannot_be_is_refused(monkeypatch):
    refused(lambda: RunOptions("float64"), "dtype: 'float64' is unknown; choose one of float32, bfloat16, float16")
    refused(lambda: RunOptions(quantize="int4"), "quantize: 'int4' is unknown; choose one of int8")
    refused(lambda: RunOptions("bfloat16", "int8"), "quantize: int8 takes the place of dtype bfloat16")
    refused(lambda: prepare(None, RunOptions("bfloat16")), "this model has none: leave them out")
    refused(lambda: prepare(decoder(), RunOptions("float16")), "float16 needs a CUDA device")
    refused(lambda: prepare(decoder(), RunOptions(compile="reduce-overhead")), "records CUDA graphs, which cpu has not")
    refused(lambda: RunOptions(quantize="int8").check_device(torch.device("cuda")), "runs on a CPU only, not on cuda")
    monkeypatch.setenv("CXX", "no-such-compiler")
    refused(lambda: prepare(decoder(), RunOptions(compile="default")), "a C.. compiler, and no-such-compiler is not")


def test_a_compiler_that_fails_is_one_line():
    def broken(*_: object) -> None:
        raise RuntimeError("no Python.h")

    network = prepare(decoder(), RunOptions(compile="default"), backend=broken)
    refused(lambda: asked(network), "torch could not compile the decoder .*; leave compile out")
