"""Kaldi archives of matrices: `.ark` with the data, `.scp` with `key path:offset`. Only this file knows the library.

float32 matrices are Kaldi's own format, written and read by kaldiio, or by omniio (same calls) where kaldiio is absent.
Kaldi has no half precision: float16 matrices are stored as kaldiio's NPY record (`NPY`, the size of the length, the
length, a .npy file), which ESPnet reads too. omniio does not know that record, so it is written and read here.
"""

import io
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from whisfusion_asr.data.tables import read_table
from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write

try:
    import kaldiio
except ImportError:
    try:
        from omniio import kaldi as kaldiio
    except ImportError:
        raise ImportError("archives need kaldiio or omniio: pip install kaldiio") from None

_KALDI, _NPY = b"\0B", b"NPY"


class ArkWriter:
    """Write an archive and its index; both appear when the `with` block ends without an exception, the index last.

    The index names `ark_path` as given here: like Kaldi's, a relative path starts at the current directory.
    """

    def __init__(self, ark_path: str | Path, scp_path: str | Path) -> None:
        self._ark_path, self._scp_path = Path(ark_path), Path(scp_path)
        self._keys: set[str] = set()

    def __enter__(self) -> "ArkWriter":
        self._files = ExitStack()
        self._scp: IO[str] = self._files.enter_context(atomic_write(self._scp_path))
        self._ark: IO[bytes] = self._files.enter_context(atomic_write(self._ark_path, "wb"))
        return self

    def write(self, key: str, array: np.ndarray) -> None:
        """Append a matrix (T, D) or a vector (S,), float32 or float16.

        Raises ValueError: another type or number of axes, a key that was written before or holds white space.
        """
        if not key or key.split() != [key] or key in self._keys:
            raise ValueError(f"key {key!r} is empty, holds white space or was already written to {self._ark_path}")
        if array.dtype not in (np.float32, np.float16) or array.ndim not in (1, 2):
            raise ValueError(f"{key}: expected a float32 or float16 matrix, got {array.dtype} {array.shape}")
        self._keys.add(key)
        offset = self._ark.tell() + len(key.encode()) + 1
        if array.dtype == np.float16:
            _write_npy(self._ark, key, array)
        else:
            kaldiio.save_ark(self._ark, {key: array})
        self._scp.write(f"{key} {self._ark_path}:{offset}\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)


def _write_npy(ark: IO[bytes], key: str, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    length = buffer.tell()
    size = (length.bit_length() + 7) // 8
    ark.write(key.encode() + b" " + _NPY + struct.pack("<B", size) + length.to_bytes(size, "little"))
    ark.write(buffer.getvalue())


class _ArkTable(Mapping[str, np.ndarray]):
    """Index of archives; holds paths and offsets only, so it pickles and is safe in forked readers."""

    def __init__(self, scp_path: Path, places: dict[str, tuple[str, int]]) -> None:
        self._scp_path = scp_path
        self._places = places

    def __getitem__(self, key: str) -> np.ndarray:
        """Matrix (T, D) or vector as stored. Raises UserError when the archive is missing, damaged or another one."""
        path, offset = self._places[key]
        where = f"{self._scp_path}: {key}: {path}:{offset}"
        ark_path = Path(path)
        if not ark_path.exists():  # the folder was moved as a whole: its archives lie beside the index
            ark_path = self._scp_path.parent / ark_path.name
        try:
            with open(ark_path, "rb") as ark:
                return _read_matrix(ark, key, offset, where)
        except FileNotFoundError:
            raise UserError(f"{where}: no such archive (nor {ark_path}); dump it again") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _read_matrix(ark: IO[bytes], key: str, offset: int, where: str) -> np.ndarray:
    label = key.encode() + b" "
    ark.seek(max(offset - len(label), 0))
    if ark.read(len(label)) != label:  # an index of an earlier dump beside a newer archive
        raise UserError(f"{where}: the archive has no such key there; it does not belong to this index, dump it again")
    mark = ark.read(3)
    try:
        if mark == _NPY:
            (size,) = struct.unpack("<B", ark.read(1))
            length = int.from_bytes(ark.read(size), "little")
            return np.load(io.BytesIO(ark.read(length)), allow_pickle=False)
        if mark.startswith(_KALDI):
            ark.seek(offset - len(label))
            return next(kaldiio.load_ark(ark))[1]
    except (ValueError, AssertionError, RuntimeError, EOFError, struct.error) as error:
        raise UserError(f"{where}: damaged or cut off ({error or type(error).__name__}); dump it again") from None
    raise UserError(f"{where}: neither a binary Kaldi matrix nor a NPY record; other records are not read")


def read_scp(path: str | Path) -> Mapping[str, np.ndarray]:
    """Key -> matrix of an index file; matrices are read when asked for.

    An archive that is not at its path is looked for beside the index, so that a moved folder stays readable.
    Raises UserError: a line that is not `key path:offset`; pipes are refused.
    """
    path = Path(path)
    places = {}
    for number, (key, value) in enumerate(read_table(path).items(), start=1):
        ark, _, offset = value.rpartition(":")
        if not ark or not offset.isdecimal():
            raise UserError(f"{path}:{number}: {key}: '{value}'; expected `archive path:offset`")
        places[key] = (ark, int(offset))
    return _ArkTable(path, places)
