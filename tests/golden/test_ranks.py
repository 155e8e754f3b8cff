"""Ranks and MRR against a slow loop written from the definition."""

from __future__ import annotations

import numpy as np
import pytest

from graphmert.evaluate.ranks import (
    QueryRow,
    Targets,
    filtered_rank,
    filtered_ranks,
    rank_in_blocks,
    rank_metrics,
)


def slow_rank(scores: list[float], true_index: int, known: list[int]) -> float:
    """Walk over every entity that is no other known tail; average best and worst place."""
    optimistic, pessimistic = 1, 0
    for entity, score in enumerate(scores):
        if entity in known and entity != true_index:
            continue
        if score > scores[true_index]:
            optimistic += 1
        if score >= scores[true_index]:
            pessimistic += 1
    return (optimistic + pessimistic) / 2


@pytest.mark.parametrize("seed", range(20))
def test_filtered_ranks_match_the_slow_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_queries, n_entities = 5, 30
    scores = rng.integers(0, 6, (n_queries, n_entities)).astype(np.float32)  # many ties
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    query, tail, known = [], [], []
    for q in range(n_queries):
        known.append(rng.choice(n_entities, size=rng.integers(0, 6), replace=False))
        for t in rng.choice(n_entities, size=rng.integers(0, 4), replace=False):
            query.append(q)
            tail.append(t)
    targets = Targets(np.array(query, np.int64), np.array(tail, np.int64), known)
    expected = [
        slow_rank(scores[q].tolist(), t, known[q].tolist())
        for q, t in zip(query, tail, strict=True)
    ]
    np.testing.assert_array_equal(filtered_ranks(scores, targets), expected)
    blocked = rank_in_blocks(lambda a, b: scores[a:b], targets, block_size=2)
    np.testing.assert_array_equal(blocked, expected)
    for (q, t), rank in zip(zip(query, tail, strict=True), expected, strict=True):
        assert filtered_rank(scores[q], t, known[q]) == rank


def test_known_cases() -> None:
    scores = np.array([5.0, 4.0, 3.0, 3.0, 1.0])
    assert filtered_rank(scores, 2, []) == 3.5  # places 3 and 4 are shared
    assert filtered_rank(scores, 2, [0]) == 2.5  # another true tail above is left out
    assert filtered_rank(scores, 2, [0, 1, 2, 3]) == 1.0
    assert filtered_rank(np.zeros(9), 0, []) == 5.0  # a constant scorer gets the middle


def test_metrics_match_the_definition() -> None:
    rng = np.random.default_rng(7)
    rows = [
        QueryRow(
            head=int(rng.integers(9)),
            relation=int(rng.integers(3)),
            tail=index,
            tail_length=int(rng.integers(1, 9)),
            head_seen_as_tail=bool(rng.integers(2)),
            rank=float(rng.integers(1, 25)) + 0.5 * float(rng.integers(2)),
        )
        for index in range(200)
    ]
    names = ["is_a", "part_of", "regulates", "never"]
    metrics = rank_metrics(rows, names)

    def mrr(chosen: list[QueryRow]) -> float:
        total = 0.0
        for row in chosen:
            total += 1 / row.rank
        return total / len(chosen)

    by_relation = [mrr([r for r in rows if r.relation == k]) for k in range(3)]
    assert metrics["mrr_micro"] == pytest.approx(mrr(rows))
    assert metrics["mrr_macro"] == pytest.approx(sum(by_relation) / 3)
    hits = sum(1 for row in rows if row.rank <= 3) / len(rows)
    assert metrics["hits@3"] == pytest.approx(hits)
    groups = {
        "1": [r for r in rows if r.tail_length == 1],
        "5+": [r for r in rows if r.tail_length >= 5],
    }
    for bucket, chosen in groups.items():
        assert metrics["per_tail_length"][bucket]["mrr"] == pytest.approx(mrr(chosen))
        assert metrics["per_tail_length"][bucket]["n"] == len(chosen)
    seen = [r for r in rows if r.head_seen_as_tail]
    assert metrics["heads_seen_as_tails"]["mrr"] == pytest.approx(mrr(seen))
    assert metrics["unseen_heads"]["n"] == len(rows) - len(seen)
    assert list(metrics["per_relation"]) == names[:3]
