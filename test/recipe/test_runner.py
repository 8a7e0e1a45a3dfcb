"""The runner through the real run.sh: order and words of commands, stamps, failures, interruptions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from whisfusion_asr.recipe.processes import Interrupted, Processes

if TYPE_CHECKING:
    from conftest import Recipe

ROOT = Path(__file__).resolve().parents[2]


def names(calls: list[str]) -> list[str]:
    return [call.split()[0] for call in calls]


def has_ended(pid: int, seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stat = Path(f"/proc/{pid}/stat")
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def written(path: Path) -> str:
    """What a child writes into a file, waited for; another job may write the same file again later."""
    end = time.monotonic() + 20
    while not (path.exists() and (text := path.read_text())):
        assert time.monotonic() < end, path
        time.sleep(0.02)
    return text


def test_all_stages_run_the_commands_in_order_and_a_second_time_none(recipe: Recipe) -> None:
    output = recipe.run()
    calls = recipe.calls()
    expected = ["data"] * 6 + ["train_tokens", "import_encoder", "prepare_text", "prepare_text", "train"]
    expected += ["evaluate_text"] + ["dump_states"] * 9 + ["train", "train"] + ["calibrate"] + ["decode"] * 3
    expected += ["score", "results"]
    assert names(calls) == expected
    assert "Sum/Avg" in output and "SPKR" in output and "RESULTS.md" in output
    assert "(runner.py:" in output and "Successfully finished. [elapsed=" in output
    again = recipe.run()
    assert recipe.calls() == []
    assert again.count("is up to date") == output.count(" is done in ") == 15


def test_speeds_make_the_set_that_is_trained_on(recipe: Recipe) -> None:
    """The corpus' set is checked first; every later stage, and only it, takes the set with the copies."""
    recipe.run("--speed_perturb_factors", "0.9 1.0 1.1")
    calls = recipe.calls()
    perturb = calls.index("data perturb_speed data/train data/train_sp --factors 0.9 1.0 1.1 --nj 2")
    assert calls.index("data filter data/train --min_seconds 0.1 --max_seconds 30.0 --max_loss 0.05") < perturb
    assert any(call.startswith("data filter data/train_sp ") for call in calls[perturb:])
    later = " ".join(calls[perturb + 1 :])
    assert "dump/states/train_sp,states,states" in later and "--text data/train_sp/text" in later
    assert "data/train/" not in later and "data/train " not in later
    recipe.run("--speed_perturb_factors", "0.9 1.0 1.1")
    assert recipe.calls() == []


def test_words_of_the_commands(recipe: Recipe) -> None:
    changed = ("--asr_args", "--max_epoch 2", "--inference_args", "sampler_conf.candidates=5")
    recipe.run("--corpus_dir", "/c", "--whisper_dir", "/w", *changed)
    calls = recipe.calls()
    assert "data filter data/train --min_seconds 0.1 --max_seconds 30.0 --max_loss 0.05" in calls
    assert "data filter data/dev --min_seconds 0.1 --max_seconds 30.0 --max_loss 0.05" in calls
    assert not any(call.startswith("data filter data/test") for call in calls)
    tokens = "data/token_list/unigram50"
    assert f"train_tokens --text data/train/text --token_type unigram --vocab_size 50 --out {tokens}" in calls
    assert "import_encoder --config conf/encoder.yaml --out exp/encoder --whisper_dir /w" in calls
    assert "data --corpus_dir /c" in calls
    dump = "dump_states --encoder_dir exp/encoder --data_dir data/train --out dump/states/train --num_jobs 2"
    assert f"{dump} --storage int8 --job 2" in calls
    assert "dump_states --data_dir data/train --out dump/states/train --num_jobs 2 --merge true" in calls
    held_out = "--text dump/text/dev/text --train_text dump/text/train/text --max_sentences 200"
    bound = f"evaluate_text --exp_dir exp/text_unigram50 {held_out} --max_train_sentences 20000 --draws 4 --out"
    assert f"{bound} exp/text_unigram50/text_bound.json" in calls
    text, adapter, decoder = [call for call in calls if call.startswith("train ")]
    assert "dump/text/train/text,text,text --train_shape_file dump/text/train/shape" in text
    assert "--train_data_path_and_name_and_type dump/states/train,states,states" in adapter
    assert "--train_data_path_and_name_and_type data/train/text,text,text" in adapter
    assert f"--token_type bpe --token_list {tokens}/tokens.txt --bpemodel {tokens}/tokens.model" in adapter
    assert adapter.endswith("--init_param exp/text_unigram50/valid.loss.ave.pth")
    assert "--output_dir exp/asr_adapter" in adapter
    inits = "exp/text_unigram50/valid.loss.ave.pth exp/asr_adapter/valid.loss.ave.pth"
    assert decoder.endswith(f"--ngpu 0 --resume true --seed 0 --init_param {inits} --max_epoch 2")
    model = "--exp_dir exp/asr --model_file valid.loss.ave.pth"
    assert f"calibrate {model} --data_dir data/dev --states_dir dump/states/dev" in calls
    decode = "decode --exp_dir exp/asr --model_file valid.loss.ave.pth --config conf/decode.yaml --data_dir data/test"
    decode += " --states_dir dump/states/test --out exp/asr/decode/test --num_jobs 2"
    assert f"{decode} --job 1 --inference_args sampler_conf.candidates=5" in calls
    assert f"{decode} --merge true --inference_args sampler_conf.candidates=5" in calls
    score = "score --ref data/test/text --hyp exp/asr/decode/test/text --utt2spk data/test/utt2spk"
    assert f"{score} --token_list {tokens} --out exp/asr/decode/test" in calls


def test_an_older_text_model_is_evaluated_and_not_trained_again(finished: Recipe) -> None:
    text = finished.path / "exp/text_unigram50"
    for name in ("text_bound.json", ".bound.stamp.json"):
        (text / name).unlink()
    finished.run("--stage", "1")
    assert names(finished.calls()) == ["evaluate_text"]


def test_a_causal_text_model_has_no_bound(recipe: Recipe) -> None:
    words = ("--dry_run", "true", "--stage", "1", "--stop_stage", "1", "--text_args", "--decoder causal")
    assert "evaluate_text" not in recipe.run(*words)


def test_a_whisper_gives_tokens_and_decoder(recipe: Recipe) -> None:
    """Its folder is named once: the token list is chosen from it, and the decoder starts from it."""
    recipe.write("conf/asr.yaml", "decoder: whisper_diffusion\nmax_epoch: 3\n")
    (recipe.path / "w").mkdir()
    recipe.run("--whisper_dir", "w", "--token_type", "whisper", "--stop_stage", "4", "--adapter_config", "")
    calls = {call.split()[0]: call for call in recipe.calls()}
    assert "--token_type whisper --whisper_dir w --out data/token_list/whisper" in calls["train_tokens"]
    assert "--token_type bpe --token_list data/token_list/whisper/tokens.txt" in calls["train"]
    assert f"--decoder_conf model={recipe.path / 'w'}" in calls["train"]


def test_trained_encoder_and_ctc_head_enter_the_init_list(recipe: Recipe) -> None:
    recipe.write("conf/encoder.yaml", "encoder: conformer\n")
    recipe.run("--stop_stage", "4", "--text_config", "")
    encoder, adapter, decoder = [call for call in recipe.calls() if call.startswith("train ")]
    assert "--output_dir exp/encoder_unigram50" in encoder and "data/train,speech,audio" in encoder
    assert "--train_shape_file data/train/utt2num_samples" in encoder
    head = "exp/encoder_unigram50/valid.loss.ave.pth:ctc:ctc"
    assert adapter.endswith(f"--init_param {head}")
    assert decoder.endswith(f"--init_param {head} exp/asr_adapter/valid.loss.ave.pth")
    recipe.write("conf/ctc.yaml", "max_epoch: 3\n")
    options = ("--stage", "3", "--stop_stage", "4", "--text_config", "", "--adapter_config", "", "--asr_tag", "b")
    recipe.run(*options, "--ctc_config", "conf/ctc.yaml")
    ctc, decoder = recipe.calls()
    assert "--output_dir exp/b_ctc" in ctc and "--init_param" not in ctc
    assert decoder.endswith("--init_param exp/b_ctc/valid.loss.ave.pth:ctc:ctc")


def test_a_ctc_head_with_own_tokens_drafts_for_the_decoder(recipe: Recipe) -> None:
    """It is trained with them, the decoder does not start from it, and is decoded and packed with it."""
    recipe.write("conf/ctc.yaml", "max_epoch: 3\n")
    own = ("--ctc_config", "conf/ctc.yaml", "--ctc_token_type", "bpe", "--ctc_nbpe", "40", "--text_config", "")
    recipe.run(*own, "--adapter_config", "", "--token_type", "char")
    calls = recipe.calls()
    tokens = [call for call in calls if call.startswith("train_tokens")]
    assert ["--token_type char" in call for call in tokens] == [True, False]
    assert tokens[1].endswith("--token_type bpe --vocab_size 40 --out data/token_list/bpe40")
    ctc, decoder = [call for call in calls if call.startswith("train ")]
    assert "--output_dir exp/asr_ctc" in ctc and "--bpemodel data/token_list/bpe40/tokens.model" in ctc
    assert "--token_list data/token_list/char/tokens.txt" in decoder and "--init_param" not in ctc + decoder
    decoded = [call for call in calls if call.startswith("decode ")]
    assert len(decoded) == 3 and all("--exp_dir exp/asr " in call and "--draft_dir exp/asr_ctc" in call
                                     for call in decoded)
    recipe.run(*own, "--adapter_config", "", "--token_type", "char", "--stage", "publish")
    assert recipe.calls()[-1].endswith("--encoder_dir exp/encoder --draft_dir exp/asr_ctc")
    recipe.write("exp/asr_ctc/valid.loss.ave.pth", "another head")
    output = recipe.run(*own, "--adapter_config", "", "--token_type", "char", "--stage", "decode")
    assert "input exp/asr_ctc/valid.loss.ave.pth changed" in output
    assert "no CTC head is trained; set --ctc_config too" in recipe.run("--ctc_token_type", "bpe", code=2)


def test_raw_features_need_no_dump(recipe: Recipe) -> None:
    recipe.write("conf/encoder.yaml", "encoder: conformer\n")
    output = recipe.run("--feats_type", "raw", "--text_config", "", "--token_type", "char")
    calls = recipe.calls()
    assert "dump_states" not in names(calls)
    assert "Stage 2 dump: nothing to do" in output
    decoder = [call for call in calls if call.startswith("train ")][-1]
    assert "--token_type char --token_list data/token_list/char/tokens.txt --train" in decoder
    weights = "exp/encoder_char/valid.loss.ave.pth"
    assert f"--init_param {weights}:encoder:encoder {weights}:ctc:ctc exp/asr_adapter/valid.loss.ave.pth" in decoder
    assert not any("--states_dir" in call for call in calls)


def test_raw_features_of_an_imported_encoder_are_made_in_every_training(recipe: Recipe) -> None:
    recipe.write("conf/ctc.yaml", "max_epoch: 3\n")
    recipe.run("--feats_type", "raw", "--ctc_config", "conf/ctc.yaml", "--stop_stage", "4")
    text, *on_audio = [call for call in recipe.calls() if call.startswith("train ")]
    encoder = "--encoder whisper --encoder_conf model=/w --encoder_conf pool=2"
    assert len(on_audio) == 3 and all(encoder in call and "data/train,speech,audio" in call for call in on_audio)
    assert "--encoder" not in text
    recipe.write("exp/encoder/config.yaml", "encoder_conf: {model: /v}\n")
    options = ("--feats_type", "raw", "--ctc_config", "conf/ctc.yaml", "--stage", "4", "--stop_stage", "4")
    output = recipe.run(*options, code=2)
    assert "input exp/encoder/config.yaml changed" in output


def test_another_storage_dumps_again(recipe: Recipe) -> None:
    recipe.run("--stop_stage", "2")
    output = recipe.run("--stop_stage", "2", "--states_storage", "float32")
    assert output.count('runs again, storage: "int8" -> "float32"') == 3
    # four utterances of a second: 25 states of width 512 each, and eight rows of offsets and scales
    assert "as int8, about 6.76e-05 GB" in recipe.run("--dry_run", "true", "--stage", "2", "--force", "true")


def test_without_an_adapter_configuration_stage_3_says_so(recipe: Recipe) -> None:
    assert "Stage 3 train_adapter: nothing to do" in recipe.run("--adapter_config", "", "--stop_stage", "4")
    assert "asr_adapter" not in [call for call in recipe.calls() if call.startswith("train ")][-1]


def test_a_decoder_without_acoustics_is_one_option(recipe: Recipe) -> None:
    deaf, said = ("--asr_args", "--decoder_conf conditioned=false"), "no adapters to train, decoder_conf.conditioned is"
    assert f"Stage 3 train_adapter: {said} false" in recipe.run(*deaf, "--stop_stage", "4")
    _, decoder = [call for call in recipe.calls() if call.startswith("train ")]
    assert decoder.endswith("--init_param exp/text_unigram50/valid.loss.ave.pth --decoder_conf conditioned=false")
    recipe.run(*deaf, "--adapter_config", "", "--stop_stage", "4")
    assert recipe.calls() == []  # as such a model was asked for before: the same, up to date
    recipe.write("conf/asr.yaml", "max_epoch: 3\ndecoder_conf: {conditioned: false}\n")
    recipe.write("conf/ctc.yaml", "max_epoch: 3\n")
    named = ("--asr_tag", "b", "--ctc_config", "conf/ctc.yaml", "--stage", "3", "--stop_stage", "4")
    planned = recipe.run("--dry_run", "true", *named)
    assert f"# {said} false\n" in planned and "training b_ctc" in planned and "b_adapter" not in planned
    planned = recipe.run("--dry_run", "true", *named, "--asr_args", "--decoder_conf conditioned=true")
    assert said not in planned and "training b_adapter" in planned


def test_a_changed_option_is_named_and_what_depends_on_it_runs_again(recipe: Recipe) -> None:
    recipe.run("--stop_stage", "0")
    recipe.calls()
    output = recipe.run("--stop_stage", "0", "--max_wav_duration", "20")
    assert "runs again, max_wav_duration: 30.0 -> 20.0" in output
    assert "data" in names(recipe.calls())


def test_a_changed_input_is_named(finished: Recipe) -> None:
    recipe = finished
    (recipe.path / "data/dev/wav.scp").write_text("dev-1 y.wav\n")
    output = recipe.run("--stage", "2", "--stop_stage", "2")
    assert "states of dev: runs again, input data/dev/wav.scp changed" in output
    assert output.count("is up to date") == 2
    assert len(recipe.calls()) == 3


def test_a_lost_output_is_made_again_with_all_its_jobs(finished: Recipe) -> None:
    recipe = finished
    (recipe.path / "dump/states/dev/states.scp").unlink()
    assert "states.scp is gone" in recipe.run("--stage", "2", "--stop_stage", "2")
    assert len(recipe.calls()) == 3


def test_a_changed_setting_never_overwrites_an_experiment(finished: Recipe) -> None:
    recipe = finished
    recipe.write("conf/asr.yaml", "max_epoch: 5\noptim_conf: {lr: 0.2}\n")
    refused = recipe.run("--stage", "4", code=2)
    assert "optim_conf.lr: 0.1 -> 0.2" in refused and "max_epoch: 3 -> 5" in refused
    assert "--asr_tag NAME" in refused and "--force true" in refused and "exp/asr.old-1" in refused
    assert recipe.calls() == []
    recipe.run("--stage", "4", "--stop_stage", "4", "--asr_tag", "other", "--adapter_config", "")
    recipe.run("--stage", "4", "--stop_stage", "4", "--force", "true")
    assert (recipe.path / "exp/asr.old-1/valid.loss.ave.pth").exists()
    assert (recipe.path / "exp/asr/valid.loss.ave.pth").exists()
    assert not (recipe.path / "exp/asr.old-1/asr").exists()
    recipe.calls()
    refused = recipe.run("--stage", "5", "--asr_tag", "other", "--inference_args", "sampler_conf.steps=2")
    refused = recipe.run("--stage", "5", "--asr_tag", "other", code=2)
    assert "sampler_conf.steps: 2 -> (unset)" in refused and "--inference_tag NAME" in refused


def test_settings_that_only_change_the_log_are_free_and_so_is_a_first_try_without_result(recipe: Recipe) -> None:
    recipe.write("fail_train", "2")
    recipe.run("--stop_stage", "1", code=2)
    (recipe.path / "fail_train").unlink()
    recipe.run("--stop_stage", "1", "--text_args", "--optim_conf lr=0.5")
    recipe.run("--stop_stage", "1", "--text_args", "--optim_conf lr=0.5 --log_interval 7")


def test_force_redoes_all_jobs(finished: Recipe) -> None:
    recipe = finished
    recipe.run("--stage", "2", "--stop_stage", "2", "--force", "true")
    assert len(recipe.calls()) == 9


def test_a_missing_input_names_the_stage_that_writes_it(recipe: Recipe) -> None:
    message = "error: dump/states/train/states.scp is missing; stage 2 dump writes it: run --stage 2 --stop_stage 2"
    recipe.run("--stop_stage", "1")
    assert message in recipe.run("--stage", "4", "--adapter_config", "", code=2)
    assert "local/data.sh is missing" in _without(recipe, "local/data.sh").run(code=2)


def _without(recipe: Recipe, name: str) -> Recipe:
    (recipe.path / name).unlink()
    return recipe


@pytest.mark.parametrize(("child", "ours"), [(2, 2), (1, 1), (7, 1)])
def test_a_failed_job_shows_the_end_of_its_log(recipe: Recipe, child: int, ours: int) -> None:
    recipe.write("fail_dump_states", f"{child} 2")
    output = recipe.run(code=ours)
    log = "dump/states/train/logdir/dump_states.2.log"
    assert f"log: {log}" in output
    if child == 2:  # the user's mistake: what the command says of it, nothing else
        assert f"error: this is the cause; dump_states (1 of 2 jobs failed), log: {log}\n" in output
        assert "line 39" not in output
    else:
        assert f"ended with exit code {child} (1 of 2 jobs failed)" in output
        assert "error: this is the cause\n" in output
        assert "line 39" in output and "line 10\n" not in output  # the last 20 lines only
    assert f"# Ended (code {child})" in (recipe.path / log).read_text()
    (recipe.path / "fail_dump_states").unlink()
    recipe.calls()
    assert "1 of 2 jobs were done before" in recipe.run("--stop_stage", "2")
    first = recipe.calls()[0]
    assert first.startswith("dump_states") and first.endswith("--job 2")
    assert "train" in first


def test_a_failing_short_command_and_a_silent_failure(recipe: Recipe) -> None:
    recipe.write("fail_data", "1")
    assert "data validate data/train\nended with exit code 1" in recipe.run(code=1)
    recipe.write("fail_data", "2")
    output = recipe.run(code=2)
    assert "ended with" not in output and output.count("error: ") == 1  # the command has told
    (recipe.path / "fail_data").unlink()
    recipe.write("lose_a_key", "")
    output = recipe.run(code=1)
    assert "dump/states/train/states.scp must have the 4 keys of data/train/utt2spk" in output
    assert "missing: train-1" in output


def test_a_smaller_array_leaves_no_old_logs(finished: Recipe) -> None:
    recipe = finished
    logdir = recipe.path / "dump/states/dev/logdir"
    recipe.run("--stage", "2", "--stop_stage", "2", "--nj", "9", "--force", "true")
    assert len(list(logdir.glob("*.log"))) == 4  # not more jobs than utterances
    recipe.run("--stage", "2", "--stop_stage", "2", "--nj", "1", "--force", "true")
    assert sorted(p.name for p in logdir.iterdir()) == ["dump_states.1.done", "dump_states.1.log"]


def test_trainings_on_states_are_told_their_width(recipe: Recipe) -> None:
    recipe.run()
    trainings = [call for call in recipe.calls() if call.startswith("train ")]
    on_states = [call for call in trainings if ",states,states" in call]
    assert on_states and all("--encoder_conf size=384" in call for call in on_states)
    assert not any("size=384" in call for call in trainings if call not in on_states)


def test_jobs_get_devices_in_turn(finished: Recipe) -> None:
    recipe = finished
    recipe.run("--stage", "2", "--stop_stage", "2", "--nj", "4", "--ngpu", "2", "--force", "true")
    logs = [(recipe.path / f"dump/states/dev/logdir/dump_states.{n}.log").read_text() for n in (1, 2, 3, 4)]
    assert [log.split("\ndevice ")[1][0] for log in logs] == ["0", "1", "0", "1"]
    assert all("--device cuda" in call for call in recipe.calls() if "--job" in call)


def test_a_killed_runner_takes_its_children_along_and_the_next_run_goes_on(recipe: Recipe) -> None:
    recipe.write("slow_train", "60")
    child = recipe.start()
    pid = int(written(recipe.path / "pid_train"))
    assert json.loads((recipe.path / "exp/text_unigram50/.stamp.json").read_text())["state"] == "running"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert has_ended(pid)
    (recipe.path / "slow_train").unlink()
    recipe.calls()
    output = recipe.run()
    assert "training text_unigram50: goes on where it was interrupted" in output
    assert names(recipe.calls())[0] == "train"
    assert (recipe.path / "exp/asr/RESULTS.md").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_runner_ends_its_children(recipe: Recipe, number: signal.Signals) -> None:
    recipe.write("slow_dump_states", "60")
    child = recipe.start()
    pid = int(written(recipe.path / "pid_dump_states"))
    child.send_signal(number)
    _, error = child.communicate(timeout=8)  # children are asked to end, not waited for
    assert child.returncode == 128 + number
    assert f"interrupted by {number.name}" in error
    assert has_ended(pid)


def test_a_signal_while_a_child_starts_leaves_no_orphan(monkeypatch: pytest.MonkeyPatch) -> None:
    children = []

    def slow_start(words: list[str], **others: object) -> subprocess.Popen:
        children.append(start(words, **others))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)  # the handler runs here, before the runner knows the child
        return children[-1]

    start = subprocess.Popen
    with pytest.raises(Interrupted), Processes() as processes:
        monkeypatch.setattr(subprocess, "Popen", slow_start)
        processes.start(["sleep", "60"])
    assert has_ended(children[0].pid)


def test_an_unfinished_training_is_decoded_only_with_a_named_checkpoint(finished: Recipe) -> None:
    recipe = finished
    stamp = recipe.path / "exp/asr/.stamp.json"
    stamp.write_text(stamp.read_text().replace('"done"', '"running"'))
    assert "stage 4 train_decoder was interrupted" in recipe.run("--stage", "5", code=2)
    (recipe.path / "exp/asr/3epoch.pth").write_text("w")
    other = ("--inference_model", "3epoch.pth", "--inference_tag", "early")
    recipe.run("--stage", "5", *other)


@pytest.mark.parametrize(("dtype", "words"), [("int8", "--quantize int8"), ("bfloat16", "--dtype bfloat16")])
def test_the_arithmetic_of_a_decoding(finished: Recipe, dtype: str, words: str) -> None:
    """It is said to all jobs and to their merging, and another one does not overwrite what is decoded."""
    other = ("--stage", "decode", "--inference_dtype", dtype)
    assert "--inference_tag" in finished.run(*other, code=2) and not finished.calls()
    finished.run(*other, "--inference_tag", "other")
    decoded = [call for call in finished.calls() if call.startswith("decode ")]
    assert len(decoded) == 3 and all(words in call for call in decoded)
    assert "--inference_dtype must be one of float32" in finished.run("--inference_dtype", "half", code=2)


def test_works_from_another_directory(recipe: Recipe, tmp_path: Path) -> None:
    recipe.run("--stop_stage", "1", cwd=tmp_path)
    assert (recipe.path / "data/token_list/unigram50/tokens.txt").exists()
    assert not (tmp_path / "data").exists()


def test_experiment_directories_tell_how_they_were_made(recipe: Recipe) -> None:
    recipe.run("--seed", "3")
    recipe.calls()
    exp = recipe.path / "exp/asr"
    versions = json.loads((exp / "versions.json").read_text())
    assert versions["seed"] == 3 and versions["whisfusion_asr"] and versions["python"] and "git" in versions
    (exp / "valid.loss.ave.pth").unlink()
    subprocess.run([exp / "run.sh", "--stop_stage", "4"], env=recipe.env, cwd="/", check=True, capture_output=True)
    assert names(recipe.calls()) == ["train"]
    assert (exp / "decode/run.sh").exists()
    assert (exp / "train.1.log").exists()  # the first call's log is kept


def test_epochs_are_shown_with_the_validation_loss(recipe: Recipe) -> None:
    output = recipe.run("--stop_stage", "1")
    assert "train: 3 of 3 epochs, validation loss 0.3" in output


def test_dry_run_prints_commands_and_runs_none(recipe: Recipe) -> None:
    script = recipe.path / "local/data.sh"
    script.write_text(f"# downloads: 6 GB from somewhere\n{script.read_text()}")
    before = sorted(recipe.path.rglob("*"))
    output = recipe.run("--dry_run", "true")
    assert sorted(recipe.path.rglob("*")) == before
    assert "# downloads: 6 GB from somewhere" in output and "# writes: exp/asr/config.yaml" in output
    assert "for JOB in $(seq 2); do " in output and "--job ${JOB}; done" in output
    assert "free on this disk" in output and "which is missing" not in output
    only = recipe.run("--dry_run", "true", "--stage", "4", "--stop_stage", "4")
    assert "# needs dump/states/train/states.scp of stage dump, which is missing" in only
    # what it prints can be pasted: stages 0 to 6 in one shell
    subprocess.run(["bash", "-e", "-c", output], env=recipe.env, check=True, capture_output=True, cwd="/")
    assert (recipe.path / "exp/asr/RESULTS.md").exists()


def test_dry_run_after_a_run_says_what_is_done_and_what_would_be_refused(finished: Recipe) -> None:
    recipe = finished
    assert recipe.run("--dry_run", "true").count(": up to date") == 15
    output = recipe.run("--dry_run", "true", "--seed", "9", "--stage", "4")
    assert "would be refused" in output and "seed: 0 -> 9" in output
    assert "GB" in recipe.run("--dry_run", "true", "--stage", "2", "--force", "true")


def test_help_is_quick_and_room_is_light() -> None:
    start = os.times().children_user
    code = "import sys, whisfusion_asr.bin.recipe; print({'torch', 'numpy', 'espnet2'} & set(sys.modules))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert os.times().children_user - start < 0.5
