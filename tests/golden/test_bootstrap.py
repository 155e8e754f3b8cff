"""Clustered bootstrap on cases whose distribution is known exactly, and against a slow loop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from graphmert.evaluate.bootstrap import clustered_interval, paired_difference, rank_interval
from graphmert.evaluate.ranks import QueryRow


def slow_mean(values: list[float], relations: list[int], average: str) -> float:
    if average == "micro":
        return sum(values) / len(values)
    means = []
    for relation in sorted(set(relations)):
        group = [v for v, r in zip(values, relations, strict=True) if r == relation]
        means.append(sum(group) / len(group))
    return sum(means) / len(means)


@pytest.mark.parametrize("average", ["micro", "macro"])
def test_interval_approaches_all_possible_resamples(average: str) -> None:
    """Four heads have 4^4 resamples: enumerate them and compare the percentiles."""
    rng = np.random.default_rng(3)
    heads = [0, 0, 1, 1, 1, 2, 3, 3]
    relations = [0, 1, 0, 0, 1, 0, 1, 0]
    values = rng.random(8).tolist()
    statistics = []
    for drawn in itertools.product(range(4), repeat=4):
        picked = [i for head in drawn for i in range(8) if heads[i] == head]
        statistics.append(
            slow_mean([values[i] for i in picked], [relations[i] for i in picked], average)
        )
    interval = clustered_interval(
        values, heads, relations, average=average, seed=0, n_resamples=20_000
    )
    assert interval.value == pytest.approx(slow_mean(values, relations, average))
    low, high = np.quantile(statistics, [0.025, 0.975])
    assert interval.low == pytest.approx(low, abs=0.02)
    assert interval.high == pytest.approx(high, abs=0.02)


def test_heads_are_the_clusters() -> None:
    """1,000 copies of one head's value add no certainty: the interval is that of two heads."""
    values = [1.0] * 1000 + [0.0] * 1000
    heads = [0] * 1000 + [1] * 1000
    interval = clustered_interval(values, heads, [0] * 2000, average="micro", seed=0)
    assert (interval.low, interval.value, interval.high) == (0.0, 0.5, 1.0)


def test_normal_case() -> None:
    """With one triple per head the interval is that of a mean: ± 1.96 σ/√n."""
    values = np.random.default_rng(0).normal(size=2000)
    interval = clustered_interval(
        values, np.arange(2000), np.zeros(2000, int), average="micro", seed=1, n_resamples=4000
    )
    half = 1.96 * values.std() / np.sqrt(2000)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


@pytest.mark.parametrize("average", ["micro", "macro"])
def test_paired_difference_is_paired(average: str) -> None:
    rng = np.random.default_rng(5)
    ranks = rng.integers(1, 50, 300)
    a = [QueryRow(i // 3, i % 3, i, 1, False, float(r)) for i, r in enumerate(ranks)]
    b = [QueryRow(i // 3, i % 3, i, 1, False, 2.0 * r) for i, r in enumerate(ranks)]
    same = paired_difference(a, list(reversed(a)), statistic="mrr", average=average, seed=0)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    difference = paired_difference(a, b, statistic="mrr", average=average, seed=0)
    alone = rank_interval(a, statistic="mrr", average=average, seed=0)
    # 1/r - 1/(2r) = half of 1/r on every triple, so every resample halves exactly.
    for name in ("value", "low", "high"):
        assert getattr(difference, name) == pytest.approx(getattr(alone, name) / 2)
