"""Trainings through ESPnet's trainer, on toy data, in this process."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from whisfusion_asr.errors import UserError
from whisfusion_asr.models.build import build_network
from whisfusion_asr.training import precision
from whisfusion_asr.training.checkpoint import load_network_weights
from whisfusion_asr.training.longest import read_longest

ADAPTER_FREEZE = ["decoder.embed", "decoder.blocks", "decoder.norm", "decoder.head"]


def history(exp_dir: Path, phase: str = "valid", key: str = "loss") -> list[float]:
    """A statistic by epoch, from the last checkpoint."""
    from whisfusion_asr.tasks.trainer import read_state

    stats = read_state(exp_dir / "checkpoint.pth")["reporter"]["stats"]
    return [float(stats[epoch][phase][key]) for epoch in sorted(stats)]


@pytest.fixture(scope="module")
def text_model(train, tmp_path_factory) -> Path:
    """A decoder trained on states too: the origin of later steps."""
    return train(tmp_path_factory.mktemp("text") / "exp", max_epoch=1)


def test_an_experiment_directory_stands_for_itself(text_model):
    """Token list as a list, averaged model, sign of completion; the loader needs no ESPnet."""
    config = yaml.safe_load((text_model / "config.yaml").read_text(encoding="utf-8"))
    assert config["token_list"] == ["<eos>", "<unk>", "<space>", "a", "b", "c", "d"]
    assert json.loads((text_model / "finished.json").read_text())["epoch"] == 1
    network = build_network(config, 7)
    load_network_weights(network, text_model, "valid.loss.ave.pth")


def test_training_learns(train, tmp_path):
    """The loss falls over six epochs; otherwise nothing below means anything."""
    losses = history(train(tmp_path / "exp", max_epoch=6), "train")
    assert losses[-1] < 0.8 * losses[0]


def test_validation_loss_is_constant_at_rate_zero(train, tmp_path):
    """Same masks in every epoch, and nothing random left in the model."""
    losses = history(train(tmp_path / "exp", {"optim_conf": {"lr": 0.0}}, max_epoch=3))
    assert losses == [losses[0]] * 3


@pytest.mark.parametrize("units", [True, False])
def test_bf16_needs_units(train, tmp_path, monkeypatch, units):
    """use_amp: the same training in bf16, its weights still in fp32; on a CPU without bf16 it changes nothing."""
    monkeypatch.setattr(precision, "multiplies_in_bfloat16", lambda: units)
    bf16, fp32 = (train(tmp_path / name, {"use_amp": name == "bf16"}) for name in ("bf16", "fp32"))
    assert history(bf16) == pytest.approx(history(fp32), rel=0.02)
    assert (history(bf16) == history(fp32)) != units
    state = torch.load(bf16 / "valid.loss.ave.pth")
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float32}


def test_adapter_step_trains_and_saves_adapters_only(train, tmp_path, text_model):
    """Frozen values are those of the initial file, in the model, though in none of the step's files."""
    exp_dir = train(tmp_path / "exp", init_param=[text_model / "1epoch.pth"], freeze_param=ADAPTER_FREEZE)
    start = torch.load(text_model / "1epoch.pth")
    for name in ("checkpoint.pth", "2epoch.pth", "valid.loss.ave_2best.pth"):
        state = torch.load(exp_dir / name, weights_only=name != "checkpoint.pth")
        state = state.get("model", state)
        assert state and all(key.startswith("decoder.adapters.") for key in state), name
        assert any(not torch.equal(state[key], start[key]) for key in state)
    network = build_network(yaml.safe_load((exp_dir / "config.yaml").read_text(encoding="utf-8")), 7)
    load_network_weights(network, exp_dir, "valid.loss.ave.pth")
    for key, value in network.state_dict().items():
        trained = "adapters" in key
        assert torch.equal(value, start[key]) != trained or (trained and "bias" in key), key
    record = json.loads((exp_dir / "init.json").read_text())
    assert Path(record[0]["path"]) == text_model / "1epoch.pth" and len(record[0]["sha256"]) == 64


def test_espnet_loader_also_takes_the_whole_chain(train, tmp_path, text_model):
    """build_model_from_file: ESPnet's own would leave the frozen parts at random."""
    from whisfusion_asr.tasks.asr import DiffusionASRTask

    exp_dir = train(tmp_path / "exp", init_param=[text_model / "1epoch.pth"], freeze_param=ADAPTER_FREEZE)
    model, _ = DiffusionASRTask.build_model_from_file(exp_dir / "config.yaml", exp_dir / "2epoch.pth")
    start = torch.load(text_model / "1epoch.pth")
    assert torch.equal(model.decoder.head.weight, start["decoder.head.weight"])


def test_ema_is_validated_saved_averaged_and_preferred(train, tmp_path):
    """With rate 0.3 the averages differ from the raw weights; the loader takes the averages."""
    exp_dir = train(tmp_path / "exp", {"optim_conf": {"lr": 0.3}}, ema_decay=0.9)
    first, second, mean = (torch.load(exp_dir / f"{n}.pth") for n in ("1epoch", "2epoch", "valid.loss.ave_2best"))
    key = "decoder.head.weight"
    assert not torch.equal(second[f"ema.{key}"], second[key])
    torch.testing.assert_close(mean[f"ema.{key}"], (first[f"ema.{key}"] + second[f"ema.{key}"]) / 2)
    network = build_network(yaml.safe_load((exp_dir / "config.yaml").read_text(encoding="utf-8")), 7)
    load_network_weights(network, exp_dir, "valid.loss.ave.pth")
    assert torch.equal(network.state_dict()[key], mean[f"ema.{key}"])


def test_validation_uses_the_averaged_weights(train, tmp_path):
    """With a decay near 0 of the raw weights' influence the validated model hardly moves."""
    raw = history(train(tmp_path / "raw", {"optim_conf": {"lr": 0.5}}, max_epoch=1))[0]
    averaged = history(train(tmp_path / "ema", {"optim_conf": {"lr": 0.5}}, max_epoch=1, ema_decay=0.999))[0]
    assert averaged != raw
    assert history(tmp_path / "raw", "train") == history(tmp_path / "ema", "train")


def test_averages_begin_at_the_initial_weights(train, tmp_path, text_model):
    """Not at the random ones that were there before init_param was read: at rate 0 both stay equal."""
    exp_dir = train(
        tmp_path / "exp", {"optim_conf": {"lr": 0.0}}, init_param=[text_model / "1epoch.pth"], ema_decay=0.9
    )
    state = torch.load(exp_dir / "2epoch.pth")
    torch.testing.assert_close(state["ema.decoder.head.weight"], state["decoder.head.weight"])


def test_start_share_without_averages_is_refused(train, tmp_path):
    """It would be read by nobody."""
    with pytest.raises(UserError, match="ema_start_share: 0.2 needs averaged weights; set ema_decay"):
        train(tmp_path / "exp", ema_start_share=0.2)


def test_start_share_of_a_part_from_the_configuration(train, tmp_path, text_model):
    """A mapping of parts and one of mappings mean the same; at a high rate the share is seen in the averages."""
    start = torch.load(text_model / "1epoch.pth")["decoder.norm.weight"]
    for name, shares in (("flat", {"decoder.norm": 0.9}), ("deep", {"decoder": {"norm": 0.9}})):
        exp_dir = train(tmp_path / name, {"optim_conf": {"lr": 0.05}}, init_param=[text_model / "1epoch.pth"],
                        ema_decay=0.1, ema_start_share_of=shares)
        state = torch.load(exp_dir / "2epoch.pth")
        moved, kept = state["decoder.norm.weight"] - start, state["ema.decoder.norm.weight"] - start
        assert 0 < kept.norm() < 0.2 * moved.norm()
        head = state["decoder.head.weight"] - torch.load(text_model / "1epoch.pth")["decoder.head.weight"]
        free = state["ema.decoder.head.weight"] - torch.load(text_model / "1epoch.pth")["decoder.head.weight"]
        assert free.norm() > 0.4 * head.norm()


@pytest.mark.parametrize(("accum_grad", "steps"), [(1, 6), (2, 4), (3, 2), (5, 2)])
def test_every_batch_is_used_whatever_accum_grad(train, tmp_path, accum_grad, steps):
    """Three batches an epoch, two epochs: an incomplete accumulation is a step of its own."""
    config = {"scheduler": "warmup_cosine", "scheduler_conf": {"warmup_ratio": 0.0, "floor": 0.25}}
    exp_dir = train(tmp_path / "exp", config, accum_grad=accum_grad)
    states = torch.load(exp_dir / "checkpoint.pth", weights_only=False)
    assert {int(state["step"]) for state in states["optimizers"][0]["state"].values()} == {steps}
    assert states["schedulers"] == [{"last_epoch": steps}]
    assert states["optimizers"][0]["param_groups"][0]["lr"] == pytest.approx(0.25 * 0.01)


def test_n_best_averages_are_the_means_of_their_epochs(train, tmp_path):
    """Two criteria and two sizes at once (the toolkit alone adds them up)."""
    config = {"best_model_criterion": [["valid", "loss", "min"], ["train", "loss", "min"]], "optim_conf": {"lr": 0.05}}
    exp_dir = train(tmp_path / "exp", config, max_epoch=4, keep_nbest_models=[1, 2, 3])
    for phase in ("valid", "train"):
        losses = history(exp_dir, phase)
        for size in (2, 3):
            best = sorted(range(4), key=losses.__getitem__)[:size]
            states = [torch.load(exp_dir / f"{epoch + 1}epoch.pth") for epoch in best]
            mean = torch.load(exp_dir / f"{phase}.loss.ave_{size}best.pth")
            for key, value in mean.items():
                torch.testing.assert_close(value, sum(state[key] for state in states) / size)
        assert (exp_dir / f"{phase}.loss.ave.pth").resolve().name == f"{phase}.loss.ave_3best.pth"


def test_patience_ends_the_training_and_a_second_call_does_nothing(train, tmp_path):
    """At rate 0 nothing improves: patience 1 stops after epoch 3 of 20."""
    config = {"optim_conf": {"lr": 0.0}, "patience": 1}
    exp_dir = train(tmp_path / "exp", config, max_epoch=20)
    assert len(history(exp_dir)) < 5
    before = {path.name: path.stat().st_mtime_ns for path in exp_dir.iterdir()}
    train(tmp_path / "exp", config, max_epoch=20)
    assert {path.name: path.stat().st_mtime_ns for path in exp_dir.iterdir()} == before


def test_curves_and_tensorboard(train, tmp_path):
    """Losses and accuracies are drawn, the dozen timings are not."""
    exp_dir = train(tmp_path / "exp", max_epoch=1, use_matplotlib="true", use_tensorboard="true")
    drawn = {path.name for path in (exp_dir / "images").iterdir()}
    assert {"loss.png", "acc.png"} <= drawn and "loss_scale.png" not in drawn and "train_time.png" not in drawn
    assert list((exp_dir / "tensorboard" / "train").iterdir()) and not (exp_dir / "att_ws").exists()


def test_an_encoder_is_trained_on_audio_with_ctc(train, tmp_path):
    """Front end, light conformer and CTC head from waveforms, by Muon; no decoder."""
    config = {
        "frontend": "logmel", "encoder": "light_conformer", "ctc": "ctc_head", "decoder": None, "decoder_conf": {},
        "encoder_conf": {"output_size": 16, "num_blocks": 1, "attention_heads": 2, "kernel": 3},
        "model_conf": {"ctc_weight": 1.0}, "optim": "muon", "optim_conf": {"lr": 0.003, "muon_lr": 0.02},
        "scheduler": "warmup_hold_linear",
    }  # fmt: skip
    exp_dir = train(tmp_path / "exp", config, audio=True, max_epoch=4)
    losses = history(exp_dir, "train", "loss_ctc")
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("name", "conf"),
    [
        ("conformer", {"output_size": 8, "attention_heads": 2, "linear_units": 8, "num_blocks": 1}),
        ("transformer", {"output_size": 8, "attention_heads": 2, "linear_units": 8, "num_blocks": 1}),
        ("e_branchformer", {"output_size": 8, "attention_heads": 2, "cgmlp_linear_units": 16, "num_blocks": 1}),
    ],
)
def test_encoders_of_espnet_keep_our_interface(name, conf):
    """States of the promised width, and lengths."""
    from whisfusion_asr.tasks.choices import ENCODERS

    encoder = ENCODERS[name](20, **conf)
    states, lengths = encoder(torch.randn(2, 40, 20), torch.tensor([40, 31]))
    assert encoder.output_size == 8 == states.size(2)
    assert lengths[0] == states.size(1) > lengths[1] > 6


def test_the_longest_utterance_of_the_training_is_written_down(train, tmp_path, corpus, text_model):
    """Of those in the shape file, by the samples beside the text; a set of other files has no record."""
    assert read_longest(text_model) == 0.5
    samples = corpus / "data/train/utt2num_samples"
    whole, shape = samples.read_text(), (corpus / "dump/train/shape").read_text().splitlines()
    (tmp_path / "shape").write_text("\n".join(shape[:8]) + "\n")
    longer = {shape[2].split()[0]: 16000, shape[9].split()[0]: 32000}
    try:
        samples.write_text("".join(f"{key} {longer.get(key, 8000)}\n" for key, _ in map(str.split, whole.splitlines())))
        assert read_longest(train(tmp_path / "some", max_epoch=1, train_shape_file=tmp_path / "shape")) == 1.0
        samples.unlink()
        assert read_longest(train(tmp_path / "none", max_epoch=1)) is None
    finally:
        samples.write_text(whole)
