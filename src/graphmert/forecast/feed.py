"""Windows as micro-batches of training, a pure function of (seed, step)."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from graphmert.errors import DataError
from graphmert.forecast.forecaster import WindowBatch
from graphmert.recipe import bucket_schedule


class WindowSource(Protocol):
    """Windows by number."""

    def __len__(self) -> int:
        """Return how many windows there are."""
        ...

    def contexts(self, index: Any) -> NDArray[np.float32]:
        """Return context vectors, (B, W, C)."""
        ...

    def targets(self, index: Any) -> NDArray[np.float32]:
        """Return target vectors, (B, C)."""
        ...


class WindowFeed:
    """Micro-batches of windows for `graphmert.train.train`.

    Every process sees the same plan: an update is drawn for all of them and then dealt out.

    Args:
        windows: training or validation windows.
        batch_size: windows of an update, over all processes.
        n_processes: an update is cut into a multiple of so many micro-batches.
        seed: of the order.
    """

    def __init__(
        self, windows: WindowSource, *, batch_size: int, n_processes: int = 1, seed: int
    ) -> None:
        if not len(windows):
            raise DataError(
                "there is no window",
                expected="documents longer than a context",
                fix="Prepare a data set with longer documents or shorter contexts.",
            )
        self.windows = windows
        self._schedule = bucket_schedule(
            np.ones(len(windows), np.int64),
            batch_size=batch_size,
            micro_batch_size=-(-batch_size // n_processes),
            multiple_of=n_processes,
            window=1,
            seed=seed,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Updates that see every window once."""
        return self._schedule.steps_per_epoch

    def batch(self, step: int) -> list[WindowBatch]:
        """Return the micro-batches of an update."""
        return [self.take(rows) for rows in self._schedule[step]]

    def take(self, index: NDArray[np.int64]) -> WindowBatch:
        """Return some windows as a batch.

        Raises:
            DataError: a vector holds NaN or an infinity; the message names the window.
        """
        contexts, targets = self.windows.contexts(index), self.windows.targets(index)
        finite = np.isfinite(contexts).all((1, 2)) & np.isfinite(targets).all(1)
        if not finite.all():
            raise DataError(
                "a vector is not finite",
                where=f"window {int(index[np.flatnonzero(~finite)[0]])}",
                expected="numbers",
                fix="`graphmert vectors prepare` finds such rows; embed them again.",
            )
        return WindowBatch(torch.from_numpy(contexts), torch.from_numpy(targets))
