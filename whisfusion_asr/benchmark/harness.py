"""How every benchmark measures and reports: warm-up, alternating repeats, medians, peak memory, the machine.

Times of different runs do not compare, least of all on a machine that others use. So the functions of one benchmark
take turns (a load that comes and goes meets all of them), CPU seconds stand beside wall seconds, and each report
carries the rate at which this machine multiplied matrices at the time.
"""

import ctypes
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from whisfusion_asr import __version__
from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write
from whisfusion_asr.report.environment import PACKAGE, cpu_model, git_revision

MIB = 2**20
GEMM_SIZE = 1024  # rows and columns of the square matrices whose product gives the machine's rate


@dataclass(frozen=True)
class Measurement:
    """What one function took, a value per repeat, and the largest memory of any repeat.

    wall, cpu: seconds; cpu counts all threads of the process
    peak_memory: bytes resident in the process at most; added_memory: of these, beyond what was resident before the
        call; None where the system cannot tell (it can on Linux). peak_cuda: bytes allocated at most, None on a CPU.
    """

    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    peak_memory: int | None = None
    added_memory: int | None = None
    peak_cuda: int | None = None

    def rate(self, count: float) -> float:
        """`count` things per wall second, by the median repeat."""
        return count / statistics.median(self.wall)

    def columns(self) -> dict[str, float | None]:
        """Columns of a report's row: how often it was measured, seconds (median, least, most; CPU median) and MiB."""
        return {
            "repeats": len(self.wall),
            "wall s": statistics.median(self.wall),
            "min s": min(self.wall),
            "max s": max(self.wall),
            "cpu s": statistics.median(self.cpu),
            "peak MiB": _mebibytes(self.peak_memory),
            "added MiB": _mebibytes(self.added_memory),
            "cuda MiB": _mebibytes(self.peak_cuda),
        }


@dataclass(frozen=True)
class Report:
    """What a benchmark found.

    title: one line; settings: everything that decides the figures; rows: the table, each a mapping of column to value
    (all with the same columns); summary: the answers, name -> value; notes: sentences that belong beside the table.
    """

    title: str
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    summary: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def markdown(self, environment: Mapping[str, Any]) -> str:
        """The report and the machine as a page."""
        lines = [f"# {self.title}", "", *_table(self.rows), ""]
        for heading, values in (("", self.summary), ("## Settings", self.settings), ("## Machine", environment)):
            if values:
                lines += [*([heading, ""] if heading else []), *(f"- {k}: {_cell(v)}" for k, v in values.items()), ""]
        return "\n".join([*lines[:-1], *(["", *self.notes] if self.notes else [])]) + "\n"

    def write(self, out: str | Path, environment: Mapping[str, Any]) -> list[Path]:
        """Write `out`.json and `out`.md; returns the two."""
        places = [Path(f"{out}.{kind}") for kind in ("json", "md")]
        content = {**asdict(self), "environment": dict(environment)}
        for place, text in zip(places, (json.dumps(content, indent=1) + "\n", self.markdown(environment)), strict=True):
            with atomic_write(place) as file:
                file.write(text)
        return places


def measure(
    functions: Mapping[str, Callable[[], object]], warm_up: int = 1, repeats: int = 5, device: str = "cpu",
    slow: Collection[str] = (), slow_repeats: int = 1,
) -> dict[str, Measurement]:
    """Time functions that take turns: each `warm_up` times unmeasured, then each once per repeat, in order.

    device: "cuda" waits for the device before the clock is read; slow: functions that are called once at most to warm
        up, and measured in the first `slow_repeats` rounds. Raises UserError for fewer than one repeat.
    """
    if repeats < 1 or warm_up < 0:
        raise UserError(f"benchmark: --repeats {repeats} must be at least 1 and --warm_up {warm_up} at least 0")
    if slow_repeats < 1:
        raise UserError(f"benchmark: --slow_repeats {slow_repeats} must be at least 1")
    for name, function in functions.items():
        for _ in range(min(warm_up, 1) if name in slow else warm_up):
            function()
    counts = {name: slow_repeats if name in slow else repeats for name in functions}
    rounds = [
        {name: _once(function, device) for name, function in functions.items() if number < counts[name]}
        for number in range(max(counts.values(), default=0))
    ]
    return {name: _joined([one[name] for one in rounds if name in one]) for name in functions}


@torch.inference_mode()
def count_work(function: Callable[[], object]) -> int:
    """Call a function; returns its floating-point operations in matrix products and attention, 2 for a multiply-add."""
    formulas = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        torch.ops.aten._int_mm: lambda a, b, **_: 2 * a[0] * a[1] * b[1],
    }
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        function()
    return counter.get_total_flops()


def _once(function: Callable[[], object], device: str) -> Measurement:
    cuda = device.startswith("cuda")
    before = _reset_peak()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    if cuda:
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = None if before is None else _resident("VmHWM")
    added = None if before is None or peak is None else max(0, peak - before)
    return Measurement((wall,), (cpu,), peak, added, torch.cuda.max_memory_allocated() if cuda else None)


def _joined(parts: list[Measurement]) -> Measurement:
    def largest(name: str) -> int | None:
        return max((v for part in parts if (v := getattr(part, name)) is not None), default=None)

    wall, cpu = (tuple(value for part in parts for value in getattr(part, name)) for name in ("wall", "cpu"))
    return Measurement(wall, cpu, largest("peak_memory"), largest("added_memory"), largest("peak_cuda"))


def _reset_peak() -> int | None:
    """Forget the process's peak and give back what is free; returns the bytes resident now, None if unknown."""
    gc.collect()
    if sys.platform != "linux":
        return None
    # Without it glibc keeps freed blocks of the function before, and the next one would seem to need less.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:  # a container may forbid it; then no peak of a single function is known
        return None
    return _resident("VmRSS")


def _resident(field_name: str) -> int | None:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field_name}:"):
            return int(line.split()[1]) * 1024
    return None


def gemm_rate(device: str = "cpu", seconds: float = 0.5, dtype: str = "float32") -> float:
    """GFLOP/s of this moment: the best of the products of two square matrices done within some seconds."""
    left, right = (torch.randn(GEMM_SIZE, GEMM_SIZE, device=device).to(getattr(torch, dtype)) for _ in range(2))
    left @ right
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        (wall,) = _once(lambda: left @ right, device).wall
        best = max(best, 2.0 * GEMM_SIZE**3 / wall / 1e9)
    return best


def environment(device: str, dtype: str = "float32") -> dict[str, Any]:
    """The machine and its state, to be recorded beside every figure. Raises UserError for CUDA that is not there."""
    check_device(device)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "cpu": f"{cpu_model()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
        "load": load(),
        "niceness": os.nice(0),
        "dtype": dtype,
        "gemm fp32 GFLOP/s": gemm_rate(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "whisfusion-asr": f"{__version__}, {git_revision(PACKAGE)[0]}",
    }


def autocast(device: str, dtype: str) -> torch.autocast:
    """Context of a benchmark's computation: mixed precision for any dtype but float32."""
    return torch.autocast(device.partition(":")[0], getattr(torch, dtype), enabled=dtype != "float32")


def load() -> str:
    """Load averages over 1, 5 and 15 minutes."""
    return ", ".join(f"{value:.1f}" for value in os.getloadavg())


def use_threads(count: int | None) -> None:
    """Let torch compute with so many threads, None for its own choice. Raises UserError for fewer than one."""
    if count is None:
        return
    if count < 1:
        raise UserError(f"--threads {count} must be at least 1; leave it out for as many as torch takes")
    torch.set_num_threads(count)


def check_device(device: str) -> None:
    """Raise UserError for a CUDA device that is not there."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {device}: torch {torch.__version__} finds no usable GPU; use --device cpu")


def _mebibytes(count: int | None) -> float | None:
    return None if count is None else count / MIB


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown; columns in which no row has a value are left out."""
    names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return lines + [f"| {' | '.join(_cell(row[name]) for name in names)} |" for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)
