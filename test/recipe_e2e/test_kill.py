"""`kill -9` at a random moment of every stage, then the same command: the results of an undisturbed run, byte for byte.

The moments are drawn from SEED and stand in the names of the tests: a sign of progress to wait for (the stage has
more to do after each of them than the longest delay takes), and a delay.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import soundfile

if TYPE_CHECKING:
    from conftest import Toy

SEED = 3
DEADLINE = 300  # seconds until a sign of progress counts as missed


@dataclass(frozen=True)
class Moment:
    """`delay` seconds after the file (a path below the run's root) is there and holds `words`, in a stage."""

    stage: int
    file: str
    words: str
    delay: float

    def __str__(self) -> str:
        sign = "-".join([*Path(self.file).parts[-4:], *self.words.split()])
        return f"stage{self.stage}-{sign}-plus-{self.delay:.2f}s"


ENCODER, TEXT = "exp/train_encoder_en_unigram80/train.log", "exp/train_text_en_unigram80/train.log"
DUMPED = ("train/logdir/dump_states.1.done", "dev/logdir", "test/logdir")
DECODED = ("pdd", "ctc", "shuffled")
# Stage, longest delay, signs; two kills in stage 1, which trains two models.
CHOICES = [
    (0, 0.3, [("data/local/audio/test", ""), ("data/local/audio/train", ""), ("data/train/wav.scp", "")]),
    (1, 1.0, [(ENCODER, words) for words in ("", "1epoch results", "2epoch results", "3epoch results")]),
    (1, 1.0, [(TEXT, words) for words in ("", "1epoch:train:1-50batch", "1epoch results")]),
    (2, 0.5, [(f"dump/states/{name}", "") for name in DUMPED]),
    (3, 1.0, [("exp/mini_synth_adapter/train.log", words) for words in ("", "1epoch results")]),
    (4, 1.0, [("exp/mini_synth/train.log", words) for words in ("", "1epoch results")]),
    (5, 0.5, [(f"exp/mini_synth/decode_{name}/test/logdir", "") for name in DECODED]),
    (6, 0.1, [(f"exp/mini_synth/decode_{name}/test/.score.stamp.json", "") for name in DECODED]),
]


def draw_moments() -> list[Moment]:
    """One moment of each line of CHOICES."""
    rng = random.Random(SEED)
    return [Moment(stage, *rng.choice(signs), rng.uniform(0, longest)) for stage, longest, signs in CHOICES]


def kill_at(run: Toy, moment: Moment) -> None:
    """Start the stage and kill its process group at the moment; it must not have ended before."""
    child = run.start(*run.stages(moment.stage))
    file, start = run.root / moment.file, time.monotonic()
    while not (file.exists() and (not moment.words or moment.words in file.read_text())):
        assert child.poll() is None and time.monotonic() - start < DEADLINE, (run.root / "stderr").read_text()
        time.sleep(0.01)
    time.sleep(moment.delay)
    os.killpg(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "the stage was over before the kill"
    while orphans := processes_of(run.root):
        assert time.monotonic() - start < DEADLINE, f"still running: {orphans}"
        time.sleep(0.02)


def processes_of(root: Path) -> list[str]:
    """Command lines of running processes that name a folder, eSpeak's workers included."""
    listed = subprocess.run(["ps", "-eo", "stat=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if f"{root}/" in line and not line.startswith("Z")]


def files(run: Toy, pattern: str) -> dict[str, bytes]:
    """Contents of the files of a pattern below the run's root."""
    found = {str(path.relative_to(run.root)): path.read_bytes() for path in run.root.glob(pattern) if path.is_file()}
    assert found, pattern
    return found


def same(run: Toy, other: Toy, *patterns: str) -> None:
    """Both runs have the same files of each pattern, with the same bytes."""
    for pattern in patterns:
        ours, theirs = files(run, pattern), files(other, pattern)
        assert list(ours) == list(theirs)
        assert [name for name in ours if ours[name] != theirs[name]] == []


@pytest.fixture(scope="module")
def disturbed(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A run on the same data that has still all stages but the first before it."""
    root = tmp_path_factory.mktemp("disturbed")
    shutil.copytree(toy.data, root / "data", ignore=shutil.ignore_patterns("audio", "token_list"))
    return type(toy)(root, root / "data")


RESULTS = {
    1: (
        *("data/token_list/*/tokens.*", "dump/text/*/text", "dump/text/*/shape"),
        *("exp/train_*/valid.loss.ave.pth", "exp/train_*/?epoch.pth"),
    ),
    2: ("dump/states/*/*.ark", "dump/states/*/shape"),
    3: ("exp/mini_synth_adapter/valid.loss.ave.pth", "exp/mini_synth_adapter/?epoch.pth"),
    4: ("exp/mini_synth/valid.loss.ave.pth", "exp/mini_synth/?epoch.pth"),
    5: tuple(f"exp/mini_synth/decode_*/test/{name}" for name in ("text", "token", "token_int", "score")),
    6: ("exp/mini_synth/decode_*/test/score_*/*",),
}


@pytest.mark.parametrize("moment", [moment for moment in draw_moments() if moment.stage], ids=str)
def test_killed_and_run_again(toy: Toy, disturbed: Toy, moment: Moment) -> None:
    """The stages before are made if they are not there, so that each of these tests also runs alone."""
    if moment.stage > 1:
        disturbed.run(*disturbed.stages(1, moment.stage - 1))
    if (disturbed.root / moment.file).exists():  # left by the kill before
        pytest.fail(f"{moment.file} is there already")
    kill_at(disturbed, moment)
    if moment.file == ENCODER:
        return  # the next kill comes later in the same stage
    disturbed.run(*disturbed.stages(moment.stage))
    same(disturbed, toy, *RESULTS[moment.stage])


def test_the_end_is_the_same(toy: Toy, disturbed: Toy) -> None:
    """After all kills: every stage says that it is done, results and weights are those of the undisturbed run."""
    disturbed.run("--stage", "1")
    same(disturbed, toy, *(pattern for patterns in RESULTS.values() for pattern in patterns))
    for decoding in ("decode_pdd", "decode_ctc", "decode_shuffled"):
        lines = [(run.model / decoding / "test/candidates.jsonl").read_text().splitlines() for run in (disturbed, toy)]
        ours, theirs = ([json.loads(line) | {"timing": None} for line in part] for part in lines)
        assert ours == theirs
    assert [path for path in disturbed.root.rglob("*") if path.name.endswith(("tmp", ".part"))] == []


def test_stage_0_killed_and_run_again(toy: Toy, tmp_path: Path) -> None:
    """eSpeak's samples differ from call to call, so the directories are compared and the audio is only read."""
    run, moment = type(toy)(tmp_path, tmp_path / "data"), draw_moments()[0]
    kill_at(run, moment)
    run.run(*run.stages(0))
    same(run, toy, "data/*/text", "data/*/utt2spk", "data/*/spk2utt", "data/local/text_*.txt")
    for name in ("train", "dev", "test"):
        rows = [line.split() for line in (run.data / name / "wav.scp").read_text().splitlines()]
        samples = dict(line.split() for line in (run.data / name / "utt2num_samples").read_text().splitlines())
        assert [key for key, _ in rows] == list(samples)
        assert all(soundfile.info(path).frames == int(samples[key]) > 8000 for key, path in rows)
