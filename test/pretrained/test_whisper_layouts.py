"""One Whisper in every public layout gives one encoder; what is broken is named."""

import json
import logging
import re
from pathlib import Path

import pytest
import torch
import yaml
from public_layouts import (
    BINS,
    HEADS,
    LAYERS,
    WIDTH,
    ctranslate2_variables,
    pack,
    with_aliases,
    write_ctranslate2,
    write_hugging_face,
    write_openai,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from whisfusion_asr.bin import import_encoder
from whisfusion_asr.errors import UserError
from whisfusion_asr.models.whisper_encoder import WhisperEncoder
from whisfusion_asr.pretrained.ctranslate2 import ModelBin
from whisfusion_asr.pretrained.whisper import EncoderSizes, find_folder, sinusoids


@pytest.fixture(scope="module")
def tensors(whisper: Path) -> dict[str, Tensor]:
    return load_file(whisper / "model.safetensors")


def encoder_part(folder: Path) -> dict[str, Tensor]:
    stored = load_file(folder / "model.safetensors")
    return {name: value for name, value in stored.items() if name.startswith("model.encoder.")}


def write(layout: str, whisper: Path, tensors: dict[str, Tensor], out: Path) -> Path:
    """The same model in another layout."""
    if layout == "openai":
        write_openai(out.with_suffix(".pt"), tensors)
        return out.with_suffix(".pt")
    if layout == "bare":
        out.mkdir()
        bare = {n.removeprefix("model.encoder."): t for n, t in tensors.items() if n.startswith("model.encoder.")}
        save_file(bare, out / "model.safetensors", {"format": "pt"})
        (out / "config.json").write_bytes((whisper / "config.json").read_bytes())
        return out
    write_ctranslate2(out, tensors, layout)
    return out


@pytest.mark.parametrize("layout", ["openai", "bare", "float16", "float32"])
def test_equal_to_the_last_bit(layout, whisper, tensors, speech, tmp_path):
    place = write(layout, whisper, tensors, tmp_path / "model")
    folder = find_folder(place, tmp_path / "out")
    wanted = {name: value for name, value in tensors.items() if name.startswith("model.encoder.")}
    found = encoder_part(folder)
    assert set(found) == set(wanted) and len(found) == 7 + 15 * LAYERS
    assert all(torch.equal(found[name].half(), value) for name, value in wanted.items())
    config = json.loads((folder / "config.json").read_text())
    assert [config[key] for key in ("d_model", "encoder_layers", "encoder_attention_heads", "num_mel_bins")] == [
        WIDTH, LAYERS, HEADS, BINS,
    ]  # fmt: skip
    assert torch.equal(WhisperEncoder(str(folder))(*speech)[0], WhisperEncoder(str(whisper))(*speech)[0])


@pytest.mark.parametrize(("kind", "share"), [("int8", 0.5 / 127), ("int16", 0.5 / 1024), ("bfloat16", 2**-8)])
def test_quantised_within_half_a_step(kind, share, whisper, tensors, tmp_path):
    write_ctranslate2(tmp_path / "model", tensors, kind)
    found = encoder_part(find_folder(tmp_path / "model", tmp_path / "out"))
    for name, value in found.items():
        wanted = tensors[name].double()
        names = [re.sub("[qkv]_proj.weight", f"{x}_proj.weight", name) for x in "qkv"]  # quantised as one matrix
        bound = max(float(tensors[name].abs().max()) for name in names) * share * 1.01
        assert (value.double() - wanted).abs().max() <= bound, name
    assert {value.dtype for value in found.values()} == {torch.bfloat16 if kind == "bfloat16" else torch.float32}


def test_aliases_reach_from_the_encoder_into_the_decoder(tensors):
    """All biases that are zero are one tensor, and the file keeps the decoder's."""
    variables = ctranslate2_variables(tensors)
    for name, value in variables.items():
        if name.endswith(("linear_1/bias", "beta")) and "ffn" not in name:
            variables[name] = torch.zeros_like(value)
    aliases = with_aliases(variables)[1]
    assert aliases["encoder/layer_0/self_attention/linear_1/bias"].startswith("decoder/")
    assert aliases["decoder/projection/weight"] == "decoder/embeddings/weight"


def test_alias_of_a_quantised_weight_takes_the_scale_of_its_target(tmp_path):
    stored = {"a/weight": torch.tensor([[127, 0], [64, -127]]).char(), "a/weight_scale": torch.tensor([2.0, 4.0])}
    (tmp_path / "model.bin").write_bytes(pack(stored, {"b/weight": "a/weight"}))
    model = ModelBin(tmp_path / "model.bin")
    assert model.read("b/weight").tolist() == model.read("a/weight").tolist() == [[63.5, 0], [16, -31.75]]


@pytest.mark.parametrize("prefix", ["model.encoder.", "encoder."])
def test_a_hugging_face_folder_stays_where_it_is(prefix, whisper, tensors, tmp_path):
    folder = tmp_path / "hf"
    folder.mkdir()
    kept = {name.replace("model.encoder.", prefix): value for name, value in tensors.items()}
    half = sorted(kept)[: len(kept) // 2]  # in two shards
    parts = {"model-1.safetensors": half, "model-2.safetensors": sorted(set(kept) - set(half))}
    for file, names in parts.items():
        save_file({name: kept[name] for name in names}, folder / file, {"format": "pt"})
    index = {"weight_map": {name: file for file, names in parts.items() for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_bytes((whisper / "config.json").read_bytes())
    assert find_folder(folder, tmp_path / "out") == folder and not (tmp_path / "out").exists()
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(UserError, match="model-2.safetensors: no such file"):
        find_folder(folder, tmp_path / "out")


def test_learned_positions_of_a_hugging_face_folder_are_told(whisper, tensors, tmp_path, caplog):
    (tmp_path / "config.json").write_bytes((whisper / "config.json").read_bytes())
    moved = tensors | {"model.encoder.embed_positions.weight": tensors["model.encoder.embed_positions.weight"] + 0.1}
    save_file(moved, tmp_path / "model.safetensors", {"format": "pt"})
    with caplog.at_level(logging.WARNING):
        assert find_folder(tmp_path, tmp_path / "out") == tmp_path
    assert "differ from Whisper's sinusoids by up to 0.1" in caplog.text


@pytest.mark.parametrize(
    ("name", "sizes", "parameters"),
    [
        ("tiny", (384, 4, 6, 80), 8_208_384),
        ("base", (512, 6, 8, 80), 20_590_592),
        ("small", (768, 12, 12, 80), 88_154_112),
        ("medium", (1024, 24, 16, 80), 307_216_384),
        ("large-v2", (1280, 32, 20, 80), 636_784_640),
        ("large-v3 and turbo", (1280, 32, 20, 128), 636_968_960),
    ],
)
def test_published_sizes(name, sizes, parameters):
    width, layers, heads, bins = sizes
    shapes = EncoderSizes(width, layers, heads, 4 * width, bins, 1500, 51865).shapes()
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == parameters
    assert len(shapes) == 7 + 15 * layers


def test_sinusoids_have_the_published_values():
    row = sinusoids(1500, 768)[1]
    assert row[:3].tolist() == pytest.approx([0.8415, 0.8284, 0.8152], abs=5e-5)
    assert row[384:387].tolist() == pytest.approx([0.5403, 0.5601, 0.5792], abs=5e-5)


def test_128_mel_bins(tmp_path, speech):
    tensors = write_hugging_face(tmp_path / "hf", num_mel_bins=128, encoder_layers=1)
    write_ctranslate2(tmp_path / "ct2", tensors)
    folder = find_folder(tmp_path / "ct2", tmp_path / "out")
    assert torch.equal(WhisperEncoder(str(folder))(*speech)[0], WhisperEncoder(str(tmp_path / "hf"))(*speech)[0])


def spoil_positions(tensors: dict[str, Tensor], variables: dict[str, Tensor]) -> str:
    variables["encoder/position_encodings/encodings"] = torch.zeros(1500, WIDTH)
    return "its positions differ from Whisper's sinusoids by up to 1: not a Whisper encoder"


def spoil_key_bias(tensors: dict[str, Tensor], variables: dict[str, Tensor]) -> str:
    variables["encoder/layer_2/self_attention/linear_0/bias"] = torch.ones(3 * WIDTH)
    return "encoder/layer_2/self_attention/linear_0/bias is not zero for the keys"


def spoil_names_and_shapes(tensors: dict[str, Tensor], variables: dict[str, Tensor]) -> str:
    """Every fault is named at once."""
    for name in ("layer_10/ffn/linear_1/bias", "layer_3/self_attention/linear_0/weight"):
        del variables[f"encoder/{name}"]
    variables["encoder/layer_3/ffn/layer_norm/beta"] = torch.zeros(WIDTH + 1)
    variables["encoder/layer_3/self_attention/relative/weight"] = torch.zeros(2, 2)
    return (
        "2 missing: encoder/layer_3/self_attention/linear_0/weight, encoder/layer_10/ffn/linear_1/bias; "
        "1 unexpected: encoder/layer_3/self_attention/relative/weight; "
        rf"1 of another shape: encoder/layer_3/ffn/layer_norm/beta \({WIDTH + 1},\), expected \({WIDTH},\)"
    )


def spoil_whole_layer(tensors: dict[str, Tensor], variables: dict[str, Tensor]) -> str:
    for name in [name for name in variables if name.startswith("encoder/layer_4/")]:
        del variables[name]
    return "12 missing: encoder/layer_4/"


def spoil_ends(tensors: dict[str, Tensor], variables: dict[str, Tensor]) -> str:
    del variables["encoder/num_heads"], variables["encoder/conv1/weight"]
    return "2 missing: encoder/num_heads, encoder/conv1/weight$"


def spoil_scale(tensors: dict[str, Tensor], variables: dict[str, Tensor]) -> str:
    variables["encoder/conv2/weight_scale"] = torch.ones(WIDTH - 1)
    variables["encoder/layer_norm/gamma_scale"] = torch.ones(WIDTH)
    return (
        "1 unexpected: encoder/layer_norm/gamma_scale; "
        rf"1 of another shape: encoder/conv2/weight_scale \({WIDTH - 1},\), expected \({WIDTH},\)"
    )


def spoil_zero_points(tensors: dict[str, Tensor], variables: dict[str, Tensor]) -> str:
    variables["encoder/conv1/weight_zero"] = torch.zeros(1)
    return "encoder/conv1/weight has zero points"


@pytest.mark.parametrize(
    "spoil",
    [spoil_positions, spoil_key_bias, spoil_names_and_shapes, spoil_whole_layer, spoil_ends, spoil_scale,
     spoil_zero_points],
)  # fmt: skip
def test_wrong_ctranslate2_variables(spoil, tensors, tmp_path):
    variables = ctranslate2_variables(tensors)
    message = spoil(tensors, variables)
    (tmp_path / "model.bin").write_bytes(pack(variables, {}))
    with pytest.raises(UserError, match=message):
        find_folder(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_scalars_of_a_ctranslate2_model_are_settings(tensors, tmp_path):
    """As another version of the converter may write them."""
    variables = ctranslate2_variables(tensors) | {"encoder/layer_0/self_attention/head_dim": torch.tensor(64).short()}
    (tmp_path / "model.bin").write_bytes(pack(variables, {}))
    assert len(encoder_part(find_folder(tmp_path, tmp_path / "out"))) == 7 + 15 * LAYERS


def test_broken_ctranslate2_files(tensors, tmp_path):
    kept, aliases = with_aliases(ctranslate2_variables(tensors))
    whole, file = pack(kept, aliases), tmp_path / "model.bin"
    name = b"encoder/conv1/weight\0"
    place = whole.index(name) + len(name) + 1 + 12 + 5  # rank, shape, type, size
    size = WIDTH * BINS * 3 * 2
    cases = {
        whole[: place + 1000]: rf"cut off inside encoder/conv1/weight: {size - 1000} of its {size} bytes are missing",
        whole[: place + size + 3]: "cut off behind encoder/conv1/weight",
        whole + b"?": "1 bytes behind its end",
        pack(kept, aliases, version=3): "version 3, expected 4 to 6",
        pack(kept, aliases, spec="TransformerSpec"): "holds a TransformerSpec, expected a WhisperSpec",
        b"": "0 bytes, not a CTranslate2 model",
    }
    for content, message in cases.items():
        file.write_bytes(content)
        with pytest.raises(UserError, match=message):
            find_folder(tmp_path, tmp_path / "out")
    file.rename(tmp_path / "model.bin.part1")
    with pytest.raises(UserError, match=r"in pieces: join them first, cd .* && cat model\.bin\.part1 > model\.bin"):
        find_folder(tmp_path, tmp_path / "out")


def test_wrong_openai_files(tensors, tmp_path):
    path = tmp_path / "small.pt"
    write_openai(path, tensors)
    content = torch.load(path)
    state = content["model_state_dict"]
    state["encoder.blocks.1.mlp.9.weight"] = state.pop("encoder.blocks.1.mlp.2.weight")
    torch.save(content, path)
    with pytest.raises(UserError) as stop:
        find_folder(path, tmp_path / "out")
    assert "1 missing: layers.1.fc2.weight; 1 unexpected: blocks.1.mlp.9.weight" in str(stop.value)
    torch.save(state, path)
    with pytest.raises(UserError, match="expected openai's Whisper file, a table with dims and model_state_dict"):
        find_folder(path, tmp_path / "out")
    with pytest.raises(UserError, match="no Whisper weights; expected a folder with config.json"):
        find_folder(tmp_path, tmp_path / "out")


def test_command(whisper, tensors, tmp_path, speech, capsys):
    write_ctranslate2(tmp_path / "ct2", tensors, "int8")
    (tmp_path / "e.yaml").write_text("encoder: whisper\nencoder_conf: {model: openai/whisper-small, pool: 2}\n")
    words = ["--config", f"{tmp_path}/e.yaml", "--out", f"{tmp_path}/exp", "--whisper_dir"]
    import_encoder.main([*words, f"{tmp_path}/ct2"])
    config = yaml.safe_load((tmp_path / "exp/config.yaml").read_text())
    assert config["encoder_conf"]["model"] == str(tmp_path / "exp/whisper") and config["layers"] == LAYERS
    assert list(config["weights"]) == ["model.safetensors"]
    assert WhisperEncoder(**config["encoder_conf"])(*speech)[0].shape == (1, 10, WIDTH)
    with pytest.raises(SystemExit):
        import_encoder.main([*words, "nowhere"])
    assert "--whisper_dir nowhere: no such folder or file" in capsys.readouterr().err


def test_a_genuine_ctranslate2_folder(real_ctranslate2, speech, tmp_path):
    """All of its encoder is read, and the states are like those of trained weights: single values stand out."""
    folder = find_folder(real_ctranslate2, tmp_path / "out")
    encoder = WhisperEncoder(str(folder))
    config = encoder.whisper.config
    assert len(encoder_part(folder)) == 7 + 15 * config.encoder_layers
    assert config.d_model == 64 * config.encoder_attention_heads
    states = encoder(*speech)[0]
    assert states.isfinite().all() and states.abs().max() > 5 * states.std()


def test_real_weights_through_every_layout(real_whisper, tmp_path):
    """True names, shapes and float16 values of a public Whisper: through each layout and back without a changed bit."""
    real = real_whisper
    tensors = load_file(real / "model.safetensors")
    heads = json.loads((real / "config.json").read_text())["encoder_attention_heads"]
    assert find_folder(real, tmp_path / "x") == real
    write_openai(tmp_path / "base.pt", tensors, heads)
    write_ctranslate2(tmp_path / "ct2", tensors, "float16", heads)
    for name in ("base.pt", "ct2"):
        found = encoder_part(find_folder(tmp_path / name, tmp_path / f"out_{name}"))
        assert all(torch.equal(value, tensors[key]) for key, value in found.items())
        assert len(found) == len([key for key in tensors if key.startswith("model.encoder.")])
