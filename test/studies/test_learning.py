"""The learning curve of a toy experiment with two kept epochs."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from engine_fakes import data_set, experiment

from whisfusion_asr.bin.learning_curve import main

SAMPLES = {f"u{number}": 1600 * (3 + number) for number in range(4)}
LOG = "[host] INFO: {}epoch results: [train] loss=1.0, time={}, total_count=3, [valid] loss=2.0, time=5.5 seconds, a\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment that kept epochs 1 and 3 of three, of other weights."""
    folder = data_set(tmp_path_factory.mktemp("learning"), SAMPLES)
    exp = experiment(folder / "exp")
    (folder / "data/text").write_text("".join(f"{key} ab c d\n" for key in SAMPLES))
    (folder / "decode.yaml").write_text("sampler: single\n")
    (folder / "grid.yaml").write_text("points: {greedy: {sampler: ctc_greedy}, one: {}}\n")
    shutil.copyfile(exp / "valid.loss.ave.pth", exp / "1epoch.pth")
    weights = torch.load(exp / "valid.loss.ave.pth")
    torch.save({name: -value for name, value in weights.items()}, exp / "3epoch.pth")
    times = ("1 minute and 54.5 seconds", "54.5 seconds", "2 minutes and 24.5 seconds")
    (exp / "train.log").write_text("".join(LOG.format(n, time) for n, time in enumerate(times, 1)))
    return folder


def run(place: Path, out: Path) -> dict:
    names = {"exp_dir": "exp", "data_dir": "data", "states_dir": "states", "config": "decode.yaml", "grid": "grid.yaml"}
    main([*(word for name, path in names.items() for word in (f"--{name}", str(place / path))), "--out", str(out)])
    return json.loads((out / "learning_curve.json").read_text())


def test_each_kept_epoch_is_decoded_with_each_setting(place: Path, tmp_path: Path) -> None:
    found = run(place, tmp_path)["points"]
    assert [(row["epoch"], row["name"]) for row in found] == [(1, "greedy"), (1, "one"), (3, "greedy"), (3, "one")]
    assert [row["minutes"] for row in found] == pytest.approx([2.0, 2.0, 5.5, 5.5])
    texts = [(tmp_path / f"{epoch}epoch/points").glob("*/text") for epoch in (1, 3)]
    assert [sorted(path.read_text() for path in each) for each in texts][0] != \
        [sorted(path.read_text() for path in each) for each in texts][1]
    page = (tmp_path / "learning_curve.md").read_text()
    assert "|epochs|minutes of training|setting|WER|95 % interval by utterance|" in page
    low, high = (found[2]["interval_by_utterance"][end] for end in ("low", "high"))
    assert f"|{found[2]['wer']:.2f}|{low:.2f} to {high:.2f}|" in page and "|3|5.5|one|" in page
    assert (tmp_path / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_missing_is_named(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(place, tmp_path / "copy")
    (copy / "exp/train.log").write_text(LOG.format(1, "5.5 seconds"))
    for message in ("train.log: tells no time of epoch 3, whose weights are there", "no Nepoch.pth; train with"):
        with pytest.raises(SystemExit) as stopped:
            run(copy, tmp_path / "out")
        assert stopped.value.code == 2 and message in capsys.readouterr().err
        for path in (copy / "exp").glob("*epoch.pth"):
            path.unlink()
