"""FlashAttention where it is installed and fits, torch's scaled_dot_product_attention everywhere else.

A decoder's option `attention` chooses: `auto` takes flash_attn when it can run, `sdpa` never, `flash` refuses to run
without it. The log says once which of the two runs, and why not the other; `used_attentions` tells it afterwards. In a
compiled decoder `auto` is SDPA: the lengths that flash_attn wants would be read from the device in the middle of the
graph.
"""

import importlib
import logging
from dataclasses import dataclass
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from whisfusion_asr.errors import UserError
from whisfusion_asr.models.attention import Attend, attend

ATTENTIONS = ("auto", "sdpa", "flash")
FLASH_TYPES = (torch.float16, torch.bfloat16)
# Limits of flash_attn 2: the head size its kernels are built for, and the first GPUs that they run on (Ampere).
LARGEST_HEAD, HEAD_MULTIPLE, CAPABILITY = 256, 8, (8, 0)
SDPA = "torch SDPA"
_told: set[str] = set()
_used: dict[str, None] = {}  # in the order of first use


@dataclass(frozen=True)
class Unpadded:
    """Where the keys that count stand among all of a batch, for flash_attn's variable lengths.

    index: (N,) int64 places in (B * S,); starts: (B + 1,) int32, utterance b has the keys starts[b]..starts[b + 1] - 1
    of the N; longest: the most keys of an utterance
    """

    index: Tensor
    starts: Tensor
    longest: int

    @classmethod
    def of(cls, key_mask: Tensor) -> "Unpadded":
        """key_mask: (B, S) bool, True = may be attended to, in any pattern."""
        counts = key_mask.sum(1)
        starts = F.pad(counts.cumsum(0), (1, 0)).int()
        return cls(key_mask.flatten().nonzero().squeeze(1), starts, int(counts.max()))


class FlashAttention:
    """`attend` by flash_attn, for one pass of a network: what its masks leave is found once for all layers.

    library: the module flash_attn; dtype: what it computes in, other inputs are cast as autocast casts SDPA's
    """

    def __init__(self, library: ModuleType, dtype: torch.dtype) -> None:
        self.library, self.dtype = library, dtype
        self._known: list[tuple[Tensor, Unpadded | None]] = []

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None = None,
                 causal: bool = False) -> Tensor:
        """See `attend`."""
        query, key, value = (x.to(self.dtype).transpose(1, 2) for x in (query, key, value))  # (B, L, H, E)
        kept = None if key_mask is None else self._unpadded(key_mask)
        if kept is None:
            return self.library.flash_attn_func(query, key, value, causal=causal).flatten(2)
        batch, length = query.shape[:2]
        out = self.library.flash_attn_varlen_func(
            query.flatten(0, 1),
            key.flatten(0, 1)[kept.index],
            value.flatten(0, 1)[kept.index],
            cu_seqlens_q=torch.arange(0, (batch + 1) * length, length, dtype=torch.int32, device=query.device),
            cu_seqlens_k=kept.starts,
            max_seqlen_q=length,
            max_seqlen_k=kept.longest,
        )
        return out.unflatten(0, (batch, length)).flatten(2)

    def _unpadded(self, key_mask: Tensor) -> Unpadded | None:
        """None where all keys count."""
        for mask, kept in self._known:
            if mask is key_mask:
                return kept
        kept = None if bool(key_mask.all()) else Unpadded.of(key_mask)
        self._known.append((key_mask, kept))
        return kept


def check_attention(choice: str) -> str:
    """The choice itself. Raises UserError for one that does not exist."""
    if choice not in ATTENTIONS:
        raise UserError(f"decoder_conf.attention: {choice!r} is unknown; expected one of {', '.join(ATTENTIONS)}")
    return choice


def choose_attention(choice: str, weight: Tensor, head_size: int) -> Attend:
    """The attention of one pass of a network.

    choice: auto, sdpa or flash; weight: any of the network's, it tells device and precision (autocast's where it is on)
    Raises UserError: `flash` cannot run here.
    """
    if choice == "sdpa" or (choice == "auto" and torch.compiler.is_compiling()):
        _note(SDPA)
        return attend
    device, dtype = weight.device, working_type(weight)
    reason = why_not_flash(device, dtype, head_size)
    if reason is None:
        library = importlib.import_module("flash_attn")
        name = f"flash_attn {getattr(library, '__version__', '')}".strip()
        _tell(f"attention: {name} in {dtype} on {device}")
        _note(name)
        return FlashAttention(library, dtype)
    if choice == "flash":
        raise UserError(f"decoder_conf.attention: flash cannot run: {reason}; mend that, or set attention: auto")
    _tell(f"attention: torch's SDPA in {dtype} on {device}; not flash_attn, since {reason}")
    _note(SDPA)
    return attend


def used_attentions() -> tuple[str, ...]:
    """What the decoders of this process have attended with so far: `torch SDPA`, `flash_attn 2.8.3`, none or both.

    Passes of a compiled decoder are not seen; they are torch's SDPA unless attention: flash was asked for.
    """
    return tuple(_used)


def working_type(weight: Tensor) -> torch.dtype:
    """Type in which a network with such weights attends: autocast's, where it is on for their device."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def why_not_flash(device: torch.device, dtype: torch.dtype, head_size: int) -> str | None:
    """What keeps flash_attn from running, with the remedy where there is one; None when it can."""
    if device.type != "cuda":
        return f"it runs on CUDA only, and this is {device}"
    if dtype not in FLASH_TYPES:
        precision = str(dtype).removeprefix("torch.")
        return f"it computes in float16 or bfloat16, this is {precision} (training: use_amp: true, decoding: dtype)"
    if head_size > LARGEST_HEAD or head_size % HEAD_MULTIPLE:
        return f"a head of {head_size} is not a multiple of {HEAD_MULTIPLE} up to {LARGEST_HEAD} (attention_heads)"
    found = torch.cuda.get_device_capability(device)
    if found < CAPABILITY:
        return f"it needs compute capability {CAPABILITY[0]}.{CAPABILITY[1]}, and this GPU has {found[0]}.{found[1]}"
    return why_not_installed()


def why_not_installed() -> str | None:
    """What keeps the package flash_attn from being imported, with the remedy; None when it imports."""
    try:
        importlib.import_module("flash_attn")
    except ModuleNotFoundError as error:
        missing = "flash_attn is not installed" if error.name == "flash_attn" else f"flash_attn needs {error.name}"
        return f"{missing} (pip install flash-attn --no-build-isolation)"
    except (ImportError, OSError) as error:  # built for another torch or CUDA
        return f"flash_attn does not import: {' '.join(str(error).split())}"
    return None


def _note(name: str) -> None:
    if not torch.compiler.is_compiling():
        _used[name] = None


def _tell(line: str) -> None:
    if line not in _told and not torch.compiler.is_compiling():
        _told.add(line)
        logging.getLogger(__name__).info(line)
