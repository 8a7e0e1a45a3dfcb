"""Two processes by ESPnet's own DDP (gloo on the CPU)."""

import os
import socket
import subprocess
import sys

import torch


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
