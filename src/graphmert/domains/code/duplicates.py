"""Near-duplicates of code: token shingles, MinHash to find candidates, Jaccard to decide.

Two texts are near-duplicates where J(A, B) = |A and B| / |A or B| of their sets of token shingles
reaches a threshold. Everything is a function of the texts and their order.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

_TOKEN = re.compile(r"\w+|[^\w\s]")
_N_BANDS, _N_ROWS = 16, 4


@dataclass(frozen=True)
class Duplicates:
    """Which texts stay.

    Attributes:
        kept: int64, indices of texts that stay, ascending.
        twin: index -> the earlier text it is a near-duplicate of.
    """

    kept: np.ndarray
    twin: dict[int, int]


def shingles(text: str, *, size: int = 5) -> np.ndarray:
    """Hashes of the distinct runs of `size` tokens of a text, uint32, ascending.

    A text of fewer tokens is one shingle.
    """
    tokens = _TOKEN.findall(text)
    runs = ["\x1f".join(tokens[i : i + size]) for i in range(max(1, len(tokens) - size + 1))]
    return np.unique(np.array([zlib.crc32(run.encode()) for run in runs], dtype=np.uint32))


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """|A and B| / |A or B| of two sorted arrays of distinct values."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def find_duplicates(
    texts: Sequence[str], order: Iterable[int], *, threshold: float = 0.8, size: int = 5
) -> Duplicates:
    """Go through texts in an order and leave out those like an earlier one that stayed.

    Args:
        texts: the texts.
        order: indices, first come first kept: held-out texts before training texts.
        threshold: smallest Jaccard similarity of near-duplicates.
        size: tokens in a shingle.
    """
    sets = [shingles(text, size=size) for text in texts]
    bands_of = _bands(sets)
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    kept: list[int] = []
    twin: dict[int, int] = {}
    for index in order:
        keys = [(band, bands_of[index, band].tobytes()) for band in range(_N_BANDS)]
        near = sorted({other for key in keys for other in buckets[key]})
        same = next((o for o in near if jaccard(sets[index], sets[o]) >= threshold), None)
        if same is not None:
            twin[index] = same
            continue
        kept.append(index)
        for key in keys:
            buckets[key].append(index)
    return Duplicates(np.array(sorted(kept), dtype=np.int64), twin)


def _bands(sets: Sequence[np.ndarray]) -> np.ndarray:
    """MinHash signatures in bands, uint64 (texts, bands, rows)."""
    rng = np.random.default_rng(20)
    n_hashes = _N_BANDS * _N_ROWS
    factor = rng.integers(0, 1 << 63, size=n_hashes, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    shift = rng.integers(0, 1 << 63, size=n_hashes, dtype=np.uint64)
    signature = np.zeros((len(sets), n_hashes), dtype=np.uint64)
    for row, values in enumerate(sets):
        # Multiplication wraps at 2^64 many times over, which mixes; the high bits are mixed most.
        hashed = values.astype(np.uint64)[:, None] * factor[None, :] + shift[None, :]
        signature[row] = (hashed >> np.uint64(16)).min(axis=0)
    return signature.reshape(len(sets), _N_BANDS, _N_ROWS)
