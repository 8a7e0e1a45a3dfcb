"""Several languages in a recipe: the option reaches tokens, trainings and decoding, and what they read."""

from pathlib import Path

import pytest

from whisfusion_asr.recipe.options import Options, build_options
from whisfusion_asr.recipe.steps import Steps


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Steps of a recipe with two languages."""
    for name in ("asr", "decode"):
        (tmp_path / f"{name}.yaml").write_text("max_epoch: 1\n" if name == "asr" else "sampler: pdd\n")
    monkeypatch.chdir(tmp_path)
    return Steps(two_languages())


def two_languages(**changed: str) -> Options:
    """Options of a recipe with two languages."""
    values = {"train_set": "train", "valid_set": "dev", "test_sets": "test", "nbpe": 50, "languages": "en de",
              "asr_config": "asr.yaml", "inference_config": "decode.yaml", "encoder_tag": "enc"}
    return build_options(values | changed)


def test_tokens_have_their_languages_and_a_name_of_their_own(steps: Steps) -> None:
    (step,) = steps.parts()
    assert step.out == Path("data/token_list/unigram50_de_en") and step.settings["languages"] == ["de", "en"]
    assert " --languages en de --out " in " ".join(step.jobs[0].words)
    assert steps.layout.model == Path("exp/asr_unigram50_de_en")


def test_trainings_and_decodings_read_utt2lang(steps: Steps) -> None:
    (training,), (decoding,) = steps.train_decoder(), steps.decode()
    words = " ".join(training.jobs[0].words)
    for role, name in (("train", "train"), ("valid", "dev")):
        path = Path("data", name, "utt2lang")
        assert f"--{role}_data_path_and_name_and_type {path},language,text" in words and training.reads[path] == "data"
    assert decoding.reads[Path("data/test/utt2lang")] == "data"


def test_one_language_needs_no_file(steps: Steps) -> None:
    one = Steps(two_languages(languages="en"))
    (tokens,), (training,) = one.parts(), one.train_decoder()
    assert "--languages en" in " ".join(tokens.jobs[0].words)
    assert not [path for path in training.reads if path.name == "utt2lang"]
    assert "utt2lang" not in " ".join(training.jobs[0].words)


def test_other_languages_are_another_model(steps: Steps) -> None:
    assert Steps(two_languages(languages="")).layout.tokens == Path("data/token_list/unigram50")
    assert Steps(two_languages(languages="de en")).layout.tokens == steps.layout.tokens, "in any order"
