"""A packed model: one plain tar with everything that decoding needs, and the checksum of each member.

`pack.json` lists the members with their SHA-256. Unpacked, such a tar is an experiment directory that needs nothing
outside of it: config.yaml, model.safetensors, decoding.yaml, tokens/, encoder/ where the states come from another
model, drafter/ where the drafts do, README.md.
"""

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from whisfusion_asr.config import read_yaml
from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write, sha256
from whisfusion_asr.pretrained.hub import find_model

MANIFEST, DECODING, PACKED = "pack.json", "decoding.yaml", "model.tar"
ENCODER, DRAFTER = "encoder", "drafter"
FORMAT = 1
AGAIN = "copy or download the file again"
_MANIFEST_BYTES = 1 << 24


def write_pack(folder: str | Path, out: str | Path, about: Mapping[str, Any]) -> None:
    """Write all files of a folder, and pack.json, as a tar; it appears whole or not at all.

    about: what pack.json tells beside the checksums
    The same files give the same tar, byte by byte: sorted names, no times, no owners.
    """
    folder = Path(folder)
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    manifest = {"format": FORMAT, **about, "files": {name: sha256(files[name]) for name in sorted(files)}}
    with atomic_write(folder / MANIFEST) as file:
        json.dump(manifest, file, indent=1, ensure_ascii=False)
        file.write("\n")
    with atomic_write(out, "wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, path in sorted((files | {MANIFEST: folder / MANIFEST}).items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = path.stat().st_size, 0o644
            with open(path, "rb") as content:
                tar.addfile(member, content)


def read_member(path: str | Path, name: str) -> bytes:
    """Content of a member of a tar that this machine has packed."""
    with tarfile.open(path, "r:") as tar:
        return tar.extractfile(name).read()


def open_model(place: str | Path) -> dict[str, Any]:
    """Arguments of Speech2Text for an experiment directory, a packed model, or a hub model that holds a packed one.

    place: directory, tar or hub name `owner/model`
    raises UserError: none of these, or a tar that is damaged
    """
    folder = Path(place)
    if not folder.is_dir():
        found = find_model(str(place), (PACKED,), "--model")
        folder = unpack(found / PACKED if found.is_dir() else found, cache_folder())
    if not (folder / MANIFEST).is_file():
        return {"exp_dir": str(folder)}
    beside = {"encoder_dir": folder / ENCODER, "draft_dir": folder / DRAFTER}
    return {
        "exp_dir": str(folder),
        "inference": read_yaml(folder / DECODING),
        **{option: str(place) if place.is_dir() else None for option, place in beside.items()},
    }


def cache_folder() -> Path:
    """Where packed models are unpacked: $WHISFUSION_CACHE, or `whisfusion` in the user's cache folder."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "whisfusion")
    return Path(os.environ.get("WHISFUSION_CACHE") or usual)


def unpack(path: str | Path, cache: str | Path) -> Path:
    """Folder in the cache, named after the tar's checksum, with the members; each is compared with its own checksum.

    A folder that is there already was compared when it was made.
    raises UserError: not a packed model, a member that is damaged, missing, unlisted, a link or outside of the folder
    """
    path = Path(path)
    folder = Path(cache, sha256(path))
    if folder.is_dir():
        return folder
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        with tarfile.open(path, "r:") as tar:
            _extract(path, tar, partial)
        _put_in_place(partial, folder)
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{path}: not a packed model, or cut off ({error}): {AGAIN}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _put_in_place(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster, with the same content
            raise


def _extract(path: Path, tar: tarfile.TarFile, folder: Path) -> None:
    members: dict[str, tarfile.TarInfo] = {}
    for member in tar:
        _check_member(path, member)
        if member.name in members:
            raise UserError(f"{path}: holds {member.name} twice; it was not made by `whisfusion pack`")
        members[member.name] = member
    sums = _read_manifest(path, tar, members)
    wrong = sorted((set(members) - {MANIFEST}) ^ set(sums))
    if wrong:
        state = "is missing" if wrong[0] in sums else "is not listed in pack.json"
        raise UserError(f"{path}: {wrong[0]} {state}: {AGAIN}")
    for name in sorted(members):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as file:
            found = _copy(tar.extractfile(members[name]), file)
        if name in sums and found != sums[name]:
            raise UserError(f"{path}: {name} is damaged (SHA-256 {found}, pack.json has {sums[name]}): {AGAIN}")


def _check_member(path: Path, member: tarfile.TarInfo) -> None:
    """Refuse what could write elsewhere, or more than the tar itself holds."""
    place = PurePosixPath(member.name)
    if not member.isreg() or member.issparse():
        raise UserError(f"{path}: {member.name} is no plain file (a link, a folder or a device); refused")
    if place.is_absolute() or ".." in place.parts or "\\" in member.name or place.as_posix() != member.name:
        raise UserError(f"{path}: {member.name} would be written outside of the model's folder; refused")


def _read_manifest(path: Path, tar: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo]) -> dict[str, str]:
    """Name -> SHA-256 of the members."""
    if MANIFEST not in members or members[MANIFEST].size > _MANIFEST_BYTES:
        raise UserError(f"{path}: has no {MANIFEST}; expected a tar made by `whisfusion pack`")
    try:
        manifest = json.loads(tar.extractfile(members[MANIFEST]).read())
        made_as, sums = manifest["format"], dict(manifest["files"])
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: {MANIFEST} cannot be read ({error!r}): {AGAIN}") from None
    if made_as != FORMAT:
        raise UserError(f"{path}: packed in format {made_as}, this version reads {FORMAT}; update whisfusion-asr")
    return sums


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    """Copy and return the SHA-256 of what was copied."""
    digest = hashlib.sha256()
    while block := source.read(1 << 20):
        digest.update(block)
        target.write(block)
    return digest.hexdigest()
