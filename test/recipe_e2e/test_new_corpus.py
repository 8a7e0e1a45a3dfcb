"""A newcomer's way: a folder of recordings, the lines of the template's README, results."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Toy

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "egs" / "TEMPLATE" / "asr1" / "README.md"
UTTERANCES = 60


def readme_lines() -> list[str]:
    """Commands of the README's first block, without their comments."""
    block = re.search(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[1]
    return [line.partition(" #")[0].rstrip() for line in block.splitlines()]


@pytest.fixture
def corpus(toy: Toy, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """wav/ and transcripts.txt: spoken digits where the shared data are, else utterances of the toy recipe."""
    folder = tmp_path / "corpus"
    (folder / "wav").mkdir(parents=True)
    try:
        source = request.getfixturevalue("shared_data") / "fsdd"
        data, base = source / "lists" / "train", source
    except pytest.skip.Exception:
        data, base = toy.data / "train", Path("/")
    audio = dict(line.split(maxsplit=1) for line in (data / "wav.scp").read_text().splitlines())
    texts = dict(line.split(maxsplit=1) for line in (data / "text").read_text().splitlines())
    chosen = sorted(texts)[:: len(texts) // UTTERANCES][:UTTERANCES]
    for key in chosen:
        shutil.copy(base / audio[key], folder / "wav" / f"{key}{Path(audio[key]).suffix}")
    (folder / "transcripts.txt").write_text("".join(f"{key} {texts[key]}\n" for key in chosen))
    return folder


def test_the_readme_leads_to_results(checkout: Path, corpus: Path, toy_environment: dict[str, str]) -> None:
    """Every line as it stands, but the corpus' place; the one long line is read, not run, so the toy results count."""
    lines = readme_lines()
    assert len(lines) <= 10 and "./run.sh --preset toy" in lines
    script = "\n".join(lines).replace("/my/corpus", str(corpus))
    script = re.sub(r"^\./run\.sh$", "./run.sh --dry_run true", script, flags=re.MULTILINE)
    script = script.replace("cat exp/*/", "cat exp_toy/*/")
    assert script.count("exp_toy") == 1 and script.count(str(corpus)) == 2 and script.count("--dry_run") == 2
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=checkout, env=toy_environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    recipe = checkout / "egs/mine/asr1"
    counts = {name: len((recipe / "data" / name / "text").read_text().splitlines()) for name in ("valid", "test")}
    assert counts == {"valid": UTTERANCES // 10, "test": UTTERANCES // 10}
    (model,) = (path for path in (recipe / "exp_toy").glob("train_decoder*") if not path.name.endswith("_adapter"))
    for decoding in ("decode_pdd", "decode_ctc"):
        for kind in ("wer", "cer", "ter"):
            result = (model / decoding / "test" / f"score_{kind}" / "result.txt").read_text()
            assert re.search(rf"Sum/Avg\s*\|\s*{counts['test']}\s", result)
        assert f"|{decoding}/test|" in done.stdout  # RESULTS.md on the terminal
    assert os.readlink(recipe / "asr.sh") == "../../TEMPLATE/asr1/asr.sh"
