"""Show what this environment has, what is missing, and the command that adds it.

    whisfusion doctor                       exit code 0: all there; 1: something that the recipes need is missing
    whisfusion doctor --import_task true    import the ESPnet task too (10 to 20 s), as utils/install.sh does at its end
"""

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import whisfusion_asr
from whisfusion_asr.bin.arguments import boolean, command_parser
from whisfusion_asr.errors import exits_cleanly

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet  # a report is wanted even where packaging is missing

DISTRIBUTION = "whisfusion-asr"
INSTALLER = Path(whisfusion_asr.__file__).resolve().parent.parent / "utils" / "install.sh"
TASK_MODULE = "whisfusion_asr.tasks.asr"
# Extras that the two shipped recipes do not need; what they lack is shown, and is no failure.
OPTIONAL = {"dev": "tests", "flash": "faster attention on a GPU", "score": "scoring with the normalizer whisper_en"}
# Installed is not enough for these: shared objects of another build (CUDA, libsndfile) only show when they load.
IMPORTED = ("torch", "torchaudio", "soundfile")


@dataclass(frozen=True)
class Package:
    """One requirement of an extra ("core": of the package itself) and what is installed of it."""

    extra: str
    name: str
    wanted: str
    version: str | None
    fits: bool


def packages() -> list[Package]:
    """All requirements that hold on this Python, as setup.py declares them.

    raises PackageNotFoundError: whisfusion-asr, or `packaging` which reads the requirements, is not installed
    """
    importlib.metadata.version("packaging")
    from packaging.requirements import Requirement

    extras = importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    found = []
    for text in importlib.metadata.requires(DISTRIBUTION) or []:
        requirement = Requirement(text)
        for extra in ["", *extras]:
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                found.append(_package(extra or "core", requirement.name, requirement.specifier))
                break
    return found


def _package(extra: str, name: str, specifier: "SpecifierSet") -> Package:
    version = _version(name)
    fits = version is not None and specifier.contains(version, prereleases=True)
    return Package(extra, name, str(specifier), version, fits)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def remedy(extra: str) -> str:
    """The command that adds an extra here."""
    if extra == "flash":
        return "pip install flash-attn --no-build-isolation"
    if INSTALLER.exists():
        return str(INSTALLER)
    return f"pip install {DISTRIBUTION}" if extra == "core" else f"pip install '{DISTRIBUTION}[{extra}]'"


def package_report(found: list[Package]) -> tuple[list[str], list[str]]:
    """Lines that show all packages by extra, and lines that name those which are needed and missing."""
    lines, problems = [], []
    for extra in dict.fromkeys(package.extra for package in found):
        group = [package for package in found if package.extra == extra]
        note = f" (optional: {OPTIONAL[extra]})" if extra in OPTIONAL else ""
        lines.append(f"{extra}{note}: " + ", ".join(f"{item.name} {item.version or '-'}" for item in group))
        for item in group:
            if not item.fits:
                state = "is missing" if item.version is None else f"is {item.version}, {item.wanted} is wanted"
                line = f"{item.name} {state}; add it with: {remedy(extra)}"
                (lines if extra in OPTIONAL else problems).append(line if extra not in OPTIONAL else f"  {line}")
    return lines, problems


def import_report(name: str, attempt: Callable[[str], ModuleType] = importlib.import_module) -> tuple[str, str | None]:
    """Import a module for real: how long it took, and what went wrong or None."""
    start = time.monotonic()
    try:
        attempt(name)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return name, f"{name} does not import: {reason}; mend it with: {remedy('espnet')}"
    return f"{name} imports ({time.monotonic() - start:.1f} s)", None


def machine_report() -> list[str]:
    """Python, processor, memory and free disk."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return [
        f"{DISTRIBUTION} {whisfusion_asr.__version__} in {Path(whisfusion_asr.__file__).resolve().parent}",
        f"python {platform.python_version()} at {sys.executable}",
        f"machine {platform.system()} {platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB memory, "
        f"{free:.0f} GiB free here",
    ]


def torch_report(torch: ModuleType) -> list[str]:
    """Build, threads and devices of torch."""
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    if torch.version.hip:
        built = f"ROCm {torch.version.hip}"
    threads = f"{torch.get_num_threads()} (OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')})"
    lines = [f"torch {torch.__version__}, {built}, threads {threads}"]
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        lines.append(f"device cuda:{number}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.is_available():
        lines.append("device cpu" + (" (torch has CUDA, but no usable GPU was found)" if torch.version.cuda else ""))
    return lines


def attention_report(torch: ModuleType) -> str:
    """What attends in the decoders here under `attention: auto`, in bf16 and with heads of 64."""
    from whisfusion_asr.models.flash import why_not_flash  # late: it imports torch, which may be what is missing

    reason = why_not_flash(torch.device("cuda" if torch.cuda.is_available() else "cpu"), torch.bfloat16, 64)
    return "attention: flash_attn" if reason is None else f"attention: torch's SDPA; not flash_attn, since {reason}"


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """Print the report; exit code 1 if something needed is missing."""
    parser = command_parser(__doc__)
    parser.add_argument("--import_task", type=boolean, default=False, help="import the ESPnet task: true or false")
    arguments = parser.parse_args(argv)
    print(*machine_report(), sep="\n")
    problems = []
    for name in [name for name in IMPORTED if _version(name)] + [TASK_MODULE] * arguments.import_task:
        line, problem = import_report(name)
        if problem:
            problems.append(problem)
        else:
            found = sys.modules[name]
            print(*[*torch_report(found), attention_report(found)] if name == "torch" else [line], sep="\n")
    try:
        lines, missing = package_report(packages())
    except importlib.metadata.PackageNotFoundError as error:
        lines, missing = [], [f"{error.name} is not installed; add it with: {remedy('espnet')}"]
    for line in lines:
        print(line)
    for problem in problems + missing:
        print(f"missing: {problem}")
    print("something is missing" if problems + missing else "everything needed is there")
    sys.exit(1 if problems + missing else 0)


if __name__ == "__main__":
    main()
