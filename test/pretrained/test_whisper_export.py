"""A Whisper exported in each public layout is what independent writers make of it, and comes back bit for bit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from public_layouts import (
    WIDTH,
    pack,
    quantised,
    with_aliases,
    write_ctranslate2,
    write_hugging_face,
    write_openai,
)
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import WhisperForConditionalGeneration

from whisfusion_asr.bin import export_weights, import_encoder
from whisfusion_asr.pretrained.ctranslate2 import ModelBin, write_model_bin
from whisfusion_asr.pretrained.whisper import copy_encoder

LAYOUTS = ("hugging_face", "openai", "ctranslate2")
PIECES = [*"abcdefg", "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|haw|>", "<|transcribe|>"]
NEWER = {"decoder/alibi_use_positive_positions", "decoder/scale_alibi"}  # scalars that later converters add


@pytest.fixture(scope="module")
def complete(whisper: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small Whisper with a tokenizer of 12 pieces, the rest of its 60 ids timestamps."""
    folder = tmp_path_factory.mktemp("complete") / "whisper"
    shutil.copytree(whisper, folder)
    vocab = {piece: i for i, piece in enumerate(PIECES[:8])}
    added = [{"content": piece, "id": i} for i, piece in enumerate(PIECES) if i > 6]
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}, "added_tokens": added}))
    given = {"suppress_tokens": [1, 2], "begin_suppress_tokens": None, "is_multilingual": True}
    (folder / "generation_config.json").write_text(json.dumps(given))
    return folder


@pytest.fixture(scope="module")
def tensors(complete: Path) -> dict[str, Tensor]:
    return load_file(complete / "model.safetensors")


def imported(place: Path, out: Path) -> dict[str, Tensor]:
    """The encoder as import_encoder finds it, under bare names. out: experiment directory, made here"""
    out.parent.mkdir(parents=True, exist_ok=True)
    (out.parent / "e.yaml").write_text("encoder: whisper\n")
    import_encoder.main(["--config", f"{out.parent}/e.yaml", "--out", str(out), "--whisper_dir", str(place)])
    folder = Path(yaml.safe_load((out / "config.yaml").read_text())["encoder_conf"]["model"])
    return bare(load_file(folder / "model.safetensors"))


def bare(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = "model.encoder."
    return {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}


def export(source: Path, layout: str, out: Path, *words: str) -> Path:
    """Import a Whisper beside `out`, export it; returns where the export is."""
    exp, place = out / f"exp_{source.stem}", out / f"{source.stem}_{layout}{'.pt' if layout == 'openai' else ''}"
    imported(source, exp)
    export_weights.main(["--exp_dir", str(exp), "--layout", layout, "--out", str(place), *words])
    return place


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    """Names, types and every bit."""
    return set(found) == set(wanted) and all(
        found[name].dtype == value.dtype and torch.equal(found[name], value) for name, value in wanted.items()
    )


@pytest.mark.parametrize("storage", [None, "float32"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("whole", [True, False])
def test_every_layout_comes_back_bit_for_bit(layout, storage, whole, complete, tensors, tmp_path, capsys):
    source = complete
    if not whole:
        source = tmp_path / "alone"
        copy_encoder(complete, source)
    place = export(source, layout, tmp_path, *(["--storage", storage] if storage else []))
    said = capsys.readouterr().out
    assert f"{place}: {'complete Whisper' if whole else 'the encoder alone'}, " in said
    wanted = {name: value.to(getattr(torch, storage or "float16")) for name, value in bare(tensors).items()}
    assert same(imported(place, tmp_path / "back"), wanted)


def test_openai_as_the_independent_writer(complete, tensors, tmp_path):
    write_openai(tmp_path / "wanted.pt", tensors)
    found, wanted = (torch.load(path, weights_only=True) for path in (export(complete, "openai", tmp_path),
                                                                      tmp_path / "wanted.pt"))  # fmt: skip
    assert found["dims"] == wanted["dims"] and same(found["model_state_dict"], wanted["model_state_dict"])


@pytest.mark.parametrize("storage", ["float16", "float32", "int8"])
def test_ctranslate2_as_the_independent_writer(storage, complete, tensors, tmp_path):
    write_ctranslate2(tmp_path / "wanted", tensors, storage)
    found = export(complete, "ctranslate2", tmp_path, "--storage", storage)
    assert (found / "model.bin").read_bytes() == (tmp_path / "wanted/model.bin").read_bytes()


def test_aliases_and_rows_of_zeros_as_the_independent_writer(tmp_path):
    zeros, weight = torch.zeros(4), torch.tensor([[0.5, -1.0], [0.0, 0.0], [3.0, 0.1], [0.2, 0.2]])
    variables = {"b/beta": zeros, "a/bias": zeros, "c/beta": zeros.half(), "c/weight": weight, "a/weight": weight,
                 "a/heads": torch.tensor(0).char(), "b/heads": torch.tensor(0).char(),
                 "d/weight": weight.flatten()[:, None, None].bfloat16()}  # fmt: skip
    kept, aliases = with_aliases(variables)
    assert aliases == {"b/beta": "a/bias", "c/weight": "a/weight"}
    for int8 in (False, True):
        write_model_bin(tmp_path / "model.bin", variables, int8)
        wanted = pack(quantised(kept, "int8") if int8 else kept, aliases)
        assert (tmp_path / "model.bin").read_bytes() == wanted


def test_files_beside_the_weights(complete, tmp_path):
    """What faster-whisper and transformers read besides."""
    folder = export(complete, "ctranslate2", tmp_path)
    assert json.loads((folder / "vocabulary.json").read_text()) == [
        *PIECES, *(f"<|{i * 0.02:.2f}|>" for i in range(60 - len(PIECES))),
    ]  # fmt: skip
    assert json.loads((folder / "config.json").read_text()) == {
        "alignment_heads": [[0, 0]], "lang_ids": [9, 10], "suppress_ids": [1, 2], "suppress_ids_begin": [],
    }  # fmt: skip
    assert json.loads((folder / "preprocessor_config.json").read_text()) == {"feature_size": 80}
    assert (folder / "tokenizer.json").read_bytes() == (complete / "tokenizer.json").read_bytes()
    known = {"alignment_heads": [[0, 0]], "lang_to_id": {"<|en|>": 9}, "suppress_tokens": []}
    (complete.parent / "told").mkdir()
    told = Path(shutil.copytree(complete, complete.parent / "told" / "named"))
    (told / "generation_config.json").write_text(json.dumps(known))
    (told / "preprocessor_config.json").write_text('{"feature_size": 80, "n_fft": 400}')
    folder = export(told, "ctranslate2", tmp_path)
    assert json.loads((folder / "config.json").read_text())["lang_ids"] == [9]
    assert json.loads((folder / "preprocessor_config.json").read_text())["n_fft"] == 400


@pytest.mark.parametrize("storage", ["float16", "float32"])
def test_transformers_loads_the_hugging_face_layout(storage, complete, tensors, tmp_path):
    folder = export(complete, "hugging_face", tmp_path, "--storage", storage)
    model, told = WhisperForConditionalGeneration.from_pretrained(folder, output_loading_info=True, dtype="auto")
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    dtype = getattr(torch, storage)
    assert model.dtype == dtype
    found = model.state_dict()
    assert all(torch.equal(found[name], value.to(dtype)) for name, value in tensors.items())
    beside = ("generation_config.json", "tokenizer.json")
    assert all((folder / name).read_bytes() == (complete / name).read_bytes() for name in beside)


def fails(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit):
        export_weights.main([str(word) for word in words])
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_what_cannot_be_written(complete, tensors, tmp_path, capsys):
    imported(complete, tmp_path / "exp")
    words = ["--exp_dir", tmp_path / "exp", "--out", tmp_path / "out", "--layout"]
    assert "invalid choice: 'onnx'" in fails(capsys, *words, "onnx")
    assert "--storage int8: only --layout ctranslate2 has it" in fails(capsys, *words, "openai", "--storage", "int8")
    assert "expected a name that ends in .pt" in fails(capsys, *words, "openai")
    assert "only Whisper's layouts have it" in fails(capsys, *words, "released", "--storage", "int8")
    assert "writes a Whisper, which has none" in fails(capsys, *words, "openai", "--part", "adapter")
    assert "holds the weights that are to be" in fails(capsys, *words, "hugging_face", "--out", complete)
    assert "a Whisper is written with --layout hugging_face|openai|ctranslate2" in fails(capsys, *words, "released")
    for config, message in (
        ("encoder: light_conformer", "has encoder: light_conformer, --layout openai is for encoder: whisper"),
        ("encoder: whisper\ndecoder: whisper_diffusion", "whisper_diffusion fills in masks among tokens of its own"),
        ("encoder: whisper\nencoder_conf: {model: no/where/there}", "no such file or folder, and no hub name"),
    ):
        (tmp_path / "exp/config.yaml").write_text(config)
        assert message in fails(capsys, *words, "openai")
    assert not (tmp_path / "out").exists()


def lose_layer(folder: Path, tensors: dict[str, Tensor]) -> str:
    del tensors["model.decoder.layers.0.encoder_attn.k_proj.weight"]
    return "decoder: not the expected 28 tensors: 1 missing: layers.0.encoder_attn.k_proj.weight"


def own_output(folder: Path, tensors: dict[str, Tensor]) -> str:
    tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"] + 1
    return "proj_out.weight differs from the embedding"


def many_tokens(folder: Path, tensors: dict[str, Tensor]) -> str:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"].append({"content": "<|far|>", "id": 60})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return "13 pieces with ids up to 60, expected one for each of the model's 60 ids"


def no_tokenizer(folder: Path, tensors: dict[str, Tensor]) -> str:
    (folder / "tokenizer.json").unlink()
    return "tokenizer.json: no such file; a complete Whisper folder in Hugging Face's layout has it"


@pytest.mark.parametrize("spoil", [lose_layer, own_output, many_tokens, no_tokenizer])
def test_incomplete_folders(spoil, complete, tensors, tmp_path, capsys):
    folder = Path(shutil.copytree(complete, tmp_path / "spoilt"))
    changed = dict(tensors)
    message = spoil(folder, changed)
    save_file(changed, folder / "model.safetensors", {"format": "pt"})
    imported(folder, tmp_path / "exp")
    words = ["--exp_dir", tmp_path / "exp", "--layout", "ctranslate2", "--out", tmp_path / "out"]
    assert message in fails(capsys, *words)
    assert not (tmp_path / "out/model.bin").exists()


def test_128_mel_bins(complete, tmp_path):
    """faster-whisper must be told of them, openai's file tells them itself."""
    folder = tmp_path / "large"
    write_hugging_face(folder, num_mel_bins=128, encoder_layers=1)
    for name in ("tokenizer.json", "generation_config.json"):
        shutil.copyfile(complete / name, folder / name)
    told = json.loads((export(folder, "ctranslate2", tmp_path) / "preprocessor_config.json").read_text())
    assert told == {"feature_size": 128}
    dims = torch.load(export(folder, "openai", tmp_path), weights_only=True)["dims"]
    assert [dims[name] for name in ("n_mels", "n_audio_layer", "n_text_layer", "n_audio_state")] == [128, 1, 1, WIDTH]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_real_weights_come_back_bit_for_bit(layout, real_whisper, tmp_path):
    place = export(real_whisper, layout, tmp_path)
    wanted = load_file(real_whisper / "model.safetensors")
    assert same(imported(place, tmp_path / "back"), bare(wanted))
    if layout == "hugging_face":
        assert same(load_file(place / "model.safetensors"), wanted)


def test_a_genuine_ctranslate2_encoder_is_written_again(real_ctranslate2, tmp_path):
    """The bytes of all of its encoder's variables, in one piece."""
    place = export(real_ctranslate2, "ctranslate2", tmp_path)
    ours = (place / "model.bin").read_bytes()
    head = 4 + 2 + len("WhisperSpec") + 1 + 8
    assert ours[head:-4] in (real_ctranslate2 / "model.bin").read_bytes()


def test_the_converter_wrote_the_same(real_whisper, real_ctranslate2, tmp_path):
    """Names, their order, types, values and aliases of the model.bin that CTranslate2 made of the same Whisper."""
    genuine = ModelBin(real_ctranslate2 / "model.bin")
    sizes = json.loads((real_whisper / "config.json").read_text())
    if genuine.shape("decoder/embeddings/weight") != (sizes["vocab_size"], sizes["d_model"]):
        pytest.skip(f"{real_ctranslate2.name} is of another Whisper than {real_whisper.name}")
    ours = ModelBin(export(real_whisper, "ctranslate2", tmp_path) / "model.bin")
    assert ours.names() == [name for name in genuine.names() if name not in NEWER]
    for name in ours.names():
        found, wanted = ours.read(name), genuine.read(name)
        assert found.dtype == wanted.dtype and torch.equal(found, wanted), name
