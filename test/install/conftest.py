"""A Python that installs nothing: it writes down how it is called, and `pip install` only leaves metadata behind."""

import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Stands for python3 and for the environment's bin/python. Everything that is not pip, venv or the doctor is run by
# the real interpreter without its site-packages, so that only what the fake pip "installed" is there.
FAKE_PYTHON = """#!/bin/sh
[ "$1" = -I ] && shift
case "$*" in
    "-c "*version_info*) [ -z "$FAKE_OLD_PYTHON" ]; exit ;;
    "-c "*) exec "{real}" -S "$@" ;;
esac
[ "$1" = -m ] || PYTHONPATH="{site}" exec "{real}" -S "$@"
echo "$*" >>"{calls}"
case "$2 $*" in
    venv*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
    pip*install*) exec "{real}" -S "{pip}" "{site}" "$@" ;;
    whisfusion_asr.bin.doctor*) [ -z "$FAKE_BROKEN_TASK" ] || {{ echo "the task does not import"; exit 1; }} ;;
esac
"""

FAKE_PIP = '''
import os, pathlib, sys
site, words = pathlib.Path(sys.argv[1]), sys.argv[2:]
if failure := os.environ.get("FAKE_PIP_FAILURE"):
    print("\\n".join(f"line {number}" for number in range(30)) + "\\n" + failure)
    sys.exit(1)
names = [word for word in words if "==" in word] + ["whisfusion-asr==0"] * ("-e" in words)
for name, version in (word.split("==") for word in names):
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
'''


@dataclass
class Checkout:
    """A copy of the files that utils/install.sh reads, and the fake interpreter that it finds on PATH."""

    root: Path
    site: Path
    calls_file: Path
    environ: dict[str, str]

    def install(self, **environ: str) -> subprocess.CompletedProcess:
        """Call utils/install.sh; extra environment variables by name."""
        command = ["bash", str(self.root / "utils" / "install.sh")]
        return subprocess.run(command, env=self.environ | environ, capture_output=True, text=True, timeout=60)

    def calls(self) -> list[str]:
        """`-m ...` calls since the last look."""
        found = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        self.calls_file.unlink(missing_ok=True)
        return found

    def pip_calls(self) -> list[str]:
        """The `pip install` calls since the last look, from the word after the constraints file on."""
        calls = [call for call in self.calls() if call.startswith("-m pip") and " install " in call]
        return [call.partition("whisfusion-constraints.txt ")[2] for call in calls]

    def has(self, name: str, version: str, files: dict[str, str] | None = None) -> None:
        """Put an installed package there: its metadata, and files below its folder."""
        folder = self.site / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        for path, text in (files or {}).items():
            (self.site / name / path).parent.mkdir(parents=True, exist_ok=True)
            (self.site / name / path).write_text(text)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A fresh checkout on a machine whose only Python is the fake one."""
    root, site, calls = tmp_path / "checkout", tmp_path / "site", tmp_path / "calls"
    (root / "utils").mkdir(parents=True)
    site.mkdir()
    for name in ("install.sh", "install_packages.py", "constraints-espnet202511.txt", "constraints-espnet202611.txt"):
        shutil.copy(ROOT / "utils" / name, root / "utils" / name)
    shutil.copy(ROOT / "setup.py", root / "setup.py")
    pip, tools = tmp_path / "fake_pip.py", tmp_path / "tools"
    pip.write_text(FAKE_PIP)
    tools.mkdir()
    python = tools / "python3"
    real = os.path.realpath(sys.executable)
    python.write_text(FAKE_PYTHON.format(real=real, site=site, calls=calls, pip=pip))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return Checkout(root, site, calls, {"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(tmp_path)})
