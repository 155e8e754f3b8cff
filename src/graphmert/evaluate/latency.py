"""How long a prediction takes, by batch size, warm."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphmert.errors import DataError

BATCH_SIZES = (1, 8, 32, 128)
PERCENTILES = (50, 95, 99)
_LEAST_CALLS = 20


def measure_latency(
    predictor: Callable[..., NDArray[np.float32]],
    contexts: NDArray[np.float32],
    *,
    rows: NDArray[np.int64] | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    n_warm: int = 10,
    n_calls: int = 200,
    max_seconds: float = 5.0,
) -> dict[str, Any]:
    """Time calls of a predictor.

    For each batch size the first calls are not counted; then up to `n_calls` calls are timed
    one by one, fewer where they would take longer than `max_seconds` in all, but at least 20.

    Args:
        predictor: contexts (B, W, C) to predictions (B, C).
        contexts: real contexts to draw batches from; repeated where there are too few.
        rows: their rows, for predictors that take them too.
        batch_sizes: B.
        n_warm: calls before the timing.
        n_calls: timed calls.
        max_seconds: time for one batch size.

    Returns:
        {"batches": [{"batch_size", "n_calls", "p50_ms", "p95_ms", "p99_ms", "windows_per_s"}],
        "machine"}.

    Raises:
        DataError: there is no context.
    """
    if not len(contexts):
        raise DataError("there is no context to time a prediction with")
    measured = []
    for batch_size in batch_sizes:
        batch = [
            np.ascontiguousarray(np.resize(one, (batch_size, *one.shape[1:])))
            for one in (contexts, rows)
            if one is not None
        ]
        for _ in range(n_warm):
            predictor(*batch)
        seconds = _time_calls(predictor, batch, n_calls, max_seconds)
        found = np.percentile(np.array(seconds) * 1000, PERCENTILES)
        measured.append(
            {
                "batch_size": batch_size,
                "n_calls": len(seconds),
                **{f"p{p}_ms": float(one) for p, one in zip(PERCENTILES, found, strict=True)},
                "windows_per_s": float(batch_size * len(seconds) / sum(seconds)),
            }
        )
    return {"batches": measured, "machine": platform.machine()}


def _time_calls(
    predictor: Callable[..., NDArray[np.float32]],
    batch: Sequence[NDArray[Any]],
    n_calls: int,
    max_seconds: float,
) -> list[float]:
    seconds: list[float] = []
    started = time.perf_counter()
    while len(seconds) < n_calls:
        before = time.perf_counter()
        predictor(*batch)
        after = time.perf_counter()
        seconds.append(after - before)
        if len(seconds) >= _LEAST_CALLS and after - started > max_seconds:
            break
    return seconds
