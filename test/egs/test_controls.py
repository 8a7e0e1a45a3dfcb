"""The controls of the recipes: what their scripts would run, seen in dry runs of a copy without data."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """egs/mini_synth/asr1 in a checkout that installs nothing."""
    root = tmp_path_factory.mktemp("controls")
    ours = subprocess.run(["git", "-C", ROOT, "ls-files", "egs", "conf"], capture_output=True, text=True, check=True)
    for name in ours.stdout.splitlines():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name, follow_symlinks=False)
    (root / "whisfusion_asr").symlink_to(ROOT / "whisfusion_asr")
    (root / "utils").mkdir()
    (root / "utils/install.sh").write_text("#!/bin/sh\n")
    (root / "utils/install.sh").chmod(0o755)
    return root / "egs/mini_synth/asr1"


def dry_run(recipe: Path, script: str, *words: str) -> subprocess.CompletedProcess:
    """A dry run that has ended."""
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "VIRTUAL_ENV": sys.prefix}
    command = [recipe / script, *words, "--dry_run", "true"]
    return subprocess.run(command, env=os.environ | path, capture_output=True, text=True)


def commands(recipe: Path, script: str, *words: str) -> list[str]:
    """Commands of a dry run."""
    done = dry_run(recipe, script, *words)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if "whisfusion_asr.bin." in line]


def refusal(recipe: Path, script: str, *words: str) -> str:
    """The one line with which a dry run refuses."""
    done = dry_run(recipe, script, *words)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_ctc_decodes_and_scores_the_encoder_alone(recipe: Path) -> None:
    found = commands(recipe, "run_ctc.sh")
    names = [line.split("whisfusion_asr.bin.")[1].split()[0] for line in found]
    assert names == ["calibrate", "decode", "decode", "score", "results"]
    assert all("--exp_dir exp/train_encoder_en_unigram300 --model_file valid.loss.ave.pth" in one for one in found[:3])
    assert "--data_dir data/dev --states_dir dump/states/dev" in found[0]
    assert "decode_ctc.yaml" in found[1] and "--states_dir dump/states/test" in found[1]


def test_autoregressive_starts_from_the_ctc_head_alone(recipe: Path) -> None:
    train, *decode = commands(recipe, "run_ar.sh", "--stage", "train_decoder", "--stop_stage", "decode")
    assert "--config conf/train_ar.yaml --output_dir exp/mini_synth_ar" in train
    assert train.count(".pth") == 1 and "exp/train_encoder_en_unigram300/valid.loss.ave.pth:ctc:ctc" in train
    assert [("decode_ar.yaml" in line, "decode_ar_beam5.yaml" in line) for line in decode[1::3]] == [
        (True, False), (False, True)]  # fmt: skip


def test_the_comparison_takes_what_the_controls_left(recipe: Path) -> None:
    (compare,) = commands(recipe, "run_ar.sh", "--stage", "compare")
    systems = "mini_synth_ar/decode_ar=exp/mini_synth_ar/decode_ar "
    assert f"--systems {systems}mini_synth_ar/decode_ar_beam5=" in compare
    assert "--against mini_synth_ar/decode_ar --sets test" in compare


def test_the_original_whisper_hears_audio_and_is_scored_with_its_own_normaliser(recipe: Path) -> None:
    place = recipe.parents[1] / "librispeech/asr1"
    found = commands(place, "run_whisper.sh", "--preset", "mini", "--whisper_dir", "W")
    names = [line.split("whisfusion_asr.bin.")[1].split()[0] for line in found]
    assert names == ["decode_whisper", "decode_whisper", "score", "results"]
    decoded = "exp_mini/whisper_original/ar_whisper/test_mini"
    files = f"--config ../../../conf/ar_whisper.yaml --data_dir data_mini/test_mini --out {decoded}"
    assert f"--whisper_dir W {files}" in found[0]
    assert "--job ${JOB}" in found[0] and "--merge true" in found[1] and "states" not in found[0]
    assert f"--hyp {decoded}/text" in found[2] and "--normalizer whisper_en" in found[2]
    assert "--token_list" not in found[2]


def test_the_original_whisper_needs_a_folder(recipe: Path) -> None:
    error = refusal(recipe.parents[1] / "librispeech/asr1", "run_whisper.sh", "--preset", "mini_scratch")
    assert "--whisper_dir is not set; stage decode needs it" in error


@pytest.mark.parametrize(
    ("script", "tag", "program", "weights", "speech", "lengths"),
    [("run_espnet.sh", "espnet", "asr_inference", "valid.acc.ave.pth",
      ("data/train/wav.scp,speech,sound", "data/test/split2/${JOB}/wav.scp,speech,sound"),
      "data/train/utt2num_samples"),
     ("run_maskctc.sh", "maskctc", "asr_inference_maskctc", "valid.loss.ave.pth",
      ("dump/states/train,speech,states", "dump/states/test,speech,states"), "dump/states/train/shape")],
)  # fmt: skip
def test_espnet_trains_and_decodes_by_its_own_programs(
    recipe: Path, script: str, tag: str, program: str, weights: str, speech: tuple[str, str], lengths: str
) -> None:
    """The hybrid model from the audio, Mask-CTC from the states that the diffusion decoder reads."""
    found = commands(recipe, script, "--stage", "train_decoder", "--stop_stage", "decode")
    calls = [line.split("whisfusion_asr.bin.")[1].split()[:2] for line in found]
    assert calls == [["espnet", "tokens"], ["espnet", "asr_train"], ["data", "split"], ["espnet", program],
                     ["espnet", "merge"]]  # fmt: skip
    train, decode, merge = found[1], found[3], found[4]
    assert f"--config conf/train_{tag}.yaml --output_dir exp/mini_synth_{tag} " in train
    assert f"--train_data_path_and_name_and_type {speech[0]} " in train and f"--train_shape_file {lengths} " in train
    assert "--token_list data/token_list/unigram300/tokens_espnet.txt" in train
    assert f"--config ../../../conf/decode_{tag}.yaml" in decode and f"exp/mini_synth_{tag}/{weights}" in decode
    assert f"{speech[1]} --key_file data/test/split2/${{JOB}}/wav.scp" in decode
    assert f"--output_dir exp/mini_synth_{tag}/decode_{tag}/test/logdir/output.${{JOB}}" in decode
    assert ("--states true" in merge) == (tag == "maskctc")


def test_changed_keys_reach_espnet_as_its_options(recipe: Path) -> None:
    words = ("--stage", "decode", "--inference_args", "beam_size=20 ctc_weight=0.5", "--ngpu", "2")
    (decode,) = [line for line in commands(recipe, "run_espnet.sh", *words) if "bin.espnet asr_inference " in line]
    assert decode.split(";")[1].endswith("--beam_size 20 --ctc_weight 0.5") and "--ngpu 1 " in decode


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--token_type", "llama"), "cannot use --token_type llama; ESPnet's programs take unigram, bpe or char"),
     (("--text_case", "lower"), "takes transcripts as they are written: change them in local/data.sh")],
)  # fmt: skip
def test_tokens_that_espnet_cannot_make_are_refused(recipe: Path, words: tuple[str, str], message: str) -> None:
    error = refusal(recipe, "run_espnet.sh", "--stage", "train_decoder", *words)
    assert error.startswith("error: --asr_task espnet ") and message in error


def test_a_model_of_espnet_is_not_packed(recipe: Path) -> None:
    assert "for ESPnet's there is espnet2.bin.pack" in refusal(recipe, "run_maskctc.sh", "--stage", "publish")


@pytest.mark.parametrize("tag", ["espnet", "maskctc"])
def test_librispeech_has_the_same_controls_large_and_small(recipe: Path, tag: str) -> None:
    libri, script = recipe.parents[1] / "librispeech/asr1", f"run_{tag}.sh"
    tokens, train = commands(libri, script, "--stage", "parts", "--stop_stage", "train_decoder")[0::2]
    assert "--token_type unigram --vocab_size 5000" in tokens and "--output_dir exp/librispeech_" in train
    small = f"conf/train_{tag}_mini.yaml"
    words = ("--preset", "mini_scratch", "--nbpe", "500", "--asr_config", small, "--stage", "train_decoder",
             "--feats_type", "states", "--encoder_config", "conf/whisper_mini.yaml")  # fmt: skip
    _, train, *_ = commands(libri, script, *words)
    assert f"--config {small} " in train and "data_mini_scratch/token_list/unigram500/tokens_espnet.txt" in train
    assert "dump_mini_scratch/states/train_mini,speech,states" in train


def test_librispeech_has_the_drafter_alone_as_ctc_control(recipe: Path) -> None:
    found = commands(recipe.parents[1] / "librispeech/asr1", "run_ctc.sh", "--whisper_dir", "W")
    decode = next(line for line in found if "bin.decode " in line)
    assert "--exp_dir exp_mini/train_whisper_mini_en_whisper_ctc --model_file valid.loss.ave.pth" in decode
    assert "--config ../../../conf/decode_ctc.yaml" in decode and "--draft_dir" not in decode


def test_librispeech_has_an_autoregressive_control_with_a_ctc_head(recipe: Path) -> None:
    words = ("--whisper_dir", "W", "--stage", "train_adapter", "--stop_stage", "train_decoder")
    ctc, train = commands(recipe.parents[1] / "librispeech/asr1", "run_ar.sh", *words)
    assert "--config conf/train_ctc_mini.yaml --output_dir exp_mini/librispeech_ar_ctc" in ctc
    assert "--config conf/train_ar_mini.yaml --output_dir exp_mini/librispeech_ar " in train
    assert train.count(".pth") == 1 and "exp_mini/librispeech_ar_ctc/valid.loss.ave.pth:ctc:ctc" in train


def test_recordings_are_labelled_before_they_are_checked(recipe: Path) -> None:
    """The conversion's own names of options, and labels for each set, rewritten for training and validation only."""
    place = recipe.parents[1] / "convert_whisper/asr1"
    found = commands(place, "run.sh", "--whisper_dir", "W", "--audio-dir", "A", "--transcripts=F", "--stop_stage", "0",
                     "--relabel", "rewrite", "--nj", "1")  # fmt: skip
    names = [line.split("whisfusion_asr.bin.")[1].split()[0] for line in found]
    assert names == [*["label", "label", "data", "data"] * 2, "label", "label", "data"]
    labels = [line for line in found if "bin.label" in line]
    assert ["--relabel rewrite" in line for line in labels] == [True] * 4 + [False] * 2
    assert all("--whisper_dir W --out dump/labels/" in line and "language=en" in line for line in labels)
    first = dry_run(place, "run.sh", "--audio-dir", "A", "--transcripts=F", "--whisper_dir", "W").stdout
    assert "bash local/data.sh --corpus_dir A --transcripts F" in first


@pytest.mark.parametrize("words", [
    ("--transcripts", "my F", "--local_data_opts", "--test_share 0.2"),
    ("--transcripts=my F", "--local-data-opts=--test_share 0.2"),
])  # fmt: skip
def test_transcripts_and_data_options_go_together(recipe: Path, words: tuple[str, ...]) -> None:
    place = recipe.parents[1] / "convert_whisper/asr1"
    first = dry_run(place, "run.sh", "--audio_dir", "A", "--whisper_dir", "W", *words).stdout
    assert 'bash local/data.sh --corpus_dir A --transcripts "my F" --test_share 0.2\n' in first


def test_an_option_without_a_value_is_named(recipe: Path) -> None:
    place = recipe.parents[1] / "convert_whisper/asr1"
    done = subprocess.run([place / "run.sh", "--audio_dir", "A", "--transcripts"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: --transcripts needs a value\n")
