from __future__ import annotations

import numpy as np
import pytest

from graphmert.errors import DataError
from graphmert.evaluate import bootstrap
from graphmert.evaluate.bootstrap import clustered_interval, paired_difference, row_values
from graphmert.evaluate.ranks import QueryRow


def rows_of(ranks: list[float]) -> list[QueryRow]:
    return [QueryRow(i, 0, i, 1, False, rank) for i, rank in enumerate(ranks)]


def test_equal_seeds_give_equal_intervals_and_others_differ() -> None:
    values, heads = np.random.default_rng(0).random(60), np.arange(60) // 2
    intervals = [
        clustered_interval(values, heads, heads % 3, average="macro", seed=seed)
        for seed in (1, 1, 2)
    ]
    assert intervals[0] == intervals[1] != intervals[2]
    assert intervals[0].low < intervals[0].value < intervals[0].high


def test_block_size_does_not_change_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    values, heads = np.random.default_rng(0).random(60), np.arange(60)
    whole = clustered_interval(values, heads, heads % 2, average="micro", seed=0)
    monkeypatch.setattr(bootstrap, "_BLOCK_CELLS", 300)
    parts = clustered_interval(values, heads, heads % 2, average="micro", seed=0)
    assert parts.to_dict() == whole.to_dict()


@pytest.mark.parametrize(("values", "heads"), [([], []), ([1.0], [1, 2]), ([float("nan")], [0])])
def test_bad_values_are_refused(values: list[float], heads: list[int]) -> None:
    with pytest.raises(DataError):
        clustered_interval(values, heads, heads, average="micro", seed=0)


def test_other_triples_are_refused() -> None:
    with pytest.raises(DataError, match="same triples"):
        paired_difference(
            rows_of([1, 2]), rows_of([1, 2, 3]), statistic="mrr", average="micro", seed=0
        )


def test_row_values() -> None:
    rows = rows_of([1, 2.5, 4])
    assert row_values(rows, "mrr").tolist() == [1, 0.4, 0.25]
    assert row_values(rows, "hits@3").tolist() == [1, 1, 0]
    with pytest.raises(DataError, match="unknown statistic"):
        row_values(rows, "mean_rank")
