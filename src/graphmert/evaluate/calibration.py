"""Turn scores into probabilities of being correct, measure them, and choose a threshold.

A calibrator is fitted on (score, correct) pairs of validation candidates and frozen in the run.

Shapes: M candidates, P points of the isotonic curve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphmert.errors import DataError, FormatError

N_BINS = 15


@dataclass(frozen=True)
class IsotonicCalibrator:
    """A non-decreasing, piecewise linear map from score to probability.

    Attributes:
        scores: ascending scores of the curve's points, shape (P,).
        probabilities: non-decreasing probabilities at those points, shape (P,).
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    @classmethod
    def fit(cls, scores: ArrayLike, correct: ArrayLike) -> IsotonicCalibrator:
        """Fit by pooling adjacent violators: the least-squares non-decreasing step curve.

        Raises:
            DataError: no pairs, lengths differ, or a score is not finite.

        Checked by: tests/golden/test_calibration.py
        """
        scores_M, correct_M = _pairs(scores, correct)
        points, inverse, counts = np.unique(scores_M, return_inverse=True, return_counts=True)
        means = np.bincount(inverse, weights=correct_M) / counts
        blocks = _pool_adjacent_violators(means, counts.astype(np.float64))
        curve: list[tuple[float, float]] = []
        for start, stop, mean in blocks:
            for index in sorted({start, stop - 1}):
                curve.append((float(points[index]), mean))
        return cls(tuple(x for x, _ in curve), tuple(y for _, y in curve))

    def predict(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return probabilities; scores beyond the curve take the value of its end."""
        return np.interp(np.asarray(scores, np.float64), self.scores, self.probabilities)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form that `calibrator_from_dict` reads."""
        return {"kind": "isotonic", **{name: list(v) for name, v in asdict(self).items()}}


@dataclass(frozen=True)
class TemperatureCalibrator:
    """probability = sigmoid(score / temperature + bias).

    Attributes:
        temperature: positive divisor of the score.
        bias: added log-odds.
    """

    temperature: float
    bias: float = 0.0

    @classmethod
    def fit(
        cls, scores: ArrayLike, correct: ArrayLike, *, fit_bias: bool = True, n_steps: int = 100
    ) -> TemperatureCalibrator:
        """Fit by damped Newton steps on the mean log-likelihood.

        A slight pull (1e-3) to slope 0 and bias 0 on standardised scores keeps perfectly
        separable pairs finite. A temperature is positive: if low scores are the correct ones,
        the slope is held at a tiny positive value, a flat curve.

        Raises:
            DataError: no pairs, lengths differ, or a score is not finite.
        """
        scores_M, correct_M = _pairs(scores, correct)
        centre = float(scores_M.mean()) if fit_bias else 0.0
        scale = float(np.sqrt(np.mean((scores_M - centre) ** 2))) or 1.0
        x_M2 = np.stack([(scores_M - centre) / scale, np.full_like(scores_M, fit_bias)], axis=1)
        weights = np.zeros(2)
        loss = _penalised_loss(weights, x_M2, correct_M)
        for _ in range(n_steps):
            p_M = _sigmoid(x_M2 @ weights)
            gradient = x_M2.T @ (p_M - correct_M) / correct_M.size + _RIDGE * weights
            curvature = (x_M2 * (p_M * (1 - p_M))[:, None]).T @ x_M2 / correct_M.size
            step = np.linalg.solve(curvature + _RIDGE * np.eye(2), gradient)
            while (new := _penalised_loss(weights - step, x_M2, correct_M)) > loss + 1e-12:
                step = step / 2
            weights = weights - step
            if loss - new < 1e-12:
                break
            loss = new
        slope = max(float(weights[0]) / scale, 1e-6 / scale)
        bias = float(weights[1]) - slope * centre if fit_bias else 0.0
        return cls(temperature=1 / slope, bias=bias)

    def predict(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return probabilities."""
        return _sigmoid(np.asarray(scores, np.float64) / self.temperature + self.bias)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form that `calibrator_from_dict` reads."""
        return {"kind": "temperature", **asdict(self)}


Calibrator = IsotonicCalibrator | TemperatureCalibrator


def fit_calibrator(
    kind: Literal["isotonic", "temperature"], scores: ArrayLike, correct: ArrayLike
) -> Calibrator:
    """Fit the calibrator of a name on (score, correct) pairs.

    Raises:
        DataError: no pairs, lengths differ, or a score is not finite.
    """
    if kind == "isotonic":
        return IsotonicCalibrator.fit(scores, correct)
    return TemperatureCalibrator.fit(scores, correct)


def calibrator_from_dict(data: Mapping[str, Any]) -> Calibrator:
    """Read a calibrator written by `to_dict`.

    Raises:
        FormatError: unknown kind, missing fields, or a curve that is not a calibration curve.
    """
    kind = data.get("kind")
    try:
        if kind == "isotonic":
            isotonic = IsotonicCalibrator(
                tuple(float(x) for x in data["scores"]),
                tuple(float(y) for y in data["probabilities"]),
            )
            _check_curve(isotonic)
            return isotonic
        if kind == "temperature":
            temperature = float(data["temperature"])
            if not (math.isfinite(temperature) and temperature > 0):
                raise ValueError("temperature must be positive")
            return TemperatureCalibrator(temperature, float(data["bias"]))
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError("unreadable calibrator", got=f"{kind}: {error}") from error
    raise FormatError("unknown calibrator", got=kind, expected="isotonic or temperature")


@dataclass(frozen=True)
class CalibrationBin:
    """One equal-mass bin of a reliability diagram."""

    n: int
    confidence: float
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Reliability:
    """Expected calibration error with the bins it was summed over."""

    ece: float
    bins: tuple[CalibrationBin, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form, numbers rounded to six decimals."""
        bins = [
            {k: v if isinstance(v, int) else round(v, 6) for k, v in asdict(item).items()}
            for item in self.bins
        ]
        return {"ece": round(self.ece, 6), "bins": bins}


def reliability(
    probabilities: ArrayLike, correct: ArrayLike, *, n_bins: int = N_BINS
) -> Reliability:
    """Return the expected calibration error over equal-mass bins.

    ECE = Σ_b n_b/M · |mean probability − share correct|. Candidates are sorted by probability
    and cut into `n_bins` groups as equal as can be. Equal probabilities share their mean
    correctness first, so the order of the rows never matters.

    Raises:
        DataError: no pairs, lengths differ, or a probability outside [0, 1].

    Checked by: tests/golden/test_calibration.py
    """
    p_M, correct_M = _probability_pairs(probabilities, correct)
    values, inverse, counts = np.unique(p_M, return_inverse=True, return_counts=True)
    share = np.bincount(inverse, weights=correct_M) / counts
    order = np.argsort(p_M, kind="stable")
    sorted_p, sorted_share = values[inverse][order], share[inverse][order]
    bins = []
    for group in np.array_split(np.arange(p_M.size), n_bins):
        if group.size:
            p_G, share_G = sorted_p[group], sorted_share[group]
            bins.append(
                CalibrationBin(
                    n=int(group.size),
                    confidence=float(p_G.mean()),
                    accuracy=float(share_G.mean()),
                    low=float(p_G[0]),
                    high=float(p_G[-1]),
                )
            )
    ece = sum(item.n * abs(item.confidence - item.accuracy) for item in bins) / p_M.size
    return Reliability(ece=ece, bins=tuple(bins))


@dataclass(frozen=True)
class OperatingPoint:
    """What accepting every candidate with probability >= threshold gives.

    Attributes:
        threshold: the probability from which candidates are accepted.
        precision: share of the accepted that are correct; None when none is accepted.
        recall: share of the `n_true` true ones that are accepted.
        f1: harmonic mean of the two; 0 when none is accepted.
        n_accepted: number of accepted candidates.
        n_true: number of true triples, found as candidates or not.
        target_reached: False when a wanted precision is nowhere reached.
    """

    threshold: float
    precision: float | None
    recall: float
    f1: float
    n_accepted: int
    n_true: int
    target_reached: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form, measures rounded; the threshold keeps every digit."""
        return {
            name: round(value, 6) if isinstance(value, float) and name != "threshold" else value
            for name, value in asdict(self).items()
        }


def operating_point(
    probabilities: ArrayLike, correct: ArrayLike, threshold: float, *, n_true: int | None = None
) -> OperatingPoint:
    """Return precision, recall and F1 of accepting probabilities >= threshold.

    Args:
        probabilities: per candidate, shape (M,).
        correct: per candidate, shape (M,).
        threshold: the least accepted probability.
        n_true: true triples in all, for recall; default the correct candidates.
    """
    p_M, correct_M = _probability_pairs(probabilities, correct)
    n_true = _count_true(correct_M, n_true)
    accepted_M = p_M >= threshold
    n_accepted, n_correct = int(accepted_M.sum()), float(correct_M[accepted_M].sum())
    return _point(threshold, n_accepted, n_correct, n_true)


def choose_threshold(
    probabilities: ArrayLike,
    correct: ArrayLike,
    *,
    target_precision: float | None = None,
    n_true: int | None = None,
) -> OperatingPoint:
    """Choose the threshold with the best F1, or the most recall at a wanted precision.

    Thresholds tried are the probabilities that occur. Ties go to the higher threshold. If the
    wanted precision is nowhere reached, the most precise point is returned, marked
    `target_reached=False`.

    Args:
        probabilities: validation probabilities, shape (M,).
        correct: validation correctness, shape (M,).
        target_precision: the wanted precision; None chooses by F1.
        n_true: true triples in all, for recall; default the correct candidates.
    """
    p_M, correct_M = _probability_pairs(probabilities, correct)
    points = _all_points(p_M, correct_M, _count_true(correct_M, n_true))
    if target_precision is None:
        return max(points, key=lambda point: point.f1)
    good = [p for p in points if p.precision is not None and p.precision >= target_precision]
    if good:
        return max(good, key=lambda point: point.recall)
    best = max(points, key=lambda point: (point.precision or 0.0, point.recall))
    return OperatingPoint(**{**asdict(best), "target_reached": False})


def threshold_sweep(
    probabilities: ArrayLike,
    correct: ArrayLike,
    *,
    n_true: int | None = None,
    max_points: int = 60,
) -> list[OperatingPoint]:
    """Return what each threshold gives, from the highest to the lowest.

    Thresholds are the probabilities that occur; of many, `max_points` spread evenly over them,
    the highest and the lowest among them.

    Args:
        probabilities: per candidate, shape (M,).
        correct: per candidate, shape (M,).
        n_true: true triples in all, for recall; default the correct candidates.
        max_points: at least 2.
    """
    p_M, correct_M = _probability_pairs(probabilities, correct)
    points = _all_points(p_M, correct_M, _count_true(correct_M, n_true))
    if len(points) <= max_points:
        return points
    places = np.linspace(0, len(points) - 1, max_points).round().astype(int)
    return [points[place] for place in np.unique(places)]


_RIDGE = 1e-3


def _all_points(
    p_M: NDArray[np.float64], correct_M: NDArray[np.float64], n_true: int
) -> list[OperatingPoint]:
    """The operating point of every probability that occurs, highest first."""
    thresholds, inverse, counts = np.unique(p_M, return_inverse=True, return_counts=True)
    n_correct = np.bincount(inverse, weights=correct_M)[::-1].cumsum()
    n_accepted = counts[::-1].cumsum()
    return [
        _point(float(t), int(a), float(c), n_true)
        for t, a, c in zip(thresholds[::-1], n_accepted, n_correct, strict=True)
    ]


def _pool_adjacent_violators(
    means: NDArray[np.float64], weights: NDArray[np.float64]
) -> list[tuple[int, int, float]]:
    """Blocks (start, stop, mean) of the best non-decreasing fit."""
    stack: list[tuple[int, float, float]] = []  # start, weight, weighted mean
    for index, (mean, weight) in enumerate(zip(means.tolist(), weights.tolist(), strict=True)):
        start = index
        while stack and stack[-1][2] >= mean:
            start, other_weight, other_mean = stack.pop()
            mean = (mean * weight + other_mean * other_weight) / (weight + other_weight)
            weight += other_weight
        stack.append((start, weight, mean))
    stops = [start for start, _, _ in stack[1:]] + [means.size]
    return [(s, stop, min(max(m, 0.0), 1.0)) for (s, _, m), stop in zip(stack, stops, strict=True)]


def _penalised_loss(
    weights: NDArray[np.float64], x_M2: NDArray[np.float64], correct_M: NDArray[np.float64]
) -> float:
    z_M = x_M2 @ weights
    return float(np.mean(np.logaddexp(0, z_M) - correct_M * z_M) + _RIDGE / 2 * weights @ weights)


def _sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -z))


def _point(threshold: float, n_accepted: int, n_correct: float, n_true: int) -> OperatingPoint:
    return OperatingPoint(
        threshold=threshold,
        precision=n_correct / n_accepted if n_accepted else None,
        recall=n_correct / n_true if n_true else 0.0,
        f1=2 * n_correct / (n_accepted + n_true) if n_accepted + n_true else 0.0,
        n_accepted=n_accepted,
        n_true=n_true,
    )


def _pairs(
    scores: ArrayLike, correct: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    scores_M, correct_M = np.asarray(scores, np.float64), np.asarray(correct, np.float64)
    if scores_M.ndim != 1 or scores_M.shape != correct_M.shape or scores_M.size == 0:
        raise DataError(
            "scores and correctness do not pair up",
            got=(scores_M.shape, correct_M.shape),
            expected="two vectors of one length, not empty",
        )
    if not np.isfinite(scores_M).all():
        raise DataError("a score to calibrate is not finite")
    if not np.isin(correct_M, (0.0, 1.0)).all():
        raise DataError("correctness is neither 0 nor 1")
    return scores_M, correct_M


def _probability_pairs(
    probabilities: ArrayLike, correct: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    p_M, correct_M = _pairs(probabilities, correct)
    if p_M.min() < 0 or p_M.max() > 1:
        raise DataError("a probability is outside [0, 1]", got=(float(p_M.min()), float(p_M.max())))
    return p_M, correct_M


def _count_true(correct_M: NDArray[np.float64], n_true: int | None) -> int:
    n_correct = int(correct_M.sum())
    if n_true is None:
        return n_correct
    if n_true < n_correct:
        raise DataError(
            "fewer true triples than correct candidates",
            got=n_true,
            expected=f"at least {n_correct}",
        )
    return n_true


def _check_curve(curve: IsotonicCalibrator) -> None:
    x: Sequence[float] = curve.scores
    y: Sequence[float] = curve.probabilities
    if not x or len(x) != len(y):
        raise ValueError("scores and probabilities differ in length or are empty")
    if any(b <= a for a, b in pairwise(x)):
        raise ValueError("scores do not ascend")
    if any(b < a for a, b in pairwise(y)) or y[0] < 0 or y[-1] > 1:
        raise ValueError("probabilities do not ascend within [0, 1]")
