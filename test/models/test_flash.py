"""FlashAttention in the place of SDPA: values, gradients, the choice between the two, and what the log says."""

import importlib
import logging
import sys
from types import SimpleNamespace

import flash_attn_by_formula
import pytest
import torch

from whisfusion_asr.errors import UserError
from whisfusion_asr.models import flash
from whisfusion_asr.models.adapter import Acoustics
from whisfusion_asr.models.attention import Fold, attend, attend_shared
from whisfusion_asr.models.causal_decoder import CausalDecoder
from whisfusion_asr.models.diffusion_decoder import DiffusionDecoder
from whisfusion_asr.models.flash import FlashAttention, Unpadded, choose_attention, why_not_flash

CUDA = torch.device("cuda:0")
LENGTHS, HOLES = [[9], [4], [1]], [[True, False, True], [False, False, True]]


def tensors(batch: int, slots: int, keys: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> list:
    """Queries, keys and values of 2 heads of 8, in the layout of `attend`, each wanting a gradient."""
    generator = torch.Generator().manual_seed(5)
    shapes = [(batch, 2, size, 8) for size in (slots, keys, keys)]
    return [torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for shape in shapes]


def both(inputs: list, key_mask: torch.Tensor | None, causal: bool, library: object) -> list[list[torch.Tensor]]:
    """Output and gradients, by SDPA and by flash_attn."""
    found = []
    for attention in (attend, FlashAttention(library, inputs[0].dtype)):
        out = attention(*inputs, key_mask, causal)
        found.append([out, *torch.autograd.grad(out.float().sin().sum(), inputs)])
    return found


def masks() -> list:
    return [None, torch.arange(9) < torch.tensor(LENGTHS), torch.ones(3, 9, dtype=torch.bool),
            torch.tensor(HOLES + [[True] * 3]).repeat_interleave(3, 1)]


@pytest.mark.parametrize("key_mask", masks(), ids=["all", "lengths", "nothing_masked", "holes"])
def test_values_and_gradients_of_both_are_the_same(key_mask):
    for ours, theirs in zip(*both(tensors(3, 5, 9), key_mask, False, flash_attn_by_formula), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_a_causal_row_too():
    for ours, theirs in zip(*both(tensors(2, 6, 6), None, True, flash_attn_by_formula), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rows", [[0, 0, 1, 1], [1, 0, 1]])
def test_candidates_share_the_keys_of_their_utterance(rows):
    query, key, value = tensors(len(rows), 5, 9)
    key, value, fold = key[:2], value[:2], Fold.of(torch.tensor(rows), 2)
    key_mask = torch.arange(9) < torch.tensor(LENGTHS[:2])
    ours, theirs = (attend_shared(query, key, value, key_mask, fold, attention)
                    for attention in (attend, FlashAttention(flash_attn_by_formula, torch.float32)))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_what_counts_of_a_batch():
    kept = Unpadded.of(torch.tensor([*HOLES, [True, True, True]]))
    assert (kept.index.tolist(), kept.starts.tolist(), kept.longest) == ([0, 2, 5, 6, 7, 8], [0, 2, 3, 6], 3)
    assert kept.starts.dtype == torch.int32


def test_a_mask_is_read_once_for_all_layers(monkeypatch):
    seen = []
    monkeypatch.setattr(Unpadded, "of", lambda mask, found=Unpadded.of: seen.append(mask) or found(mask))
    attention, inputs, key_mask = FlashAttention(flash_attn_by_formula, torch.float32), tensors(3, 5, 9), masks()[1]
    for _ in range(3):
        attention(*inputs, key_mask)
    assert len(seen) == 1


@pytest.fixture
def possible(monkeypatch):
    """flash_attn by the formula, and nothing that keeps it from running."""
    monkeypatch.setitem(sys.modules, "flash_attn", flash_attn_by_formula)
    monkeypatch.setattr(flash, "why_not_flash", lambda *_: None)
    monkeypatch.setattr(flash, "_told", set())
    monkeypatch.setattr(flash, "_used", {})


def decoders(kind: type, **settings: object) -> list[DiffusionDecoder]:
    """The same weights with either attention."""
    made = []
    for attention in ("sdpa", "flash"):
        torch.manual_seed(0)
        made.append(kind(11, 6, size=16, num_blocks=2, attention_heads=2, ffn_size=24, adapter_out_std=0.5,
                         attention=attention, **settings))
    return made


@pytest.mark.parametrize(("kind", "ruler"), [(DiffusionDecoder, "none"), (DiffusionDecoder, "ctc_count"),
                                             (CausalDecoder, "none")])
def test_a_decoder_gives_the_same_logits_and_gradients_with_either(possible, kind, ruler):
    torch.manual_seed(1)
    acoustics = Acoustics(torch.randn(2, 8, 6), torch.tensor([8, 5]), torch.rand(2, 8) * 4, torch.tensor([3, 2]))
    canvas, rows, lengths = torch.randint(0, 12, (3, 7)), torch.tensor([0, 1, 1]), torch.tensor([7, 4, 6])
    found = []
    for decoder in decoders(kind, ruler=ruler):
        memory = decoder.read(acoustics, torch.tensor([7, 6]))
        logits = decoder.logits(decoder.hidden(canvas, memory, rows, lengths))[torch.arange(7) < lengths[:, None]]
        found.append([logits, *torch.autograd.grad(logits.sin().sum(), list(decoder.parameters()))])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_steps_of_a_causal_decoder_too(possible):
    torch.manual_seed(1)
    acoustics, found = Acoustics(torch.randn(2, 8, 6), torch.tensor([8, 5])), []
    for decoder in decoders(CausalDecoder):
        memory, past, logits = decoder.read(acoustics, 4), None, []
        for tokens in torch.tensor([[11, 11], [3, 4], [5, 1]]):
            step, past = decoder.step(tokens, memory, past)
            logits.append(step)
        found.append(torch.stack(logits))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)


def test_inputs_are_cast_to_the_type_that_autocast_computes_in(possible):
    weight = torch.zeros(1)
    assert flash.working_type(weight) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert flash.working_type(weight) == torch.bfloat16
        query, key, value = tensors(2, 5, 9)
        out = choose_attention("auto", weight, 8)(query, key, value.to(torch.bfloat16))  # a ruler's keys stay fp32
    assert out.dtype == torch.bfloat16


def test_the_log_says_once_which_runs_and_why(possible, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    assert flash.used_attentions() == ()
    for _ in range(2):
        assert isinstance(choose_attention("auto", torch.zeros(1), 8), FlashAttention)
    assert flash.used_attentions() == ("flash_attn by formula",)
    monkeypatch.setattr(flash, "why_not_flash", why_not_flash)
    for _ in range(2):
        assert choose_attention("auto", torch.zeros(1), 8) is attend
    assert choose_attention("sdpa", torch.zeros(1), 8) is attend, "which needs no reason"
    assert caplog.messages == [
        "attention: flash_attn by formula in torch.float32 on cpu",
        "attention: torch's SDPA in torch.float32 on cpu; not flash_attn, since it runs on CUDA only, and this is cpu",
    ]
    assert flash.used_attentions() == ("flash_attn by formula", "torch SDPA")


def test_a_compiled_decoder_attends_by_sdpa_unless_flash_is_asked_for(possible, monkeypatch, caplog):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert choose_attention("auto", torch.zeros(1), 8) is attend
    assert isinstance(choose_attention("flash", torch.zeros(1), 8), FlashAttention)
    assert not caplog.messages and not flash.used_attentions(), "either would break the graph"


def test_the_passes_of_a_decoder_tell_what_they_attend_with(possible):
    decoder = DiffusionDecoder(11, size=16, num_blocks=1, attention_heads=2, ffn_size=24, attention="sdpa")
    decoder(torch.zeros(1, 4, dtype=torch.long))
    assert flash.used_attentions() == ("torch SDPA",)


def test_flash_refuses_to_run_as_something_else():
    decoder = DiffusionDecoder(11, size=16, num_blocks=1, attention_heads=2, ffn_size=24, attention="flash")
    with pytest.raises(UserError, match="attention: flash cannot run: it runs on CUDA only.*set attention: auto"):
        decoder(torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(UserError, match="decoder_conf.attention: 'flsh' is unknown; expected one of auto, sdpa, flash"):
        DiffusionDecoder(11, attention="flsh")


def test_what_keeps_flash_from_running(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    assert "float32 (training: use_amp: true, decoding: dtype)" in why_not_flash(CUDA, torch.float32, 64)
    assert "a head of 60 is not a multiple of 8 up to 256" in why_not_flash(CUDA, torch.bfloat16, 60)
    assert "a head of 264" in why_not_flash(CUDA, torch.bfloat16, 264)
    assert "this GPU has 7.5" in why_not_flash(CUDA, torch.bfloat16, 64)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert "not installed (pip install flash-attn" in why_not_flash(CUDA, torch.float16, 64)
    monkeypatch.setitem(sys.modules, "flash_attn", flash_attn_by_formula)
    assert why_not_flash(CUDA, torch.float16, 64) is None


@pytest.mark.parametrize(("error", "reason"), [
    (ImportError("undefined symbol:\n _ZN3c10"), "flash_attn does not import: undefined symbol: _ZN3c10"),
    (ModuleNotFoundError("No module named 'einops'", name="einops"), "flash_attn needs einops (pip install"),
])
def test_a_package_that_does_not_import_says_why(monkeypatch, error, reason):
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(flash, "importlib", SimpleNamespace(import_module=fail))
    assert flash.why_not_installed().startswith(reason)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available() or flash.why_not_installed() is not None,
                    reason="needs a CUDA device and the package flash_attn")
@pytest.mark.parametrize("key_mask", masks(), ids=["all", "lengths", "nothing_masked", "holes"])
def test_the_real_flash_attn_on_a_gpu(key_mask):
    inputs = tensors(3, 5, 9, "cuda", torch.bfloat16)
    library = importlib.import_module("flash_attn")
    for ours, theirs in zip(*both(inputs, None if key_mask is None else key_mask.cuda(), False, library), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=2e-2)
