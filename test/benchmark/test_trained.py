"""The decoding benchmark with trained weights: passes, error rates, and the tokens that other arithmetic changes."""

import argparse
from pathlib import Path

import pytest

from whisfusion_asr.benchmark import decode, trained
from whisfusion_asr.benchmark.harness import Measurement
from whisfusion_asr.errors import UserError

SAMPLES = {f"u{number}": 1600 * (3 + number * 7 % 5) for number in range(9)}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """An experiment, a data directory whose text is its reference, its states, and two configurations."""
    from engine_fakes import data_set, experiment

    folder = tmp_path_factory.mktemp("trained")
    experiment(folder / "exp")
    data_set(folder, SAMPLES)
    (folder / "data/text").write_text("".join(f"{key} some words\n" for key in SAMPLES))
    (folder / "decode_pdd.yaml").write_text("sampler: pdd\nsampler_conf: {candidates: 3}\n")
    (folder / "decode_eb.yaml").write_text("sampler: eb\n")
    return folder


def parsed(place: Path, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    decode.add_arguments(parser)
    for name, value in {"device": "cpu", "dtype": "float32", "warm_up": 0, "repeats": 2, "seed": 0}.items():
        parser.set_defaults(**{name: value})
    return parser.parse_args(["--exp_dir", str(place / "exp"), "--data_dir", str(place / "data"), "--candidates", "3",
                              *words])


def test_every_configuration_in_every_arithmetic(place):
    configs = [str(place / "decode_pdd.yaml"), str(place / "decode_eb.yaml")]
    args = parsed(place, "--states_dir", str(place / "states"), "--configs", *configs, "--utterances", "4")
    report = decode.run(args)
    rows = {(row["configuration"], row["arithmetic"]): row for row in report.rows}
    assert list(rows) == [("reference", "float32"), *(
        (name, kind) for name in ("decode_pdd", "decode_eb") for kind in ("float32", "bfloat16", "int8"))]
    plain = [row for (_, kind), row in rows.items() if kind == "float32"]
    assert all(row["tokens unlike float32's %"] == 0 and row["wall s"] > 0 for row in plain)
    reference, pdd = rows["reference", "float32"], rows["decode_pdd", "float32"]
    assert (reference["passes"], reference["rows"], pdd["passes"]) == (4, 12, 4) and pdd["rows"] < 12
    assert reference["WER %"] == pdd["WER %"] >= 50
    assert report.title.startswith("Decoding 4 utterances")


def test_the_utterances_are_of_all_lengths(place):
    args = parsed(place, "--states_dir", str(place / "states"), "--utterances", "3")
    (one, *_) = trained._systems(args, "x", trained.DecodingSettings.of({"sampler": "single"}))
    assert [round(utterance.duration * 10) for utterance in one.utterances] == [7, 5, 4]


def test_tokens_and_words_are_compared(place):
    args = parsed(place, "--states_dir", str(place / "states"), "--utterances", "2")
    plain, half, _ = trained._systems(args, "x", trained.DecodingSettings.of({"sampler": "single"}))
    for one, tokens in ((plain, [[1, 2, 3], [4]]), (half, [[1, 5, 3], [4]])):
        one()
        one.transcripts[:] = [type(t)(**{**t.__dict__, "token_int": ids, "text": "some word"})
                              for t, ids in zip(one.transcripts, tokens, strict=True)]
    row = trained._row(half, plain, Measurement((1.0,), (1.0,)),
                       trained.Texts(dict.fromkeys(SAMPLES, "some words"), dict.fromkeys(SAMPLES, "one")))
    assert (row["tokens unlike float32's %"], row["WER %"], row["p against float32"]) == (25.0, 50.0, 1.0)
    assert row["95 % from"] == row["to"] == 50.0


def test_what_is_missing_is_named(place):
    with pytest.raises(UserError, match="name --data_dir, --states_dir and --configs"):
        decode.run(parsed(place, "--states_dir", str(place / "states")))
