"""Filtered ranks of true tails among all entities, with realistic ties, and their means.

rank = (optimistic + pessimistic) / 2, where optimistic = 1 + #{e : s_e > s_true} and
pessimistic = #{e : s_e >= s_true}, over every entity e that is no other known tail of the query.

Shapes: Q queries, N entities, T targets (one true tail of one query).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphmert.errors import DataError

HITS_AT = (1, 3, 10)
TAIL_LENGTH_BUCKETS = ("1", "2", "3", "4", "5+")

ScoreBlock = Callable[[int, int], NDArray[np.floating]]
"""(start, stop) -> scores of the queries start..stop-1 over all entities, shape (stop-start, N)."""


@dataclass(frozen=True)
class QueryRow:
    """One held-out triple and the rank one system gave its tail.

    Attributes:
        head: index of the head entity.
        relation: index of the relation.
        tail: index of the true tail entity.
        tail_length: number of tokens in the tail's name.
        head_seen_as_tail: whether the head is the tail of some training triple.
        rank: filtered rank, 1 is best; halves come from ties.
    """

    head: int
    relation: int
    tail: int
    tail_length: int
    head_seen_as_tail: bool
    rank: float

    @property
    def key(self) -> tuple[int, int, int]:
        """The triple itself, by which the rows of two systems are paired."""
        return (self.head, self.relation, self.tail)


@dataclass(frozen=True)
class Targets:
    """The true tails to rank, several per query allowed.

    Attributes:
        query: index into the queries, shape (T,), ascending.
        tail: index of the true tail, shape (T,).
        known: per query, every tail known in any split (filtered out, except the target itself).
    """

    query: NDArray[np.int64]
    tail: NDArray[np.int64]
    known: Sequence[NDArray[np.int64]]

    def __post_init__(self) -> None:
        if self.query.shape != self.tail.shape or self.query.ndim != 1:
            raise DataError(
                "targets do not pair up",
                got=(self.query.shape, self.tail.shape),
                expected="two vectors of one length",
            )
        if self.query.size and (np.diff(self.query) < 0).any():
            raise DataError("targets are out of order", expected="ascending query indices")
        if self.query.size and (self.query[0] < 0 or self.query[-1] >= len(self.known)):
            raise DataError(
                "a target names a query that does not exist",
                got=int(self.query[-1]),
                expected=f"0..{len(self.known) - 1}",
            )


def filtered_rank(
    scores: NDArray[np.floating], true_index: int, known_true: Sequence[int] | NDArray[np.integer]
) -> float:
    """Return the filtered realistic rank of one entity among all scored entities.

    Args:
        scores: one score per entity, shape (N,); higher is better; -inf allowed, NaN not.
        true_index: the entity to rank.
        known_true: every known true tail of the query; all but `true_index` are left out.

    Raises:
        DataError: an index is out of range or a score is NaN.

    Checked by: tests/golden/test_ranks.py
    """
    targets = Targets(
        query=np.zeros(1, np.int64),
        tail=np.array([true_index], np.int64),
        known=[np.asarray(known_true, np.int64)],
    )
    return float(filtered_ranks(np.asarray(scores)[None, :], targets)[0])


def filtered_ranks(scores_QN: NDArray[np.floating], targets: Targets) -> NDArray[np.float64]:
    """Return the filtered realistic rank of every target, shape (T,).

    Args:
        scores_QN: scores of every query over all entities.
        targets: the true tails, several per query allowed.

    Raises:
        DataError: an index is out of range or a score is NaN.

    Checked by: tests/golden/test_ranks.py
    """
    if scores_QN.ndim != 2 or scores_QN.shape[0] != len(targets.known):
        raise DataError(
            "the score matrix does not fit its queries",
            got=scores_QN.shape,
            expected=f"({len(targets.known)}, entities)",
        )
    if np.isnan(scores_QN).any():
        row = int(np.isnan(scores_QN).any(axis=1).argmax())
        raise DataError("a score is not a number", where=f"query {row}", got="NaN")
    n_entities = scores_QN.shape[1]
    ranks_T = np.empty(targets.query.size, np.float64)
    bounds = np.searchsorted(targets.query, np.arange(len(targets.known) + 1))
    for query, scores_N in enumerate(scores_QN):
        start, stop = bounds[query], bounds[query + 1]
        if start == stop:
            continue
        tail_T = targets.tail[start:stop]
        known_K = np.unique(np.asarray(targets.known[query], np.int64))
        _check_range(tail_T, n_entities, query)
        _check_range(known_K, n_entities, query)
        ranks_T[start:stop] = _ranks_of_query(scores_N, tail_T, known_K)
    return ranks_T


def rank_in_blocks(
    score_block: ScoreBlock, targets: Targets, *, block_size: int = 256
) -> NDArray[np.float64]:
    """Return the ranks of all targets while only `block_size` rows of scores exist at a time.

    Args:
        score_block: scores of a range of queries, shape (rows, N).
        targets: the true tails over all queries.
        block_size: queries scored at once.

    Returns:
        Filtered realistic ranks, shape (T,).
    """
    if block_size < 1:
        raise DataError("block size too small", got=block_size, expected="at least 1")
    parts = [np.empty(0, np.float64)]
    n_queries = len(targets.known)
    for start in range(0, n_queries, block_size):
        stop = min(start + block_size, n_queries)
        low, high = np.searchsorted(targets.query, (start, stop))
        if low == high:
            continue
        block = Targets(
            query=targets.query[low:high] - start,
            tail=targets.tail[low:high],
            known=targets.known[start:stop],
        )
        parts.append(filtered_ranks(score_block(start, stop), block))
    return np.concatenate(parts)


def tail_length_bucket(tail_length: int) -> str:
    """Return the reporting bucket of a tail of that many tokens: 1, 2, 3, 4 or 5+."""
    if tail_length < 1:
        raise DataError("a tail has no tokens", got=tail_length, expected="at least 1")
    return str(tail_length) if tail_length < 5 else "5+"


def rank_metrics(rows: Sequence[QueryRow], relation_names: Sequence[str]) -> dict[str, Any]:
    """Return MRR and hits, overall and in groups, of one system.

    MRR = mean over triples of 1/rank; macro = mean over the relations present of their means.

    Args:
        rows: one row per held-out triple.
        relation_names: names by relation index.

    Returns:
        n, mrr_micro, mrr_macro, hits@1|3|10 (micro), hits@1|3|10_macro, and per_relation,
        per_tail_length, heads_seen_as_tails, unseen_heads, each group with n, mrr, hits@k;
        numbers are None where there are no rows.

    Checked by: tests/golden/test_ranks.py
    """
    relations = sorted({row.relation for row in rows})
    for relation in relations:
        if not 0 <= relation < len(relation_names):
            raise DataError(
                "a row names an unknown relation",
                got=relation,
                expected=f"0..{len(relation_names) - 1}",
            )
    overall = _group_means(rows)
    per_relation = {
        relation_names[relation]: _group_means([row for row in rows if row.relation == relation])
        for relation in relations
    }
    metrics: dict[str, Any] = {
        "n": len(rows),
        "mrr_micro": overall["mrr"],
        "mrr_macro": _mean([group["mrr"] for group in per_relation.values()]),
    }
    for k in HITS_AT:
        metrics[f"hits@{k}"] = overall[f"hits@{k}"]
        metrics[f"hits@{k}_macro"] = _mean([g[f"hits@{k}"] for g in per_relation.values()])
    metrics["per_relation"] = per_relation
    metrics["per_tail_length"] = {
        bucket: _group_means([r for r in rows if tail_length_bucket(r.tail_length) == bucket])
        for bucket in TAIL_LENGTH_BUCKETS
    }
    metrics["heads_seen_as_tails"] = _group_means([r for r in rows if r.head_seen_as_tail])
    metrics["unseen_heads"] = _group_means([r for r in rows if not r.head_seen_as_tail])
    return metrics


def _ranks_of_query(
    scores_N: NDArray[np.floating], tail_T: NDArray[np.int64], known_K: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Ranks of the targets of one query: counts over all entities minus those filtered out."""
    true_T1 = scores_N[tail_T][:, None]
    greater_T = (scores_N > true_T1).sum(axis=1)
    equal_T = (scores_N == true_T1).sum(axis=1)
    known_scores_K = scores_N[known_K]
    greater_T -= (known_scores_K > true_T1).sum(axis=1)
    others_TK = known_K != tail_T[:, None]
    equal_T -= ((known_scores_K == true_T1) & others_TK).sum(axis=1)
    return (1 + greater_T + greater_T + equal_T) / 2


def _check_range(index: NDArray[np.int64], n_entities: int, query: int) -> None:
    if index.size and (index.min() < 0 or index.max() >= n_entities):
        raise DataError(
            "an entity index is out of range",
            where=f"query {query}",
            got=int(index.max() if index.max() >= n_entities else index.min()),
            expected=f"0..{n_entities - 1}",
        )


def _group_means(rows: Sequence[QueryRow]) -> dict[str, float | int | None]:
    group: dict[str, float | int | None] = {
        "n": len(rows),
        "mrr": _mean([1 / row.rank for row in rows]),
    }
    for k in HITS_AT:
        group[f"hits@{k}"] = _mean([float(row.rank <= k) for row in rows])
    return group


def _mean(values: Sequence[float | int | None]) -> float | None:
    present = [float(value) for value in values if value is not None]
    return float(np.mean(present)) if present else None
