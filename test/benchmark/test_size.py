"""The true size: its published parameter count, and a run of a small one."""

import argparse

import pytest
import torch

from whisfusion_asr.benchmark import size
from whisfusion_asr.errors import UserError

SMALL = ["--size", "16", "--blocks", "2", "--heads", "2", "--vocab", "50", "--seconds", "1", "--candidates", "3"]


def options(words: list[str], **settings: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    size.add_arguments(parser)
    common = {"device": "cpu", "dtype": "float32", "seed": 0, "warm_up": 0, "repeats": 2, "out": None, "what": "size"}
    return argparse.Namespace(**vars(parser.parse_args(words)) | common | settings)


@pytest.mark.parametrize(("phase", "trained"), [("decoder", 261_531_648), ("adapter", 42_481_152)])
def test_the_defaults_have_the_published_parameter_counts(phase, trained):
    with torch.device("meta"):
        decoder = size._decoder(phase, "auto", options([], device="meta"))
    assert sum(parameter.numel() for parameter in decoder.parameters()) == 261_531_648
    assert sum(p.numel() for p in decoder.parameters() if p.requires_grad) == trained


def test_a_row_for_each_part_and_lengths_from_the_seconds():
    report = size.run(options(SMALL))
    assert [row["part"] for row in report.rows] == ["adapter", "decoder", "decode"]
    assert all(row["wall s"] > 0 for row in report.rows)
    assert (report.settings["states"], report.settings["slots"]) == (50, 11)  # 1 s: 50 states, 7 tokens and 4
    assert report.summary["decode: CPU seconds for a second of audio"] == report.rows[2]["cpu s"]


def test_decoding_makes_as_many_passes_as_ratios(monkeypatch):
    passes = []
    real = size.pdd
    monkeypatch.setattr(size, "pdd", lambda predict, *rest: real(lambda c: passes.append(c.shape) or predict(c), *rest))
    size._decode("auto", options([*SMALL, "--states", "9", "--slots", "12"]))()
    assert passes == [(3, 12)] * 4


def test_a_row_for_each_way(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda decoder: compiled.append(decoder.attention))
    report = size.run(options([*SMALL, "--parts", "decoder", "--ways", "sdpa", "auto+compile"], repeats=1))
    assert [(row["part"], row["way"]) for row in report.rows] == [("decoder", "sdpa"), ("decoder", "auto+compile")]
    assert compiled == ["auto"]
    assert all(row["per second"] == pytest.approx(1 / row["wall s"]) for row in report.rows)
    assert "decoder, sdpa: CPU seconds for a second of audio" in report.summary
    with pytest.raises(UserError, match="flash cannot run"):
        size.run(options([*SMALL, "--ways", "flash"]))


def test_a_canvas_without_room_for_the_text():
    with pytest.raises(UserError, match="a text of 7 tokens needs --slots above that, got 7"):
        size.run(options([*SMALL, "--slots", "7"]))
