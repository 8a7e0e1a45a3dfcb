"""The data command and the shell tools."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from whisfusion_asr.bin.data import main
from whisfusion_asr.data.kaldi_dir import read_dir

ROOT = Path(__file__).resolve().parents[2]


def test_validate_leaves_lengths_and_the_inverse(good_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (good_dir / "spk2utt").unlink()
    main(["validate", str(good_dir)])
    assert capsys.readouterr().out == f"{good_dir}: valid, 3 utterances, 0.00 h\n"
    assert (good_dir / "utt2num_samples").read_text() == "ann-1 8000\nann-2 16000\nbob-1 32000\n"
    assert (good_dir / "spk2utt").read_text() == "ann ann-1 ann-2\nbob bob-1\n"


def test_validate_lists_problems_and_exits_2(good_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (good_dir / "text").write_text("ann-1\nann-2 TWO\n")
    with pytest.raises(SystemExit) as stop:
        main(["validate", str(good_dir)])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: {good_dir}: 2 problems"
    assert [line.removeprefix(f"{good_dir}/").split(": ")[0] for line in lines[1:]] == ["text:1", "text"]
    assert not (good_dir / "utt2num_samples").exists()


def test_checks_and_choices(good_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fix", str(good_dir), "--check-audio", "false"])
    main(["filter", str(good_dir), "--min_seconds", "0.6", "--max_loss", "0.5"])
    main(["split", str(good_dir), "2"])
    main(["subset", "--shortest", str(good_dir), "1", f"{tmp_path}/short"])
    main(["subset", "--utt-list", f"{good_dir}/split2/2/text", str(good_dir), f"{tmp_path}/listed"])
    main(["combine", f"{tmp_path}/all", f"{tmp_path}/short", f"{tmp_path}/listed"])
    capsys.readouterr()
    main(["spk2utt", f"{tmp_path}/all/utt2spk"])
    assert capsys.readouterr().out == "ann ann-2\nbob bob-1\n"
    assert list(read_dir(tmp_path / "all")["text"]) == ["ann-2", "bob-1"]


@pytest.mark.parametrize("words", [["x"], ["x", "y"], ["x", "many", "y"], ["--utt_list", "f", "x", "1", "y"]])
def test_subset_with_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["subset", *words])
    assert stop.value.code == 2
    assert "expected SRC N OUT, or --utt_list FILE SRC OUT" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["from-folder", "from_folder"])
def test_from_folder(good_dir: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "t").write_text("ann-1 ONE\nbob-1 TWO\n")
    main([name, "--wavs", f"{tmp_path}/wavs", "--transcripts", f"{tmp_path}/t", "--speaker-from", "(.*)-",
          "--out", f"{tmp_path}/mine"])  # fmt: skip
    assert read_dir(tmp_path / "mine")["utt2spk"] == {"ann-1": "ann", "bob-1": "bob"}


def test_from_tsv(good_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("path\ttext\nwavs/ann-1.wav\tONE\n")
    main(["from-tsv", "--tsv", f"{tmp_path}/t.tsv", "--out", f"{tmp_path}/mine"])
    assert read_dir(tmp_path / "mine")["text"] == {"wavs-ann-1": "ONE"}


def test_shell_tools(good_dir: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [str(word) for word in (ROOT / "utils" / words[0], *words[1:])]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert run("validate_data_dir.sh", "--no-feats", good_dir).returncode == 0
    (good_dir / "text").write_text("ann-1 ONE\n")
    assert run("validate_data_dir.sh", good_dir).returncode == 2
    assert "kept 1 of 3 utterances" in run("fix_data_dir.sh", good_dir).stdout
    assert run("split_data_dir.sh", good_dir, "1").returncode == 0
    assert run("subset_data_dir.sh", "--first", good_dir, "1", good_dir / "first").returncode == 0
    assert run("combine_data.sh", good_dir / "all", good_dir, good_dir / "first").returncode == 0
    assert run("utt2spk_to_spk2utt.sh", good_dir / "utt2spk").stdout == "ann ann-1\n"
