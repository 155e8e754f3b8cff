from __future__ import annotations

import json

import numpy as np
import pytest

from graphmert.errors import DataError, FormatError
from graphmert.evaluate.calibration import (
    IsotonicCalibrator,
    TemperatureCalibrator,
    calibrator_from_dict,
    choose_threshold,
    fit_calibrator,
    operating_point,
    reliability,
    threshold_sweep,
)


@pytest.mark.parametrize("kind", [IsotonicCalibrator, TemperatureCalibrator])
def test_calibrators_survive_json(kind: type) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=300)
    fitted = kind.fit(scores, rng.random(300) < 1 / (1 + np.exp(-scores)))
    again = calibrator_from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert again == fitted
    np.testing.assert_array_equal(again.predict(scores), fitted.predict(scores))


def test_temperature_finds_the_true_curve() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(5, 4, size=40_000)
    correct = rng.random(40_000) < 1 / (1 + np.exp(-(scores / 2.5 - 1.5)))
    fitted = TemperatureCalibrator.fit(scores, correct)
    assert fitted.temperature == pytest.approx(2.5, rel=0.05)
    assert fitted.bias == pytest.approx(-1.5, rel=0.07)
    assert reliability(fitted.predict(scores), correct).ece < 0.01


def test_temperature_alone_keeps_zero_at_one_half() -> None:
    rng = np.random.default_rng(2)
    scores = rng.normal(size=20_000)
    correct = rng.random(20_000) < 1 / (1 + np.exp(-3 * scores))
    fitted = TemperatureCalibrator.fit(scores, correct, fit_bias=False)
    assert fitted.bias == 0
    assert fitted.temperature == pytest.approx(1 / 3, rel=0.05)


@pytest.mark.parametrize("correct", [[0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
def test_degenerate_pairs_stay_finite(correct: list[int]) -> None:
    fitted = TemperatureCalibrator.fit([1.0, 2.0, 3.0, 4.0], correct)
    p = fitted.predict([1.0, 2.0, 3.0, 4.0])
    assert fitted.temperature > 0
    assert np.isfinite(p).all()
    assert (np.diff(p) >= 0).all()


def test_one_score_is_enough_for_isotonic() -> None:
    assert IsotonicCalibrator.fit([3.0], [1]).predict([0.0, 9.0]).tolist() == [1, 1]


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "platt"},
        {"kind": "temperature", "temperature": -1, "bias": 0},
        {"kind": "temperature", "bias": 0},
        {"kind": "isotonic", "scores": [1, 0], "probabilities": [0, 1]},
        {"kind": "isotonic", "scores": [0, 1], "probabilities": [0.5, 0.4]},
        {"kind": "isotonic", "scores": [], "probabilities": []},
    ],
)
def test_bad_stored_calibrators_are_refused(data: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        calibrator_from_dict(data)


def test_operating_point_counts_what_was_never_a_candidate() -> None:
    point = operating_point([0.9, 0.8, 0.2], [1, 0, 1], 0.5, n_true=4)
    assert (point.n_accepted, point.precision, point.recall) == (2, 0.5, 0.25)
    assert point.f1 == pytest.approx(2 * 0.5 * 0.25 / 0.75)
    nothing = operating_point([0.1], [1], 0.5)
    assert (nothing.precision, nothing.recall, nothing.f1) == (None, 0, 0)


def test_threshold_choices() -> None:
    p = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    correct = [1, 1, 0, 1, 0, 0]
    assert choose_threshold(p, correct).threshold == 0.6  # F1 = 6/7
    precise = choose_threshold(p, correct, target_precision=0.95)
    assert (precise.threshold, precise.precision, precise.target_reached) == (0.8, 1.0, True)
    loose = choose_threshold(p, correct, target_precision=0.5)
    assert (loose.threshold, loose.recall) == (0.6, 1.0)


def test_unreachable_precision_is_said() -> None:
    point = choose_threshold([0.9, 0.1], [0, 1], target_precision=0.9)
    assert not point.target_reached
    assert point.precision == 0.5


def test_bad_pairs_are_refused() -> None:
    with pytest.raises(DataError):
        reliability([0.5, 1.5], [0, 1])
    with pytest.raises(DataError):
        IsotonicCalibrator.fit([], [])
    with pytest.raises(DataError):
        IsotonicCalibrator.fit([1.0], [0.5])
    with pytest.raises(DataError):
        operating_point([0.5, 0.6], [1, 1], 0.5, n_true=1)


def test_a_sweep_holds_the_operating_points_of_its_thresholds() -> None:
    rng = np.random.default_rng(5)
    p = rng.random(500).round(2)
    correct = rng.random(500) < p
    every = threshold_sweep(p, correct, n_true=400, max_points=1000)
    assert [point.threshold for point in every] == sorted(set(p), reverse=True)
    for point in every:
        assert point == operating_point(p, correct, point.threshold, n_true=400)
    some = threshold_sweep(p, correct, n_true=400, max_points=10)
    assert len(some) == 10
    assert [some[0], some[-1]] == [every[0], every[-1]]
    assert set(some) <= set(every)
    best = choose_threshold(p, correct, n_true=400)
    assert best.f1 == max(point.f1 for point in every)


def test_calibrators_by_name() -> None:
    scores, correct = np.arange(20.0), np.arange(20) % 3 == 0
    assert fit_calibrator("isotonic", scores, correct) == IsotonicCalibrator.fit(scores, correct)
    assert fit_calibrator("temperature", scores, correct) == TemperatureCalibrator.fit(
        scores, correct
    )
