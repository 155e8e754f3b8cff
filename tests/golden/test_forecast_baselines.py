"""Baselines of next-vector prediction against plain loops in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphmert.domains.vectors import Windows, make_windows
from graphmert.errors import DataError, FormatError
from graphmert.evaluate import forecast_baselines
from graphmert.evaluate.forecast_baselines import (
    ALPHAS,
    BASELINES,
    LAMBDAS,
    ForecastBaseline,
    fit_baselines,
)
from tiny_vectors import walk

DIM, LENGTH = 4, 3


def windows(n: int, seed: int) -> Windows:
    vectors = walk(n, DIM, seed=seed) + 0.3
    return make_windows(
        vectors.astype(np.float32), np.array([0]), np.array([0]), np.array([n]), length=LENGTH
    )


def whole(source: Windows) -> tuple[np.ndarray, np.ndarray]:
    every = slice(None)
    return source.contexts(every).astype(float), source.targets(every).astype(float)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.fixture(scope="module")
def train() -> Windows:
    return windows(60, 1)


@pytest.fixture(scope="module")
def valid() -> Windows:
    return windows(40, 2)


@pytest.fixture(scope="module")
def fitted(train: Windows, valid: Windows) -> dict[str, ForecastBaseline]:
    return fit_baselines(train, valid)


def test_global_mean(fitted: dict[str, ForecastBaseline], train: Windows) -> None:
    _, targets = whole(train)
    mean = sum(targets) / len(targets)
    found = fitted["global mean"](windows(20, 3).contexts(slice(None)))
    assert np.allclose(found, mean, atol=1e-6)
    assert fitted["global mean"].n_parameters == DIM


def test_copy_last_and_mean(fitted: dict[str, ForecastBaseline]) -> None:
    contexts = windows(20, 3).contexts(slice(None))
    assert np.array_equal(fitted["copy last"](contexts), contexts[:, -1])
    for context, found in zip(contexts, fitted["mean of context"](contexts), strict=True):
        assert np.allclose(found, sum(context.astype(float)) / LENGTH, atol=1e-6)
    assert fitted["copy last"].n_parameters == fitted["mean of context"].n_parameters == 0


def test_exponential(fitted: dict[str, ForecastBaseline], train: Windows) -> None:
    contexts, targets = whole(train)

    def score(alpha: float) -> float:
        total = 0.0
        for context, target in zip(contexts, targets, strict=True):
            guess = sum(alpha ** (LENGTH - 1 - i) * context[i] for i in range(LENGTH))
            total += cosine(guess, target)
        return total

    best = max(ALPHAS, key=score)
    one = fitted["exponential"]
    assert one.facts["alpha"] == best
    context = contexts[0].astype(np.float32)
    guess = sum(best ** (LENGTH - 1 - i) * contexts[0][i] for i in range(LENGTH))
    assert cosine(one(context[None])[0].astype(float), guess) == pytest.approx(1, abs=1e-6)
    assert one.n_parameters == 1


def test_lag_regression(fitted: dict[str, ForecastBaseline], train: Windows) -> None:
    contexts, targets = whole(train)
    mean = targets.mean(0)
    rows, right = [], []
    for context, target in zip(contexts, targets, strict=True):
        for channel in range(DIM):
            rows.append([*context[:, channel], mean[channel]])
            right.append(target[channel])
    solution = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
    one = fitted["lag regression"]
    assert one.n_parameters == LENGTH + 1
    found = [one.facts[f"lag {LENGTH - i}"] for i in range(LENGTH)] + [one.facts["mean"]]
    assert found == pytest.approx(solution.tolist(), abs=1e-5)
    guess = np.array(rows[:DIM]) @ solution
    assert np.allclose(one(contexts[:1].astype(np.float32))[0], guess, atol=1e-5)


def test_ridge(fitted: dict[str, ForecastBaseline], train: Windows, valid: Windows) -> None:
    contexts, targets = whole(train)
    x = contexts.reshape(len(contexts), -1)
    centred, right = x - x.mean(0), targets - targets.mean(0)
    scale = np.trace(centred.T @ centred) / x.shape[1]
    held_out, truth = whole(valid)
    scores, solutions = [], []
    for penalty in LAMBDAS:
        # The penalty as further rows of data, solved by least squares.
        more = np.sqrt(penalty * scale) * np.eye(x.shape[1])
        stacked = np.concatenate([centred, more])
        padded = np.concatenate([right, np.zeros((x.shape[1], DIM))])
        solution = np.linalg.lstsq(stacked, padded, rcond=None)[0]
        guess = (held_out.reshape(len(held_out), -1) - x.mean(0)) @ solution + targets.mean(0)
        scores.append(np.mean([cosine(a, b) for a, b in zip(guess, truth, strict=True)]))
        solutions.append(solution)
    best = int(np.argmax(scores))
    one = fitted["ridge"]
    assert one.facts["lambda"] == LAMBDAS[best]
    assert one.facts["valid cosine"] == pytest.approx(scores[best], abs=1e-5)
    assert one.matrix is not None
    assert np.allclose(one.matrix.T, solutions[best], atol=1e-5)
    guess = (x[:4] - x.mean(0)) @ solutions[best] + targets.mean(0)
    assert np.allclose(one(contexts[:4].astype(np.float32)), guess, atol=1e-5)
    assert one.n_parameters == DIM * LENGTH * DIM + DIM


def test_blocks_leave_no_trace(
    fitted: dict[str, ForecastBaseline],
    train: Windows,
    valid: Windows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forecast_baselines, "_BLOCK", 7)
    contexts = windows(20, 3).contexts(slice(None))
    for name, one in fit_baselines(train, valid).items():
        assert np.allclose(one(contexts), fitted[name](contexts), atol=1e-5), name


def test_only_ridge_looks_at_validation(
    fitted: dict[str, ForecastBaseline], train: Windows
) -> None:
    contexts = windows(20, 3).contexts(slice(None))
    other = fit_baselines(train, windows(50, 9))
    for name in set(BASELINES) - {"ridge"}:
        assert np.array_equal(other[name](contexts), fitted[name](contexts))


def test_saved_and_loaded(fitted: dict[str, ForecastBaseline], tmp_path: Path) -> None:
    contexts = windows(20, 3).contexts(slice(None))
    for name, one in fitted.items():
        one.save(tmp_path / name)
        back = ForecastBaseline.load(tmp_path / name)
        assert back.name == name
        assert back.facts == one.facts
        assert back.n_parameters == one.n_parameters
        assert np.array_equal(back(contexts), one(contexts))
    (tmp_path / "ridge" / "baseline.safetensors").write_bytes(b"x")
    with pytest.raises(FormatError, match="not a baseline"):
        ForecastBaseline.load(tmp_path / "ridge")
    with pytest.raises(FormatError, match="not a baseline"):
        ForecastBaseline.load(tmp_path)


def test_unknown_and_empty(train: Windows) -> None:
    with pytest.raises(DataError, match="no such baseline"):
        fit_baselines(train, train, names=["oracle"])
    empty = windows(2, 1)
    with pytest.raises(DataError, match="no window"):
        fit_baselines(empty, train)
