"""The archives of LibriSpeech's parts: fetched, checked, unpacked; a part that is there is whole."""

import difflib
import gzip
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from whisfusion_asr.errors import UserError
from whisfusion_asr.pretrained.download import Expected, Progress, download, readable_size, require_space

OPENSLR = (
    "https://www.openslr.org/resources",
    "https://us.openslr.org/resources",
    "https://openslr.elda.org/resources",
    "https://openslr.magicdatatech.com/resources",
)
MARKER = ".complete"


@dataclass(frozen=True)
class Part:
    """A line of the part list; unknown values are None."""

    name: str
    resource: str
    size: int | None
    md5: str | None
    utterances: int | None

    def addresses(self, mirrors: Sequence[str]) -> list[str]:
        """Where the archive is: below each mirror, or else with OpenSLR and its mirrors."""
        folders = [mirror.rstrip("/") for mirror in mirrors] or [f"{host}/{self.resource}" for host in OPENSLR]
        return [f"{folder}/{self.name}.tar.gz" for folder in folders]


def read_part_list(path: Path) -> dict[str, Part]:
    """The list of known parts (see local/parts.tsv).

    raises UserError: a malformed line
    """
    parts = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [None if field == "-" else field for field in line.split("\t")]
        try:
            name, resource, size, md5, utterances = fields
            parts[name] = Part(name, resource, size and int(size), md5, utterances and int(utterances))
        except ValueError:
            raise UserError(f"{path}:{number}: {line!r}, expected part, resource, bytes, md5, utterances") from None
    return parts


class Archives:
    """The parts of one download folder: `DIR/PART.tar.gz`, unpacked as `DIR/LibriSpeech/PART`.

    known: the part list; mirrors: addresses of folders with `PART.tar.gz` (none: OpenSLR's)
    """

    def __init__(self, folder: Path, known: dict[str, Part], mirrors: Sequence[str], remove_archive: bool) -> None:
        self.folder, self.known, self.mirrors, self.remove_archive = folder, known, mirrors, remove_archive

    def missing(self, names: Iterable[str]) -> list[Part]:
        """Those of the parts that are still to be fetched or unpacked.

        raises UserError: an unknown part, or a folder of which nobody can say whether it is whole
        """
        parts = []
        for name in names:
            if name not in self.known:
                near = difflib.get_close_matches(name, self.known, n=1)
                hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(self.known)}"
                raise UserError(f"--parts: unknown part {name}{hint} (--librispeech_dir takes parts of any name)")
            folder = self.folder / "LibriSpeech" / name
            if folder.exists() and not (folder / MARKER).exists():
                raise UserError(
                    f"{folder}: not unpacked by this recipe, so it may be incomplete: remove it, or take it as it is "
                    f"with --librispeech_dir {self.folder}"
                )
            if not folder.exists():
                parts.append(self.known[name])
        return parts

    def plan(self, parts: Sequence[Part]) -> str:
        """What fetching the missing parts takes, in one line."""
        if not parts:
            return f"nothing to download: all parts are in {self.folder / 'LibriSpeech'}"
        names = ", ".join(part.name for part in parts)
        size = readable_size(sum(max(0, (part.size or 0) - self._held(part)) for part in parts))
        return f"to download: {names} ({size}; {readable_size(self._space(parts))} of disk space) to {self.folder}"

    def require_space(self, parts: Sequence[Part]) -> None:
        """Refuse to begin with too little space for the archives and what they hold.

        raises UserError: naming both sizes
        """
        require_space(self.folder, self._space(parts), f"LibriSpeech ({', '.join(part.name for part in parts)})")

    def fetch(self, part: Part) -> None:
        """Download and unpack a part.

        raises UserError: the download failed or the archive is damaged
        """
        archive = self._archive(part)
        print(f"{part.name}: downloading {archive}", flush=True)
        download(part.addresses(self.mirrors), archive, Expected(part.size, part.md5))
        print(f"{part.name}: unpacking", flush=True)
        unpack(archive, part.name, self.folder / "LibriSpeech")

    def tidy(self, names: Iterable[str]) -> None:
        """Remove what unpacked parts leave: remains of a killed run and, if that is wished, the archives."""
        for name in names:
            shutil.rmtree(_workplace(self.folder, name), ignore_errors=True)
            if self.remove_archive:
                self._archive(self.known[name]).unlink(missing_ok=True)

    def _archive(self, part: Part) -> Path:
        return self.folder / f"{part.name}.tar.gz"

    def _space(self, parts: Sequence[Part]) -> int:
        """Bytes that the archives and the unpacked parts will take beside what is there."""
        sizes = [part.size or 0 for part in parts]
        # FLAC does not compress further: a part takes about as much room as its archive.
        archives = max(sizes, default=0) if self.remove_archive else sum(sizes)
        return max(0, sum(sizes) + archives - sum(self._held(part) for part in parts))

    def _held(self, part: Part) -> int:
        """Bytes of the archive that are on the disk already."""
        archive = self._archive(part)
        places = (archive, archive.with_name(archive.name + ".part"))
        return max((path.stat().st_size for path in places if path.exists()), default=0)


def unpack(archive: Path, name: str, root: Path) -> None:
    """Unpack `LibriSpeech/NAME` of an archive as `root/NAME`, which appears only when it is whole.

    raises UserError: a damaged archive, one that would write outside of its folder, or one without the part
    """
    temporary = _workplace(root.parent, name)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _extract(archive, name, temporary)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(f"{archive}: cannot be unpacked ({error}): delete it and run the same command again") from None
    source = temporary / "LibriSpeech"
    if not (source / name).is_dir():
        raise UserError(f"{archive}: holds no LibriSpeech/{name}: delete it and name another --mirror")
    root.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():  # SPEAKERS.TXT, LICENSE.TXT, ...: the same in every archive
        if file.is_file():
            os.replace(file, root / file.name)
    (source / name / MARKER).touch()
    os.replace(source / name, root / name)
    shutil.rmtree(temporary)


def _workplace(folder: Path, name: str) -> Path:
    return folder / f".{name}.unpacking"


def _extract(archive: Path, name: str, folder: Path) -> None:
    with open(archive, "rb") as raw, tarfile.open(fileobj=raw, mode="r:gz") as tar:
        progress = Progress(f"{name}: unpacked", archive.stat().st_size)
        for member in tar:
            tar.extract(member, folder, filter="data")
            progress.update(raw.tell())
        progress.close()
