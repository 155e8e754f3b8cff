"""Precision, recall and F1 of accepted triples on queries that have a held-out tail.

A query is (head, relation). Those without a held-out tail are left aside: whether a tail
accepted there is wrong or merely unknown, the seed cannot tell.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphmert.evaluate.bootstrap import Interval
from graphmert.evaluate.ranks import QueryRow
from graphmert.kg import Triple


def query_scores(
    accepted: Iterable[Triple],
    held_out: Iterable[Triple],
    *,
    known: Iterable[Triple] = (),
    seed: int = 0,
    n_resamples: int = 1000,
) -> dict[str, Any]:
    """Return micro and macro precision, recall and F1.

    Over queries q with held-out tails T_q and accepted tails A_q, both without known ones:
    micro P = Σ|A_q ∩ T_q| / Σ|A_q|, R = Σ|A_q ∩ T_q| / Σ|T_q|, F1 = 2PR / (P + R);
    macro: means over queries, P over those with an accepted tail.

    Args:
        accepted: triples of the extracted graph.
        held_out: triples of the test part.
        known: triples that training or choosing has seen; they count on neither side.
        seed: of the bootstrap over heads, which gives the intervals of the micro numbers.
        n_resamples: bootstrap resamples.

    Returns:
        n_queries, n_answered, n_true, n_accepted, n_correct, n_accepted_elsewhere, and
        precision, recall, f1 (micro, with intervals) and their macro forms; numbers are None
        where nothing is accepted or held out.

    Source: none.
    Checked by: tests/unit/evaluate/test_held_out.py
    """
    seen = set(known)
    true = _by_query(triple for triple in held_out if triple not in seen)
    found = _by_query(triple for triple in accepted if triple not in seen)
    rows = []
    for (head, relation), tails in sorted(true.items()):
        own = found.get((head, relation), set())
        rows.append((head, len(own & tails), len(own), len(tails)))
    counts = np.array([row[1:] for row in rows], dtype=np.int64).reshape(-1, 3)
    n_correct, n_accepted, n_true = (int(one) for one in counts.sum(axis=0))
    with_answer = counts[counts[:, 1] > 0]
    recalls = counts[:, 0] / np.maximum(counts[:, 2], 1)
    f1s = 2 * counts[:, 0] / np.maximum(counts[:, 1] + counts[:, 2], 1)
    intervals = _intervals([row[0] for row in rows], counts, seed=seed, n_resamples=n_resamples)
    return {
        "n_queries": len(rows),
        "n_answered": len(with_answer),
        "n_true": n_true,
        "n_accepted": n_accepted,
        "n_correct": n_correct,
        "n_accepted_elsewhere": sum(map(len, found.values())) - n_accepted,
        **intervals,
        "precision_macro": _mean(with_answer[:, 0] / np.maximum(with_answer[:, 1], 1)),
        "recall_macro": _mean(recalls),
        "f1_macro": _mean(f1s),
    }


def top_one_scores(
    rows: Sequence[QueryRow], *, seed: int = 0, n_resamples: int = 1000
) -> dict[str, Any]:
    """Return precision, recall and F1 of accepting the best tail of every query, of any system.

    It needs no threshold, so that systems without calibrated scores can be compared. The best
    tail of a query is a held-out one if and only if some held-out tail of it has filtered rank 1:
    only entities that are not true are ranked before it. A tie for the first place counts as
    missed.

    Args:
        rows: one row per held-out triple, of one system.
        seed: of the bootstrap over heads.
        n_resamples: bootstrap resamples.

    Returns: n_queries, n_true, n_correct, and precision, recall and f1 (micro) with intervals.

    Source: none.
    Checked by: tests/unit/evaluate/test_held_out.py
    """
    queries: dict[tuple[int, int], list[float]] = defaultdict(list)
    for row in rows:
        queries[row.head, row.relation].append(row.rank)
    heads = [f"{head}" for head, _ in sorted(queries)]
    counts = [(int(min(ranks) <= 1), 1, len(ranks)) for _, ranks in sorted(queries.items())]
    array = np.array(counts, dtype=np.int64).reshape(-1, 3)
    return {
        "n_queries": len(queries),
        "n_true": int(array[:, 2].sum()),
        "n_correct": int(array[:, 0].sum()),
        **_intervals(heads, array, seed=seed, n_resamples=n_resamples),
    }


def _by_query(triples: Iterable[Triple]) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for head, relation, tail in triples:
        found[head, relation].add(tail)
    return found


def _mean(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 6) if values.size else None


def _scores(counts_S3: np.ndarray) -> dict[str, np.ndarray]:
    """Micro scores of each row of sums (correct, accepted, true); NaN where undefined."""
    correct, accepted, true = (counts_S3[:, i].astype(np.float64) for i in range(3))
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "precision": correct / accepted,
            "recall": correct / true,
            "f1": 2 * correct / (accepted + true),
        }


def _intervals(
    heads: list[str], counts: np.ndarray, *, seed: int, n_resamples: int
) -> dict[str, dict[str, float] | None]:
    names = ("precision", "recall", "f1")
    if not heads:
        return dict.fromkeys(names)
    groups, group_of = np.unique(np.array(heads), return_inverse=True)
    sums_H3 = np.zeros((len(groups), 3))
    np.add.at(sums_H3, group_of, counts)
    values = _scores(sums_H3.sum(axis=0, keepdims=True))
    rng = np.random.default_rng(seed)
    uniform = np.full(len(groups), 1 / len(groups))
    drawn: list[np.ndarray] = []
    for _ in range(n_resamples):
        drawn.append(rng.multinomial(len(groups), uniform) @ sums_H3)
    resampled = _scores(np.array(drawn))
    found: dict[str, dict[str, float] | None] = {}
    for name in names:
        value = float(values[name][0])
        defined = resampled[name][np.isfinite(resampled[name])]
        if not np.isfinite(value) or not defined.size:
            found[name] = None
            continue
        low, high = np.quantile(defined, [0.025, 0.975])
        found[name] = Interval(value, float(low), float(high)).to_dict()
    return found
