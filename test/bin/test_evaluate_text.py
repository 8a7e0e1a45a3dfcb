"""`whisfusion evaluate_text` on a text model of a few letters: its table, its JSON, its messages."""

import json
import math

import pytest
import torch
import yaml

from whisfusion_asr.bin import evaluate_text
from whisfusion_asr.models.build import build_network

PIECES = ["<eos>", "<unk>", "<space>", "a", "b"]
DECODER = {"size": 16, "num_blocks": 1, "attention_heads": 2, "ffn_size": 16}


@pytest.fixture
def experiment(tmp_path):
    """experiment(canvas_conf): directory of a text model whose logits are all equal; text files beside it."""
    (tmp_path / "valid.txt").write_text("ab ab\nb\n\nab\n")
    (tmp_path / "train.txt").write_text("ab ab ab\n" * 20)

    def make(canvas_conf: dict, **others: object):
        config = {"token_list": PIECES, "decoder": "diffusion", "decoder_conf": DECODER,
                  "model_conf": {"canvas_conf": canvas_conf}, **others}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        network = build_network(config, len(PIECES))
        if network.decoder is not None:
            torch.nn.init.zeros_(network.decoder.head.weight)
        torch.save(network.state_dict(), tmp_path / "valid.loss.ave.pth")
        return tmp_path

    return make


def run(directory, *more: str) -> dict:
    words = ["--exp_dir", str(directory), "--text", str(directory / "valid.txt"), "--plain", "true", "--draws", "3"]
    evaluate_text.main([*words, "--out", str(directory / "out.json"), *more])
    return json.loads((directory / "out.json").read_text())


def test_the_model_and_its_baselines_share_tokens_and_characters(experiment, capsys):
    directory = experiment({"fit": "count"})
    found = run(directory, "--train_text", str(directory / "train.txt"))
    assert found["sentences"] == 3
    unigram, bigram, model = found["rows"]
    assert [row["model"] for row in found["rows"]] == ["unigram", "bigram", "valid.loss.ave.pth"]
    # 5 + 1 + 2 letters and blanks, and a slot for each of the three ends, all uniform over 5 pieces
    assert model["nats_per_token"] == pytest.approx(11 * math.log(5) / 8, rel=1e-5)
    assert model["bits_per_character"] == pytest.approx(11 * math.log2(5) / 8, rel=1e-5)
    assert bigram["nats_per_token"] < unigram["nats_per_token"] < math.log(5)
    assert "3 sentences, 8 tokens, given the length of each" in capsys.readouterr().out


def test_a_few_sentences_are_enough(experiment):
    directory = experiment({"fit": "count"})
    (directory / "train.txt").write_text("ab ab ab\n" + "bbbb\n" * 20)
    found = run(directory, "--max_sentences", "1", "--train_text", str(directory / "train.txt"),
                "--max_train_sentences", "1")  # fmt: skip
    assert found["sentences"] == 1
    # "ab ab" after "ab ab ab": a, b and blank have 3, 3 and 2 of 8, each with one more of 5 pieces
    nats = -4 * math.log(4 / 13) - math.log(3 / 13)
    assert found["rows"][0]["nats_per_token"] == pytest.approx(nats / 5)


def test_a_fixed_canvas_pays_for_its_end_and_padding(experiment):
    found = run(experiment({"fit": "fixed", "length": 7}))
    (model,) = found["rows"]
    assert model["nats_per_token"] == pytest.approx(21 * math.log(5) / 11, rel=1e-5)
    assert model["mask_error"] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize(
    ("canvas", "others", "words", "message"),
    [
        ({"fit": "fixed", "length": 5}, {}, [], "line0000000 has 5 tokens, too many for canvases of 5 with an end"),
        ({"fit": "count"}, {}, ["--draws", "0"], "--draws 0: expected at least 1"),
        ({"fit": "count"}, {}, ["--max_train_sentences", "0"], "--max_train_sentences 0: expected at least 1"),
        ({"fit": "count"}, {}, ["--model_file", "no.pth"], "no.pth: no such weight file"),
        ({"fit": "count"}, {"decoder": None, "encoder": "states", "encoder_conf": {"size": 4}}, [],
         "decoder: is missing; give the experiment of a text model"),
    ],
)
def test_mistakes_are_one_line(experiment, canvas, others, words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run(experiment(canvas, **others), *words)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_an_empty_text(experiment, capsys):
    directory = experiment({"fit": "count"})
    (directory / "valid.txt").write_text("\n \n")
    with pytest.raises(SystemExit):
        run(directory)
    assert "valid.txt: no sentence in it" in capsys.readouterr().err
