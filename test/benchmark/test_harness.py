"""The harness: turns, medians, memory of one function, the pages."""

import json
import os
import sys

import pytest
import torch

from whisfusion_asr.benchmark import harness
from whisfusion_asr.benchmark.harness import MIB, Measurement, Report, environment, gemm_rate, measure
from whisfusion_asr.errors import UserError


def test_functions_take_turns_after_their_warm_up():
    calls = []
    found = measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, warm_up=2, repeats=3)
    assert "".join(calls) == "aabb" + "ab" * 3
    assert [len(found[name].wall) for name in "ab"] == [3, 3]


def test_slow_functions_have_repeats_of_their_own():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    found = measure(functions, warm_up=2, repeats=3, slow=["b"], slow_repeats=2)
    assert "".join(calls) == "aab" + "abab" + "a"
    assert [found[name].columns()["repeats"] for name in "ab"] == [3, 2]
    with pytest.raises(UserError, match="--slow_repeats 0 must be at least 1"):
        measure(functions, slow_repeats=0)


def test_wall_and_cpu_seconds_are_told_apart(monkeypatch):
    monkeypatch.setattr(harness.time, "perf_counter", iter([1.0, 4.0, 10.0, 12.0, 20.0, 29.0]).__next__)
    monkeypatch.setattr(harness.time, "process_time", iter([0.0, 0.5, 1.0, 2.5, 3.0, 4.0]).__next__)
    found = measure({"f": lambda: None}, warm_up=0, repeats=3)["f"]
    assert (found.wall, found.cpu) == ((3.0, 2.0, 9.0), (0.5, 1.5, 1.0))
    assert found.rate(12) == 4.0  # 12 things in the median of 3 seconds
    columns = found.columns()
    assert [columns[name] for name in ("wall s", "min s", "max s", "cpu s")] == [3.0, 2.0, 9.0, 1.0]


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="this system cannot reset a memory peak")
def test_memory_is_that_of_the_function_alone():
    def touch(size: int) -> None:
        [torch.ones(MIB) for _ in range(size // 4)]

    torch.ones(7 * MIB)  # once such a block was freed, glibc takes smaller ones from its heap, and keeps them
    found = measure({"large": lambda: touch(48), "small": lambda: touch(8)}, warm_up=1, repeats=2)
    assert 45 < found["large"].added_memory / MIB < 60
    assert 5 < found["small"].added_memory / MIB < 20  # not hidden by the larger one before it
    assert found["large"].peak_memory > found["large"].added_memory
    assert found["large"].peak_cuda is None


def test_memory_that_the_system_does_not_tell_is_no_number(monkeypatch):
    monkeypatch.setattr(sys, "platform", "plan9")
    found = measure({"f": lambda: None}, warm_up=0, repeats=1)["f"]
    assert (found.peak_memory, found.added_memory) == (None, None)
    assert found.columns()["peak MiB"] is None


@pytest.mark.parametrize(("warm_up", "repeats"), [(0, 0), (-1, 1)])
def test_counts_that_measure_nothing_are_refused(warm_up, repeats):
    with pytest.raises(UserError, match=f"--repeats {repeats} must be at least 1 and --warm_up {warm_up} at least 0"):
        measure({"f": lambda: None}, warm_up=warm_up, repeats=repeats)


def test_gemm_rate_counts_two_operations_a_product(monkeypatch):
    monkeypatch.setattr(harness, "GEMM_SIZE", 10)
    monkeypatch.setattr(harness, "_once", lambda function, device: Measurement((1e-6,), (1e-6,)))
    assert gemm_rate(seconds=0.01) == pytest.approx(2.0)  # 2 * 10^3 operations in a microsecond: 2 GFLOP/s


def test_the_page_leaves_out_what_nobody_knows(tmp_path):
    rows = [
        {"layout": "padded", **Measurement((2.0,), (1.0,), 3 * MIB, MIB).columns()},
        {"layout": "cut", **Measurement((0.5,), (0.25,), 2 * MIB, None).columns()},
    ]
    report = Report("Speed", {"batch": 4}, rows, {"ratio": 4.0, "steps": 12345.6}, ["A note."])
    written = report.write(tmp_path / "x" / "speed", {"device": "cpu"})
    assert [place.name for place in written] == ["speed.json", "speed.md"]
    assert written[1].read_text().splitlines() == [
        "# Speed",
        "",
        "| layout | repeats | wall s | min s | max s | cpu s | peak MiB | added MiB |",
        "|---|---|---|---|---|---|---|---|",
        "| padded | 1 | 2 | 2 | 2 | 1 | 3 | 1 |",
        "| cut | 1 | 0.5 | 0.5 | 0.5 | 0.25 | 2 | - |",
        "",
        "- ratio: 4",
        "- steps: 12346",
        "",
        "## Settings",
        "",
        "- batch: 4",
        "",
        "## Machine",
        "",
        "- device: cpu",
        "",
        "A note.",
    ]
    content = json.loads(written[0].read_text())
    assert content["rows"][1]["added MiB"] is None
    assert (content["settings"], content["environment"]) == ({"batch": 4}, {"device": "cpu"})


def test_the_machine_is_recorded():
    found = environment("cpu")
    assert found["device"] == "cpu" and found["torch"] == torch.__version__ and found["dtype"] == "float32"
    assert found["threads"] == torch.get_num_threads()
    assert found["gemm fp32 GFLOP/s"] > 0


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda:1: torch .* finds no usable GPU; use --device cpu"):
        environment("cuda:1")
