from __future__ import annotations

import numpy as np
import pytest

from graphmert.errors import DataError
from graphmert.evaluate.latency import measure_latency


def test_calls_and_percentiles() -> None:
    sizes: list[int] = []

    def predictor(contexts: np.ndarray) -> np.ndarray:
        sizes.append(len(contexts))
        return contexts.mean(1)

    contexts = np.ones((3, 5, 4), np.float32)
    found = measure_latency(predictor, contexts, batch_sizes=(1, 8), n_warm=2, n_calls=30)
    assert sizes == [1] * 32 + [8] * 32  # few contexts are repeated
    for row, size in zip(found["batches"], (1, 8), strict=True):
        assert row["batch_size"] == size
        assert row["n_calls"] == 30
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["windows_per_s"] > 0


def test_slow_predictors_are_called_less_often() -> None:
    found = measure_latency(
        lambda x: x.mean(1), np.ones((1, 5, 4), np.float32), batch_sizes=(1,), max_seconds=0.0
    )
    assert found["batches"][0]["n_calls"] == 20


def test_nothing_to_time() -> None:
    with pytest.raises(DataError, match="no context"):
        measure_latency(lambda x: x.mean(1), np.ones((0, 5, 4), np.float32))
