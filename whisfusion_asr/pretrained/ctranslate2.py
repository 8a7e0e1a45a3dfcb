"""CTranslate2's `model.bin` (faster-whisper folders): variables by name, read from a memory map, or written.

Layout, little endian, nothing aligned: u32 version, spec name, u32 revision, u32 count; per variable its name, u8 rank,
u32 per dimension, u8 type, u32 bytes, the data; then u32 count and pairs (alias, variable). A name is a u16 length
with the final NUL counted, the bytes and the NUL. Variables stand in alphabetical order: layer_10 before layer_2.
"""

import hashlib
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write
from whisfusion_asr.pretrained.weight_files import AGAIN

VERSIONS = range(4, 7)  # earlier ones store no type
SPEC, REVISION = "WhisperSpec", 3
TYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Variable:
    """Where a variable lies: shape, type, first byte, bytes."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    begin: int
    size: int


class ModelBin:
    """The variables of a file; data is read when it is asked for.

    path: model.bin; spec: the name that it must carry
    raises UserError: another spec or version, a file that is cut off or longer than its content
    """

    def __init__(self, path: str | Path, spec: str = SPEC) -> None:
        self.path = Path(path)
        with open(self.path, "rb") as file:
            if self.path.stat().st_size < 16:
                raise UserError(f"{path}: {self.path.stat().st_size} bytes, not a CTranslate2 model: {AGAIN}")
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._place = 0
        self.variables: dict[str, Variable] = {}
        try:
            self._read_head(spec)
        except struct.error:
            last = next(reversed(self.variables), "the file's head")
            raise UserError(f"{self.path}: cut off behind {last}: {AGAIN}") from None
        if self._place != len(self._data):
            raise UserError(f"{self.path}: {len(self._data) - self._place} bytes behind its end: {AGAIN}")

    def names(self) -> list[str]:
        """All names, aliases included."""
        return list(self.variables)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a variable. Raises UserError when there is none of that name."""
        return self._find(name).shape

    def read(self, name: str) -> Tensor:
        """Values of a variable: as stored (float16, bfloat16, float32, integers), float32 where it was quantised.

        int8 has a scale per output row and int16 one for all, in `<name>_scale`: value = stored / scale.
        raises UserError: no such variable, or a quantisation with zero points
        """
        variable = self._find(name)
        values = self._raw(variable)
        if f"{name}_zero" in self.variables:
            raise UserError(f"{self.path}: {name} has zero points (4-bit weights), which are not supported")
        scale_name = f"{self._targets.get(name, name)}_scale"  # made before quantisation, an alias has none of its own
        if scale_name not in self.variables:
            return values
        scale = self._raw(self.variables[scale_name]).float()
        return values.float() / scale.reshape(-1, *[1] * (values.ndim - 1)) if scale.ndim else values.float() / scale

    def _raw(self, variable: Variable) -> Tensor:
        data = bytearray(self._data[variable.begin : variable.begin + variable.size])
        return torch.frombuffer(data, dtype=variable.dtype).reshape(variable.shape)

    def _find(self, name: str) -> Variable:
        if name not in self.variables:
            raise UserError(f"{self.path}: has no variable {name}: expected a Whisper model converted by CTranslate2")
        return self.variables[name]

    def _read_head(self, spec: str) -> None:
        version = self._take("I")
        if version not in VERSIONS:
            raise UserError(
                f"{self.path}: version {version}, expected {VERSIONS[0]} to {VERSIONS[-1]}: not a CTranslate2 model, "
                "or one to convert again with a current ct2-transformers-converter"
            )
        found = self._name()
        if found != spec:
            raise UserError(f"{self.path}: holds a {found}, expected a {spec}")
        self._take("I")  # revision of the spec
        for _ in range(self._take("I")):
            self._read_variable()
        self._targets: dict[str, str] = {}
        for _ in range(self._take("I")):
            alias, target = self._name(), self._name()
            self._targets[alias] = target
            self.variables[alias] = self._find(target)

    def _read_variable(self) -> None:
        name = self._name()
        rank = self._take("B")
        shape = tuple(self._take("I") for _ in range(rank))
        code, size = self._take("B"), self._take("I")
        if code >= len(TYPES):
            raise UserError(f"{self.path}: {name} is of type {code}, expected 0 to {len(TYPES) - 1}")
        missing = self._place + size - len(self._data)
        if missing > 0:
            raise UserError(f"{self.path}: cut off inside {name}: {missing} of its {size} bytes are missing: {AGAIN}")
        self.variables[name] = Variable(shape, TYPES[code], self._place, size)
        self._place += size

    def _take(self, kind: str) -> int:
        value: int = struct.unpack_from(f"<{kind}", self._data, self._place)[0]
        self._place += struct.calcsize(f"<{kind}")
        return value

    def _name(self) -> str:
        length = self._take("H")
        text = self._data[self._place : self._place + length]
        if len(text) < length:
            raise struct.error
        self._place += length
        return text.rstrip(b"\0").decode("utf-8", errors="replace")


def write_model_bin(path: str | Path, variables: Mapping[str, Tensor], int8: bool = False) -> None:
    """Write a model.bin byte for byte as CTranslate2's converter does; it appears whole or not at all.

    variables: name -> tensor of one of TYPES. One that is equal to an alphabetically earlier one becomes its alias
    int8: store every `*/weight` as 8-bit integers with a scale per output row, 127 / its largest absolute value
    """
    kept, aliases = _with_aliases(variables)
    if int8:
        for name in [name for name in kept if name.endswith("/weight")]:
            kept[name], kept[f"{name}_scale"] = _quantised(kept[name])
    with atomic_write(path, "wb") as file:
        file.write(struct.pack("<I", VERSIONS[-1]) + _text(SPEC) + struct.pack("<II", REVISION, len(kept)))
        for name in sorted(kept):
            _write_variable(file, name, kept[name])
        file.write(struct.pack("<I", len(aliases)))
        for alias, target in aliases.items():
            file.write(_text(alias) + _text(target))


def _with_aliases(variables: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each tensor under the first of its names, and alias -> that name; scalars are settings and stay apart."""
    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[torch.Size, torch.dtype, bytes], str] = {}
    for name in sorted(variables):
        value = variables[name]
        known = first.setdefault((value.shape, value.dtype, hashlib.sha256(_bytes(value)).digest()), name)
        if known != name and value.ndim:
            aliases[name] = known
        else:
            kept[name] = value
    return kept, aliases


def _quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (rows, ...) as int8, and its scales (rows,) float32; a row of zeros has scale 1."""
    rows = weight.float().flatten(1)
    peak = rows.abs().amax(1)
    scale = 127 / torch.where(peak > 0, peak, 127.0)
    return (rows * scale[:, None]).round().reshape(weight.shape).to(torch.int8), scale


def _write_variable(file: IO[bytes], name: str, value: Tensor) -> None:
    file.write(_text(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape))
    file.write(struct.pack("<BI", TYPES.index(value.dtype), value.nbytes))
    file.write(_bytes(value))


def _bytes(value: Tensor) -> memoryview:
    return memoryview(value.contiguous().reshape(-1).view(torch.uint8).numpy())


def _text(name: str) -> bytes:
    encoded = name.encode()
    return struct.pack("<H", len(encoded) + 1) + encoded + b"\0"
