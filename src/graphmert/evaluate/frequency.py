"""Does a model find what is frequent and miss what is rare? Recall by frequency in training."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from graphmert.errors import DataError
from graphmert.evaluate.ranks import QueryRow

BANDS: tuple[tuple[int, int | None], ...] = (
    (0, 0),
    (1, 1),
    (2, 4),
    (5, 16),
    (17, 64),
    (65, 256),
    (257, None),
)
"""Training triples of an entity, from and to; the last band has no upper end."""


def band_name(band: tuple[int, int | None]) -> str:
    """Return a band as "0", "2-4" or "257+"."""
    low, high = band
    if high is None:
        return f"{low}+"
    return str(low) if low == high else f"{low}-{high}"


def band_of(count: int) -> str:
    """Return the name of the band that a count falls into.

    Raises:
        DataError: the count is negative.
    """
    for band in BANDS:
        if count >= band[0] and (band[1] is None or count <= band[1]):
            return band_name(band)
    raise DataError("a count is negative", got=count, expected="0 or more")


def recall_by_frequency(
    rows: Sequence[QueryRow],
    *,
    head_counts: Mapping[int, int],
    tail_counts: Mapping[int, int],
    accepted: Collection[tuple[int, int, int]] | None = None,
) -> dict[str, Any]:
    """Return recall of held-out triples by how often head and tail occur in training.

    Args:
        rows: one row per held-out triple, of one system.
        head_counts: training triples in which an entity stands, as head or tail, by entity.
        tail_counts: training triples whose tail an entity is, by entity; 0 where absent.
        accepted: keys (head, relation, tail) of accepted triples, for `recall`.

    Returns:
        `head` and `tail`: a list of {band, n, mrr, hits@1, hits@10, recall} of the bands that
        occur, rare to frequent; `recall` is None without `accepted`. And `tail_slope`: the
        slope of hits@10 over log2(1 + count of the tail), by least squares over triples: 0 for
        a model without preference, positive where frequent tails are found more; None where all
        counts are equal.

    Source: none.
    Checked by: tests/unit/evaluate/test_frequency.py
    """
    found = set(accepted) if accepted is not None else None
    return {
        "head": _bands(rows, [head_counts.get(row.head, 0) for row in rows], found),
        "tail": _bands(rows, [tail_counts.get(row.tail, 0) for row in rows], found),
        "tail_slope": _slope(
            [np.log2(1 + tail_counts.get(row.tail, 0)) for row in rows],
            [float(row.rank <= 10) for row in rows],
        ),
    }


def count_entities(triples: np.ndarray) -> tuple[dict[int, int], dict[int, int]]:
    """Return (head_counts, tail_counts) of training triples, int64 (T, 3) by index."""
    ends, tails = np.concatenate([triples[:, 0], triples[:, 2]]), triples[:, 2]
    both = [np.unique(values, return_counts=True) for values in (ends, tails)]
    heads, counted = ({int(k): int(n) for k, n in zip(*one, strict=True)} for one in both)
    return heads, counted


def _bands(
    rows: Sequence[QueryRow], counts: Sequence[int], accepted: set[tuple[int, int, int]] | None
) -> list[dict[str, Any]]:
    groups: dict[str, list[QueryRow]] = {}
    for row, count in zip(rows, counts, strict=True):
        groups.setdefault(band_of(count), []).append(row)
    table = []
    for band in map(band_name, BANDS):
        if group := groups.get(band):
            n = len(group)
            table.append(
                {
                    "band": band,
                    "n": n,
                    "mrr": round(sum(1 / row.rank for row in group) / n, 6),
                    "hits@1": round(sum(row.rank <= 1 for row in group) / n, 6),
                    "hits@10": round(sum(row.rank <= 10 for row in group) / n, 6),
                    "recall": None
                    if accepted is None
                    else round(sum(row.key in accepted for row in group) / n, 6),
                }
            )
    return table


def _slope(x: Sequence[float], y: Sequence[float]) -> float | None:
    if len(x) < 2:
        return None
    x_M, y_M = np.array(x) - np.mean(x), np.array(y)
    spread = float(x_M @ x_M)
    return round(float(x_M @ y_M) / spread, 6) if spread > 0 else None
