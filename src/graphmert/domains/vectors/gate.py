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
    doc_of_row = np.repeat(np.arange(len(starts)), ends - starts)
    lags = np.arange(1, settings.max_lag + 1)
    sums, counts = np.zeros(len(lags)), np.zeros(len(lags), np.int64)
    seen: set[bytes] = set()
    n_duplicates = 0
    norms: list[NDArray[np.float64]] = []
    total_C = np.zeros(vectors.shape[1])
    before = np.empty((0, vectors.shape[1]), np.float32)
    for start in range(0, len(vectors), _BLOCK):
        block = np.asarray(vectors[start : start + _BLOCK])
        norm = np.linalg.norm(block.astype(np.float64), axis=1)
        _refuse(block, norm, start, settings, where)
        norms.append(norm)
        for row in block:
            digest = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
            n_duplicates += digest in seen
            seen.add(digest)
        unit = (block / norm[:, None]).astype(np.float32)
        total_C += unit.sum(0, dtype=np.float64)
        joined = np.concatenate([before, unit])
        first = start - len(before)
        for index, lag in enumerate(lags.tolist()):
            begin = max(start - first, lag)  # pairs whose second row is new
            right = joined[begin:]
            left = joined[begin - lag : begin - lag + len(right)]
            rows = first + begin + np.arange(len(right))
            same = doc_of_row[rows] == doc_of_row[rows - lag]
            sums[index] += float(np.einsum("nc,nc->n", left, right)[same].sum())
            counts[index] += int(same.sum())
        before = joined[-settings.max_lag :]
        progress.update(min(start + _BLOCK, len(vectors)))
    progress.end()
    share = n_duplicates / len(vectors)
    if share > settings.max_duplicate_share:
        raise DataError(
            "too many vectors are repeated",
            where=where,
            got=f"{n_duplicates} of {len(vectors)} equal an earlier one",
            expected=f"a share of at most {settings.max_duplicate_share:g}",
            fix="Embed with deduplication, or raise gate.max_duplicate_share.",
        )
    n = len(vectors)
    random = float((total_C @ total_C - n) / (n * (n - 1))) if n > 1 else 0.0
    all_norms = np.concatenate(norms)
    means = [float(s / c) if c else None for s, c in zip(sums, counts, strict=True)]
    return {
        "n_vectors": n,
        "n_documents": len(starts),
        "n_boundaries": max(len(starts) - 1, 0),
        "norm": {
            "least": round(float(all_norms.min()), 6),
            "mean": round(float(all_norms.mean()), 6),
            "largest": round(float(all_norms.max()), 6),
        },
        "n_duplicates": n_duplicates,
        "lag_similarity": {
            str(lag): None if mean is None else round(mean, 6)
            for lag, mean in zip(lags.tolist(), means, strict=True)
        },
        "random_similarity": round(random, 6),
        "warnings": _warnings(means, random, n_duplicates),
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
