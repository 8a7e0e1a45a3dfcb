"""Stage 7: which decodings it takes, when it runs again, and what it refuses."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Recipe

OWN = "asr/decode=exp/asr/decode"
END = "--sets test --out exp/COMPARISON.md"


@pytest.fixture
def two(finished: Recipe) -> Recipe:
    """A recipe in which all stages have run, with the scored decoding of another system beside its own."""
    shutil.copytree(finished.path / "exp/asr/decode", finished.path / "exp/ar/greedy")
    return finished


def test_all_scored_decodings_are_compared_with_the_recipes_own(two: Recipe) -> None:
    for place, control in (("exp/ar/shuffled", '{"control": "shuffled_states"}'), ("exp/ar/dev_only", "{}")):
        shutil.copytree(two.path / "exp/asr/decode", two.path / place)
        two.write(f"{place}/test/meta.json", control)
    (two.path / "exp/ar/dev_only/test").rename(two.path / "exp/ar/dev_only/dev")
    output = two.run("--stage", "compare")
    assert two.calls() == [f"compare --systems {OWN} ar/greedy=exp/ar/greedy --against asr/decode {END}"]
    assert "Stage 7 compare: COMPARISON.md is done" in output
    assert "is up to date" in two.run("--stage", "7") and two.calls() == []


def test_it_runs_again_when_a_score_or_the_choice_changes(two: Recipe) -> None:
    two.run("--stage", "compare")
    two.write("exp/ar/greedy/test/score_wer/hyp.trn", "b (s-1)")
    assert "input exp/ar/greedy/test/score_wer/hyp.trn changed" in two.run("--stage", "compare")
    two.calls()
    output = two.run("--stage", "compare", "--compare_to", "ar/greedy")
    assert 'against: "asr/decode" -> "ar/greedy"' in output
    assert two.calls() == [f"compare --systems {OWN} ar/greedy=exp/ar/greedy --against ar/greedy {END}"]


def test_the_others_are_tested_against_the_autoregressive_one(two: Recipe) -> None:
    """Known by its meta.json, or before it is decoded by its configuration; unless another one is named."""
    for meta in ('{"sampler": "autoregressive"}', '{"decoder": "whisper", "sampler": "greedy"}'):
        two.write("exp/ar/greedy/test/meta.json", meta)
        two.run("--stage", "compare")
        assert two.calls() == [f"compare --systems {OWN} ar/greedy=exp/ar/greedy --against ar/greedy {END}"]
    two.run("--stage", "compare", "--compare_to", "asr/decode")
    assert "--against asr/decode " in two.calls()[0]
    two.run("--stage", "compare")
    two.write("conf/decode.yaml", "sampler: autoregressive\n")
    assert "--against asr/decode " in two.run("--stage", "7", "--dry_run", "true")


def test_named_systems(two: Recipe) -> None:
    two.run("--stage", "compare", "--compare", "ar=exp/ar/greedy pdd=exp/asr/decode", "--compare_to", "pdd")
    assert two.calls() == [f"compare --systems ar=exp/ar/greedy pdd=exp/asr/decode --against pdd {END}"]
    (two.path / "exp/ar/greedy/test/meta.json").unlink()  # another toolkit leaves none
    two.run("--stage", "compare", "--compare", "ar=exp/ar/greedy pdd=exp/asr/decode")
    assert "--against ar " in two.calls()[0]


def test_a_control_of_this_recipe_is_left_out(two: Recipe) -> None:
    two.write("conf/deaf.yaml", "sampler: pdd\ncontrol: shuffled_states\n")
    two.run("--stage", "compare", "--inference_config", "conf/deaf.yaml conf/decode.yaml")
    assert two.calls() == [f"compare --systems {OWN} ar/greedy=exp/ar/greedy --against asr/decode {END}"]


def test_what_is_missing_is_named(two: Recipe) -> None:
    assert "--compare_to x: no such system; there are asr/decode, ar/greedy" in two.run(
        "--stage", "7", "--compare_to", "x", code=2)  # fmt: skip
    (two.path / "exp/asr/decode/test/score_wer/hyp.trn").unlink()
    assert "hyp.trn is missing; stage 6 score writes it" in two.run("--stage", "7", code=2)
    (two.path / "exp/ar/greedy/test/score_wer/hyp.trn").unlink()
    output = two.run("--stage", "7", "--compare", "a=exp/ar/greedy", code=2)
    assert "exp/ar/greedy/test/score_wer/hyp.trn is missing; COMPARISON.md needs it" in output


def test_the_dry_run_tells_the_command(recipe: Recipe) -> None:
    output = recipe.run("--stop_stage", "compare", "--dry_run", "true")
    assert "# Stage 7 compare; typical time: seconds" in output
    assert f"whisfusion_asr.bin.compare --systems {OWN} --against asr/decode {END}" in output
    assert "# writes: exp/COMPARISON.md exp/COMPARISON.json exp/comparison.png" in output
    assert "of stage score, which is missing" not in output and recipe.calls() == []
