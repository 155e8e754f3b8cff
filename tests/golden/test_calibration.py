"""Isotonic regression and calibration error against loops from their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from graphmert.evaluate.calibration import IsotonicCalibrator, reliability


def slow_isotonic(values: list[float]) -> list[float]:
    """The min-max formula: fit_i = max over a <= i of min over b >= i of mean(values[a..b])."""
    n = len(values)
    return [
        max(min(sum(values[a : b + 1]) / (b + 1 - a) for b in range(i, n)) for a in range(i + 1))
        for i in range(n)
    ]


@pytest.mark.parametrize("seed", range(10))
def test_isotonic_matches_the_min_max_formula(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permutation(40).astype(float)
    correct = (rng.random(40) < scores / 40).astype(float)
    curve = IsotonicCalibrator.fit(scores, correct)
    order = np.argsort(scores)
    expected = slow_isotonic(correct[order].tolist())
    np.testing.assert_allclose(curve.predict(scores[order]), expected, atol=1e-12)


def test_equal_scores_share_one_value() -> None:
    curve = IsotonicCalibrator.fit([1, 1, 1, 1, 2], [0, 1, 0, 0, 1])
    np.testing.assert_allclose(curve.predict([0, 1, 1.5, 2, 9]), [0.25, 0.25, 0.625, 1, 1])


def test_reliability_of_a_hand_made_case() -> None:
    probabilities = [0.1, 0.2, 0.6, 0.8]
    measured = reliability(probabilities, [0, 1, 1, 1], n_bins=2)
    assert [(b.n, b.accuracy) for b in measured.bins] == [(2, 0.5), (2, 1.0)]
    assert [b.confidence for b in measured.bins] == pytest.approx([0.15, 0.7])
    assert measured.ece == pytest.approx(0.5 * 0.35 + 0.5 * 0.3)


@pytest.mark.parametrize("seed", range(5))
def test_reliability_matches_the_slow_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 150
    p = rng.permutation(np.linspace(0, 1, n))
    correct = (rng.random(n) < p**2).astype(float)
    pairs = sorted(zip(p.tolist(), correct.tolist(), strict=True))
    expected = 0.0
    for start in range(0, n, 10):
        group = pairs[start : start + 10]
        gap = sum(a for a, _ in group) / 10 - sum(b for _, b in group) / 10
        expected += 10 / n * abs(gap)
    assert reliability(p, correct).ece == pytest.approx(expected)
