"""The frozen Whisper encoder against transformers' own, on a small random model."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperModel
from transformers.utils import logging

from whisfusion_asr.bin import import_encoder
from whisfusion_asr.data.audio import load_audio
from whisfusion_asr.errors import UserError
from whisfusion_asr.files import sha256
from whisfusion_asr.models.whisper_encoder import N_FFT, TooLong, WhisperEncoder, log_mel, mel_filters
from whisfusion_asr.pretrained.whisper import copy_encoder

RATE = 16000
WIDTH = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Whisper of 2 layers in Hugging Face's layout."""
    path = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(0)
    sizes = dict(d_model=WIDTH, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=4 * WIDTH)
    sizes |= dict(decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=WIDTH, vocab_size=60)
    ids = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3)
    model = WhisperForConditionalGeneration(WhisperConfig(**sizes, **ids, suppress_tokens=[], begin_suppress_tokens=[]))
    for parameter in model.parameters():
        if parameter.ndim > 1:  # far from the tiny initial values: differences show
            torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(path)
    return str(path)


def hf_encoder(folder):
    return WhisperModel.from_pretrained(folder).float().eval().encoder


def noise(seconds, seed=0):
    samples = round(seconds * RATE)
    envelope = 0.1 + np.abs(np.sin(np.arange(samples) / 3000))
    return torch.from_numpy((0.1 * envelope * np.random.RandomState(seed).randn(samples)).astype(np.float32))


def batch(*signals, behind=0.0):
    """Signals -> (B, S) with `behind` behind the shorter ones, and lengths."""
    lengths = torch.tensor([len(signal) for signal in signals])
    speech = torch.full((len(signals), int(lengths.max())), behind)
    for row, signal in zip(speech, signals, strict=True):
        row[: len(signal)] = signal
    return speech, lengths


SIGNALS = {
    "noise": noise(3.3),
    "tone": 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(16000) / RATE),
    "silence": torch.zeros(8000),
    "one sample": torch.ones(1),
    "30 s": noise(30.0),
    "click at the end": torch.cat([torch.zeros(5000), torch.ones(3)]),
}


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("bins", [80, 128])
def test_log_mel_equals_whispers(name, bins):
    wanted = WhisperFeatureExtractor(feature_size=bins)(SIGNALS[name].numpy(), sampling_rate=RATE)["input_features"][0]
    filters, window = torch.from_numpy(mel_filters(bins)).float(), torch.hann_window(N_FFT)
    speech, lengths = batch(SIGNALS[name])
    full = log_mel(speech, lengths, torch.tensor([3000]), filters, window)
    np.testing.assert_allclose(full[0], wanted, atol=1e-5)
    frames = min(3000, 2 * (-(-len(SIGNALS[name]) // 320) + 50))  # a second of silence behind it
    short = log_mel(speech, lengths, torch.tensor([frames]), filters, window)
    np.testing.assert_allclose(short[0], wanted[:, :frames], atol=1e-5)


def test_log_mel_of_a_tone_has_the_published_values():
    filters, window = torch.from_numpy(mel_filters(80)).float(), torch.hann_window(N_FFT)
    mel = log_mel(*batch(SIGNALS["tone"]), torch.tensor([3000]), filters, window)[0].double()
    found = [mel.min(), mel.max(), mel[10, 50], mel.sum() / mel.numel()]
    assert found == pytest.approx([-0.672721, 1.327279, 1.237814, -160460.747 / 240000], abs=2e-6)
    assert mel_filters(80).sum() == pytest.approx(1.9990242, abs=1e-7)
    assert mel_filters(128).sum() == pytest.approx(3.1909857, abs=5e-7)


def test_padded_states_equal_transformers(folder):
    signals = [noise(1.01), noise(4.5, seed=1)]
    extract = WhisperFeatureExtractor()
    features = extract([signal.numpy() for signal in signals], sampling_rate=RATE, return_tensors="pt")[
        "input_features"
    ]
    with torch.no_grad():
        wanted = hf_encoder(folder)(features).last_hidden_state
    states, lengths = WhisperEncoder(folder)(*batch(*signals))
    assert lengths.tolist() == [51, 225] and states.shape == (2, 225, WIDTH) and states.dtype == torch.float32
    for row, reference, length in zip(states, wanted, lengths, strict=True):
        torch.testing.assert_close(row[:length], reference[:length], atol=1e-4, rtol=0)
        assert (row[length:] == 0).all()
    every, lengths = WhisperEncoder(folder, keep="padded")(*batch(*signals))
    assert lengths.tolist() == [1500, 1500]
    torch.testing.assert_close(every, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("tail", [0.0, 1.0, 30.0])
def test_trimmed_states_equal_transformers_on_a_shorter_window(folder, tail):
    """transformers insists on the window of its configuration, so the configuration is made to fit."""
    signal = noise(2.0, seed=2)
    window = min(1500, 100 + round(50 * tail))
    reference = hf_encoder(folder)
    reference.config.max_source_positions = reference.embed_positions.num_embeddings = window
    reference.embed_positions.weight.data = reference.embed_positions.weight.data[:window]
    extracted = WhisperFeatureExtractor()(signal.numpy(), sampling_rate=RATE, return_tensors="pt")["input_features"]
    with torch.no_grad():
        wanted = reference(extracted[:, :, : 2 * window]).last_hidden_state
    states, lengths = WhisperEncoder(folder, context="trimmed", tail_seconds=tail)(*batch(signal))
    assert lengths.tolist() == [100]
    torch.testing.assert_close(states, wanted[:, :100], atol=1e-4, rtol=0)


@pytest.mark.parametrize("options", [{}, {"context": "trimmed"}, {"context": "trimmed", "tail_seconds": 0, "pool": 3}])
def test_neighbours_in_the_batch_change_nothing(folder, options):
    encoder = WhisperEncoder(folder, **options)
    signals = [noise(0.5), 3 * noise(7.0, seed=1), noise(2.345, seed=2)]
    signals[0][:4000] = 0.0  # at the floor, so a wrong maximum shows:
    signals[0][-1] = 5.0  # it is loudest in the frame behind its own, which only a longer neighbour has computed
    together, lengths = encoder(*batch(*signals, behind=7.0))  # what lies behind a signal is never heard
    for signal, row, length in zip(signals, together, lengths, strict=True):
        alone, count = encoder(*batch(signal))
        assert count.tolist() == [length]
        torch.testing.assert_close(row[:length], alone[0], atol=1e-4, rtol=0)
        assert (row[length:] == 0).all()


def test_pooling_takes_the_mean_of_groups(folder):
    signals = [noise(0.2), noise(0.34, seed=1)]
    plain, counts = WhisperEncoder(folder)(*batch(*signals))
    pooled, lengths = WhisperEncoder(folder, pool=4)(*batch(*signals))
    assert counts.tolist() == [10, 17] and lengths.tolist() == [3, 5]
    for row, small, count in zip(plain, pooled, counts, strict=True):
        groups = [group.mean(0) for group in row[:count].split(4)]
        torch.testing.assert_close(small[: len(groups)], torch.stack(groups), atol=1e-5, rtol=0)


def test_empty_utterance(folder):
    for context in ("padded", "trimmed"):
        states, lengths = WhisperEncoder(folder, context, tail_seconds=0)(torch.zeros(2, 800), torch.tensor([0, 800]))
        assert lengths.tolist() == [0, 3] and (states[0] == 0).all() and states[1].abs().min() > 0


def test_frozen(folder):
    encoder = WhisperEncoder(folder)
    model = torch.nn.ModuleDict({"encoder": encoder, "head": torch.nn.Linear(encoder.output_size, 3)}).train()
    assert not any(module.training for module in encoder.modules())
    speech, lengths = batch(noise(0.3))
    model["head"](encoder(speech.requires_grad_(), lengths)[0]).sum().backward()
    assert speech.grad is None and all(p.grad is None and not p.requires_grad for p in encoder.parameters())
    assert model["head"].weight.grad is not None


def test_only_the_encoder_is_kept(folder):
    encoder = WhisperEncoder(folder)
    count = sum(parameter.numel() for parameter in hf_encoder(folder).parameters())
    assert sum(parameter.numel() for parameter in encoder.parameters()) == count
    assert not any("filters" in name or "window" in name for name in encoder.state_dict())


def test_bfloat16_runs_the_layers_only(folder):
    exact, rough = WhisperEncoder(folder), WhisperEncoder(folder, precision="bfloat16")
    assert {p.dtype for p in exact.parameters()} == {torch.float32}  # the default everywhere
    assert {p.dtype for p in rough.parameters()} == {torch.bfloat16} and rough.filters.dtype == torch.float32
    speech, lengths = batch(noise(1.0), noise(0.4, seed=1))
    wanted, found = exact(speech, lengths)[0], rough(speech, lengths)[0]
    assert found.dtype == torch.float32 and (found[1, 20:] == 0).all()
    error = ((found - wanted).norm() / wanted.norm()).item()
    assert 1e-4 < error < 0.05  # eight bits of mantissa, some layers


def test_window_is_what_is_computed(folder):
    assert WhisperEncoder(folder).window(16000) == 480_000
    trimmed = WhisperEncoder(folder, context="trimmed", tail_seconds=1.0, pool=2)
    assert [trimmed.window(samples) for samples in (1, 16000, 480_000)] == [16320, 32000, 480_000]
    assert trimmed.frame_shift == 0.04


def test_more_than_30_seconds(folder):
    encoder = WhisperEncoder(folder)
    encoder(torch.zeros(1, 480_000), torch.tensor([480_000]))
    with pytest.raises(
        UserError, match=r"utterance 1 of the batch lasts 30\.01 s, .* at most 30 s: cut .*max_seconds 30"
    ):
        encoder(torch.zeros(2, 480_160), torch.tensor([100, 480_160]))
    with pytest.raises(TooLong, match=r"^b lasts 31\.00 s") as caught:
        encoder.check_durations([100, 496_000, 490_000], ["a", "b", "c"])
    assert caught.value.row == 1 and caught.value.reason.startswith("lasts 31.00 s")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": "full"}, "context is 'full', expected one of padded, trimmed"),
        ({"tail_seconds": -1}, "tail_seconds is -1, expected 0 to 30"),
        ({"keep": "some"}, "keep is 'some', expected one of true_length, padded"),
        ({"pool": 0}, "pool is 0, expected 1 or more"),
        ({"precision": "int8"}, "precision is 'int8', expected one of float32, bfloat16"),
    ],
)
def test_wrong_option(folder, options, message):
    with pytest.raises(UserError, match=message):
        WhisperEncoder(folder, **options)


def test_wrong_folders(tmp_path, folder):
    with pytest.raises(UserError, match="/none: no such folder"):
        WhisperEncoder(f"{tmp_path}/none")
    with pytest.raises(UserError, match=r"config\.json: no such file"):
        WhisperEncoder(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="model_type is 'bert', expected 'whisper'"):
        WhisperEncoder(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not a JSON object"):
        WhisperEncoder(str(tmp_path))
    (tmp_path / "config.json").write_bytes(open(f"{folder}/config.json", "rb").read())
    with pytest.raises(UserError, match="no Whisper weights could be read.*--whisper_dir"):
        WhisperEncoder(str(tmp_path))
    weights = open(f"{folder}/model.safetensors", "rb").read()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(UserError, match="no Whisper weights could be read"):
        WhisperEncoder(str(tmp_path))
    (tmp_path / "model.bin").touch()
    with pytest.raises(UserError, match="a CTranslate2 .* folder; expected Hugging Face's layout"):
        WhisperEncoder(str(tmp_path))


def test_a_missing_tensor_is_not_made_up(tmp_path, folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(f"{folder}/model.safetensors")
    del tensors["model.encoder.layers.1.fc1.bias"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes(open(f"{folder}/config.json", "rb").read())
    with pytest.raises(UserError, match=r"lack 1 tensors of the encoder \(first: encoder\.layers\.1\.fc1\.bias\)"):
        WhisperEncoder(str(tmp_path))


def test_an_encoder_alone_is_read_without_a_word_about_the_decoder(tmp_path, folder, caplog):
    copy_encoder(folder, tmp_path)
    told = logging.get_verbosity()
    logging.set_verbosity_warning()
    logging.enable_propagation()  # to pytest's handler
    WhisperEncoder(str(tmp_path))
    left = logging.get_verbosity()
    logging.disable_propagation()
    logging.set_verbosity(told)
    assert "decoder" not in caplog.text and left == logging.WARNING


def test_importing_the_module_is_light():
    code = "import sys, whisfusion_asr.models.whisper_encoder; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def write_config(tmp_path, **config):
    path = tmp_path / "encoder.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def test_import_encoder(tmp_path, folder):
    path = write_config(
        tmp_path, encoder="whisper", encoder_conf={"model": "openai/whisper-small", "context": "trimmed"}
    )
    import_encoder.main(["--config", path, "--out", f"{tmp_path}/exp/e", "--whisper_dir", os.path.relpath(folder)])
    config = yaml.safe_load((tmp_path / "exp/e/config.yaml").read_text())
    conf = {"model": folder, "context": "trimmed", "tail_seconds": 1.0, "keep": "true_length", "pool": 1}
    conf["precision"] = "float32"
    assert config == {
        "encoder": "whisper",
        "encoder_conf": conf,
        "output_size": WIDTH,
        "layers": 2,
        "heads": 4,
        "mel_bins": 80,
        "weights": {"model.safetensors": sha256(f"{folder}/model.safetensors")},
    }
    assert WhisperEncoder(**config["encoder_conf"]).output_size == WIDTH


def test_single_keys_on_the_command_line(tmp_path, folder, capsys):
    path = write_config(tmp_path, encoder="whisper", encoder_conf={"context": "trimmed", "pool": 2})
    words = ["--config", path, "--out", f"{tmp_path}/e", "--whisper_dir", folder, "--encoder_conf", "tail_seconds=0.5"]
    import_encoder.main([*words, "--encoder_conf", "pool=4"])
    conf = yaml.safe_load((tmp_path / "e/config.yaml").read_text())["encoder_conf"]
    assert (conf["context"], conf["tail_seconds"], conf["pool"]) == ("trimmed", 0.5, 4)
    with pytest.raises(SystemExit, match="2"):
        import_encoder.main([*words, "tail_second=1"])
    assert "unknown key tail_second; did you mean tail_seconds?" in capsys.readouterr().err


def test_sharded_weights_are_all_counted(tmp_path):
    shards = {"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(shards))
    assert [path.name for path in import_encoder.weight_files(tmp_path)] == [
        "model-1.safetensors",
        "model-2.safetensors",
    ]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"encoder": "conformer"}, "expected `encoder: whisper`"),
        ({"encoder": "whisper", "encoder_conf": {"contxt": "padded"}}, "unknown key contxt; did you mean context?"),
        ({"encoder": "whisper", "decoder": "diffusion"}, "unknown key decoder"),
        ({"encoder": "whisper"}, "encoder_conf has no model: .*--whisper_dir"),
    ],
)
def test_import_encoder_refuses(tmp_path, capsys, config, message):
    path = write_config(tmp_path, **config)
    with pytest.raises(SystemExit, match="2"):
        import_encoder.main(["--config", path, "--out", f"{tmp_path}/exp/e"])
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: ") and error.count("\n") == 1
    assert re.search(message, error), error
    assert not (tmp_path / "exp").exists()


def test_import_encoder_without_network(tmp_path):
    path = write_config(tmp_path, encoder="whisper", encoder_conf={"model": "openai/whisper-small"})
    command = [sys.executable, "-m", "whisfusion_asr.bin.import_encoder", "--config", path, "--out", f"{tmp_path}/e"]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": f"{tmp_path}/cache"}
    run = subprocess.run(command, env=offline, capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.count("\n") == 1, run.stderr
    assert run.stderr.startswith("error: openai/whisper-small: ") and "--whisper_dir DIR" in run.stderr
    assert not (tmp_path / "e").exists()


@pytest.fixture(scope="module")
def recordings(shared_data):
    """Read speech: an utterance from each of a few speakers of LibriSpeech."""
    files = [min(speaker.rglob("*.ogg")) for speaker in sorted(shared_data.glob("LibriSpeech/dev-mini/*"))]
    assert len(files) > 2
    return [torch.from_numpy(load_audio(str(file))) for file in files]


@pytest.mark.parametrize("bins", [80, 128])
def test_log_mel_of_real_speech(recordings, bins):
    """The bound of the reference is 1e-4."""
    extract = WhisperFeatureExtractor(feature_size=bins)
    wanted = extract([signal.numpy() for signal in recordings], sampling_rate=RATE)["input_features"]
    filters, window = torch.from_numpy(mel_filters(bins)).float(), torch.hann_window(N_FFT)
    speech, lengths = batch(*recordings)
    found = log_mel(speech, lengths, torch.full_like(lengths, 3000), filters, window)
    assert np.abs(found.numpy() - np.stack(wanted)).max() < 1e-4


def test_real_weights(real_whisper, recordings):
    """Bounds of a faithful import: single frames carry values of 20 and more."""
    real = str(real_whisper)
    signal = recordings[0][: 8 * RATE]
    count = -(-len(signal) // 320)
    reference = hf_encoder(real)
    extract = WhisperFeatureExtractor(feature_size=reference.config.num_mel_bins)
    features = extract(signal.numpy(), sampling_rate=RATE, return_tensors="pt")["input_features"]
    with torch.no_grad():
        wanted = reference(features).last_hidden_state[0, :count]
    padded = WhisperEncoder(real)(*batch(signal))[0][0]
    assert (padded - wanted).abs().mean() < 1e-5 and (padded - wanted).abs().max() < 1e-2
    trimmed = WhisperEncoder(real, context="trimmed")(*batch(signal))[0][0]
    assert torch.cosine_similarity(padded, trimmed).median() > 0.9
