from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from graphmert.errors import DataError
from graphmert.evaluate.frequency import (
    BANDS,
    band_name,
    band_of,
    count_entities,
    recall_by_frequency,
)
from graphmert.evaluate.ranks import QueryRow


def row(head: int, tail: int, rank: float) -> QueryRow:
    return QueryRow(head, 0, tail, 1, False, rank)


def test_every_count_has_one_band() -> None:
    assert [band_of(n) for n in (0, 1, 2, 4, 5, 16, 17, 64, 65, 256, 257, 10**6)] == [
        "0", "1", "2-4", "2-4", "5-16", "5-16", "17-64", "17-64", "65-256", "65-256",
        "257+", "257+",
    ]  # fmt: skip
    for before, after in pairwise(BANDS):
        assert before[1] is not None
        assert before[1] + 1 == after[0]
    with pytest.raises(DataError, match="negative"):
        band_of(-1)


def test_counts_are_of_training_triples() -> None:
    triples = np.array([[0, 0, 1], [0, 1, 2], [3, 0, 1]])
    heads, tails = count_entities(triples)
    assert heads == {0: 2, 1: 2, 2: 1, 3: 1}
    assert tails == {1: 2, 2: 1}
    assert count_entities(triples[:0]) == ({}, {})


def test_recall_by_band() -> None:
    rows = [row(0, 7, 1), row(1, 7, 4), row(2, 8, 30), row(3, 9, 2)]
    found = recall_by_frequency(
        rows,
        head_counts={0: 1, 1: 1, 2: 1},
        tail_counts={7: 100, 8: 1},
        accepted={(0, 0, 7), (3, 0, 9), (5, 0, 5)},
    )
    assert found["tail"] == [
        {"band": "0", "n": 1, "mrr": 0.5, "hits@1": 0.0, "hits@10": 1.0, "recall": 1.0},
        {"band": "1", "n": 1, "mrr": 0.033333, "hits@1": 0.0, "hits@10": 0.0, "recall": 0.0},
        {"band": "65-256", "n": 2, "mrr": 0.625, "hits@1": 0.5, "hits@10": 1.0, "recall": 0.5},
    ]
    assert [(one["band"], one["n"]) for one in found["head"]] == [("0", 1), ("1", 3)]
    assert sum(one["n"] for one in found["tail"]) == len(rows)
    order = [band_name(band) for band in BANDS]
    bands = [order.index(one["band"]) for one in found["tail"]]
    assert bands == sorted(bands)


def test_the_slope_is_that_of_least_squares() -> None:
    rng = np.random.default_rng(0)
    counts = {tail: int(n) for tail, n in enumerate(rng.integers(0, 300, 40))}
    rows = [row(0, tail, float(rank)) for tail, rank in enumerate(rng.integers(1, 20, 40))]
    found = recall_by_frequency(rows, head_counts={}, tail_counts=counts)["tail_slope"]
    x = np.log2(1 + np.array([counts[one.tail] for one in rows]))
    y = np.array([one.rank <= 10 for one in rows], float)
    assert found == pytest.approx(np.polyfit(x, y, 1)[0], abs=1e-6)
    flat = recall_by_frequency(rows, head_counts={}, tail_counts={})
    assert flat["tail_slope"] is None
    assert flat["tail"][0]["recall"] is None
