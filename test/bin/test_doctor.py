"""`whisfusion doctor`: what it finds missing, the remedies, the exit code."""

import importlib.metadata
from types import SimpleNamespace

import pytest

from whisfusion_asr.bin import doctor
from whisfusion_asr.bin.doctor import Package
from whisfusion_asr.models import flash


def requirements(monkeypatch, declared: list[str], installed: dict[str, str]) -> None:
    """Replace the metadata of whisfusion-asr and of what is installed."""

    def version(name: str) -> str:
        if name not in installed | {"packaging": "26.0"}:
            raise importlib.metadata.PackageNotFoundError(name)
        return (installed | {"packaging": "26.0"})[name]

    message = SimpleNamespace(get_all=lambda key: ["espnet", "flash"] if key == "Provides-Extra" else None)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: declared)
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: message)
    monkeypatch.setattr(importlib.metadata, "version", version)


def test_packages_by_extra_and_python(monkeypatch):
    declared = [
        "numpy>=2.0",
        'espnet==202511; python_version < "3" and extra == "espnet"',
        'librosa>=0.10; extra == "espnet"',
        'flash-attn>=2.7; extra == "flash"',
    ]
    requirements(monkeypatch, declared, {"numpy": "1.26.0", "librosa": "0.11.0"})
    assert doctor.packages() == [
        Package("core", "numpy", ">=2.0", "1.26.0", False),
        Package("espnet", "librosa", ">=0.10", "0.11.0", True),
        Package("flash", "flash-attn", ">=2.7", None, False),
    ]


def test_a_build_of_torch_fits_its_release(monkeypatch):
    requirements(monkeypatch, ["torch>=2.6"], {"torch": "2.13.0+cpu"})
    assert doctor.packages()[0].fits


def test_report_names_the_command_that_adds_what_is_missing():
    lines, problems = doctor.package_report(
        [
            Package("core", "numpy", ">=2.0", "1.26.0", False),
            Package("whisper", "transformers", ">=5.0", None, False),
            Package("synth", "espeakng-loader", ">=0.2", "0.2.4", True),
        ]
    )
    assert "synth: espeakng-loader 0.2.4" in lines
    assert problems == [
        f"numpy is 1.26.0, >=2.0 is wanted; add it with: {doctor.INSTALLER}",
        f"transformers is missing; add it with: {doctor.INSTALLER}",
    ]


def test_an_optional_package_is_no_problem():
    lines, problems = doctor.package_report([Package("flash", "flash-attn", ">=2.7", None, False)])
    assert problems == []
    assert lines[0] == "flash (optional: faster attention on a GPU): flash-attn -"
    assert "pip install flash-attn" in lines[1]


def test_remedy_without_a_checkout_is_pip(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "INSTALLER", tmp_path / "install.sh")
    assert doctor.remedy("core") == "pip install whisfusion-asr"
    assert doctor.remedy("whisper") == "pip install 'whisfusion-asr[whisper]'"


@pytest.mark.parametrize("error", [ImportError("no\nsuch"), OSError("no such"), RuntimeError("no such")])
def test_a_module_that_does_not_load_is_one_line(error):
    def attempt(name: str) -> None:
        raise error

    _, problem = doctor.import_report("torchaudio", attempt)
    assert problem.startswith("torchaudio does not import: no such; mend it with: ")


def test_devices_of_torch():
    cuda = SimpleNamespace(
        device_count=lambda: 1,
        is_available=lambda: True,
        get_device_properties=lambda number: SimpleNamespace(name="NVIDIA X", total_memory=80 * 2**30),
    )
    torch = SimpleNamespace(
        __version__="2.13.0", version=SimpleNamespace(cuda="13.0", hip=None), cuda=cuda, get_num_threads=lambda: 2
    )
    lines = doctor.torch_report(torch)
    assert lines[0].startswith("torch 2.13.0, CUDA 13.0, threads 2 ")
    assert lines[1] == "device cuda:0: NVIDIA X, 80 GiB"
    torch.cuda.device_count, torch.cuda.is_available = lambda: 0, lambda: False
    assert doctor.torch_report(torch)[1] == "device cpu (torch has CUDA, but no usable GPU was found)"


def test_the_attention_that_decoders_take_here(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert doctor.attention_report(torch) == (
        "attention: torch's SDPA; not flash_attn, since it runs on CUDA only, and this is cpu"
    )
    monkeypatch.setattr(flash, "why_not_flash", lambda *_: None)
    assert doctor.attention_report(torch) == "attention: flash_attn"


@pytest.mark.parametrize(("installed", "code"), [({"numpy": "2.4.6"}, 0), ({}, 1)])
def test_exit_code(installed, code, monkeypatch, capsys):
    requirements(monkeypatch, ["numpy>=2.0"], installed)
    with pytest.raises(SystemExit) as stop:
        doctor.main([])
    assert stop.value.code == code
    assert ("missing: numpy is missing" in capsys.readouterr().out) == bool(code)


def test_without_the_distribution_it_says_so(monkeypatch, capsys):
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    requirements(monkeypatch, [], {})
    monkeypatch.setattr(importlib.metadata, "metadata", absent)
    with pytest.raises(SystemExit) as stop:
        doctor.main(["--import-task", "false"])
    assert stop.value.code == 1
    assert "missing: whisfusion-asr is not installed; add it with:" in capsys.readouterr().out
