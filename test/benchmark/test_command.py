"""`whisfusion benchmark`: its list of benchmarks, common options, and what it prints and writes."""

import importlib
import json
from types import SimpleNamespace

import pytest
import torch

from whisfusion_asr.benchmark.harness import Report
from whisfusion_asr.bin import benchmark


@pytest.fixture
def fake(monkeypatch):
    """A benchmark `fake` with an option of its own; it remembers what it was told."""
    module = SimpleNamespace(__doc__="Nothing measured.", args=None)
    module.add_arguments = lambda parser: parser.add_argument("--blocks", type=int, default=2)

    def run(args):
        module.args = args
        return Report("Fake", {"blocks": args.blocks}, [{"name": "x", "wall s": 1.5}])

    module.run = run
    monkeypatch.setattr(benchmark, "BENCHMARKS", {"fake": "nothing"})
    monkeypatch.setattr(benchmark, "_module", lambda name: module)
    return module


def test_common_and_own_options_reach_the_benchmark(fake, tmp_path, capsys):
    benchmark.main(["fake", "--blocks", "3", "--warm-up", "0", "--repeats=7", "--out", str(tmp_path / "fake")])
    assert (fake.args.blocks, fake.args.warm_up, fake.args.repeats, fake.args.seed) == (3, 0, 7, 0)
    printed = capsys.readouterr().out
    assert "# Fake" in printed and "| x | 1.5 |" in printed and f"wrote {tmp_path}/fake.json and" in printed
    machine = json.loads((tmp_path / "fake.json").read_text())["environment"]
    assert {"cpu", "threads", "load", "load after", "gemm fp32 GFLOP/s", "gemm fp32 GFLOP/s after"} <= set(machine)


def test_the_threads_are_set_and_recorded(fake, capsys):
    before = torch.get_num_threads()
    try:
        benchmark.main(["fake", "--threads", str(before + 1)])
        assert torch.get_num_threads() == before + 1 and f"- threads: {before + 1}\n" in capsys.readouterr().out
    finally:
        torch.set_num_threads(before)
    with pytest.raises(SystemExit):
        benchmark.main(["fake", "--threads", "0"])
    assert "--threads 0 must be at least 1" in capsys.readouterr().err


def test_help_of_one_and_of_all(fake, capsys):
    for words, expected in ((["fake", "--help"], "--blocks"), (["--help"], "fake: nothing")):
        with pytest.raises(SystemExit) as stop:
            benchmark.main(words)
        assert stop.value.code == 0
        assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [(["fakes"], "choice: 'fakes'"), ([], "required: what"), (["fake", "--block", "1"], "did you mean --blocks")],
)
def test_mistakes_are_one_line(fake, words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        benchmark.main(words)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("name", benchmark.BENCHMARKS)
def test_every_benchmark_has_its_two_functions(name):
    module = importlib.import_module(f"whisfusion_asr.benchmark.{name}")
    assert module.__doc__ and callable(module.add_arguments) and callable(module.run)
