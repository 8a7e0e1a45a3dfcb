"""Frozen parts: they stay in evaluation mode and out of the checkpoints."""

from collections.abc import Sequence
from types import MethodType

from torch import nn

from whisfusion_asr.errors import UserError


def under(name: str, prefix: str) -> bool:
    """Whether `prefix` is empty, the name itself or one of its parents."""
    return not prefix or name == prefix or name.startswith(f"{prefix}.")


def check_patterns(model: nn.Module, patterns: Sequence[str], option: str = "freeze_param") -> None:
    """Raise UserError for a pattern that is neither a parameter's name nor a prefix of one, with names that exist."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not pattern or not any(under(name, pattern) for name in names):
            depth = pattern.count(".") + 1
            known = list(dict.fromkeys(".".join(name.split(".")[:depth]) for name in names))
            listed = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
            raise UserError(f"{option}: {pattern!r} matches no parameter; there are {listed}")


def frozen_roots(model: nn.Module) -> list[str]:
    """Names of the topmost modules that have parameters, all of them frozen."""
    roots: list[str] = []
    for name, module in model.named_modules():
        parameters = list(module.parameters())
        inside = any(name.startswith(f"{root}.") for root in roots)
        if name and parameters and not inside and not any(p.requires_grad for p in parameters):
            roots.append(name)
    return roots


def frozen_names(model: nn.Module) -> set[str]:
    """Names of all frozen parameters, and of the buffers inside wholly frozen modules."""
    names = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    for root in frozen_roots(model):
        names.update(f"{root}.{name}" for name, _ in model.get_submodule(root).named_buffers())
    return names


def ready_made(model: nn.Module) -> set[str]:
    """Names of the parameters and buffers of modules that bring their weights with them (Whisper's encoder does).

    Such a module says so by an attribute `brings_weights`; neither init_param nor a checkpoint has to hold them.
    """
    roots = [name for name, module in model.named_modules() if getattr(module, "brings_weights", False)]
    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    return {name for name in names if any(name.startswith(f"{root}.") for root in roots)}


def hold_frozen(model: nn.Module) -> None:
    """Keep what is frozen now (requires_grad False) in evaluation mode, and leave it out of state dicts.

    Dropout would otherwise act in a frozen part, and batch norm's running statistics would drift. A state dict
    without the frozen names is accepted back by `load_state_dict(strict=True)`.
    """
    for root in frozen_roots(model):
        module = model.get_submodule(root)
        module.eval()
        module.train = MethodType(_stay_in_evaluation, module)
    hidden = frozen_names(model)
    if not hidden:
        return

    def leave_out(module: nn.Module, state: dict, prefix: str, metadata: dict) -> None:
        for name in hidden:
            state.pop(prefix + name, None)

    def forgive(module: nn.Module, incompatible: nn.modules.module._IncompatibleKeys) -> None:
        incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if key not in hidden]

    model.register_state_dict_post_hook(leave_out)
    model.register_load_state_dict_post_hook(forgive)


def _stay_in_evaluation(module: nn.Module, mode: bool = True) -> nn.Module:
    return nn.Module.train(module, False)
