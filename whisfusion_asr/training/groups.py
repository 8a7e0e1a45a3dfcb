"""Parameter groups: layer-wise learning rates of the decoder, no decay for vectors and embeddings, Muon's matrices."""

import inspect
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from whisfusion_asr.config import flat
from whisfusion_asr.errors import UserError
from whisfusion_asr.training.freeze import check_patterns, under
from whisfusion_asr.training.muon import Muon

DECODER_BLOCK = re.compile(r"^decoder\.(?:causal_layers\.)?blocks\.(\d+)\.")
# Matrices inside repeated layers, whatever their list is called here, in ESPnet's and in Whisper's encoders.
REPEATED_LAYER = re.compile(r"(^|\.)(blocks|adapters|layers|encoders|decoders)\.\d+\.")
# What the released code calls `wte` and `ln_f`, neither of which contains "norm" or "bias".
RELEASED_DECAYED = {"decoder.embed.weight", "decoder.norm.weight"}
MUON_RATIO = 6.0  # of Muon's to AdamW's learning rate; 6 to 7 in every configuration that worked


@dataclass(frozen=True)
class GroupRule:
    """The keys of optim_conf that make groups; the others go to the optimiser.

    layer_decay: rate r of layer-wise decay. Decoder block i of n learns at r^(n-1-i) of the rate, the embedding at
        r^n; adapters, ruler, encoder and CTC head at the full rate.
    layer_decay_from: "top" as above (released code, the paper's Appendix B), or "bottom" the other way round, as the
        paper's body words it: block i at r^i, the embedding at the full rate.
    llrd_head: "lowest" gives the output head and the last norm r^n (as published), "base" the full rate.
    lr_of: factors of the rate for parts by their names, as {decoder.causal_layers: 0.3}, on top of layer_decay.
    decayed: "matrices" (no weight decay for vectors and embeddings), or "released": as the released stage-2 code, whose
        test of names lets the embedding and the last norm decay too.
    muon_lr: rate of Muon's matrices, 6 lr if absent.
    muon_weight_decay: decay of Muon's matrices. Its steps have a fixed size, so none is needed to bound them.
    """

    layer_decay: float = 1.0
    layer_decay_from: str = "top"
    llrd_head: str = "lowest"
    lr_of: Mapping[str, Any] = field(default_factory=dict)
    decayed: str = "matrices"
    muon_lr: float | None = None
    muon_weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.layer_decay <= 1.0:
            raise UserError(f"optim_conf.layer_decay: expected a rate in (0, 1], got {self.layer_decay}")
        known = {"layer_decay_from": ("top", "bottom"), "llrd_head": ("lowest", "base"),
                 "decayed": ("matrices", "released")}
        for key, values in known.items():
            if getattr(self, key) not in values:
                raise UserError(f"optim_conf.{key}: {getattr(self, key)!r} is unknown; expected {' or '.join(values)}")
        for part, factor in flat(dict(self.lr_of)).items():
            if not isinstance(factor, int | float) or not factor > 0:
                raise UserError(f"optim_conf.lr_of.{part}: {factor!r} is no factor of a rate; give one above 0")

    def factor(self, name: str, blocks: int) -> float:
        """Share of the learning rate for the parameter `name` of a decoder with `blocks` blocks."""
        own = math.prod(factor for part, factor in flat(dict(self.lr_of)).items() if under(name, part))
        return own * self._by_layer(name, blocks)

    def _by_layer(self, name: str, blocks: int) -> float:
        from_top = self.layer_decay_from == "top"
        if match := DECODER_BLOCK.match(name):
            index = int(match.group(1))
            return self.layer_decay ** (blocks - 1 - index if from_top else index)
        lowest = name.startswith("decoder.embed.") and from_top
        if self.llrd_head == "lowest":
            lowest = lowest or name.startswith(("decoder.norm.", "decoder.causal_layers.norm.", "decoder.head."))
        return self.layer_decay**blocks if lowest else 1.0


def undecayed_names(model: nn.Module) -> set[str]:
    """Names of the parameters without weight decay: vectors, biases, embeddings and those marked `_no_weight_decay`."""
    names = {f"{name}.{leaf}".lstrip(".") for name, module in model.named_modules() if isinstance(module, nn.Embedding)
             for leaf, _ in module.named_parameters(recurse=False)}
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or "bias" in name.rsplit(".", 1)[-1] or getattr(parameter, "_no_weight_decay", False):
            names.add(name)
    return names


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float, rule: GroupRule, muon: bool = False
) -> list[dict[str, Any]]:
    """Groups of the trainable parameters, ready for an optimiser; equal (rate, decay, kind) share one.

    Each has `params`, `lr`, `weight_decay`, with muon also `muon`. The first has the full rate, and their order
    depends on the configuration only, so that a saved optimiser finds its groups again.
    Raises UserError when nothing is trainable, or a part with a rate of its own is none of the model's.
    """
    undecayed = undecayed_names(model)
    spared = undecayed - (RELEASED_DECAYED if rule.decayed == "released" else set())
    check_patterns(model, list(flat(dict(rule.lr_of))), "optim_conf.lr_of")
    indices = [int(match.group(1)) for name, _ in model.named_parameters() if (match := DECODER_BLOCK.match(name))]
    blocks = max(indices, default=-1) + 1
    muon_lr = rule.muon_lr if rule.muon_lr is not None else MUON_RATIO * lr
    members: dict[tuple[float, bool, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        matrix = muon and parameter.dim() == 2 and name not in undecayed and bool(REPEATED_LAYER.search(name))
        members.setdefault((rule.factor(name, blocks), matrix, name not in spared), []).append(parameter)
    if not members:
        raise UserError("every parameter is frozen: freeze_param leaves nothing to train")
    groups = []
    for (factor, matrix, decays), parameters in sorted(members.items(), key=lambda item: item[0], reverse=True):
        decay = (rule.muon_weight_decay if matrix else weight_decay) if decays else 0.0
        group = {"params": parameters, "lr": (muon_lr if matrix else lr) * factor, "weight_decay": decay}
        groups.append({**group, "muon": matrix} if muon else group)
    return groups


def build_optimizer(optim_class: type, conf: Mapping[str, Any], model: nn.Module) -> torch.optim.Optimizer:
    """Optimiser over `parameter_groups`, from optim_conf (the keys of GroupRule and those of the optimiser).

    Raises UserError for a key that neither knows.
    """
    own = {item.name for item in fields(GroupRule)}
    if optim_class is not Muon:
        own = {name for name in own if not name.startswith("muon")}
    accepted = inspect.signature(optim_class).parameters
    unknown = sorted(set(conf) - own - set(accepted))
    if unknown:
        known = ", ".join(sorted(own | set(accepted) - {"params"}))
        raise UserError(f"optim_conf: unknown key {', '.join(unknown)} for {optim_class.__name__}; it knows {known}")
    rest = {key: value for key, value in conf.items() if key not in own}
    defaults = {key: conf.get(key, accepted[key].default) for key in ("lr", "weight_decay") if key in accepted}
    rule = GroupRule(**{key: value for key, value in conf.items() if key in own})
    groups = parameter_groups(model, defaults["lr"], defaults.get("weight_decay", 0.0), rule, optim_class is Muon)
    return optim_class(groups, **rest)


def inventory(model: nn.Module) -> Iterator[tuple[str, int, int]]:
    """(part, trainable, frozen) parameter counts: encoder, ctc, and the parts of the decoder one by one."""
    counts: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        depth = 2 if name.startswith("decoder.") else 1
        part = ".".join(name.split(".")[:depth])
        counts.setdefault(part, [0, 0])[0 if parameter.requires_grad else 1] += parameter.numel()
    for part, (trainable, frozen) in counts.items():
        yield part, trainable, frozen
