"""utils/install.sh: what it decides to install, in which order, and what it says when it cannot."""

import fcntl
import os
import subprocess
import sys

import pytest

CPU_TORCH = {"version.py": "cuda: Optional[str] = None\nhip: Optional[str] = None\n"}
CUDA_TORCH = {"version.py": "cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n"}
EXTENSIONS = {"lib/_torchaudio.abi3.so": "", "lib/libtorchaudio.abi3.so": "", "lib/__init__.py": ""}
CUDA_AUDIO = EXTENSIONS | {"version.py": "__version__ = '2.11.0+cu130'\n"}
CPU_AUDIO = EXTENSIONS | {"version.py": "__version__ = '2.11.0+cpu'\n"}
ESPNET = "202511" if sys.version_info < (3, 12) else "202611"


def test_empty_environment_torch_first_then_the_set_then_espnet_alone_then_the_package(checkout):
    result = checkout.install()
    assert result.returncode == 0, result.stderr
    torch, resolved, alone, package = checkout.pip_calls()
    assert torch == "torch==2.13.0"
    assert "numpy==" in resolved and "transformers==" in resolved and "torch==" not in resolved
    assert alone.startswith("--no-deps ") and f"espnet=={ESPNET}" in alone and "torchaudio==2.11.0" in alone
    assert package == f"--no-deps --no-build-isolation -e {checkout.root}"
    assert result.stdout.splitlines()[-1].startswith(f"ready: {checkout.root / '.venv'}")


def test_every_call_is_quiet_and_constrained_and_the_last_one_imports_the_task(checkout):
    checkout.install()
    calls = checkout.calls()
    installs = [call for call in calls if " install " in call]
    assert len(installs) == 4
    for call in installs:
        assert call.startswith("-m pip --disable-pip-version-check -q install --no-input -c ")
    assert calls[-1] == "-m whisfusion_asr.bin.doctor --import_task true"
    constraints = (checkout.root / ".venv" / "whisfusion-constraints.txt").read_text().splitlines()
    assert "torch==2.13.0" in constraints and f"espnet=={ESPNET}" in constraints


def test_second_call_runs_no_pip_and_imports_nothing(checkout):
    checkout.install()
    checkout.calls()
    result = checkout.install()
    assert result.returncode == 0
    assert checkout.calls() == []
    assert len(result.stdout.splitlines()) == 1 and result.stdout.startswith("ready: ")


def test_only_what_went_missing_is_installed_again(checkout):
    checkout.install()
    checkout.calls()
    next(checkout.site.glob("jiwer-*")).joinpath("METADATA").unlink()
    next(checkout.site.glob("jiwer-*")).rmdir()
    checkout.install()
    first, package = checkout.pip_calls()
    assert first == "jiwer==4.0.0"
    assert package.endswith(f"-e {checkout.root}")


def test_a_changed_setup_py_installs_the_package_again(checkout):
    checkout.install()
    checkout.calls()
    with open(checkout.root / "setup.py", "a") as file:
        file.write("# changed\n")
    checkout.install()
    assert checkout.pip_calls() == [f"--no-deps --no-build-isolation -e {checkout.root}"]


@pytest.mark.parametrize(
    ("torch", "torchaudio"),
    [("2.13.0+cpu", "2.11.0"), ("2.14.1", "2.11.0"), ("2.11.0+cu128", "2.11.0"), ("2.8.0+cu128", "2.8.0")],
)
def test_an_installed_torch_is_kept_and_gets_the_torchaudio_that_fits(checkout, torch, torchaudio):
    checkout.has("torch", torch)
    result = checkout.install()
    assert result.returncode == 0, result.stderr
    calls = checkout.pip_calls()
    assert len(calls) == 3
    assert not any(f" torch=={word}" in f" {call}" for call in calls for word in ("2.13.0", torch))
    assert f"torchaudio=={torchaudio}" in calls[1]
    constraints = (checkout.root / ".venv" / "whisfusion-constraints.txt").read_text().splitlines()
    assert [line for line in constraints if line.startswith("torch==")] == [f"torch=={torch}"]


def test_an_installed_torchaudio_stays_with_its_torch(checkout):
    checkout.has("torch", "2.13.0+cpu", CPU_TORCH)
    checkout.has("torchaudio", "2.11.0+cpu", CPU_AUDIO)
    checkout.install()
    assert not any("torchaudio==" in call for call in checkout.pip_calls())


def test_a_torch_that_is_too_old_is_refused_and_not_replaced(checkout):
    checkout.has("torch", "1.13.1")
    result = checkout.install()
    assert result.returncode == 2
    assert "torch 1.13.1 is installed" in result.stderr and "2.6 or newer" in result.stderr
    assert checkout.pip_calls() == []


def test_an_espnet_of_a_foreign_environment_stays(checkout, tmp_path):
    subprocess.run(["python3", "-m", "venv", "--clear", str(tmp_path / "mine")], env=checkout.environ, check=True)
    checkout.has("espnet", "202612")
    assert checkout.install(VIRTUAL_ENV=str(tmp_path / "mine")).returncode == 0
    assert not any(" espnet==" in call for call in checkout.pip_calls())
    assert checkout.install().returncode == 0
    assert any(f" espnet=={ESPNET}" in call for call in checkout.pip_calls()), "our own .venv follows the list"


def test_an_espnet_that_is_too_old_is_refused_and_not_replaced(checkout, tmp_path):
    subprocess.run(["python3", "-m", "venv", "--clear", str(tmp_path / "mine")], env=checkout.environ, check=True)
    checkout.has("espnet", "202409")
    result = checkout.install(VIRTUAL_ENV=str(tmp_path / "mine"))
    assert result.returncode == 2
    assert "espnet 202409 is installed in" in result.stderr and f"{ESPNET} or newer" in result.stderr
    assert checkout.pip_calls() == []


@pytest.mark.parametrize(
    ("torch", "audio", "left"),
    [
        (CPU_TORCH, CUDA_AUDIO, 0),
        (CPU_TORCH, CPU_AUDIO, 2),
        (CUDA_TORCH, CUDA_AUDIO, 2),
    ],
)
def test_extensions_are_removed_only_from_a_cuda_torchaudio_beside_a_cpu_torch(checkout, torch, audio, left):
    checkout.has("torch", "2.13.0", torch)
    checkout.has("torchaudio", "2.11.0", audio)
    result = checkout.install()
    assert result.returncode == 0, result.stderr
    assert len(list((checkout.site / "torchaudio" / "lib").glob("*.so"))) == left
    assert (checkout.site / "torchaudio" / "lib" / "__init__.py").exists()
    assert result.stdout.count("needs CUDA, torch is a CPU build") == 2 - left


def test_the_active_environment_is_used(checkout, tmp_path):
    active = tmp_path / "mine"
    subprocess.run(["python3", "-m", "venv", "--clear", str(active)], env=checkout.environ, check=True)
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        result = checkout.install(**{variable: str(active)})
        assert result.returncode == 0, result.stderr
        assert f"ready: {active}" in result.stdout
    assert not (checkout.root / ".venv").exists()


def test_an_active_environment_that_is_gone(checkout, tmp_path):
    result = checkout.install(VIRTUAL_ENV=str(tmp_path / "gone"))
    assert result.returncode == 2
    assert "does not exist. Deactivate it" in result.stderr


def test_a_half_made_venv_is_made_again(checkout):
    (checkout.root / ".venv" / "bin").mkdir(parents=True)
    result = checkout.install()
    assert result.returncode == 0, result.stderr
    assert f"making {checkout.root / '.venv'}" in result.stdout


def test_wrong_python_version(checkout):
    result = checkout.install(FAKE_OLD_PYTHON="1", PYTHON="python3")
    assert result.returncode == 2
    assert result.stderr.startswith("error: python3: Python 3.11, 3.12 or 3.13 is needed")
    assert len(result.stderr.splitlines()) == 1
    assert not (checkout.root / ".venv").exists()


def test_wrong_python_version_in_the_environment(checkout):
    checkout.install()
    result = checkout.install(FAKE_OLD_PYTHON="1")
    assert result.returncode == 2
    assert f"{checkout.root / '.venv'} has Python 3." in result.stderr


@pytest.mark.parametrize(
    ("failure", "code", "reason"),
    [
        ("ConnectTimeoutError: no route", 2, "the package index was not reached. Mend the network"),
        ("OSError: [Errno 28] No space left on device", 2, "the disk is full"),
        ("ERROR: some wheel does not build", 1, "failed, see above"),
    ],
)
def test_pip_failure_shows_the_end_of_the_log_its_place_and_a_remedy(checkout, failure, code, reason):
    result = checkout.install(FAKE_PIP_FAILURE=failure)
    assert result.returncode == code
    *tail, error = result.stderr.splitlines()
    assert len(tail) == 20 and tail[-1] == failure and "line 29" in tail and "line 5" not in tail
    assert reason in error and str(checkout.root / ".venv" / "whisfusion-install.log") in error
    assert checkout.install().returncode == 0, "the next call takes up where this one failed"


def test_a_task_that_does_not_import_fails_each_time_until_it_does(checkout):
    for _ in range(2):
        result = checkout.install(FAKE_BROKEN_TASK="1")
        assert result.returncode == 1
        assert "the task does not import" in result.stderr
    assert checkout.install().returncode == 0


def test_an_unknown_argument_is_refused(checkout):
    command = ["bash", str(checkout.root / "utils" / "install.sh")]
    result = subprocess.run([*command, "--upgrade"], env=checkout.environ, capture_output=True, text=True)
    assert result.returncode == 2 and "unknown argument --upgrade" in result.stderr
    result = subprocess.run([*command, "--help"], env=checkout.environ, capture_output=True, text=True)
    assert result.returncode == 0 and "PYTHON=python3.12 utils/install.sh" in result.stdout


def test_a_second_call_waits_for_the_first(checkout):
    holder = os.open(checkout.root, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    command = ["bash", str(checkout.root / "utils" / "install.sh")]
    with subprocess.Popen(command, env=checkout.environ, stdout=subprocess.PIPE, text=True) as second:
        assert second.stdout.readline() == "waiting for another utils/install.sh to finish\n"
        assert checkout.calls() == []
        os.close(holder)
        assert "ready: " in second.stdout.read()
    assert second.returncode == 0
