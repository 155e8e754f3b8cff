"""Look at vectors before anything is trained on them, and refuse bad ones.

Memory is bounded by a block of rows; the vectors are read once, in order.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from graphmert.config import Settings
from graphmert.errors import DataError
from graphmert.progress import Progress, Silent

_BLOCK = 8192


class GateSettings(Settings):
    """What vectors are refused."""

    dim: int | None = Field(default=None, ge=1)
    """Number of channels that is wanted; None takes any."""
    max_duplicate_share: float = Field(default=0.2, ge=0, le=1)
    """Largest share of vectors that equal an earlier one."""
    min_norm: float = Field(default=1e-6, ge=0)
    """Vectors shorter than this are refused."""
    max_lag: int = Field(default=10, ge=1)
    """The lag-similarity profile goes up to this lag."""


def check_vectors(
    vectors: NDArray[np.float32],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    settings: GateSettings,
    *,
    where: str,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Check vectors and return what was found.

    Args:
        vectors: (N, C).
        starts, ends: rows of the documents, together all rows, in order.
        settings: what is refused.
        where: the folder that messages name.
        progress: told how many vectors were seen.

    Returns:
        n_vectors, n_documents, n_boundaries (borders between documents), norm (least, mean,
        largest), n_duplicates, lag_similarity (mean cosine of two vectors of a document, by lag),
        random_similarity (of vectors of two different places), and warnings.

    Raises:
        DataError: NaN or infinite values, vectors of no length, another number of channels, or
            too many duplicates; names the first row.
    """
    if settings.dim is not None and vectors.shape[1] != settings.dim:
        raise DataError(
            "vectors have another dimension",
            where=where,
            got=int(vectors.shape[1]),
            expected=settings.dim,
            fix="Embed with the model that was meant, or change the setting gate.dim.",
        )
    progress = progress or Silent()
    progress.begin("check", total=len(vectors), unit="vectors")
    measures = _Measures(vectors.shape[1], starts, ends, settings.max_lag)
    for start in range(0, len(vectors), _BLOCK):
        block = np.asarray(vectors[start : start + _BLOCK])
        norm = np.linalg.norm(block.astype(np.float64), axis=1)
        _refuse(block, norm, start, settings, where)
        measures.add(block, norm, start)
        progress.update(min(start + _BLOCK, len(vectors)))
    progress.end()
    if measures.n_duplicates > settings.max_duplicate_share * len(vectors):
        raise DataError(
            "too many vectors are repeated",
            where=where,
            got=f"{measures.n_duplicates} of {len(vectors)} equal an earlier one",
            expected=f"a share of at most {settings.max_duplicate_share:g}",
            fix="Embed with deduplication, or raise gate.max_duplicate_share.",
        )
    return measures.describe()


class _Measures:
    """Everything that is measured while the vectors go by, block by block."""

    def __init__(
        self, dim: int, starts: NDArray[np.int64], ends: NDArray[np.int64], max_lag: int
    ) -> None:
        self.n_duplicates = 0
        self._n_documents = len(starts)
        self._doc_of_row = np.repeat(np.arange(len(starts)), ends - starts)
        self._lags = list(range(1, max_lag + 1))
        self._sums, self._counts = [0.0] * max_lag, [0] * max_lag
        self._seen: set[bytes] = set()
        self._norms: list[NDArray[np.float64]] = []
        self._total_C = np.zeros(dim)
        self._before = np.empty((0, dim), np.float32)

    def add(self, block: NDArray[np.float32], norm: NDArray[np.float64], start: int) -> None:
        """Add the next rows, the first of which is row `start`."""
        self._norms.append(norm)
        for row in block:
            digest = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
            self.n_duplicates += digest in self._seen
            self._seen.add(digest)
        unit = (block / norm[:, None]).astype(np.float32)
        self._total_C += unit.sum(0, dtype=np.float64)
        joined = np.concatenate([self._before, unit])
        first = start - len(self._before)
        for index, lag in enumerate(self._lags):
            begin = max(start - first, lag)  # pairs whose second row is new
            right = joined[begin:]
            left = joined[begin - lag : begin - lag + len(right)]
            rows = first + begin + np.arange(len(right))
            same = self._doc_of_row[rows] == self._doc_of_row[rows - lag]
            self._sums[index] += float(np.einsum("nc,nc->n", left, right)[same].sum())
            self._counts[index] += int(same.sum())
        self._before = joined[-self._lags[-1] :]

    def describe(self) -> dict[str, Any]:
        """Return what was found."""
        n = len(self._doc_of_row)
        random = float((self._total_C @ self._total_C - n) / (n * (n - 1))) if n > 1 else 0.0
        norms = np.concatenate(self._norms)
        pairs = zip(self._sums, self._counts, strict=True)
        means = [total / count if count else None for total, count in pairs]
        return {
            "n_vectors": n,
            "n_documents": self._n_documents,
            "n_boundaries": max(self._n_documents - 1, 0),
            "norm": {
                "least": round(float(norms.min()), 6),
                "mean": round(float(norms.mean()), 6),
                "largest": round(float(norms.max()), 6),
            },
            "n_duplicates": self.n_duplicates,
            "lag_similarity": {
                str(lag): None if mean is None else round(mean, 6)
                for lag, mean in zip(self._lags, means, strict=True)
            },
            "random_similarity": round(random, 6),
            "warnings": _warnings(means, random, self.n_duplicates),
        }


def _refuse(
    block: NDArray[np.float32],
    norm: NDArray[np.float64],
    start: int,
    settings: GateSettings,
    where: str,
) -> None:
    bad = np.flatnonzero(~np.isfinite(block).all(1))
    if len(bad):
        raise DataError(
            "a vector is not finite",
            where=f"{where}, row {start + int(bad[0])}",
            got="NaN or infinity",
            expected="numbers",
            fix="Embed again; a model in low precision may overflow.",
        )
    short = np.flatnonzero(norm < settings.min_norm)
    if len(short):
        raise DataError(
            "a vector has no length",
            where=f"{where}, row {start + int(short[0])}",
            got=f"norm {norm[short[0]]:.3g}",
            expected=f"at least {settings.min_norm:g}",
            fix="Leave empty texts out.",
        )


def _warnings(means: list[float | None], random: float, n_duplicates: int) -> list[str]:
    found = []
    if means[0] is not None and means[0] <= random:
        found.append("neighbours are no more alike than any two vectors: is the order lost?")
    if n_duplicates:
        found.append(f"{n_duplicates} vectors equal an earlier one")
    return found
