"""What a user reads who made a mistake: one line, exit code 2."""

import re
from pathlib import Path

import pytest
import torch

from whisfusion_asr.errors import UserError
from whisfusion_asr.tasks.asr import DiffusionASRTask


@pytest.fixture(scope="module")
def finished(train, tmp_path_factory) -> Path:
    """A finished training of one epoch."""
    return train(tmp_path_factory.mktemp("origin") / "exp", max_epoch=1)


CONFIG_MISTAKES = [
    ({"optimm": "adam"}, "yaml: unrecognized arguments: optimm; did you mean optim"),
    ({"optim": "adan"}, "optim: 'adan' is unknown; choose one of .*muon"),
    ({"encoder": "conformr"}, "encoder: 'conformr' is unknown; choose one of .*conformer"),
    ({"encoder": "conformer", "encoder_conf": {}}, "encoder: conformer needs frontend:"),
    ({"optim_conf": {"lrr": 0.1}}, "optim_conf: unknown key lrr for AdamW"),
    ({"optim_conf": {"lr": "1e-3"}}, "optim_conf.lr: '1e-3' is text to YAML; .* 1.0e-03"),
    ({"decoder_conf": {"size": 16, "rope": {"base": "1e4"}}}, "decoder_conf.rope.base: '1e4' is text"),
    ({"decoder_conf": {"sise": 16}}, "decoder_conf: unknown key sise"),
    ({"model_conf": {"mask_ration": [0, 1]}}, "model_conf: unknown key mask_ration for DiffusionASRModel; it knows"),
    ({"scheduler": "warmup_cosine", "scheduler_conf": {"warmup": 0.1}}, "scheduler_conf: unknown key warmup for Warm"),
    ({"freeze_param": ["decoder.adapter"]}, "freeze_param: 'decoder.adapter' matches no parameter; .*adapters"),
    ({"freeze_param": ["decoder.embed"]}, "decoder.embed.weight would stay at random values; .* in init_param"),
    ({"freeze_param": ["decoder"]}, "leaves nothing to train"),
    ({"init_param": ["nowhere.pth"]}, "init_param: nowhere.pth: no such weight file"),
    ({"best_model_criterion": [["valid", "acct", "max"]]}, "valid.acct.ave.pth was not written: .* there is acc, loss"),
]


@pytest.mark.parametrize(("config", "message"), CONFIG_MISTAKES)
def test_a_mistake_in_the_yaml_is_named(train, tmp_path, config, message):
    """Key, what was found, what is possible; one line."""
    with pytest.raises(UserError, match=message) as caught:
        train(tmp_path / "exp", config, max_epoch=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("{}:decoderr:decoder", "decoderr:decoder gives the model no tensor"),
        ("{}:decoder:decoder.blocks", "the model has no decoder.blocks.adapters"),
        ("{0.parent}/checkpoint.pth", "never checkpoint.pth"),
    ],
)
def test_an_unusable_initial_file_is_named(train, tmp_path, finished, init, message):
    """Before the first epoch."""
    with pytest.raises(UserError, match=message):
        train(tmp_path / "exp", init_param=init.format(finished / "1epoch.pth"))
    assert not (tmp_path / "exp" / "1epoch.pth").exists()


def test_initial_weights_of_other_sizes_are_named(train, tmp_path, finished):
    """Both shapes."""
    config = {"decoder_conf": {"size": 24, "num_blocks": 2, "attention_heads": 2, "ffn_size": 24}}
    with pytest.raises(UserError, match=r"has shape \(.*\) there and \(.*\) in the model"):
        train(tmp_path / "exp", config, init_param=[finished / "1epoch.pth"])


def test_initial_weights_of_other_tokens_are_refused(train, tmp_path, finished, corpus):
    """Same number of tokens, other order: shapes alone would not tell."""
    (tmp_path / "tokens.txt").write_text("<eos>\n<unk>\n<space>\nd\nc\nb\na\n", encoding="utf-8")
    with pytest.raises(UserError, match="token_list: .* was trained on other tokens .7, here 7., and gives decoder"):
        train(tmp_path / "exp", init_param=[finished / "1epoch.pth"], token_list=tmp_path / "tokens.txt")


def test_changed_initial_files_are_refused_on_resume(train, tmp_path, finished):
    """The frozen parts of the two halves of a training must be the same."""
    start = tmp_path / "start.pth"
    start.write_bytes((finished / "1epoch.pth").read_bytes())
    train(tmp_path / "exp", init_param=[start], max_epoch=1)
    (tmp_path / "exp" / "finished.json").unlink()
    torch.save({key: value + 1 for key, value in torch.load(start).items()}, start)
    with pytest.raises(UserError, match="start.pth changed since .*exp began"):
        train(tmp_path / "exp", init_param=[start], max_epoch=1)


def test_texts_that_are_missing_are_named(train, tmp_path, corpus):
    """The shape file lists an utterance that the text does not have."""
    shape = (corpus / "dump" / "train" / "shape").read_text(encoding="utf-8") + "ghost 9,8\n"
    (tmp_path / "shape").write_text(shape, encoding="utf-8")
    with pytest.raises(UserError, match=r"dump/train: 1 utterances of .*shape are not in it \(first: ghost\)"):
        train(tmp_path / "exp", train_shape_file=tmp_path / "shape")


def test_texts_in_other_letters_are_refused(train, tmp_path, corpus):
    """Capitals for tokens of small letters would train, validate and choose epochs on unknown tokens alone."""
    capitals = (corpus / "tokens.txt").read_text(encoding="utf-8").upper().replace("<EOS>", "<eos>")
    (tmp_path / "tokens.txt").write_text(capitals.replace("<UNK>", "<unk>").replace("<SPACE>", "<space>"))
    with pytest.raises(UserError, match=r"data/train/text: \d+ of \d+ tokens are not in .*tokens.txt; .*--text_case"):
        train(tmp_path / "exp", token_list=tmp_path / "tokens.txt")
    assert not (tmp_path / "exp").exists()


def test_a_loss_that_is_not_finite_fails(train, tmp_path):
    """ESPnet would end with exit code 0."""
    config = {"model_conf": {"pad_weight": float("nan"), "canvas_conf": {"length": 8}}}
    with pytest.raises(UserError, match="the training loss of epoch 1 is nan"):
        train(tmp_path / "exp", config, max_epoch=1)
    assert not (tmp_path / "exp" / "finished.json").exists()


def test_the_command_prints_one_line_and_exits_with_2(command, tmp_path, capsys):
    """bin/train: unknown option with the nearest name, missing options."""
    from whisfusion_asr.bin.train import main

    for argv, message in [
        ([*command(tmp_path / "exp"), "--maxepoch", "3"], "unrecognized .*: --maxepoch 3; did you mean max_epoch"),
        ([*command(tmp_path / "exp"), "--token_list", "nowhere.txt"], "nowhere.txt: no such file"),
        (["--ngpu", "0"], "missing option: --output_dir, --token_list"),
    ]:  # fmt: skip
        with pytest.raises(SystemExit) as caught:
            main(argv)
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert caught.value.code == 2 and re.match(f"error: {message}", line)


@pytest.mark.parametrize("words", [["--config", "top.yaml"], ["--seed", "1", "--config=top.yaml"]])
def test_the_yaml_may_build_on_another_however_it_is_named(tmp_path, monkeypatch, words):
    """Both spellings of an option with a value."""
    monkeypatch.chdir(tmp_path)
    Path("below.yaml").write_text("max_epoch: 7\npatience: 3\n")
    Path("top.yaml").write_text("base: below.yaml\npatience: 4\n")
    args = DiffusionASRTask.parse(words)
    assert (args.max_epoch, args.patience, args.config) == (7, 4, "top.yaml")


def test_a_yaml_without_a_name_is_a_mistake():
    """The option stands last on the line."""
    with pytest.raises(UserError, match="argument --config: expected one argument"):
        DiffusionASRTask.parse(["--seed", "1", "--config"])
