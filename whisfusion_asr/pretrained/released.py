"""Weights of the released Whisfusion and SMDM networks: their names and shapes, into our decoder and back.

Files: SMDM's safetensors (the text network alone), the stage-1 adapter, the stage-2 network with both, and the
training checkpoints that hold the whole network under `model`. What a file is, is told by its content.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from whisfusion_asr.errors import UserError
from whisfusion_asr.pretrained.keys import check_shapes
from whisfusion_asr.pretrained.weight_files import read_content

HEAD_SIZE = 64  # of every released network
TEXT, ADAPTER, WHOLE = "text network", "adapter", "whole network"
WRAPPERS = ("model", "state_dict", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.", "_forward_module.")  # left by DDP, torch.compile and Lightning Fabric
TOP = {"lm_head": "head", "transformer.wte": "embed", "transformer.ln_f": "norm"}
# A block in the order of the released state dict: their part, our list of blocks and part.
BLOCK = {
    "norm_1": ("blocks", "norm_1"), "attn.attn": ("blocks", "attn.qkv"), "attn.proj": ("blocks", "attn.out"),
    "norm_cross": ("adapters", "norm"), "cross_attn.q_proj": ("adapters", "q_proj"),
    "cross_attn.kv_proj": ("adapters", "kv_proj"), "cross_attn.proj": ("adapters", "out_proj"),
    "norm_2": ("blocks", "norm_2"), "mlp.swiglu.w1": ("blocks", "mlp.w1"), "mlp.swiglu.w2": ("blocks", "mlp.w2"),
    "mlp.swiglu.w3": ("blocks", "mlp.w3"),
}  # fmt: skip


@dataclass(frozen=True)
class DecoderSizes:
    """V, D, blocks, hidden width of the feed-forward, width of the encoder states (None without an adapter)."""

    vocab: int
    width: int
    blocks: int
    ffn: int
    states: int | None

    def shapes(self, kind: str = WHOLE) -> dict[str, tuple[int, ...]]:
        """Released name -> shape of a kind of file, in the order of a released state dict."""
        d, states = self.width, self.states or 0
        table = {
            "norm_1": (d,), "attn.attn": (3 * d, d), "attn.proj": (d, d), "norm_cross": (d,),
            "cross_attn.q_proj": (d, d), "cross_attn.kv_proj": (2 * d, states), "cross_attn.proj": (d, d),
            "norm_2": (d,), "mlp.swiglu.w1": (self.ffn, d), "mlp.swiglu.w2": (self.ffn, d),
            "mlp.swiglu.w3": (d, self.ffn),
        }  # fmt: skip
        shapes: dict[str, tuple[int, ...]] = {}
        if kind != ADAPTER:
            shapes |= {"lm_head.weight": (self.vocab, d), "transformer.wte.weight": (self.vocab + 1, d)}
        for i in range(self.blocks):
            for part, shape in table.items():
                if kind == WHOLE or (kind == ADAPTER) == (BLOCK[part][0] == "adapters"):
                    shapes[f"transformer.h.{i}.{part}.weight"] = shape
        return shapes if kind == ADAPTER else shapes | {"transformer.ln_f.weight": (d,)}


@dataclass(frozen=True)
class Released:
    """What a file holds: tensors under released names, its kind, its sizes, and a word on averaged weights."""

    tensors: dict[str, Tensor]
    kind: str
    sizes: DecoderSizes
    averaged: str = ""

    @property
    def dtypes(self) -> str:
        """Number types of the tensors, for people."""
        return ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in self.tensors.values()}))


def read_released(path: str | Path, averages: bool = True) -> Released:
    """Read a released file or a training checkpoint; every name and shape is checked.

    averages: take the moving averages of a checkpoint that holds them (what its validation was made with)
    raises UserError: a file that cannot be read, or is not what one of the released files is, with all its faults
    """
    tensors, averaged = _unwrap(str(path), read_content(path), averages)
    kind, sizes = _recognise(str(path), tensors)
    check_shapes(f"{path} ({kind})", sizes.shapes(kind), tensors)
    return Released(tensors, kind, sizes, averaged)


def to_ours(released: Mapping[str, Tensor], head_size: int = HEAD_SIZE) -> dict[str, Tensor]:
    """Released names to those of our DiffusionDecoder, without copying what stays as it is.

    head_size: width of a head. Rows of their packed attention stand per head as q, k, v; ours as whole q, k, v.
    """
    ours = {}
    for name, tensor in released.items():
        target = _our_name(name)
        if target.endswith("attn.qkv.weight"):
            width = tensor.size(1)
            tensor = tensor.view(-1, 3, head_size, width).transpose(0, 1).reshape(3 * width, width)
        ours[target] = tensor
    return ours


def to_released(ours: Mapping[str, Tensor], head_size: int = HEAD_SIZE) -> dict[str, Tensor]:
    """The way back: weights of a DiffusionDecoder under released names, in the order of a released state dict.

    raises UserError: tensors that no released network has (a position ruler, for example), or such that are missing
    """
    names = {_our_name(name): name for name in _released_names(ours)}
    unknown = [name for name in ours if name not in names]
    if unknown:
        raise UserError(f"the released layout has no place for {', '.join(unknown)}")
    released = {}
    for target, name in names.items():
        tensor = ours.get(target)
        if tensor is not None:
            if target.endswith("attn.qkv.weight"):
                width = tensor.size(1)
                tensor = tensor.view(3, -1, head_size, width).transpose(0, 1).reshape(3 * width, width)
            released[name] = tensor
    kind, sizes = _recognise("the decoder", released)
    check_shapes(f"the decoder as {kind}", sizes.shapes(kind), released)
    return released


def _released_names(ours: Mapping[str, Tensor]) -> list[str]:
    blocks = 1 + max((int(match[1]) for name in ours if (match := re.match(r"\w+\.(\d+)\.", name))), default=-1)
    inner = [f"transformer.h.{i}.{part}.weight" for i in range(blocks) for part in BLOCK]
    return ["lm_head.weight", "transformer.wte.weight", *inner, "transformer.ln_f.weight"]


def _our_name(released: str) -> str:
    if match := re.fullmatch(r"transformer\.h\.(\d+)\.(.+)\.weight", released):
        part, inner = BLOCK[match[2]]
        return f"{part}.{match[1]}.{inner}.weight"
    return f"{TOP[released.removesuffix('.weight')]}.weight"


def _unwrap(where: str, content: Any, averages: bool) -> tuple[dict[str, Tensor], str]:
    """The table of tensors inside a checkpoint, under names without a wrapper's prefix."""
    if not isinstance(content, dict):
        raise UserError(f"{where}: holds a {type(content).__name__}, expected a table of tensors")
    wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), dict)), None)
    table = content if wrapper is None else content[wrapper]
    strange = [f"{name} ({type(value).__name__})" for name, value in table.items() if not isinstance(value, Tensor)]
    if strange:
        raise UserError(f"{where}: not a table of tensors: {', '.join(strange)}")
    tensors = _under_bare_names(where, table)
    ema = content.get("ema") if wrapper else None
    if not averages or not isinstance(ema, dict) or "shadow_params" not in ema:
        return tensors, ""
    shadows = ema["shadow_params"]  # torch_ema: a list in the order of the parameters, which is that of the names
    shapes = [tensor.shape for tensor in tensors.values()]
    if [shadow.shape for shadow in shadows] != shapes:
        raise UserError(f"{where}: its {len(shadows)} averaged weights do not match its {len(shapes)} tensors")
    return dict(zip(tensors, shadows, strict=True)), f"moving averages of {ema.get('num_updates')} steps"


def _under_bare_names(where: str, table: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names: dict[str, list[str]] = {}
    for name in table:
        names.setdefault(_bare(name), []).append(name)
    double = [" and ".join(same) for same in names.values() if len(same) > 1]
    if double:
        raise UserError(f"{where}: holds a tensor twice: {', '.join(double)}; expected the weights of one network")
    return {bare: table[name] for bare, (name,) in names.items()}


def _bare(name: str) -> str:
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), ""):
        name = name.removeprefix(prefix)
    return name


def _recognise(where: str, tensors: Mapping[str, Tensor]) -> tuple[str, DecoderSizes]:
    """Kind and sizes by names and shapes; a tensor that is missing or odd is left to the comparison."""
    inner = [match for name in tensors if (match := re.fullmatch(r"transformer\.h\.(\d+)\.(.+)\.weight", name))]
    parts = {match[2] for match in inner}
    text = "transformer.wte.weight" in tensors or "attn.attn" in parts
    adapter = any(part in parts for part, (ours, _) in BLOCK.items() if ours == "adapters")
    if not inner or not (text or adapter):
        some = ", ".join(list(tensors)[:3])
        raise UserError(f"{where}: neither Whisfusion nor SMDM: expected names like transformer.h.0.norm_1.weight, "
                        f"found {some or 'nothing'}")  # fmt: skip

    def dim(part: str, axis: int) -> int:
        found = [tensors[m[0]] for m in inner if m[2] == part and tensors[m[0]].ndim > axis]
        return found[0].size(axis) if found else 0

    width = dim("norm_1", 0) or dim("norm_cross", 0)
    head = tensors.get("lm_head.weight")
    sizes = DecoderSizes(
        vocab=0 if head is None else head.size(0),
        width=width,
        blocks=1 + max(int(match[1]) for match in inner),
        ffn=dim("mlp.swiglu.w1", 0),
        states=dim("cross_attn.kv_proj", 1) or None,
    )
    return WHOLE if text and adapter else TEXT if text else ADAPTER, sizes


def merge_released(text: Released | None, adapter: Released | None, whole: Released | None) -> Released:
    """One network of the files given; what a later stage holds replaces what an earlier one held.

    text: SMDM; adapter: stage 1, alone or as a whole checkpoint; whole: stage 2
    raises UserError: files of different sizes, or no whole network in sum
    """
    given = [part for part in (text, adapter, whole) if part is not None]
    tensors: dict[str, Tensor] = {}
    for part in given:
        tensors |= part.tensors
    kind, sizes = _recognise("the files together", tensors)
    expected = sizes.shapes(kind)
    for part in given:  # also those that a later file replaces: another size is another network
        own = {name: shape for name, shape in expected.items() if name in part.tensors}
        check_shapes(f"the {part.kind} beside the other files", own, part.tensors)
    check_shapes(f"the files together ({kind})", expected, tensors)
    return Released({name: tensors[name] for name in expected}, kind, sizes, given[-1].averaged)


def check_kind(path: str | Path, option: str, found: Released, wanted: tuple[str, ...]) -> None:
    """Raise UserError when a file holds another part of the network than the option stands for."""
    if found.kind not in wanted:
        home = {TEXT: "--smdm", ADAPTER: "--stage1", WHOLE: "--stage2"}[found.kind]
        raise UserError(f"{option} {path}: holds the {found.kind} ({len(found.tensors)} tensors): give it with {home}")
