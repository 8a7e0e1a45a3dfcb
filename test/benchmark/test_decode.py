"""`whisfusion benchmark decode` at toy size: what each system computes, and that the ratios are of the right pairs."""

import argparse
from pathlib import Path

import pytest
import torch

from whisfusion_asr.benchmark import decode, systems
from whisfusion_asr.benchmark.harness import Measurement, count_work
from whisfusion_asr.benchmark.systems import Bench, Networks
from whisfusion_asr.config import read_yaml
from whisfusion_asr.decoding.pdd import PddOptions
from whisfusion_asr.errors import UserError
from whisfusion_asr.models.causal_decoder import CausalDecoder
from whisfusion_asr.models.diffusion_decoder import DiffusionDecoder

SMALL = "--seconds 4 --candidates 4 --few_candidates 2 --keep 3 2 1 --size 16 --blocks 2 --heads 2 --vocab 40"


@pytest.fixture
def args() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    decode.add_arguments(parser)
    parsed = parser.parse_args(SMALL.split())
    for name, value in {"device": "cpu", "dtype": "float32", "warm_up": 0, "repeats": 1, "seed": 0}.items():
        setattr(parsed, name, value)
    return parsed


def bench(args: argparse.Namespace, batch: int = 1) -> Bench:
    return Bench(args, 4.0, Networks(args), batch)


def test_the_exact_engine_writes_what_the_released_way_writes(args):
    slow, quick = systems.released(bench(args))(), systems.exact(bench(args))()
    assert [c.tokens for c in slow] == [c.tokens for c in quick] and len(slow) == 4
    assert [c.confidence for c in slow] == pytest.approx([c.confidence for c in quick], abs=1e-5)


def test_each_system_has_the_work_it_is_named_for(args):
    one = bench(args)
    assert (one.tokens, one.heard) == (12, 200)
    found = {name: make(one)() for name, make in systems.SYSTEMS.items() if name not in ("encoder", "one row compiled")}
    assert {name: len(candidates) for name, candidates in found.items()} == {
        "released": 4, "exact": 4, "fast": 4, "fast few": 2, "fast int8": 4, "pruned": 1, "one row": 1,
        "one row int8": 1, "causal greedy": 1, "causal greedy int8": 1, "causal beam 5": systems.BEAM,
    }  # fmt: skip
    assert {len(c.tokens) for name in found if name.startswith("causal") for c in found[name]} == {13}
    assert found["fast int8"][0].confidence != found["fast"][0].confidence


def test_networks_share_their_weights(args):
    made = Networks(args)
    plain, causal, int8 = (made.decoder(kind, how) for kind, how in (
        (DiffusionDecoder, None), (CausalDecoder, None), (DiffusionDecoder, systems.INT8)))
    assert plain is made.decoder(DiffusionDecoder) and not plain.training
    assert plain.head.weight.data_ptr() == causal.head.weight.data_ptr()
    assert plain.embed.weight.data_ptr() == int8.embed.weight.data_ptr() and int8.head.weight.dtype == torch.int8
    args.dtype = "bfloat16"
    assert made.decoder(DiffusionDecoder).head.weight.dtype == torch.bfloat16
    assert plain.head.weight.dtype == torch.float32, "the others keep their own type"


def test_a_batch_is_decoded_as_one(args):
    together, alone = systems.one_row(bench(args, 3))(), systems.one_row(bench(args))()
    assert [c.tokens for c in together] == [alone[0].tokens] * 3


def test_the_report_has_a_row_for_each_system_length_and_batch(args):
    args.seconds, args.systems, args.batch = [2.0, 4.0], ["exact", "fast", "causal greedy"], [1, 2]
    report = decode.run(args)
    assert [(row["batch"], row["audio s"], row["system"]) for row in report.rows] == [
        *((1, seconds, name) for seconds in args.seconds for name in args.systems), (2, 2.0, "fast"), (2, 4.0, "fast"),
    ]
    assert set(report.summary) == {f"fast / causal greedy, {seconds} s" for seconds in (2, 4)}
    assert len(report.notes) == 4 and report.notes[1].startswith("- exact: The engine on the published canvas")
    fast, exact = report.rows[1], report.rows[0]
    assert exact["GFLOP"] > fast["GFLOP"] > 0 and 0 < fast["share of GEMM rate"] < 1


def test_the_slow_systems_are_warmed_up_and_measured_as_often_as_asked(args, monkeypatch):
    calls = []
    for name in ("released", "fast"):
        monkeypatch.setitem(decode.SYSTEMS, name, lambda one, name=name: lambda: calls.append(name))
    args.systems, args.repeats, args.slow_repeats, args.warm_up = ["released", "fast"], 3, 2, 1
    rows = decode.run(args).rows
    assert [row["repeats"] for row in rows] == [2, 3]
    assert calls == ["released", "fast"] * 3 + ["fast"], "once to count the work, then in turns"


def test_the_schedule_is_that_of_the_options(args):
    args.mask_ratios, args.keep = [1.0, 0.5], [2]
    assert len(systems.pruned(bench(args))()) == 2
    assert [c.tokens for c in systems.released(bench(args))()] == [c.tokens for c in systems.exact(bench(args))()]
    with pytest.raises(UserError, match="2 passes need 1 numbers of rows"):
        args.keep = [2, 2]
        systems.pruned(bench(args))


def test_pruning_is_that_of_the_decoding_of_that_name():
    parser = argparse.ArgumentParser()
    decode.add_arguments(parser)
    conf = read_yaml(Path(__file__).parents[2] / "conf/decode_pdd_pruned.yaml")
    assert parser.parse_args([]).keep == conf["sampler_conf"]["keep"]
    assert tuple(parser.parse_args([]).mask_ratios) == PddOptions().mask_ratios


def test_speed_with_the_encoder_counts_all_utterances(args):
    found = Measurement((0.5,), (0.5,)), Measurement((1.5,), (1.5,))
    row = decode._row("fast", bench(args, 8), *found, 3_000_000_000, 12.0)
    assert row["RTFx with encoder"] == pytest.approx(8 * 4.0 / 2.0)
    assert (row["GFLOP"], row["share of GEMM rate"]) == (3.0, pytest.approx(3.0 / 0.5 / 12.0))
    alone = decode._row("whisper greedy", bench(args), *found, None, 12.0)
    assert alone["RTFx with encoder"] == pytest.approx(4.0 / 0.5), "its encoder is in its own time"


def test_a_system_that_does_not_fit_is_a_row_without_figures(args, monkeypatch):
    def too_large(_: Bench) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(decode.SYSTEMS, "fast", lambda one: lambda: too_large(one))
    args.systems = ["fast", "one row"]
    fast, row = decode.run(args).rows
    assert fast["wall s"] is None and fast["RTFx with encoder"] is None and row["wall s"] > 0


def test_work_is_counted():
    left, right = torch.ones(2, 3), torch.ones(3, 5)
    query, key = torch.ones(1, 2, 4, 8), torch.ones(1, 2, 6, 8)
    attend = torch.nn.functional.scaled_dot_product_attention
    assert count_work(lambda: left @ right) == 2 * 2 * 3 * 5
    assert count_work(lambda: torch._int_mm(left.to(torch.int8), right.to(torch.int8))) == 2 * 2 * 3 * 5
    assert count_work(lambda: attend(query, key, key)) == 2 * (2 * 4 * 6 * 8) * 2


def test_the_faster_type_is_taken(args, monkeypatch):
    times = {"float32": Measurement((2.0,), (2.0,)), "bfloat16": Measurement((1.0,), (1.0,))}
    monkeypatch.setattr(decode, "measure", lambda *_: times)
    assert decode.faster_dtype(args) == "bfloat16"


def test_ratios():
    times = {"encoder": 2.0, "released": 60.0, "fast": 3.0, "fast int8": 1.0, "causal greedy": 1.5}
    found = decode._ratios({name: Measurement((value,), (value,)) for name, value in times.items()})
    assert found == pytest.approx({
        "released in encoder times": 30.0, "fast in encoder times": 1.5, "causal greedy in encoder times": 0.75,
        "fast int8 in encoder times": 0.5, "released / fast": 20.0, "fast / causal greedy": 2.0,
        "fast / fast int8": 3.0,
    })  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [("candidates", 0), ("batch", [1, 0])])
def test_odd_numbers_are_refused(args, name, value):
    setattr(args, name, value)
    with pytest.raises(UserError, match="must be above 0"):
        decode.run(args)
