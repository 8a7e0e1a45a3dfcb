"""Option syntax, layers of values, and the table of stages, without running a recipe."""

from pathlib import Path

import pytest

from whisfusion_asr.bin.recipe import main, options_from
from whisfusion_asr.errors import UserError
from whisfusion_asr.recipe.options import CHOICES, Options, build_options
from whisfusion_asr.recipe.stages import STAGES, chosen_stages
from whisfusion_asr.scoring import NORMALIZERS

SETS = ["--train_set", "train", "--valid_set", "dev", "--test_sets", "a b a", "--inference_config", "c.yaml"]


@pytest.fixture(autouse=True)
def in_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe directory with a preset."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/preset_toy.yaml").write_text("nbpe: 30\nexpdir: exp_toy\ntest_sets: [c, d]\nmax_data_loss: 1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_both_spellings_and_the_equals_sign() -> None:
    options = options_from(["--stop-stage", "3", "--train_set=x", "--dry-run=true", "--min-wav-duration", "1.5"])
    assert (options.stop_stage, options.train_set, options.dry_run, options.min_wav_duration) == ("3", "x", True, 1.5)
    assert options_from(["--asr_args", "--max_epoch 3 --optim_conf lr=0.1"]).asr_args.startswith("--max_epoch")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trainset", "x"], "unknown option --trainset; did you mean --train_set?"),
        (["--nj"], "argument --nj: expected one argument"),
        (["--nj", "--ngpu", "1"], "argument --nj: expected one argument"),
        (["--force", "yes"], "expected true or false, got 'yes'"),
        (["--nj", "many"], "invalid int value"),
        (["stray"], "unrecognized arguments: stray"),
        (["--nj", "0"], "--nj must be at least 1, got 0"),
        (["--train_set", "x", "--valid_set", "x"], "must differ"),
        (["--train_set", "x", "--test_sets", "y x"], "contains the training set x"),
        (["--train_set", "x", "--test_sets", "x_sp", "--speed_perturb_factors", "0.9 1"], "the training set x_sp"),
        (["--feats_type", "fbank"], "must be one of states, raw; got 'fbank'"),
        (["--states_storage", "int4"], "must be one of int8, float16, float32; got 'int4'"),
        (["--labels", "whisper"], "--labels whisper needs a complete Whisper model: give its folder"),
        (["--relabel", "rewrite"], "--relabel rewrite: say who listens, --labels whisper"),
        (["--speed_perturb_factors", "0.9 x"], "--speed_perturb_factors x: expected numbers as in 0.9 1.0 1.1"),
        (["--normalizer", "basics"], "must be one of none, published, basic, whisper_en, cjk; got 'basics'"),
        (["--expdir", "JOBS"], "JOB stands for a job's number"),
        (["--inference_tag", "t", "--inference_config", "a b"], "--inference_tag names one directory"),
        (["--preset", "tiny"], "presets of this recipe: toy"),
        (["--stage", "9"], "no such stage; there are 0 data, 1 parts"),
        (["--stage", "dat"], "--stage dat: no such stage"),
        (["--stage", "compare"], "--test_sets is not set; stage 7 compare needs it"),
        (["--languages", "en de", "--text_config", "x"], "--languages and --text_config: a text model is of one"),
        (["--languages", "en", "--token_type", "llama"], "published tokens of --token_type llama have no place"),
        (["--compare", "ar"], "--compare ar: expected NAME=DIR"),
        ([*SETS, "--stage", "7", "--stop_stage", "6"], "--stage 7 comes after --stop_stage 6: nothing to run"),
        ([*SETS, "--stage", "4", "--stop_stage", "3"], "nothing to run"),
        ([], "--train_set is not set; stage 0 data needs it"),
        (["--stage", "8"], "--inference_config is not set; stage 8 publish needs it"),
        ([*SETS, "--stage", "8", "--stop_stage", "5"], "--stage 8 comes after --stop_stage 5: nothing to run"),
        (["--stage", "5"], "--test_sets is not set; stage 5 decode needs it"),
        (["--asr_task", "espnet", "--inference_dtype", "int8"], "are decoded by ESPnet: say --inference_args dtype="),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_a_recipe_knows_the_normalisers_of_the_scorer() -> None:
    assert set(CHOICES["normalizer"]) == set(NORMALIZERS)


def test_a_preset_lies_between_the_values_of_the_recipe_and_the_users() -> None:
    recipe = ["--nbpe", "500", "--expdir", "exp"]
    options = options_from([*recipe, "--", "--expdir", "mine", "--preset", "toy"])
    assert (options.nbpe, options.expdir, options.test_sets, options.max_data_loss) == (30, "mine", "c d", 1.0)
    # without the separator, what stands before --preset counts as the recipe's
    options = options_from([*recipe, "--preset=toy", "--expdir", "mine"])
    assert (options.nbpe, options.expdir) == (30, "mine")
    assert options_from(recipe).nbpe == 500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nbp: 3", "unknown option nbp; did you mean nbpe?"),
        ("nbpe: many", "nbpe: expected int, got 'many'"),
        ("nbpe: true", "nbpe: expected int, got True"),
        ("force: 1", "force: expected bool, got 1"),
        ("lang: true", "lang: expected str, got True"),
        ("- a", "expected keys and values"),
    ],
)
def test_a_wrong_preset_names_file_and_key(in_a_recipe: Path, text: str, message: str) -> None:
    (in_a_recipe / "conf/preset_bad.yaml").write_text(text)
    with pytest.raises(UserError, match=r"conf/preset_bad\.yaml: .*") as error:
        options_from(["--preset", "bad"])
    assert message in str(error.value)


def chosen(*words: str) -> list[int]:
    return [stage.number for stage in chosen_stages(options_from([*SETS, *words]))]


def test_stages_by_number_and_name() -> None:
    assert chosen() == [0, 1, 2, 3, 4, 5, 6]
    assert chosen("--stage", "2", "--stop_stage", "train_decoder") == [2, 3, 4]
    assert chosen("--stage", "stage1", "--stop_stage", "stage2") == [3, 4]
    assert chosen("--stage", "3", "--skip_stages", "train_decoder 6") == [3, 5]
    assert chosen("--stage", "5", "--stop_stage", "10000") == [5, 6, 7, 8]
    assert chosen("--stage", "compare") == [7]
    assert chosen("--stage", "publish") == [8]
    assert build_options({"test_sets": "a b a"}).words("test_sets") == ["a", "b"]


def test_the_list_of_stages(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--stage", "list"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["stage", "reads", "writes", "typical", "time"]
    assert [line.split()[:2] for line in lines[1:]] == [[str(stage.number), stage.name] for stage in STAGES]
    assert [stage.number for stage in STAGES] == list(range(9))
    assert "train_adapter (stage1)" in lines[4]


def test_help_shows_every_option_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    assert "(default: valid.loss.ave.pth)" in text and "--dry_run true|false" in text
    assert all(f"--{name} " in text for name in Options.__dataclass_fields__)
