from __future__ import annotations

import numpy as np
import pytest

from graphmert.errors import DataError
from graphmert.evaluate.ranks import (
    QueryRow,
    Targets,
    filtered_rank,
    filtered_ranks,
    rank_in_blocks,
    rank_metrics,
    tail_length_bucket,
)


def test_nan_scores_are_refused() -> None:
    with pytest.raises(DataError, match="not a number"):
        filtered_rank(np.array([0.0, np.nan]), 0, [])


@pytest.mark.parametrize(("true_index", "known"), [(5, []), (-1, []), (0, [9])])
def test_indices_out_of_range_are_refused(true_index: int, known: list[int]) -> None:
    with pytest.raises(DataError, match="out of range"):
        filtered_rank(np.zeros(5), true_index, known)


def test_matrix_of_another_size_is_refused() -> None:
    targets = Targets(np.array([0]), np.array([0]), [np.array([0])])
    with pytest.raises(DataError, match="score matrix"):
        filtered_ranks(np.zeros((2, 3)), targets)


def test_unordered_targets_are_refused() -> None:
    with pytest.raises(DataError, match="out of order"):
        Targets(np.array([1, 0]), np.array([0, 0]), [np.array([0])] * 2)


def test_target_of_no_query_is_refused() -> None:
    with pytest.raises(DataError, match="does not exist"):
        Targets(np.array([1]), np.array([0]), [np.array([0])])


def test_blocks_without_targets_are_never_scored() -> None:
    asked: list[tuple[int, int]] = []

    def scores(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return np.zeros((stop - start, 3), np.float32)

    targets = Targets(np.array([5]), np.array([1]), [np.array([1])] * 6)
    assert rank_in_blocks(scores, targets, block_size=2).tolist() == [2.0]
    assert asked == [(4, 6)]


def test_empty_groups_hold_none() -> None:
    metrics = rank_metrics([QueryRow(0, 0, 1, 2, False, 1.0)], ["is_a"])
    assert metrics["heads_seen_as_tails"] == {
        "n": 0, "mrr": None, "hits@1": None, "hits@3": None, "hits@10": None
    }  # fmt: skip
    assert rank_metrics([], ["is_a"])["mrr_micro"] is None


def test_unknown_relation_is_refused() -> None:
    with pytest.raises(DataError, match="unknown relation"):
        rank_metrics([QueryRow(0, 1, 1, 2, False, 1.0)], ["is_a"])


def test_tail_length_buckets() -> None:
    assert [tail_length_bucket(n) for n in (1, 2, 3, 4, 5, 16)] == ["1", "2", "3", "4", "5+", "5+"]
    with pytest.raises(DataError):
        tail_length_bucket(0)
