"""Stage 1 with published parts: Llama's tokens and SMDM's text network in the place of trained ones; the estimates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from whisfusion_asr.errors import UserError
from whisfusion_asr.recipe.estimates import (
    Cost,
    SetSize,
    canvas_operations,
    decoding_hours,
    dump_costs,
    encoder_facts,
    hub_download,
    set_size,
    told_download,
    total,
    training_disk,
    training_hours,
)
from whisfusion_asr.recipe.layout import Layout
from whisfusion_asr.recipe.options import Options, build_options

if TYPE_CHECKING:
    from conftest import Recipe

PUBLISHED = ("--token_type", "llama", "--smdm", "owner/model:a/b.safetensors", "--text_config", "")
SMALL = {
    "decoder": "diffusion", "encoder_conf.size": 768, "decoder_conf.size": 768, "decoder_conf.num_blocks": 18,
    "decoder_conf.ffn_size": 3072, "model_conf.canvas_conf.fit": "fixed", "model_conf.canvas_conf.length": 256,
}  # fmt: skip


def test_words_of_the_commands(recipe: Recipe) -> None:
    output = recipe.run(*PUBLISHED, "--stop_stage", "4", "--tokenizer_model", "local/x.model")
    calls = recipe.calls()
    assert "import_model --tokenizer local/x.model --out data/token_list/llama" in calls
    smdm = "import_model --smdm owner/model:a/b.safetensors --tokenizer data/token_list/llama --out exp/smdm_llama"
    assert smdm in calls
    adapter, decoder = [call for call in calls if call.startswith("train ")]
    model = "data/token_list/llama/tokens.txt --bpemodel data/token_list/llama/tokens.model"
    assert f"--token_type bpe --token_list {model}" in adapter
    assert adapter.endswith("--init_param exp/smdm_llama/valid.loss.ave.pth")
    assert "--init_param exp/smdm_llama/valid.loss.ave.pth exp/asr_adapter/valid.loss.ave.pth" in decoder
    assert "text model smdm_llama" in output
    again = recipe.run(*PUBLISHED, "--stop_stage", "4", "--tokenizer_model", "local/x.model")
    assert recipe.calls() == [] and again.count("is up to date") == output.count(" is done in ")


def test_another_file_of_smdm_is_another_model(recipe: Recipe) -> None:
    recipe.run(*PUBLISHED, "--stop_stage", "1")
    error = recipe.run(*PUBLISHED, "--stop_stage", "1", "--smdm", "owner/model:c", code=2)
    assert "smdm" in error and "owner/model:c" in error and "--text_tag" in error


def test_form_of_texts_reaches_the_tokens_and_their_name(recipe: Recipe) -> None:
    form = ("--text_case", "lower", "--punctuation", "remove")
    recipe.run("--stage", "0", "--stop_stage", "1", "--encoder_config", "", "--text_config", "", *form)
    tokens = [call for call in recipe.calls() if call.startswith("train_tokens")]
    assert len(tokens) == 1
    assert tokens[0].endswith("--text_case lower --punctuation remove --out data/token_list/unigram50_lower_nopunct")
    assert Layout(Options(token_type="llama", text_case="upper")).token_name == "llama_upper"


def test_dry_run_tells_downloads_and_costs(recipe: Recipe) -> None:
    recipe.write("conf/encoder.yaml", "encoder: whisper\nencoder_conf: {model: openai/whisper-small, keep: padded}\n")
    script = (recipe.path / "run.sh").read_text()
    recipe.write("run.sh", script.replace("set -euo", "# sets: train 281241 960.9, test 10 0.1\nset -euo"))
    output = recipe.run(*PUBLISHED, "--dry_run", "true")
    hub = "from the Hugging Face hub"
    assert f"# downloads: TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T {hub}, 0.0005 GB" in output
    assert f"# downloads: openai/whisper-small {hub}, 0.97 GB" in output
    assert f"# downloads: owner/model:a/b.safetensors {hub} (" in output
    assert "# disk: states of 960.9 hours of audio as int8, about 326 GB" in output
    assert "# time: encoding, 0.26 hours at 100 TFLOP/s of a GPU; --ngpu is 0: a CPU needs" in output
    # 324.0, 1.73 of int8's scales, 0.97 of Whisper and 0.88 of SMDM
    assert "# in total, where sizes are known, about 328 GB, 0.26 hours at 100 TFLOP/s of a GPU" in output
    more = ("--whisper_dir", ".", "--tokenizer_model", "run.sh", "--ngpu", "1")
    output = recipe.run(*PUBLISHED, "--dry_run", "true", *more)
    assert "whisper-small from" not in output and "TinyLlama" not in output and "--ngpu is 0" not in output
    output = recipe.run(*PUBLISHED, "--dry_run", "true", "--whisper_dir", "models/nowhere")
    assert "nowhere from the" not in output and "# --whisper_dir models/nowhere is missing" in output


def test_dry_run_knows_the_states_of_data_without_an_encoder(recipe: Recipe) -> None:
    """After stage 0 and before stage 1: the folder given tells the sizes, not the YAML's model."""
    recipe.write("conf/encoder.yaml", "encoder: whisper\nencoder_conf: {model: openai/whisper-small}\n")
    recipe.run("--stop_stage", "0")
    wide = recipe.run("--dry_run", "true", "--stage", "2", "--stop_stage", "2")
    (recipe.path / "base").mkdir()
    recipe.write("base/config.json", '{"d_model": 384, "encoder_layers": 4}')
    narrow = recipe.run("--dry_run", "true", "--stage", "2", "--stop_stage", "2", "--whisper_dir", "base")
    assert "# disk: states of 0.0011111 hours of audio as int8, about 0.000178 GB\n" in wide  # (200 + 32) * 768
    assert "# disk: states of 0.0011111 hours of audio as int8, about 8.91e-05 GB\n" in narrow
    assert wide.count("# time: encoding, ") == narrow.count("# time: encoding, ") == 3


def test_a_run_tells_what_it_will_cost(recipe: Recipe) -> None:
    script = recipe.path / "local/data.sh"
    script.write_text(f"# downloads: 6 GB from somewhere\n{script.read_text()}")
    output = recipe.run("--stop_stage", "2")
    assert output.index("downloads: 6 GB from somewhere") < output.index("Stage 1 parts")
    assert "disk: states of 0.0011111 hours of audio as int8, about 6.76e-05 GB" in output
    again = recipe.run("--stop_stage", "2")
    assert "somewhere" not in again, "what is up to date costs nothing"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smdm": "x"}, "--smdm knows Llama's tokens only: set --token_type llama, not unigram"),
        ({"smdm": "x", "token_type": "llama", "text_config": "y"}, "--smdm and --text_config both name the text model"),
        ({"token_type": "words"}, "--token_type must be one of unigram, bpe, char, llama"),
        ({"text_case": "title"}, "--text_case must be one of keep, upper, lower; got 'title'"),
    ],
)
def test_wrong_options(options: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_options(options)


def test_operations_of_the_published_network() -> None:
    """Per pass 186.4 GFLOP in 18 blocks: the published 199 less the output layer, 2 * 256 * 768 * 32000."""
    assert canvas_operations(SMALL) == pytest.approx(199.0e9 - 2 * 256 * 768 * 32000, rel=2e-3)
    keys = 18 * 2 * 1500 * 2 * 768 * 768  # of the states: 63.7 GFLOP, computed once for all candidates
    assert keys == pytest.approx(63.7e9, rel=1e-3)
    assert canvas_operations(SMALL) - canvas_operations(SMALL, shared=False) == keys
    assert canvas_operations(SMALL | {"model_conf.canvas_conf.fit": "count"}) is None
    assert canvas_operations({"decoder": "other"}) is None


def test_hours_and_gigabytes() -> None:
    size = SetSize(281_241, 960.9)
    (cost,) = training_hours(size, SMALL | {"max_epoch": 30}, 2.0)
    assert cost.line(ngpu=1) == "time: 30 epochs of 281,241 utterances, 13 hours at 100 TFLOP/s"
    assert cost.line(ngpu=0).endswith("13 hours at 100 TFLOP/s of a GPU; --ngpu is 0: a CPU needs many times as long")
    (short,) = training_hours(size, SMALL | {"max_epoch": 30, "num_iters_per_epoch": 10, "batch_size": 8}, 2.0)
    assert "0.0037 hours" in short.line(1)
    sampler = {"sampler_conf.candidates": 15, "sampler_conf.mask_ratios": [1.0, 0.9]}
    assert "15 candidates, 2 passes, 2.9 hours" in decoding_hours(size, SMALL, sampler)[0].line(1)
    assert training_hours(None, SMALL, 2.0) == decoding_hours(size, SMALL, {}) == ()
    assert total([cost, Cost("disk", 2.5), told_download("61 GB from x")], 1).endswith(
        "about 63.5 GB, 13 hours at 100 TFLOP/s"
    )
    assert told_download("some of it").gigabytes == 0 and told_download("61 GB from x").line(1).count("GB") == 1


def test_gigabytes_of_the_states(tmp_path: Path) -> None:
    size = SetSize(281_241, 960.9)
    whisper = {"encoder": "whisper", "encoder_conf.model": "openai/whisper-small", "encoder_conf.keep": "padded"}
    facts = encoder_facts(tmp_path, whisper, "")
    disk, time = dump_costs(size, facts, "float16")
    assert "as float16, about 648 GB" in disk.line(1)  # the published number
    assert time.line(1) == "time: encoding, 0.26 hours at 100 TFLOP/s"
    (disk, _) = dump_costs(size, facts | {"encoder_conf.keep": "true_length", "encoder_conf.pool": 2}, "float32")
    assert disk.gigabytes == pytest.approx(4 * 66.4, rel=1e-3)
    trimmed = facts | {"encoder_conf.context": "trimmed", "encoder_conf.tail_seconds": 2.0}
    seconds = 960.9 * 3600 + 2 * 281_241
    assert dump_costs(size, trimmed, "float16")[0].gigabytes == pytest.approx(2 * 50 * 768 * seconds / 1e9)
    assert dump_costs(None, facts, "int8") == ()
    assert [cost.gigabytes for cost in dump_costs(size, {"encoder": "light_conformer"}, "int8")] == [0.0]


@pytest.mark.parametrize(
    ("place", "sizes"),
    [
        ("/data/baseline/whisper-small", (768, 12)),
        ("openai/whisper-large-v3-turbo", (1280, 32)),
        ("base.pt", (512, 6)),
        ("/data/small/baseline", (None, None)),
    ],
)
def test_the_size_is_read_from_the_name_of_the_model(tmp_path: Path, place: str, sizes: tuple) -> None:
    facts = encoder_facts(tmp_path, {"encoder": "whisper", "encoder_conf.model": "openai/whisper-tiny"}, place)
    assert (facts["output_size"], facts["layers"]) == sizes


def test_gigabytes_of_a_training() -> None:
    """Weights of Whisfusion-small, its norms left out."""
    settings = SMALL | {"optim": "adamw", "ema_decay": 0.995, "keep_nbest_models": 1}
    text = 18 * (4 * 768**2 + 3 * 768 * 3072) + (2 * 32000 + 1) * 768
    adapters = 18 * 4 * 768**2
    (cost,) = training_disk(32000, settings)
    assert cost.gigabytes == pytest.approx(4 * (text + adapters) * (2 * 4 + 3 * 2) / 1e9)
    frozen = ["decoder.embed", "decoder.blocks", "decoder.norm", "decoder.head"]
    (cost,) = training_disk(32000, settings | {"freeze_param": frozen, "ema_decay": None, "optim": "muon"})
    assert cost.gigabytes == pytest.approx(4 * adapters * (2 * 2 + 3) / 1e9)
    assert cost.what.startswith("disk: 42.5 M trained weights")
    unknown = {key: value for key, value in settings.items() if key != "encoder_conf.size"} | {"encoder": "states"}
    assert training_disk(None, settings) == training_disk(32000, unknown) == training_disk(32000, {}) == ()


def test_sizes_come_from_the_data_or_the_script(tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    assert set_size(tmp_path / "train", script) is None
    script.write_text("#!/bin/bash\n# sets: train 7 1.5, dev 2 0.25\n")
    assert set_size(tmp_path / "dev", script) == SetSize(2, 0.25)
    assert set_size(tmp_path / "test", script) is None
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "utt2num_samples").write_text("a 16000\nb 32000\n")
    assert set_size(tmp_path / "dev", script) == SetSize(2, 3 / 3600)
    assert hub_download("") == hub_download(str(script)) == ()
