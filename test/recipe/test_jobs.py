"""Arrays of jobs, logs, progress and stamps, without a recipe; Slurm with a fake sbatch."""

from __future__ import annotations

import io
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from whisfusion_asr.errors import UserError
from whisfusion_asr.recipe import slurm, stamps
from whisfusion_asr.recipe.backends import run_job
from whisfusion_asr.recipe.jobs import Job, JobError, quoted
from whisfusion_asr.recipe.processes import Interrupted, Processes
from whisfusion_asr.recipe.progress import EpochWatcher, Progress, clock
from whisfusion_asr.recipe.settings import read_settings

CONF = Path(__file__).resolve().parents[2] / "egs/TEMPLATE/asr1/conf/slurm.conf"
# Runs the script as Slurm would: one process a task of the array, in the background.
SBATCH = """
echo "$*" >> sbatch_calls
log=; array=1-1; plain=true; script="${@: -1}"
while [ $# -gt 1 ]; do
    case $1 in -o) log=$2;; --array) array=${2%\\%*}; plain=false;; esac; shift
done
for range in ${array//,/ }; do
    for task in $(seq "${range%-*}" "${range#*-}"); do
        if $plain; then bash "$script" >> "$log" 2>&1 &
        else SLURM_ARRAY_TASK_ID=$task bash "$script" >> "$log" 2>&1 & fi
    done
done
echo "Submitted batch job 77"
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty recipe directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "path.sh").write_text("")
    for name in ("train_cmd", "cuda_cmd", "decode_cmd", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Children with a watchdog."""
    with Processes() as running:
        yield running


@pytest.fixture
def cluster(here: Path, monkeypatch: pytest.MonkeyPatch, script: Callable[[Path, str], None]) -> Path:
    """A machine with sbatch and squeue, and a cmd.sh that uses them."""
    monkeypatch.setenv("PATH", f"{here / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("train_cmd", "slurm --mem 4G")
    monkeypatch.setenv("cuda_cmd", "slurm --mem 4G --max-jobs-run 2")
    script(here / "bin/sbatch", SBATCH)
    script(here / "bin/squeue", "[ ! -e gone ]\n")
    script(here / "bin/scancel", 'echo "$@" > cancelled\n')
    (here / "conf").mkdir()
    (here / "conf/slurm.conf").write_text(CONF.read_text())
    return here


def bash(command: str, **options: object) -> Job:
    return Job(("bash", "-c", command), Path("exp/logdir/work.JOB.log"), **{"count": 3, **options})  # type: ignore[arg-type]


def test_job_is_replaced_everywhere_as_text(processes: Processes, here: Path) -> None:
    run_job(bash("echo JOB xJOBS > out.JOB"), processes, "a")
    assert [(here / f"out.{n}").read_text() for n in (1, 2, 3)] == [f"{n} x{n}S\n" for n in (1, 2, 3)]
    log = (here / "exp/logdir/work.2.log").read_text()
    assert log.startswith('# bash -c "echo 2 x2S > out.2"\n# Started at ')
    assert re.search(r"# Accounting: time=0 threads=1\n# Ended \(code 0\) at .*, elapsed time 0 seconds\n$", log)


def test_all_exit_codes_count_and_finished_jobs_are_kept(processes: Processes, here: Path) -> None:
    job = bash("echo JOB >> ran; [ JOB != 2 ] || [ -e repaired ] || exit 5")
    with pytest.raises(JobError, match=r"exit code 5 \(1 of 3 jobs failed\); log: exp/logdir/work.2.log") as error:
        run_job(job, processes, "a")
    assert error.value.exit_code == 1
    finished = {p.name for p in (here / "exp/logdir").glob("*.done")}
    (here / "ran").unlink()
    (here / "repaired").touch()
    run_job(job, processes, "a")
    assert len((here / "ran").read_text().split()) == 3 - len(finished)
    run_job(job, processes, "a")
    assert len((here / "ran").read_text().split()) == 3 - len(finished)
    run_job(job, processes, "other inputs")
    assert len((here / "ran").read_text().split()) == 6 - len(finished)


def test_the_last_job_is_awaited(processes: Processes) -> None:
    with pytest.raises(JobError, match=r"log: exp/logdir/work.3.log"):
        run_job(bash("[ JOB != 3 ] || { sleep 0.5; exit 5; }"), processes, "a")


def test_a_command_like_run_pl(
    processes: Processes, here: Path, monkeypatch: pytest.MonkeyPatch, script: Callable[[Path, str], None]
) -> None:
    logs = 'for n in 1 2 3; do echo "# Ended (code $((n == 3 ? 2 : 0)))" > exp/logdir/work.$n.log; done'
    script(here / "queue.pl", f'echo "$@" > args; {logs}; exit 1\n')
    monkeypatch.setenv("train_cmd", "./queue.pl --mem 2G")
    with pytest.raises(JobError, match="exit code 2") as error:
        run_job(bash("true", gpus=4), processes, "a")
    assert error.value.exit_code == 2
    assert (here / "args").read_text() == "--mem 2G --gpu 1 JOB=1:3 exp/logdir/work.JOB.log bash -c true\n"


def test_sbatch_gets_the_words_of_slurm_pl(cluster: Path) -> None:
    job = bash("true", submit="cuda_cmd", gpus=8)
    base = "exp/logdir/q/work.log"
    expected = "sbatch --export=PATH --job-name work --mem-per-cpu 4G -p gpu --gres=gpu:1 -c 1 --open-mode=append"
    expected += f" -e {base} -o {base} --array 1-3%2 {cluster}/exp/logdir/q/work.sh"
    assert quoted(slurm.sbatch_words(job, [1, 2, 3], Path(base))) == expected
    words = quoted(slurm.sbatch_words(bash("true"), [1, 3], Path(base)))
    assert "-p cpu" in words and "--array 1,3 " in words
    training = Job(("train",), Path("exp/a/train.log"), submit="cuda_cmd", gpus=4, nodes=2)
    words = quoted(slurm.sbatch_words(training, [1], Path("exp/a/q/train.log")))
    assert "--gres=gpu:4 -c 4 --cpus-per-task 4 --nodes 2" in words and "--array" not in words


def test_slurm_runs_an_array_and_again_only_what_failed(cluster: Path, processes: Processes) -> None:
    job = bash("echo JOB >> ran; [ JOB = 1 ] || [ -e repaired ] || exit 2")
    with pytest.raises(JobError, match=r"exit code 2 \(2 of 3 jobs failed\); log: exp/logdir/work.2.log") as error:
        run_job(job, processes, "a")
    assert error.value.exit_code == 2
    assert "# Finished at" in (cluster / "exp/logdir/work.1.log").read_text()
    (cluster / "repaired").touch()
    run_job(job, processes, "a")
    calls = (cluster / "sbatch_calls").read_text().splitlines()
    assert "--array 1-3 " in calls[0] and "--array 2-3 " in calls[1]
    assert sorted((cluster / "ran").read_text().split()) == ["1", "2", "2", "3", "3"]
    left = {p.name for p in (cluster / "exp/logdir/q").iterdir()}
    assert left == {"work.log", "work.sh"} and "--array 2-3" in (cluster / "exp/logdir/q/work.sh").read_text()


def test_slurm_runs_a_training_on_several_machines_with_srun(
    cluster: Path, processes: Processes, script: Callable[[Path, str], None]
) -> None:
    script(cluster / "bin/srun", 'echo "$@" > srun_args\n')
    run_job(Job(("train", "--ngpu", "2"), Path("exp/a/train.log"), gpus=2, nodes=2), processes, "a")
    words = (cluster / "srun_args").read_text()
    assert words.startswith("--export=ALL train --ngpu 2 --dist_launcher slurm --dist_init_method file:///")


def test_slurm_notices_a_lost_job_and_cancels_a_left_over_one(
    cluster: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch, script: Callable[[Path, str], None]
) -> None:
    script(cluster / "bin/sbatch", 'echo "Submitted batch job 78"\n')
    queue = cluster / "exp/logdir/q"
    queue.mkdir(parents=True)
    (queue / "work.jobid").write_text("55")  # of a runner that was killed
    script(cluster / "bin/squeue", '[ "$2" = 55 ]\n')
    monkeypatch.setattr(slurm, "_GRACE", 0.1)
    with pytest.raises(JobError, match="Slurm job 78 is gone"):
        run_job(bash("true"), processes, "a")
    assert (cluster / "cancelled").read_text() == "55\n"


def test_an_interrupt_cancels_the_slurm_job(
    cluster: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch, script: Callable[[Path, str], None]
) -> None:
    script(cluster / "bin/sbatch", 'echo "Submitted batch job 78"\n')

    def interrupt(seconds: float) -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(slurm.time, "sleep", interrupt)
    with pytest.raises(Interrupted):
        run_job(bash("true"), processes, "a")
    monkeypatch.undo()
    assert (cluster / "cancelled").read_text() == "78\n"


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ("option gpu=* x", "no line `command"),
        ("command sbatch\nnonsense", "slurm.conf:2: expected a line"),
        ("command sbatch", "option name is not described there"),
        (None, "conf/slurm.conf is missing"),
    ],
)
def test_a_wrong_slurm_conf_is_named(cluster: Path, processes: Processes, conf: str | None, message: str) -> None:
    (cluster / "conf/slurm.conf").unlink()
    if conf:
        (cluster / "conf/slurm.conf").write_text(conf)
    with pytest.raises(UserError, match=message):
        run_job(bash("true"), processes, "a")


def test_several_machines_need_slurm(processes: Processes) -> None:
    with pytest.raises(UserError, match="cmd_backend=slurm"):
        run_job(bash("true", count=0, nodes=2), processes, "a")


@pytest.mark.parametrize("text", ["a b", 'say "x"', "$HOME `date`", "back\\slash", "plain", ""])
def test_quoted_words_come_back(text: str) -> None:
    done = subprocess.run(["bash", "-c", f"printf %s {quoted([text])}"], capture_output=True, text=True, check=True)
    assert done.stdout == text


def test_progress_in_a_log_is_a_line_a_tenth_with_the_time_left() -> None:
    stream = io.StringIO()
    progress = Progress("decode", 40, "jobs", stream)
    for done in range(41):
        progress.update(done)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) <= 11 and lines[-1] == "decode: 40 of 40 jobs"
    assert re.fullmatch(r"decode: 4 of 40 jobs, \d+s left", lines[1])
    assert [clock(s) for s in (12, 90, 11100)] == ["12s", "2m", "3h05m"]


def test_epochs_are_read_from_a_growing_log(here: Path) -> None:
    stream, log = io.StringIO(), here / "train.log"
    watcher = EpochWatcher(log, Progress("train", 2, "epochs", stream))
    watcher.look()
    log.write_text("INFO: 1epoch results: [train] loss=3.0, [valid] acc=0.1, loss=2.5e-01, x\nINFO: 2epoch res")
    watcher.look()
    assert stream.getvalue() == "train: 1 of 2 epochs, validation loss 2.5e-01\n"
    with open(log, "a") as file:
        file.write("ults: [train] loss=1, [valid] loss=0.2, x\n")
    watcher.look()
    watcher.look()
    assert stream.getvalue().splitlines()[1:] == ["train: 2 of 2 epochs, validation loss 0.2"]


def test_stamps_name_what_changed(here: Path) -> None:
    text = here / "text"
    text.write_text("a")
    old = stamps.make_stamp("s", {"lr": 0.1, "sets": ["a"]}, [text, here / "none"])
    stamps.write_stamp(here / "x.json", old)
    assert stamps.read_stamp(here / "x.json") == old
    text.write_text("b")
    new = stamps.make_stamp("s", {"lr": 0.2, "more": True, "sets": ["a"]}, [text, here / "none"])
    assert stamps.changed_settings(old, new) == {"lr": "0.1 -> 0.2", "more": "(unset) -> true"}
    assert stamps.changed_inputs(old, new) == [f"input {text} changed"]
    (here / "x.json").write_text('{"half')
    assert stamps.read_stamp(here / "x.json") is None


def test_settings_are_flat_with_bases_and_arguments(here: Path) -> None:
    (here / "base.yaml").write_text("optim_conf: {lr: 0.1, betas: [0.9]}\nmax_epoch: 9\n")
    (here / "a.yaml").write_text("base: base.yaml\noptim_conf: {lr: 0.2}\n")
    settings = read_settings(here / "a.yaml", "--max-epoch 3 --optim_conf wd=1 --optim_conf lr=0.5 --resume=false")
    expected = {"optim_conf.lr": 0.5, "optim_conf.betas": [0.9], "optim_conf.wd": 1, "max_epoch": 3, "resume": False}
    assert settings == expected
    with pytest.raises(UserError, match="No closing quotation"):
        read_settings(here / "a.yaml", "--x 'y")
