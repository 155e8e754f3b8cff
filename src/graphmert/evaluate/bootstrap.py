"""Percentile bootstrap intervals clustered by head entity.

The triples of one head stand or fall together (one definition answers them all), so heads are
resampled, not triples. One resample draws as many heads as there are, with replacement; it is a
vector of counts, so a thousand resamples of a statistic are two matrix products.

Shapes: M values (triples), H heads, E relations, S resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from graphmert.errors import DataError
from graphmert.evaluate.ranks import QueryRow

Average = Literal["micro", "macro"]
_BLOCK_CELLS = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A statistic with the ends of its percentile interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Return value, low and high, rounded to six decimals for run files."""
        return {name: round(number, 6) for name, number in asdict(self).items()}


def clustered_interval(
    values: NDArray[np.floating] | Sequence[float],
    heads: NDArray[np.integer] | Sequence[int],
    relations: NDArray[np.integer] | Sequence[int],
    *,
    average: Average,
    seed: int,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Return a mean of per-triple values and its interval over resampled heads.

    micro: mean over triples. macro: mean over relations of their means; a resample averages over
    the relations it contains.

    Args:
        values: one number per triple, such as 1/rank or [rank <= k], shape (M,).
        heads: head entity per triple, shape (M,).
        relations: relation per triple, shape (M,).
        average: micro or macro.
        seed: seed of the resampling; equal seeds and heads give equal resamples.
        n_resamples: number of resamples.
        level: coverage, 0.95 for the 2.5th and 97.5th percentiles.

    Raises:
        DataError: no values, lengths differ, or a value is not finite.

    Checked by: tests/golden/test_bootstrap.py
    """
    values_M = np.asarray(values, np.float64)
    _check(values_M, heads, relations, n_resamples=n_resamples, level=level)
    sums_HE, counts_HE = _tabulate(values_M, np.asarray(heads), np.asarray(relations))
    value = _average(sums_HE.sum(0)[None], counts_HE.sum(0)[None], average)[0]
    n_heads = sums_HE.shape[0]
    rng = np.random.default_rng(seed)
    uniform_H = np.full(n_heads, 1 / n_heads)
    block = max(1, _BLOCK_CELLS // n_heads)
    parts = []
    for start in range(0, n_resamples, block):
        size = min(block, n_resamples - start)
        weights_SH = rng.multinomial(n_heads, uniform_H, size=size).astype(np.float64)
        parts.append(_average(weights_SH @ sums_HE, weights_SH @ counts_HE, average))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(parts), [tail, 1 - tail])
    return Interval(value=float(value), low=float(low), high=float(high))


def rank_interval(
    rows: Sequence[QueryRow],
    *,
    statistic: str,
    average: Average,
    seed: int,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Return the interval of MRR or hits@k of one system.

    Args:
        rows: one row per held-out triple.
        statistic: "mrr" or "hits@k" for an integer k.
        average: micro (over triples) or macro (over relations).
        seed: seed of the resampling.
        n_resamples: number of resamples.
        level: coverage of the interval.
    """
    return clustered_interval(
        row_values(rows, statistic),
        [row.head for row in rows],
        [row.relation for row in rows],
        average=average,
        seed=seed,
        n_resamples=n_resamples,
        level=level,
    )


def paired_difference(
    rows_a: Sequence[QueryRow],
    rows_b: Sequence[QueryRow],
    *,
    statistic: str,
    average: Average,
    seed: int,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Return the interval of statistic(a) - statistic(b) on the same triples.

    Both averages are linear in the values, so every resample of heads is applied to the
    per-triple differences and stays paired.

    Args:
        rows_a: rows of the first system.
        rows_b: rows of the second system; the same triples in any order.
        statistic: "mrr" or "hits@k".
        average: micro or macro.
        seed: seed of the resampling.
        n_resamples: number of resamples.
        level: coverage of the interval.

    Raises:
        DataError: the two systems did not rank the same triples, each once.

    Checked by: tests/golden/test_bootstrap.py
    """
    ordered_a = sorted(rows_a, key=lambda row: row.key)
    ordered_b = sorted(rows_b, key=lambda row: row.key)
    keys = [row.key for row in ordered_a]
    if keys != [row.key for row in ordered_b] or len(set(keys)) != len(keys):
        differing = sorted({row.key for row in rows_a} ^ {row.key for row in rows_b})[:3]
        raise DataError(
            "two systems did not rank the same triples",
            got=f"{len(rows_a)} and {len(rows_b)} rows; differing: {differing}",
            expected="each triple once in both",
        )
    return clustered_interval(
        row_values(ordered_a, statistic) - row_values(ordered_b, statistic),
        [row.head for row in ordered_a],
        [row.relation for row in ordered_a],
        average=average,
        seed=seed,
        n_resamples=n_resamples,
        level=level,
    )


def row_values(rows: Sequence[QueryRow], statistic: str) -> NDArray[np.float64]:
    """Return the per-triple values whose mean is the statistic: 1/rank, or [rank <= k].

    Raises:
        DataError: the statistic is neither "mrr" nor "hits@k".
    """
    ranks_M = np.array([row.rank for row in rows], np.float64)
    if statistic == "mrr":
        return 1 / ranks_M
    name, _, k = statistic.partition("@")
    if name == "hits" and k.isdigit() and int(k) > 0:
        return (ranks_M <= int(k)).astype(np.float64)
    raise DataError("unknown statistic", got=statistic, expected="mrr or hits@k")


def _tabulate(
    values_M: NDArray[np.float64], heads_M: NDArray[np.integer], relations_M: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and count the values by (head, relation)."""
    heads, head_M = np.unique(heads_M, return_inverse=True)
    relations, relation_M = np.unique(relations_M, return_inverse=True)
    cell_M = head_M * relations.size + relation_M
    shape = (heads.size, relations.size)
    n_cells = heads.size * relations.size
    sums = np.bincount(cell_M, weights=values_M, minlength=n_cells).astype(np.float64)
    counts = np.bincount(cell_M, minlength=n_cells).astype(np.float64)
    return sums.reshape(shape), counts.reshape(shape)


def _average(
    sums_SE: NDArray[np.float64], counts_SE: NDArray[np.float64], average: Average
) -> NDArray[np.float64]:
    if average == "micro":
        return sums_SE.sum(1) / counts_SE.sum(1)
    if average == "macro":
        means_SE = sums_SE / np.maximum(counts_SE, 1)
        return means_SE.sum(1) / (counts_SE > 0).sum(1)
    raise DataError("unknown average", got=average, expected="micro or macro")


def _check(
    values_M: NDArray[np.float64],
    heads: NDArray[np.integer] | Sequence[int],
    relations: NDArray[np.integer] | Sequence[int],
    *,
    n_resamples: int,
    level: float,
) -> None:
    if values_M.ndim != 1 or values_M.size == 0:
        raise DataError("nothing to resample", got=values_M.shape, expected="at least one triple")
    if not values_M.size == len(heads) == len(relations):
        raise DataError(
            "values, heads and relations differ in length",
            got=(values_M.size, len(heads), len(relations)),
        )
    if not np.isfinite(values_M).all():
        raise DataError("a value to resample is not finite")
    if n_resamples < 1 or not 0 < level < 1:
        raise DataError(
            "bad bootstrap setting",
            got=f"n_resamples={n_resamples}, level={level}",
            expected="n_resamples >= 1 and 0 < level < 1",
        )
