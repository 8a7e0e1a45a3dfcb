"""A packed experiment writes the same text where nothing of the original is left."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from engine_fakes import CONFIG, TOKENS, WIDTH, experiment
from public_layouts import WIDTH as WHISPER_WIDTH
from public_layouts import write_hugging_face
from safetensors.torch import load_file

from whisfusion_asr.api import Speech2Text
from whisfusion_asr.bin.decode import main as decode
from whisfusion_asr.bin.pack import main as pack
from whisfusion_asr.bin.transcribe import main as transcribe
from whisfusion_asr.data.text_form import TextForm, read_form
from whisfusion_asr.data.tokenizer import load_tokenizer, train_tokenizer
from whisfusion_asr.decoding.settings import DecodingSettings
from whisfusion_asr.errors import UserError
from whisfusion_asr.models.build import build_network
from whisfusion_asr.packing import pack_experiment
from whisfusion_asr.pretrained.pack import unpack
from whisfusion_asr.scoring import score_files
from whisfusion_asr.training.longest import record_longest

SETTINGS = {"sampler": "pdd", "sampler_conf": {"candidates": 3, "seed": 4}}
ENCODER = {"frontend": "logmel", "encoder": "light_conformer", "model_conf": {}, "decoder": None, "decoder_conf": {},
           "encoder_conf": {"output_size": WIDTH, "num_blocks": 1, "attention_heads": 2}}  # fmt: skip
TRAINED = {"train_data_path_and_name_and_type": [["dump/states/little", "states", "states"],
                                                 ["data/little/text", "text", "text"]],
           "init_param": [], "seed": 9, "optim": "muon"}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("WHISFUSION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def waveform() -> np.ndarray:
    """1.5 s of a rising and falling tone."""
    time = np.arange(24000) / 16000
    return (0.3 * np.sin(2 * np.pi * 300 * time * (1 + np.sin(5 * time)))).astype(np.float32)


@pytest.fixture
def exp(tmp_path: Path) -> Path:
    """A recipe with a decoder on dumped states, the encoder that dumped them, and one scored set."""
    (tmp_path / "recipe/exp").mkdir(parents=True)
    exp = experiment(tmp_path / "recipe/exp/toy", **TRAINED)
    experiment(tmp_path / "recipe/exp/encoder", seed=1, **ENCODER)
    for name, control in (("pdd", None), ("shuffled", "shuffled_states")):
        decoded = exp / name / "test"
        decoded.mkdir(parents=True)
        (decoded / "ref").write_text("u-1 a b c d\nu-2 e\n")
        (decoded / "text").write_text("u-1 a b c x\nu-2 e\n")
        score_files(decoded / "ref", decoded / "text", None, decoded)
        (decoded / "meta.json").write_text(json.dumps({"sampler": "pdd", "control": control}))
    return exp


def packed(exp: Path, *words: str) -> Path:
    out = exp.parents[2] / "model.tar"
    pack([str(exp), "--out", str(out), "--encoder_dir", str(exp.parent / "encoder"), *words])
    return out


def test_the_same_text_elsewhere(exp, tmp_path, waveform, capsys):
    (tmp_path / "decode.yaml").write_text(yaml.safe_dump(SETTINGS))
    record_longest(exp, 1.25)
    wanted = Speech2Text(exp, inference=SETTINGS, encoder_dir=exp.parent / "encoder")(waveform)
    assert wanted[0][0], "an empty transcript would show nothing"
    soundfile.write(tmp_path / "talk.wav", waveform, 16000, subtype="FLOAT")
    transcribe([str(tmp_path / "talk.wav"), "--exp_dir", str(exp), "--encoder_dir", str(exp.parent / "encoder"),
                "--config", str(tmp_path / "decode.yaml")])
    printed = capsys.readouterr().out
    model = packed(exp, "--inference_config", str(tmp_path / "decode.yaml"))
    assert sorted(os.listdir(tmp_path)) == ["decode.yaml", "model.tar", "recipe", "talk.wav"]
    (tmp_path / "far").mkdir()
    moved = model.rename(tmp_path / "far/away.tar")
    shutil.rmtree(tmp_path / "recipe")
    there = Speech2Text.from_pretrained(moved)
    found = there(waveform)
    assert found[0][:3] == wanted[0][:3] and there.longest == 1.25
    assert found[0][3].candidates == wanted[0][3].candidates and found[0][3].passes == wanted[0][3].passes
    capsys.readouterr()
    transcribe([str(tmp_path / "talk.wav"), "--model", str(moved)])
    assert capsys.readouterr().out == printed != ""


def test_an_experiment_directory_and_other_arguments(exp, waveform):
    others = {"inference": SETTINGS, "encoder_dir": exp.parent / "encoder"}
    wanted = Speech2Text(exp, **others)(waveform)[0][:3]
    assert Speech2Text.from_pretrained(exp, **others)(waveform)[0][:3] == wanted
    model = packed(exp)
    assert Speech2Text.from_pretrained(model, inference={"sampler": "single"}).settings.sampler == "single"
    usual = {"sampler": "threshold", "engine_conf": {"draft": 0.9}}
    assert Speech2Text.from_pretrained(model).settings == DecodingSettings.of(usual)


def test_a_whisper_encoder_and_a_sentencepiece_model_come_along(tmp_path, waveform, monkeypatch):
    """The model's own Whisper, half of whose file is a decoder; paths that are relative to the recipe."""
    recipe = tmp_path / "recipe"
    write_hugging_face(tmp_path / "whisper", max_source_positions=1500)
    form = TextForm("upper", "remove")
    tokens = train_tokenizer(["the cat sat", "on a mat", "that day"], "unigram", 24, recipe / "data/tokens", form)
    (recipe / "exp").mkdir()
    changed = {"encoder": "whisper", "encoder_conf": {"model": str(tmp_path / "whisper"), "context": "trimmed"},
               "token_list": tokens.pieces, "bpemodel": "data/tokens/tokens.model", "output_dir": "exp/toy"}
    experiment(recipe / "exp/toy", **changed)
    wanted = Speech2Text(recipe / "exp/toy")(waveform)[0][:3]
    pack_experiment(recipe / "exp/toy", tmp_path / "model.tar", None)
    shutil.rmtree(recipe)
    shutil.rmtree(tmp_path / "whisper")
    assert Speech2Text.from_pretrained(tmp_path / "model.tar")(waveform)[0][:3] == wanted
    folder = unpack(tmp_path / "model.tar", tmp_path / "cache")
    assert read_form(folder / "tokens") == form and load_tokenizer(folder / "tokens").pieces == tokens.pieces


def test_the_whisper_that_made_the_states_comes_along(tmp_path, waveform):
    write_hugging_face(tmp_path / "whisper", max_source_positions=1500)
    imported = {"encoder": "whisper", "encoder_conf": {"model": str(tmp_path / "whisper"), "context": "trimmed"}}
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/config.yaml").write_text(yaml.safe_dump(imported | {"weights": {"model.safetensors": "0"}}))
    experiment(tmp_path / "toy", encoder_conf={"size": WHISPER_WIDTH})
    wanted = Speech2Text(tmp_path / "toy", encoder_dir=tmp_path / "encoder")(waveform)[0][:3]
    pack_experiment(tmp_path / "toy", tmp_path / "model.tar", DecodingSettings.of(None),
                    encoder_dir=tmp_path / "encoder")  # fmt: skip
    for place in ("toy", "encoder", "whisper"):
        shutil.rmtree(tmp_path / place)
    assert Speech2Text.from_pretrained(tmp_path / "model.tar")(waveform)[0][:3] == wanted
    folder = unpack(tmp_path / "model.tar", tmp_path / "cache")
    assert sorted(os.listdir(folder / "encoder")) == ["config.yaml", "whisper"]


def test_a_set_is_decoded_with_a_packed_model(exp, tmp_path, waveform):
    model, data = packed(exp), tmp_path / "data"
    data.mkdir()
    soundfile.write(data / "u.wav", waveform, 16000, subtype="FLOAT")
    for name, value in (("wav.scp", data / "u.wav"), ("utt2spk", "s"), ("utt2num_samples", len(waveform))):
        (data / name).write_text(f"u {value}\n")
    (data / "decode.yaml").write_text(yaml.safe_dump(SETTINGS))
    words = ["--model", str(model), "--config", str(data / "decode.yaml"), "--data_dir", str(data), "--out", str(data)]
    decode(words)
    decode([*words, "--merge", "true"])
    wanted = Speech2Text(exp, inference=SETTINGS, encoder_dir=exp.parent / "encoder")(waveform, "u")[0][0]
    assert (data / "text").read_text() == f"u {wanted}\n"
    assert json.loads((data / "meta.json").read_text())["model"] == str(model)


def test_nothing_of_this_machine_is_in_the_texts(exp, tmp_path):
    with tarfile.open(packed(exp)) as tar:
        texts = {m.name: tar.extractfile(m).read().decode() for m in tar if not m.name.endswith(".safetensors")}
    assert set(texts) == {"README.md", "config.yaml", "decoding.yaml", "encoder/config.yaml", "pack.json",
                          "tokens/tokens.txt"}  # fmt: skip
    assert not any(str(tmp_path) in text or "dump/states" in text for text in texts.values())
    assert texts["tokens/tokens.txt"].splitlines() == TOKENS
    assert yaml.safe_load(texts["config.yaml"])["decoder_conf"] == CONFIG["decoder_conf"]
    assert "ctc" not in yaml.safe_load(texts["encoder/config.yaml"])


def test_the_card_tells_scores_sets_and_license(exp):
    with tarfile.open(packed(exp, "--license", "cc-by-4.0")) as tar:
        card = tar.extractfile("README.md").read().decode()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "cc-by-4.0" and card.endswith("## License\n\ncc-by-4.0\n")
    # one substitution in five words
    assert "\n|pdd/test|20.00|" in card and "shuffled" not in card
    assert "- trained on: `little`" in card and "- optim: `muon`" in card and "- normalizer: `none`" in card
    network = Speech2Text(exp).network
    assert f"| decoder | {sum(p.numel() for p in network.decoder.parameters()):,} |" in card
    assert card.index("## Scores") < card.index("## Training of the encoder") < card.index("## Limits")


def test_packing_twice_gives_the_same_file(exp):
    first = packed(exp).read_bytes()
    assert packed(exp).read_bytes() == first


@pytest.mark.parametrize(("words", "message"), [
    ([], "was trained on dumped states: name what made them with --encoder_dir DIR"),
    (["--encoder_dir", "wide"], "--encoder_dir wide: makes states of width 12, toy reads states of width 8"),
    (["--model_file", "none.pth"], "none.pth: no such weight file"),
    (["--inference_config", "control.yaml"], "a control experiment (control: shuffled_states)"),
])  # fmt: skip
def test_what_cannot_be_packed(exp, monkeypatch, capsys, words, message):
    monkeypatch.chdir(exp.parent)
    experiment(Path("wide"), **ENCODER | {"encoder_conf": ENCODER["encoder_conf"] | {"output_size": 12}})
    Path("control.yaml").write_text("control: shuffled_states\n")
    with pytest.raises(SystemExit) as end:
        pack(["toy", "--out", "model.tar", *words])
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.count("\n") == 1
    assert not list(Path().glob("*model.tar*"))


def test_damaged_weights_are_one_line(exp, capsys):
    model = packed(exp)
    with tarfile.open(model) as tar:
        place = tar.getmember("model.safetensors").offset_data + 5000
    content = bytearray(model.read_bytes())
    content[place] ^= 1
    model.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.tar: model\.safetensors is damaged .*: copy or download the file"):
        Speech2Text.from_pretrained(model)


def made_of_whisper(folder: Path, config: dict) -> None:
    """An experiment that starts from a Whisper's decoder, all but its token table changed."""
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    network = build_network(config, len(config["token_list"]))
    trained = {name: value + 0.1 for name, value in network.state_dict().items() if "embed" not in name}
    torch.save(trained, folder / "valid.loss.ave.pth")


@pytest.mark.parametrize("drafts", ["ctc_head", "anchored_whisper"])
def test_a_whisper_decoder_and_its_drafter_come_along(tmp_path, waveform, toy_whisper, toy_whisper_tokens, drafts):
    """Trained and frozen parts of the decoder, Whisper's tokens, and what drafts: a CTC head with tokens of its own, or
    another decoder of the same Whisper."""
    whisper, tokens = tmp_path / "whisper", tmp_path / "tokens"
    shutil.copytree(toy_whisper, whisper)
    shutil.copytree(toy_whisper_tokens, tokens)
    pieces = load_tokenizer(tokens).pieces
    wide = ENCODER | {"encoder_conf": ENCODER["encoder_conf"] | {"output_size": 16}}
    experiment(tmp_path / "encoder", seed=1, **wide)
    canvas = {"canvas_conf": {"fit": "frames", "tokens_per_frame": 0.3, "margin": 8}}
    settings = {"encoder": "states", "encoder_conf": {"size": 16}, "ctc": None, "decoder": "whisper_diffusion",
                "decoder_conf": {"model": str(whisper)}, "freeze_param": ["decoder.embed"]}
    named = {"token_list": pieces, "bpemodel": str(tokens / "tokens.model")}
    made_of_whisper(tmp_path / "toy", settings | named | {"model_conf": canvas})
    if drafts == "ctc_head":
        experiment(tmp_path / "ctc", seed=2, encoder_conf={"size": 16}, decoder=None, decoder_conf=None)
    else:
        other = {"decoder": None, "ctc": drafts, "ctc_conf": {"model": str(whisper), "frames_per_slot": 2}}
        frozen = {"freeze_param": ["ctc.decoder.embed"]}
        made_of_whisper(tmp_path / "ctc", {**settings, "decoder_conf": {}, **other, **named, **frozen})
    gaps = DecodingSettings.of({"sampler": "gaps", "engine_conf": {"draft": 1e-9}})
    places = {"encoder_dir": tmp_path / "encoder", "draft_dir": tmp_path / "ctc"}
    wanted = Speech2Text(tmp_path / "toy", inference=gaps, **places)(waveform[:12000])[0]
    assert wanted[0] and "draft" in wanted[3].timing
    with pytest.raises(UserError, match="toy has no CTC head for engine_conf.draft: name what drafts with --draft_dir"):
        pack_experiment(tmp_path / "toy", tmp_path / "model.tar", gaps, encoder_dir=tmp_path / "encoder")
    pack_experiment(tmp_path / "toy", tmp_path / "model.tar", gaps, license="mit", **places)
    for place in ("toy", "encoder", "ctc", "whisper", "tokens"):
        shutil.rmtree(tmp_path / place)
    found = Speech2Text.from_pretrained(tmp_path / "model.tar")(waveform[:12000])[0]
    assert found[:3] == wanted[:3] and found[3].candidates == wanted[3].candidates
    folder = unpack(tmp_path / "model.tar", tmp_path / "cache")
    assert "decoder.embed.weight" not in load_file(folder / "model.safetensors"), "it is in Whisper's own"
    assert sorted(os.listdir(folder / "drafter")) == ["config.yaml", "model.safetensors", "tokens"]
    assert "Whisper's tokens" in (folder / "README.md").read_text()
