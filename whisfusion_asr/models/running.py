"""How a network runs: the number type of its matrix products, 8-bit weights, torch.compile: rounding, and the speed."""

import os
import shutil
from dataclasses import dataclass, replace
from functools import wraps
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whisfusion_asr.errors import UserError
from whisfusion_asr.models.adapter import Memory
from whisfusion_asr.models.attention import Fold
from whisfusion_asr.models.whisper_decoder import WhisperDiffusionDecoder

DTYPES = ("float32", "bfloat16", "float16")
COMPILE_MODES = ("default", "reduce-overhead")
# The methods of a CanvasDecoder, of a causal one and of a CTC head that compute something; `forward` is made of them.
METHODS = ("read", "hidden", "hidden_before", "logits", "step", "scores")
VARIANTS = 64  # of compiled decoders: 6 of one on a CPU, for each number type
# A CUDA graph is of one shape: so many frames come together that few shapes occur.
GRAPH_FRAMES = 128


@dataclass(frozen=True)
class RunOptions:
    """How a decoder runs, and the head that drafts for it. What becomes of logits (softmax, log-sum-exp, entropy,
    confidence) is always float32.

    dtype: of matrix products and attention; sums of layers and norms stay float32. float16 needs CUDA
    quantize: "int8": linear layers multiply 8-bit integers, weights with a scale for each output, inputs with one for
        each row found as they come, so that no row depends on another. CPU only, in the place of a dtype
    compile: mode of torch.compile, which takes a minute at first. "default" compiles for all lengths at once, once for
        each way in which rows can share utterances. "reduce-overhead" replays CUDA graphs, one for each number of rows,
        slots and frames: let canvas_conf.multiple keep the lengths few
    """

    dtype: str = "float32"
    quantize: str | None = None
    compile: str | None = None

    def __post_init__(self) -> None:
        for name, known in (("dtype", DTYPES), ("quantize", (None, "int8")), ("compile", (None, *COMPILE_MODES))):
            if getattr(self, name) not in known:
                choices = ", ".join(choice for choice in known if choice)
                raise UserError(f"{name}: {getattr(self, name)!r} is unknown; choose one of {choices}")
        if self.quantize and self.dtype != "float32":
            raise UserError(f"quantize: int8 takes the place of dtype {self.dtype}; leave one of the two out")

    def check_device(self, device: torch.device) -> None:
        """Raise UserError for what this kind of device cannot do."""
        if self.dtype == "float16" and device.type == "cpu":
            raise UserError("dtype: float16 needs a CUDA device; a CPU takes float32 or bfloat16")
        if self.quantize and device.type != "cpu":
            raise UserError(f"quantize: int8 runs on a CPU only, not on {device}; take dtype bfloat16 there")
        if self.compile == "reduce-overhead" and device.type != "cuda":
            raise UserError(f"compile: reduce-overhead records CUDA graphs, which {device} has not; take default")


def prepare(decoder: nn.Module | None, options: RunOptions, backend: str = "inductor") -> nn.Module:
    """Let a decoder (a CanvasDecoder, the causal one, a CTC head) run as the options say. It is changed in place, and
    returned.

    The result is for decoding: its linear layers hold their weights in the asked type. backend: of torch.compile
    Raises UserError: no decoder, an option that its device cannot follow, no compiler for torch.compile.
    """
    if decoder is None:
        raise UserError("dtype, quantize and compile say how a decoder runs, and this model has none: leave them out")
    device = next(decoder.parameters()).device
    options.check_device(device)
    if options.quantize:
        _quantize(decoder)
    if options.compile:
        if backend == "inductor":
            _check_compiler(device)
        _compile(decoder, options.compile, backend)
    if options.dtype != "float32":  # last: autocast around what is compiled, not in it
        _use_dtype(decoder, device, getattr(torch, options.dtype))
    return decoder


class Int8Linear(nn.Module):
    """A linear layer on 8-bit integers: y = (q_x @ q_w) * s_x * s_w + b, q = round(value / s), s = largest / 127."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight: (O, I); bias: (O,), as those of nn.Linear."""
        super().__init__()
        weight = weight.detach()
        scale = _scale(weight)
        self.register_buffer("weight", (weight / scale).round().to(torch.int8).t())  # (I, O)
        self.register_buffer("scale", scale.squeeze(1))
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., I) float32. Returns (..., O)."""
        rows = x.flatten(0, -2)
        scale = _scale(rows)
        product = torch._int_mm((rows / scale).round_().to(torch.int8), self.weight)
        out = product.float().mul_(scale).mul_(self.scale)
        return (out if self.bias is None else out + self.bias).unflatten(0, x.shape[:-1])


def _scale(table: Tensor) -> Tensor:
    """(R, I) -> (R, 1): what 1 of 127 steps is worth in each row. A row of zeros has any."""
    return table.abs().amax(1, keepdim=True).clamp(min=1e-30) / 127


def _quantize(module: nn.Module) -> None:
    """Put 8-bit layers in the place of all linear ones in a module, and a `head` beside token tables that are one."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child.weight, child.bias))
        else:
            _quantize(child)
    if isinstance(module, WhisperDiffusionDecoder):
        module.head = Int8Linear(module.embed.weight, module.head_bias)


def _use_dtype(decoder: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    for module in decoder.modules():
        if isinstance(module, nn.Linear):
            module.to(dtype)  # autocast would do it again in every call
    for name in METHODS:
        if hasattr(decoder, name):  # a context of its own for each: one that is entered twice forgets how to leave
            setattr(decoder, name, torch.autocast(device.type, dtype)(getattr(decoder, name)))


def _compile(decoder: nn.Module, mode: str, backend: str) -> None:
    if getattr(decoder, "attention", None) == "auto":
        decoder.attention = "sdpa"  # which can be traced; flash_attn asks the masks
    modes = {} if backend != "inductor" else {"mode": mode}
    # Beyond its limit, which counts the variants of all decoders of a process, torch runs a decoder uncompiled.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    compiled = torch.compile(decoder.hidden, dynamic=True, backend=backend, **modes)
    failures = torch._dynamo.exc.BackendCompilerFailed

    @wraps(decoder.hidden)
    def hidden(canvas: Tensor, memory: Memory | None = None, rows: Tensor | None = None,
               lengths: Tensor | None = None) -> Tensor:
        # What depends on the rows' values stays outside, and a mask is always there: a few variants serve all shapes.
        fold = None if rows is None or memory is None else Fold.of(rows, len(memory.key_mask)).to(canvas.device)
        if lengths is None and canvas.device.type == "cpu":  # but not on a GPU, whose attention is faster without
            lengths = torch.full((len(canvas),), canvas.size(1))
        try:
            return compiled(canvas, memory, fold, lengths)
        except failures as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"compile: torch could not compile the decoder ({reason}); leave compile out") from error

    if mode == "reduce-overhead":
        read = decoder.read
        decoder.read = wraps(read)(lambda *args: _rounded(read(*args)))
    decoder.hidden = hidden


def _rounded(memory: Memory | None) -> Memory | None:
    """The memory with a multiple of GRAPH_FRAMES frames, what is added being masked."""
    if memory is None:
        return None
    more = -memory.key_mask.size(1) % GRAPH_FRAMES
    keys, values = ([F.pad(table, (0, 0, 0, more)) for table in tables] for tables in (memory.keys, memory.values))
    return replace(memory, keys=keys, values=values, key_mask=F.pad(memory.key_mask, (0, more)))


def _check_compiler(device: torch.device) -> None:
    """Raise UserError where torch.compile would fail for want of a tool."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UserError(f"compile: torch.compile needs a C++ compiler, and {compiler} is not there; install one, "
                        "name it in CXX, or leave compile out")
    if device.type == "cuda" and find_spec("triton") is None:
        raise UserError("compile: torch.compile needs triton on a CUDA device; install it, or leave compile out")
