"""Watch a training: how long epochs take, and whether the outputs still differ."""

from __future__ import annotations

import time

import torch
from torch import nn

from graphmert.domains.vectors.data import Windows
from graphmert.errors import DataError


class EpochClock:
    """Seconds of each epoch, training and validation, without the writing of checkpoints."""

    def __init__(self) -> None:
        self._started: float | None = None
        self.seconds: list[float] = []

    def start_update(self, step: int, total: int) -> None:
        """Note the start of an epoch."""
        if self._started is None:
            self._started = time.perf_counter()

    def end_epoch(self) -> None:
        """Note the end of a validation."""
        if self._started is not None:
            self.seconds.append(time.perf_counter() - self._started)
            self._started = None


class CollapseError(DataError):
    """The outputs of a network collapsed to one vector: an answer about its settings."""


class CollapseAlarm:
    """Measure how far the outputs differ between inputs, and stop when they do not.

    ratio = sum_c var(output_c) / sum_c var(target_c) over fixed validation windows. A network that
    predicts one vector for all has ratio 0, however good its cosine looks.

    Args:
        windows: validation windows; at most `n_probes` of them, evenly spaced, are looked at.
        ratio: least ratio.
        after_step: no alarm before this update.
    """

    def __init__(
        self, windows: Windows, *, ratio: float, after_step: int = 0, n_probes: int = 512
    ) -> None:
        spread = torch.linspace(0, len(windows) - 1, min(n_probes, len(windows)))
        index = spread.round().long().unique().numpy()
        self._contexts = torch.from_numpy(windows.contexts(index))
        self._target_variance = _variance(torch.from_numpy(windows.targets(index)))
        self._ratio, self._after_step = ratio, after_step

    def __call__(self, model: nn.Module, step: int) -> dict[str, float]:
        """Return {"output_variance_ratio"}.

        Raises:
            CollapseError: the ratio is below the least one, or not a number.
        """
        device = next(model.parameters()).device
        with torch.no_grad():
            outputs = [model(part.to(device)).float().cpu() for part in self._contexts.split(128)]
        found = _variance(torch.cat(outputs)) / max(self._target_variance, 1e-12)
        if not found >= self._ratio and step > self._after_step:
            raise CollapseError(
                "the outputs collapsed to one vector",
                where=f"update {step}",
                got=f"variance of outputs / variance of targets = {found:.2e}",
                expected=f"at least {self._ratio:g}",
                fix="The last checkpoint is kept. Lengthen warmup or lower learning_rate, and "
                "train into a new folder; collapse_ratio = 0 turns this alarm off.",
            )
        return {"output_variance_ratio": found}


def _variance(x_BC: torch.Tensor) -> float:
    return float(x_BC.double().var(0, correction=0).sum())
