"""Interrupted trainings end as undisturbed ones, bit by bit."""

import resource
from pathlib import Path

import pytest
import torch

CONFIG = {
    "optim": "muon",
    "optim_conf": {"lr": 0.01, "muon_lr": 0.02, "layer_decay": 0.9},
    "scheduler": "warmup_cosine",
    "ema_decay": 0.9,
    "ema_start_share": 0.2,
    "accum_grad": 2,
}


@pytest.fixture(scope="module")
def undisturbed(train, tmp_path_factory) -> Path:
    """Four epochs at once."""
    return train(tmp_path_factory.mktemp("whole") / "exp", CONFIG, max_epoch=4)


class Interrupted(BaseException):
    """Stands for the moment of a kill."""


def stop_at(monkeypatch, epoch: int) -> None:
    """Interrupt the training when this epoch begins."""
    from whisfusion_asr.tasks.trainer import DiffusionTrainer

    original = DiffusionTrainer.train_one_epoch.__func__

    def train_one_epoch(cls, reporter, **others):
        if reporter.get_epoch() == epoch:
            raise Interrupted
        return original(cls, reporter=reporter, **others)

    monkeypatch.setattr(DiffusionTrainer, "train_one_epoch", classmethod(train_one_epoch))


def interrupted(train, tmp_path, monkeypatch, epoch: int) -> Path:
    """An experiment that was stopped when `epoch` began."""
    with monkeypatch.context() as patch:
        stop_at(patch, epoch)
        with pytest.raises(Interrupted):
            train(tmp_path / "exp", CONFIG, max_epoch=4)
    assert not (tmp_path / "exp" / "finished.json").exists()
    return tmp_path / "exp"


def check_same_result(exp_dir: Path, undisturbed: Path) -> None:
    """Weights, averages of weights, optimiser and schedule equal bit by bit; same links."""
    ours, theirs = (torch.load(path / "checkpoint.pth", weights_only=False) for path in (exp_dir, undisturbed))
    assert ours["schedulers"] == theirs["schedulers"]
    for key, value in theirs["model"].items():
        assert torch.equal(ours["model"][key], value), key
    for index, state in theirs["optimizers"][0]["state"].items():
        for key, value in state.items():
            assert torch.equal(ours["optimizers"][0]["state"][index][key], value), (index, key)
    for name in ("latest.pth", "valid.loss.best.pth", "valid.loss.ave.pth"):
        assert (exp_dir / name).resolve().name == (undisturbed / name).resolve().name
    left, right = (torch.load(path / "valid.loss.ave.pth") for path in (exp_dir, undisturbed))
    assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in right)
    assert (exp_dir / "finished.json").exists()


def test_two_and_two_epochs_are_four(train, tmp_path, monkeypatch, undisturbed):
    """Muon, layer-wise rates, EMA, accumulation with a rest, per-step schedule."""
    exp_dir = interrupted(train, tmp_path, monkeypatch, epoch=3)
    check_same_result(train(exp_dir, CONFIG, max_epoch=4), undisturbed)


@pytest.mark.parametrize("size", [0, 400, 5000])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(train, tmp_path, monkeypatch, undisturbed, size):
    """Empty, header only, cut in the middle."""
    exp_dir = interrupted(train, tmp_path, monkeypatch, epoch=3)
    checkpoint = exp_dir / "checkpoint.pth"
    checkpoint.write_bytes(checkpoint.read_bytes()[:size])
    check_same_result(train(exp_dir, CONFIG, max_epoch=4), undisturbed)


def test_two_damaged_checkpoints_are_an_error(train, tmp_path, monkeypatch):
    """It does not start over in silence."""
    from whisfusion_asr.errors import UserError

    exp_dir = interrupted(train, tmp_path, monkeypatch, epoch=3)
    for name in ("checkpoint.pth", "checkpoint.prev.pth"):
        (exp_dir / name).write_bytes(b"")
    with pytest.raises(UserError, match="neither it nor checkpoint.prev.pth can be read"):
        train(exp_dir, CONFIG, max_epoch=4)


def test_what_a_kill_between_the_saves_leaves_out_is_mended(train, tmp_path, monkeypatch, undisturbed):
    """checkpoint.pth of epoch 2 is there, 2epoch.pth and the links are not."""
    exp_dir = interrupted(train, tmp_path, monkeypatch, epoch=3)
    names = ("2epoch.pth", "latest.pth", "valid.loss.best.pth")
    before = {name: torch.load(exp_dir / name) for name in names}
    for name in names:
        (exp_dir / name).unlink()
    interrupted(train, tmp_path, monkeypatch, epoch=3)
    for name in names:
        after = torch.load(exp_dir / name)
        assert all(torch.equal(after[key], value) for key, value in before[name].items()), name
    check_same_result(train(exp_dir, CONFIG, max_epoch=4), undisturbed)


@pytest.mark.parametrize("victim", ["checkpoint.pth", "2epoch.pth", "valid.loss.ave_2best.pth"])
def test_a_kill_while_saving_costs_nothing_good(train, tmp_path, monkeypatch, undisturbed, victim):
    """Half of the file is written, then the process is gone."""
    from whisfusion_asr.tasks import espnet_compat

    save, calls = espnet_compat._save, []

    def die(obj, file, *args, **kwargs):
        calls.append(Path(getattr(file, "name", "")).name)
        if victim in calls[-1] and (victim != "checkpoint.pth" or len(calls) > 2):
            file.write(b"half a file")
            file.flush()
            raise Interrupted
        save(obj, file, *args, **kwargs)

    exp_dir = tmp_path / "exp"
    with monkeypatch.context() as patch:
        patch.setattr(espnet_compat, "_save", die)
        with pytest.raises(Interrupted):
            train(exp_dir, CONFIG, max_epoch=4)
    for path in exp_dir.glob("*.pth"):
        torch.load(path, weights_only=False)
    check_same_result(train(exp_dir, CONFIG, max_epoch=4), undisturbed)


def test_leftovers_of_a_killed_save_are_removed(train, tmp_path, monkeypatch, undisturbed):
    """kill -9 leaves the temporary file, which may be gigabytes."""
    exp_dir = interrupted(train, tmp_path, monkeypatch, epoch=3)
    (exp_dir / ".checkpoint.pth.123.tmp").write_bytes(b"half")
    check_same_result(train(exp_dir, CONFIG, max_epoch=4), undisturbed)
    assert not list(exp_dir.glob(".*"))


def test_changed_settings_are_refused_on_resume(train, tmp_path, monkeypatch):
    """The keys that differ are printed with both values; nothing is overwritten; machine settings are free."""
    from whisfusion_asr.errors import UserError

    exp_dir = interrupted(train, tmp_path, monkeypatch, epoch=2)
    before = (exp_dir / "settings.yaml").read_text(encoding="utf-8")
    changed = {**CONFIG, "optim_conf": {"lr": 0.02}}
    with pytest.raises(UserError, match=r"max_epoch: 4 -> 5; optim_conf: .*0.01.* -> .*0.02") as caught:
        train(exp_dir, changed, max_epoch=5)
    assert "num_workers" not in str(caught.value)
    assert (exp_dir / "settings.yaml").read_text(encoding="utf-8") == before
    train(exp_dir, CONFIG, max_epoch=4, log_interval=1, use_tensorboard="false")


def test_a_config_yaml_that_was_cut_off_is_mended(train, tmp_path, monkeypatch, undisturbed):
    """ESPnet rewrites it in place at every start."""
    exp_dir = interrupted(train, tmp_path, monkeypatch, epoch=3)
    whole = (exp_dir / "config.yaml").read_text(encoding="utf-8")
    (exp_dir / "config.yaml").write_text(whole[:500] + "{", encoding="utf-8")
    check_same_result(train(exp_dir, CONFIG, max_epoch=4), undisturbed)
    assert (exp_dir / "config.yaml").read_text(encoding="utf-8") == whole


def test_a_training_that_patience_ended_is_not_prolonged(train, tmp_path):
    """Killed after the last epoch, before the averaging."""
    config = {"optim_conf": {"lr": 0.0}, "patience": 1}
    exp_dir = train(tmp_path / "exp", config, max_epoch=20)
    epochs = len(list(exp_dir.glob("*epoch.pth"))), (exp_dir / "latest.pth").resolve().name
    for name in ("finished.json", "valid.loss.ave.pth"):
        (exp_dir / name).unlink()
    train(exp_dir, config, max_epoch=20)
    assert (len(list(exp_dir.glob("*epoch.pth"))), (exp_dir / "latest.pth").resolve().name) == epochs
    assert (exp_dir / "finished.json").exists() and (exp_dir / "valid.loss.ave.pth").exists()


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(tmp_path):
    """The system allows files of 10 kB only."""
    from whisfusion_asr.errors import UserError
    from whisfusion_asr.tasks.espnet_compat import save_atomically

    path = tmp_path / "checkpoint.pth"
    save_atomically({"w": torch.ones(3)}, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(UserError, match="checkpoint.pth: cannot be written .File too large.; what was saved"):
            save_atomically({"w": torch.ones(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(torch.load(path)["w"], torch.ones(3))
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pth"]


def test_resume_false_starts_over(train, tmp_path):
    """Also with other settings, also when finished."""
    train(tmp_path / "exp", CONFIG, max_epoch=1)
    train(tmp_path / "exp", max_epoch=2, resume="false")
    assert '"epoch": 2' in (tmp_path / "exp" / "finished.json").read_text()
