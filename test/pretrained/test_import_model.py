"""`whisfusion import`: released files become experiments that the decoding command and Speech2Text open."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from public_layouts import write_ctranslate2
from released_files import BLOCKS, SIZE, STATES, adapter_part, released_weights, text_part, write_llama
from safetensors.torch import load_file, save_file

from whisfusion_asr.api import Speech2Text, load_network
from whisfusion_asr.bin import decode, export_weights, import_model
from whisfusion_asr.data.tokenizer import LlamaTokenizer, load_tokenizer
from whisfusion_asr.files import sha256


class Files:
    """Public files of a toy model in one folder, and the words that import them."""

    def __init__(self, folder: Path, whisper: Path) -> None:
        self.folder, self.whisper = folder, whisper
        self.vocab = write_llama(folder / "tokenizer.model")
        self.weights = released_weights(self.vocab)
        save_file(text_part(self.weights), folder / "smdm.safetensors")
        torch.save(adapter_part(self.weights), folder / "stage1.pt")
        torch.save(self.weights, folder / "stage2.pt")

    def words(self, out: Path, *names: str, **others: object) -> list[str]:
        """--smdm FOLDER/smdm.safetensors ... --tokenizer ... --out OUT"""
        places = {"smdm": "smdm.safetensors", "stage1": "stage1.pt", "stage2": "stage2.pt"}
        options = {name: self.folder / places[name] for name in names}
        options |= {"whisper": self.whisper, "tokenizer": self.folder, "canvas": 12, "out": out} | others
        return [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def files(whisper: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("public"), whisper)


@pytest.fixture(scope="module")
def imported(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment of SMDM and stage 2."""
    out = tmp_path_factory.mktemp("exp") / "whisfusion"
    import_model.main(files.words(out, "smdm", "stage2"))
    return out


def fails(capsys: pytest.CaptureFixture[str], words: list[str], command: object = import_model) -> str:
    with pytest.raises(SystemExit) as stop:
        command.main(words)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1, error
    return error


def test_configuration(files, imported):
    config = yaml.safe_load((imported / "config.yaml").read_text())
    assert config["encoder_conf"]["model"] == str(files.whisper)
    assert (config["encoder_conf"]["context"], config["encoder_conf"]["keep"]) == ("padded", "padded")
    assert config["model_conf"] == {"bos_id": 1, "canvas_conf": {"fit": "fixed", "length": 12}}
    assert config["text_case"] == "upper" and config["decoder_conf"]["num_blocks"] == BLOCKS
    assert config["imported"]["stage2"] == {
        "path": str(files.folder / "stage2.pt"), "sha256": sha256(files.folder / "stage2.pt"),
    }  # fmt: skip
    tokenizer = load_tokenizer(imported / "tokens")
    assert config["token_list"] == tokenizer.pieces and tokenizer.form.text_case == "upper"
    assert "\r" in tokenizer.pieces


def test_speech2text_opens_it(imported, speech):
    model = Speech2Text(imported, inference={"sampler_conf": {"candidates": 3}})
    assert (model.spec.eos_id, model.spec.bos_id, model.spec.mask_id) == (2, 1, len(model.tokenizer.pieces))
    assert isinstance(model.tokenizer, LlamaTokenizer)
    text, tokens, ids, transcript = model(speech[0][0].numpy(), "u")[0]
    assert transcript.canvas == 12 and len(transcript.candidates) == 3 and 2 not in ids
    assert tokens == [model.tokenizer.pieces[number] for number in ids]
    assert text == model.tokenizer.decode(ids)
    states, lengths = model.network.encode(speech[0], speech[1])
    assert lengths.tolist() == [1500], "all states of the 30 s window, as published"
    same = model.decode_states("u", states[0], 0.4)
    assert same.token_int == ids


def test_decode_command(imported, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.RandomState(0).randn(6400), 16000)
    for name, line in {"wav.scp": f"u {tmp_path}/a.wav", "utt2spk": "u s", "utt2num_samples": "u 6400"}.items():
        (data / name).write_text(line + "\n")
    (tmp_path / "decode.yaml").write_text("sampler: pdd_reference\nsampler_conf: {candidates: 2}\n")
    words = ["--exp_dir", imported, "--config", tmp_path / "decode.yaml", "--data_dir", data, "--out", tmp_path / "out"]
    decode.main([*map(str, words)])
    decode.main([*map(str, words), "--merge", "true"])
    assert (tmp_path / "out" / "text").read_text().split()[0] == "u"
    line = json.loads((tmp_path / "out" / "candidates.jsonl").read_text())
    assert line["canvas"] == 12 and len(line["candidates"]) == 2


def test_stage_one_beside_smdm_is_the_whole_network(files, imported, tmp_path, capsys):
    import_model.main(files.words(tmp_path / "one", "smdm", "stage1"))
    said = capsys.readouterr().out
    assert "smdm: text network, 17 tensors, float32" in said and "stage1: adapter, 8 tensors, float32" in said
    assert f"whole network, 2 blocks of {SIZE}" in said
    networks = [load_network(folder, "valid.loss.ave.pth")[0] for folder in (tmp_path / "one", imported)]
    one, two = (network.decoder.state_dict() for network in networks)
    assert all(torch.equal(one[name], tensor) for name, tensor in two.items()) and len(one) == len(two)


@pytest.mark.parametrize(("part", "name"), [("whole", "x.pt"), ("whole", "x.safetensors"), ("adapter", "x.pt")])
def test_exported_weights_are_the_imported_ones(files, imported, tmp_path, part, name):
    out = tmp_path / name
    export_weights.main(["--exp_dir", str(imported), "--part", part, "--out", str(out)])
    found = load_file(out) if name.endswith("safetensors") else torch.load(out, weights_only=True)
    wanted = files.weights if part == "whole" else adapter_part(files.weights)
    assert set(found) == set(wanted)
    assert all(torch.equal(found[key], tensor) for key, tensor in wanted.items())


def test_text_model_alone(files, tmp_path, capsys):
    out = tmp_path / "smdm"
    import_model.main(files.words(out, "smdm", whisper=None))
    network, config = load_network(out, "valid.loss.ave.pth")
    assert network.encoder is None and network.decoder.adapters is None and config["text_case"] == "keep"
    export_weights.main(["--exp_dir", str(out), "--out", str(tmp_path / "back.safetensors")])
    back = load_file(tmp_path / "back.safetensors")
    assert all(torch.equal(back[name], tensor) for name, tensor in text_part(files.weights).items())
    adapter = ["--exp_dir", str(out), "--part", "adapter", "--out", str(tmp_path / "x")]
    assert "has no adapter" in fails(capsys, adapter, export_weights)


def test_an_export_includes_what_the_experiment_was_built_on(files, tmp_path):
    """A stage-1 training writes only its adapters; the text network is in the file of its init_param."""
    import_model.main(files.words(tmp_path / "smdm", "smdm", whisper=None))
    import_model.main(files.words(tmp_path / "exp", "smdm", "stage1"))
    weights = torch.load(tmp_path / "exp" / "valid.loss.ave.pth", weights_only=True)
    torch.save({n: t for n, t in weights.items() if ".adapters." in n}, tmp_path / "exp" / "valid.loss.ave.pth")
    config = yaml.safe_load((tmp_path / "exp" / "config.yaml").read_text())
    config["init_param"] = [str(tmp_path / "smdm" / "valid.loss.ave.pth")]
    (tmp_path / "exp" / "config.yaml").write_text(yaml.safe_dump(config))
    export_weights.main(["--exp_dir", str(tmp_path / "exp"), "--out", str(tmp_path / "x.pt")])
    found = torch.load(tmp_path / "x.pt", weights_only=True)
    assert list(found) == list(files.weights)
    assert all(torch.equal(found[name], tensor) for name, tensor in files.weights.items())


def test_whisper_of_another_layout_lies_in_the_experiment(files, tmp_path, imported):
    write_ctranslate2(tmp_path / "ct2", load_file(files.whisper / "model.safetensors"))
    import_model.main(files.words(tmp_path / "exp", "stage2", whisper=tmp_path / "ct2", keep="true_length"))
    config = yaml.safe_load((tmp_path / "exp" / "config.yaml").read_text())["encoder_conf"]
    assert config["model"] == str(tmp_path / "exp" / "whisper") and config["keep"] == "true_length"


def test_token_folder_alone(files, tmp_path, capsys):
    words = ["--tokenizer", str(files.folder), "--out", str(tmp_path)]
    import_model.main([*words, "--text_case", "lower", "--punctuation", "remove"])
    assert f"{files.vocab} tokens, end 2, first 1, mask {files.vocab}, text_case lower" in capsys.readouterr().out
    assert load_tokenizer(tmp_path).form.punctuation == "remove"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text_form.yaml", "tokens.model", "tokens.txt"]


def test_what_does_not_fit_together(files, tmp_path, capsys):
    out = tmp_path / "exp"
    assert "nothing to import" in fails(capsys, ["--out", str(out)])
    assert "--whisper: not given" in fails(capsys, files.words(out, "stage2", whisper=None))
    assert "the adapter alone; give its text network with --smdm" in fails(capsys, files.words(out, "stage1"))
    error = fails(capsys, files.words(out, smdm=files.folder / "stage1.pt"))
    assert "--smdm" in error and "holds the adapter (8 tensors): give it with --stage1" in error
    error = fails(capsys, files.words(out, stage2=files.folder / "smdm.safetensors"))
    assert "holds the text network (17 tensors): give it with --smdm" in error
    write_llama(tmp_path / "more" / "tokenizer.model", size=files.vocab + 64)
    error = fails(capsys, files.words(out, "stage2", tokenizer=tmp_path / "more"))
    assert f"{files.vocab + 64} pieces, the network predicts {files.vocab}" in error
    assert "nowhere.pt: no such file; a file of a hub model is" in fails(capsys, files.words(out, stage2="nowhere.pt"))
    assert not (out / "config.yaml").exists()


def test_whisper_of_another_width(files, tmp_path, capsys):
    weights = {n: torch.zeros(2 * SIZE, STATES + 64) if "kv_proj" in n else t for n, t in files.weights.items()}
    torch.save(weights, tmp_path / "wide.pt")
    error = fails(capsys, files.words(tmp_path / "exp", stage2=tmp_path / "wide.pt"))
    assert f"its states are {STATES} wide, the adapter reads states of {STATES + 64}" in error
    shutil.rmtree(tmp_path / "exp", ignore_errors=True)
