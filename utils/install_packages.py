"""Install what the environment lacks, keep its torch, and prove that the ESPnet task imports.

Called by utils/install.sh with the interpreter of the environment, under a lock. Standard library only.
The sets of versions are utils/constraints-*.txt. pip's output goes to ENVIRONMENT/whisfusion-install.log.
"""

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
LOG_NAME = "whisfusion-install.log"
STAMP_NAME = ".whisfusion-asr-installed"
OLDEST_TORCH = (2, 6)  # transformers 5 needs it
# Since 2.11 one torchaudio serves later torch versions; before, each torch had a torchaudio of the same number.
STABLE_TORCHAUDIO = (2, 11)
GIBIBYTE = 2**30
FREE_SPACE = {"with torch": 3 * GIBIBYTE, "without torch": 3 * GIBIBYTE // 2}


@dataclass(frozen=True)
class Pins:
    """One constraints file: name -> version, by the way each part is installed."""

    torch: dict[str, str]
    resolved: dict[str, str]
    alone: dict[str, str]

    def all(self) -> dict[str, str]:
        """Every name with its version."""
        return self.torch | self.resolved | self.alone


@dataclass(frozen=True)
class Step:
    """One pip call: what to tell the user, and pip's arguments after `install`."""

    title: str
    arguments: list[str]


def fail(message: str, code: int = 2) -> NoReturn:
    """End with one line; code 2: the user can mend it, 1: an installation that should have worked did not."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def normalised(name: str) -> str:
    """A distribution's name as the package index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def numbers(version: str) -> tuple[int, ...]:
    """Major and minor number: "2.13.0+cpu" -> (2, 13)."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def pins_file(python: tuple[int, int]) -> Path:
    """The constraints file for a Python version: ESPnet 202511 is the last for 3.11, 202611 needs 3.12."""
    release = "202511" if python < (3, 12) else "202611"
    return ROOT / "utils" / f"constraints-espnet{release}.txt"


def read_pins(path: Path) -> Pins:
    """Read the `name==version` lines below the headings `# [torch]`, `# [with ...]` and `# [without dependencies]`."""
    parts: dict[str, dict[str, str]] = {"torch": {}, "with dependencies": {}, "without dependencies": {}}
    part = None
    for line in path.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"# \[(.*?)\]", line):
            part = parts[heading[1]]
        elif line and not line.startswith("#"):
            name, version = line.split("==")
            part[normalised(name)] = version
    return Pins(*parts.values())


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """The installed ones of these distributions with their versions; reads metadata, imports nothing."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def fitted(pins: Pins, installed: dict[str, str]) -> Pins:
    """The pins for an environment as it is: its torch and the torchaudio built for it stay.

    raises SystemExit: its torch is too old for the rest of the set
    """
    torch = installed.get("torch")
    if torch is None:
        return pins
    if numbers(torch) < OLDEST_TORCH:
        fail(
            f"torch {torch} is installed in {sys.prefix}, {'.'.join(map(str, OLDEST_TORCH))} or newer is needed. "
            "It is never replaced by this script: upgrade it, or use another environment."
        )
    torchaudio = installed.get("torchaudio")
    if torchaudio is None:
        own = re.match(r"[\d.]*\d", torch)[0]
        torchaudio = pins.alone["torchaudio"] if numbers(torch) >= STABLE_TORCHAUDIO else own
    return Pins({"torch": torch}, pins.resolved, pins.alone | {"torchaudio": torchaudio})


def missing(wanted: dict[str, str], installed: dict[str, str]) -> list[str]:
    """`name==version` of what is absent or has another version."""
    return [f"{name}=={version}" for name, version in wanted.items() if installed.get(name) != version]


def plan(pins: Pins, installed: dict[str, str], stamped: bool) -> list[Step]:
    """The pip calls that bring the environment to the pins, in the order that keeps torch; empty if all is there.

    stamped: the package itself is installed from this checkout, with this setup.py
    """
    steps = []
    if "torch" not in installed:
        steps.append(Step(f"torch {pins.torch['torch']}", missing(pins.torch, installed)))
    if names := missing(pins.resolved, installed):
        steps.append(Step(_summary(names), names))
    if names := missing(pins.alone, installed):
        steps.append(Step(_summary(names), ["--no-deps", *names]))
    if not stamped or steps:
        steps.append(Step("whisfusion-asr itself", ["--no-deps", "--no-build-isolation", "-e", str(ROOT)]))
    return steps


def _summary(names: list[str]) -> str:
    return " ".join(names) if len(names) <= 4 else f"{len(names)} packages, {names[0]} to {names[-1]}"


def fingerprint(pins: Path, torch: str | None) -> str:
    """What a finished installation depends on, beside the versions that are checked each time."""
    digest = hashlib.sha256()
    for file in (pins, ROOT / "setup.py", Path(__file__)):
        digest.update(file.read_bytes())
    digest.update(f"{ROOT}|{sys.version}|{torch}".encode())
    return digest.hexdigest()


def unusable_extensions() -> list[Path]:
    """Shared objects of a CUDA torchaudio beside a torch that is not a CUDA build.

    The package index has torchaudio for CUDA only. Beside a CPU torch its objects look for libcudart and
    libtorch_cuda, and `import torchaudio`, which ESPnet always does, ends in an OSError. Without the files torchaudio
    runs in pure Python; forced alignment and the RNN-T loss, which nobody uses here, are lost.
    """
    torch, torchaudio = _package_folder("torch"), _package_folder("torchaudio")
    if torch is None or torchaudio is None:
        return []
    cpu_torch = re.search(r"^cuda\b.*= None$", (torch / "version.py").read_text(encoding="utf-8"), re.MULTILINE)
    cuda_audio = re.search(r"^__version__ = '.*\+cu\d+'", (torchaudio / "version.py").read_text(encoding="utf-8"))
    return sorted((torchaudio / "lib").glob("*.so")) if cpu_torch and cuda_audio else []


def _package_folder(name: str) -> Path | None:
    try:
        folder = Path(str(importlib.metadata.distribution(name).locate_file(name)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return folder if (folder / "version.py").exists() else None


def check_space(environment: Path, with_torch: bool) -> None:
    """Refuse to start an installation that cannot end for lack of disk."""
    needed = FREE_SPACE["with torch" if with_torch else "without torch"]
    free = shutil.disk_usage(environment).free
    if free < needed:
        fail(
            f"{environment}: {free / GIBIBYTE:.1f} GiB free, an installation needs {needed / GIBIBYTE:.1f} GiB"
            + (" (7 GiB with a CUDA build of torch)." if with_torch else ".")
        )


def run_logged(command: list[str], log: Path) -> int:
    """Run a command from the checkout, append what it prints to the log; its exit status."""
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"\n$ {' '.join(command)}\n")
        file.flush()
        return subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False).returncode


def fail_with_log(what: str, log: Path) -> NoReturn:
    """End with the last lines of the log, its place and the likely remedy."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    # pip's note on each local index without the package would fill the twenty lines
    tail = [line for line in lines if "is neither a file nor a directory" not in line][-20:]
    print("\n".join(tail), file=sys.stderr)
    text = "\n".join(tail)
    if "No space left on device" in text:
        fail(f"{what} failed: the disk is full. Free some space and call utils/install.sh again. Log: {log}")
    if re.search(r"NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|Max retries|SSLError", text):
        fail(f"{what} failed: the package index was not reached. Mend the network and call again. Log: {log}")
    fail(f"{what} failed, see above. What is installed is kept; call utils/install.sh again. Log: {log}", code=1)


def install(environment: Path, steps: list[Step], pins: Pins, log: Path) -> None:
    """Run the steps, every one under constraints that hold torch at its version."""
    pip = [str(environment / "bin" / "python"), "-I", "-m", "pip", "--disable-pip-version-check", "-q"]
    if run_logged([*pip, "--version"], log):
        # made without pip (uv venv), or cut off while it was made
        if run_logged([str(environment / "bin" / "python"), "-I", "-m", "ensurepip", "--upgrade"], log):
            fail(f"{environment} has no pip. Install pip there, or use another environment. Log: {log}")
    constraints = environment / "whisfusion-constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in pins.all().items()), encoding="utf-8")
    for number, step in enumerate(steps, start=1):
        print(f"[{number}/{len(steps)}] {step.title} ...", flush=True)
        start = time.monotonic()
        if run_logged([*pip, "install", "--no-input", "-c", str(constraints), *step.arguments], log):
            fail_with_log(f"pip install {step.title}", log)
        print(f"      done in {time.monotonic() - start:.0f} s", flush=True)


def check_import(environment: Path, log: Path) -> None:
    """Import the ESPnet task in a fresh process, from outside the checkout's path."""
    print("checking that the ESPnet task imports ...", flush=True)
    doctor = [str(environment / "bin" / "python"), "-I", "-m", "whisfusion_asr.bin.doctor", "--import_task", "true"]
    if run_logged(doctor, log):
        fail_with_log("the check of the installation (whisfusion doctor)", log)


def main(environment: Path) -> None:
    """Compare, install, check, stamp; returns at once when the stamp and all versions fit."""
    pins_path = pins_file(sys.version_info[:2])
    pins = read_pins(pins_path)
    installed = installed_versions([*pins.all(), "whisfusion-asr"])
    pins = fitted(pins, installed)
    stamp, log = environment / STAMP_NAME, environment / LOG_NAME
    mark = fingerprint(pins_path, installed.get("torch"))
    stamped = stamp.exists() and stamp.read_text(encoding="utf-8") == mark and "whisfusion-asr" in installed
    steps = plan(pins, installed, stamped)
    if steps:
        stamp.unlink(missing_ok=True)
        check_space(environment, with_torch="torch" not in installed)
        print(f"installing into {environment}, log: {log}", flush=True)
        install(environment, steps, pins, log)
    removed = unusable_extensions()
    for file in removed:
        stamp.unlink(missing_ok=True)
        print(f"removing {file}: needs CUDA, torch is a CPU build")
        file.unlink()
    if steps or removed:
        check_import(environment, log)
        importlib.invalidate_caches()
        torch = importlib.metadata.version("torch")
        temporary = stamp.with_suffix(f".{os.getpid()}")
        temporary.write_text(fingerprint(pins_path, torch), encoding="utf-8")
        os.replace(temporary, stamp)
    print(f"ready: {environment}, Python {sys.version.split()[0]}, torch {importlib.metadata.version('torch')}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
