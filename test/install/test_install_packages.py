"""The parts of utils/install_packages.py that need no environment, and the lists of packages."""

import ast
import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = ("constraints-espnet202511.txt", "constraints-espnet202611.txt")


@pytest.fixture(scope="module")
def installer() -> ModuleType:
    """utils/install_packages.py as a module."""
    spec = importlib.util.spec_from_file_location("install_packages", ROOT / "utils" / "install_packages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def extras() -> dict[str, list[str]]:
    """CORE and EXTRAS of setup.py: extra -> requirements."""
    found = {}
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id in ("CORE", "EXTRAS"):
            value = ast.literal_eval(node.value)
            found |= value if isinstance(value, dict) else {"core": value}
    return found


@pytest.mark.parametrize("file", FILES)
def test_the_installed_set_satisfies_every_extra_but_flash(installer, file):
    packaging = pytest.importorskip("packaging.requirements")
    pins = installer.read_pins(ROOT / "utils" / file).all()
    python = "3.11" if file == FILES[0] else "3.12"
    for extra, requirements in extras().items():
        for requirement in map(packaging.Requirement, requirements):
            holds = requirement.marker is None or requirement.marker.evaluate({"python_version": python})
            if extra != "flash" and holds:
                name = installer.normalised(requirement.name)
                assert name in pins, f"{name} of extra {extra} is not in {file}"
                assert requirement.specifier.contains(pins[name]), f"{file}: {name}=={pins[name]} against {requirement}"


def test_sets_by_python_version(installer):
    assert installer.pins_file((3, 11)).name == FILES[0]
    assert installer.pins_file((3, 12)).name == installer.pins_file((3, 13)).name == FILES[1]


def test_pins_are_read_by_their_headings(installer, tmp_path):
    path = tmp_path / "pins.txt"
    text = "# why\n# [torch] x\ntorch==2\n\n# [with dependencies]\n# a\nA_b==1.0\n# [without dependencies]\nc==3\n"
    path.write_text(text)
    assert installer.read_pins(path) == installer.Pins({"torch": "2"}, {"a-b": "1.0"}, {"c": "3"})


def test_a_disk_without_room_is_refused_before_anything_is_installed(installer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 2**30))
    with pytest.raises(SystemExit) as stop:
        installer.check_space(tmp_path, with_torch=True)
    assert stop.value.code == 2
    assert re.search(r"1\.0 GiB free, an installation needs 3\.0 GiB", capsys.readouterr().err)


def test_the_stamp_depends_on_pins_and_torch(installer, tmp_path):
    pins = tmp_path / "pins.txt"
    pins.write_text("a==1\n")
    first = installer.fingerprint(pins, "2.13.0")
    assert first == installer.fingerprint(pins, "2.13.0")
    assert first != installer.fingerprint(pins, "2.14.0")
    pins.write_text("a==2\n")
    assert first != installer.fingerprint(pins, "2.13.0")
