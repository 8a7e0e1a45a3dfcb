"""Two processes by ESPnet's own DDP (gloo on the CPU)."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from torch.multiprocessing import ProcessExitedException, get_context

from whisfusion_asr.tasks.asr import DiffusionASRTask


def test_two_processes_train_one_model(command, train, tmp_path):
    """Both end well and one writes, with EMA, Muon and accumulation; a second call of any rank finds it finished."""
    config = {"optim": "muon", "optim_conf": {"lr": 0.01}, "scheduler": "warmup_cosine", "ema_decay": 0.9}
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    options = {"dist_backend": "gloo", "dist_world_size": 2, "accum_grad": 2}
    line = [sys.executable, "-m", "whisfusion_asr.bin.train", *command(tmp_path / "exp", config, **options)]
    environment = {**os.environ, "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen([*line, "--dist_rank", str(rank)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for process in ranks:
        _, log = process.communicate(timeout=170)
        assert process.returncode == 0, log[-2000:]
    state = torch.load(tmp_path / "exp" / "valid.loss.ave.pth")
    assert all(torch.isfinite(value).all() for value in state.values())
    assert (tmp_path / "exp" / "finished.json").exists()
    train(tmp_path / "exp", config, **options, dist_rank=1)  # alone it would wait for the other for ever


def test_a_spawned_process_tells_the_users_mistake(command, tmp_path, capfd):
    """Where there is one process a GPU: a line instead of a traceback, and the exit code of such mistakes."""
    args = DiffusionASRTask.parse(command(tmp_path / "exp", {"decoder_conf": {"sise": 16}}))
    args.distributed = False
    process = get_context("spawn").Process(target=DiffusionASRTask.main_worker, args=(args,))
    process.start()
    process.join(60)
    assert process.exitcode == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if "sise" in line]
    assert len(lines) == 1 and lines[0].startswith("error: decoder_conf: unknown key sise")


@pytest.mark.parametrize(("code", "raised"), [(2, SystemExit), (1, ProcessExitedException)])
def test_the_command_ends_as_its_processes_do(command, tmp_path, monkeypatch, code, raised):
    """With exit code 2 for the user's mistakes; any other failure is not hidden."""

    def fails(cls: type, args: object) -> None:
        raise ProcessExitedException("a process ended", error_index=0, error_pid=1, exit_code=code)

    monkeypatch.setattr("espnet2.tasks.abs_task.AbsTask.main", classmethod(fails))
    with pytest.raises(raised) as caught:
        DiffusionASRTask.main(cmd=command(tmp_path / "exp"))
    assert getattr(caught.value, "code", code) == code
