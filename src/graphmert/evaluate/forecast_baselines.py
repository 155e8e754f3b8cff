"""Baselines of next-vector prediction, fitted on training windows only.

A context is x_1 … x_W, the target y, all (C,). Blocks of windows are read one after another;
memory does not grow with their number.

    global mean     ŷ = mean of the training targets
    copy last       ŷ = x_W
    mean of context ŷ = (1/W) Σ x_i
    exponential     ŷ = Σ α^(W-i) x_i, α the best of a grid on the training windows
    lag regression  ŷ = Σ w_i x_i + w_0 m, m the global mean; least squares over all channels:
                    W + 1 numbers
    ridge           ŷ = A [x_1 ‖ … ‖ x_W] + b, least squares with λ; λ chosen on validation windows

Shapes: B windows of a block, W vectors of a context, C channels, D = W·C.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from graphmert import shards
from graphmert.errors import DataError, FormatError
from graphmert.progress import Progress, Silent

BASELINES_FORMAT = "graphmert-vector-baseline-1"
BASELINES = (
    "global mean",
    "copy last",
    "mean of context",
    "exponential",
    "lag regression",
    "ridge",
)
ALPHAS = tuple(round(0.05 * step, 2) for step in range(1, 21))
LAMBDAS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
_BLOCK = 1024


class WindowSource(Protocol):
    """Windows by number: contexts (B, W, C) and targets (B, C)."""

    def __len__(self) -> int:
        """Return how many windows there are."""
        ...

    def contexts(self, index: Any) -> NDArray[np.float32]:
        """Return context vectors."""
        ...

    def targets(self, index: Any) -> NDArray[np.float32]:
        """Return target vectors."""
        ...


@dataclass(frozen=True, eq=False)
class ForecastBaseline:
    """A fitted baseline: ŷ = Σ weights_i x_i + offset, or ŷ = matrix [x_1 ‖ …] + offset.

    Attributes:
        name: one of `BASELINES`.
        weights: (W,) float32, one number for each vector of the context; None for ridge.
        matrix: (C, D) float32 of ridge; None for the others.
        offset: (C,) float32.
        facts: what was chosen, such as alpha or lambda.
    """

    name: str
    weights: NDArray[np.float32] | None
    matrix: NDArray[np.float32] | None
    offset: NDArray[np.float32]
    facts: dict[str, float]

    @property
    def dim(self) -> int:
        """Channels of the vectors."""
        return self.offset.size

    @property
    def length(self) -> int:
        """Vectors of a context."""
        if self.matrix is not None:
            return self.matrix.shape[1] // self.dim
        assert self.weights is not None
        return self.weights.size

    @property
    def n_parameters(self) -> int:
        """Numbers that were fitted to data."""
        if self.matrix is not None:
            return self.matrix.size + self.offset.size
        fitted = {"global mean": self.offset.size, "exponential": 1}
        if self.name == "lag regression":
            assert self.weights is not None
            return self.weights.size + 1
        return fitted.get(self.name, 0)

    def __call__(self, contexts_BWC: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the predicted vectors, float32 (B, C)."""
        if self.matrix is not None:
            flat_BD = contexts_BWC.reshape(len(contexts_BWC), -1)
            return flat_BD @ self.matrix.T + self.offset
        assert self.weights is not None
        return np.einsum("bwc,w->bc", contexts_BWC, self.weights) + self.offset

    def save(self, folder: Path | str) -> None:
        """Write baseline.safetensors and baseline.json."""
        folder = Path(folder)
        tensors = {"offset": self.offset}
        if self.weights is not None:
            tensors["weights"] = self.weights
        if self.matrix is not None:
            tensors["matrix"] = np.ascontiguousarray(self.matrix)
        with shards.atomic_path(folder / "baseline.safetensors") as temporary:
            save_file(tensors, temporary)
        record = {"format": BASELINES_FORMAT, "name": self.name, "facts": self.facts}
        shards.atomic_write_json(folder / "baseline.json", record)

    @classmethod
    def load(cls, folder: Path | str) -> ForecastBaseline:
        """Read what `save` wrote.

        Raises:
            FormatError: a file is missing or damaged.
        """
        folder = Path(folder)
        try:
            record = json.loads((folder / "baseline.json").read_text(encoding="utf-8"))
            tensors = load_file(folder / "baseline.safetensors")
            if record["format"] != BASELINES_FORMAT:
                raise FormatError(
                    "a baseline of another format", where=str(folder), got=record["format"]
                )
            return cls(
                record["name"],
                tensors.get("weights"),
                tensors.get("matrix"),
                tensors["offset"],
                record["facts"],
            )
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise FormatError("not a baseline", where=str(folder), got=error) from error


def fit_baselines(
    train: WindowSource,
    valid: WindowSource,
    *,
    names: Sequence[str] = BASELINES,
    progress: Progress | None = None,
) -> dict[str, ForecastBaseline]:
    """Fit baselines on training windows; the validation windows choose the λ of ridge alone.

    Raises:
        DataError: there is no window.

    Checked by: tests/golden/test_forecast_baselines.py
    """
    if not len(train) or not len(valid):
        raise DataError("there is no window to fit baselines on")
    progress = progress or Silent()
    first = train.contexts(slice(0, 1))
    length, dim = first.shape[1:]
    zero = np.zeros(dim, np.float32)
    last = np.zeros(length, np.float32)
    last[-1] = 1
    even = np.full(length, 1 / length, np.float32)
    moments = _Moments(length, dim, with_matrix="ridge" in names)
    progress.begin("fit baselines", total=len(train), unit="windows")
    for start, contexts, targets in _blocks(train):
        moments.add(contexts, targets)
        progress.update(start + len(targets))
    progress.end()
    mean = moments.mean_target.astype(np.float32)
    found: dict[str, ForecastBaseline] = {}
    for name in names:
        if name == "global mean":
            found[name] = ForecastBaseline(name, np.zeros_like(last), None, mean, {})
        elif name == "copy last":
            found[name] = ForecastBaseline(name, last, None, zero, {})
        elif name == "mean of context":
            found[name] = ForecastBaseline(name, even, None, zero, {})
        elif name == "exponential":
            found[name] = _exponential(moments, zero)
        elif name == "lag regression":
            found[name] = _lag_regression(moments, mean)
        elif name == "ridge":
            found[name] = _ridge(moments, valid, progress)
        else:
            raise DataError("no such baseline", got=name, expected=", ".join(BASELINES))
    return found


def _blocks(
    windows: WindowSource,
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.float32]]]:
    for start in range(0, len(windows), _BLOCK):
        index = slice(start, min(start + _BLOCK, len(windows)))
        yield start, windows.contexts(index), windows.targets(index)


class _Moments:
    """Sums over training windows from which all baselines follow."""

    def __init__(self, length: int, dim: int, *, with_matrix: bool) -> None:
        self.length, self.dim = length, dim
        self.n_windows = 0
        self.sum_x = np.zeros(length * dim)
        self.sum_y = np.zeros(dim)
        self.gram_WW = np.zeros((length, length))
        self.cross_W = np.zeros(length)
        self.cosines_A = np.zeros(len(ALPHAS))
        size = length * dim if with_matrix else 0
        self.gram_DD = np.zeros((size, size))
        self.cross_DC = np.zeros((size, dim))

    @property
    def mean_target(self) -> NDArray[np.float64]:
        """Mean of the targets, (C,)."""
        return self.sum_y / self.n_windows

    def add(self, contexts_BWC: NDArray[np.float32], targets_BC: NDArray[np.float32]) -> None:
        """Add a block of windows."""
        self.n_windows += len(targets_BC)
        flat_BD = contexts_BWC.reshape(len(contexts_BWC), -1)
        self.sum_x += flat_BD.sum(0, dtype=np.float64)
        self.sum_y += targets_BC.sum(0, dtype=np.float64)
        gram_BWW = contexts_BWC @ contexts_BWC.transpose(0, 2, 1)
        cross_BW = np.einsum("bwc,bc->bw", contexts_BWC, targets_BC)
        self.gram_WW += gram_BWW.sum(0, dtype=np.float64)
        self.cross_W += cross_BW.sum(0, dtype=np.float64)
        self.cosines_A += _cosines_of_alphas(gram_BWW, cross_BW, targets_BC)
        if len(self.gram_DD):
            self.gram_DD += flat_BD.T @ flat_BD
            self.cross_DC += flat_BD.T @ targets_BC


def _decay(alpha: float, length: int) -> NDArray[np.float64]:
    return alpha ** np.arange(length - 1, -1, -1, dtype=np.float64)


def _cosines_of_alphas(
    gram_BWW: NDArray[np.float32], cross_BW: NDArray[np.float32], targets_BC: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the sum over windows of cos(Σ α^(W-i) x_i, y) for each α of the grid."""
    weights_AW = np.stack([_decay(alpha, gram_BWW.shape[1]) for alpha in ALPHAS])
    dots_AB = weights_AW @ cross_BW.T.astype(np.float64)
    squares_AB = np.einsum("aw,bwv,av->ab", weights_AW, gram_BWW, weights_AW, optimize=True)
    norms_B = np.linalg.norm(targets_BC, axis=1)
    scale_AB = np.sqrt(np.maximum(squares_AB, 1e-12)) * np.maximum(norms_B, 1e-12)
    return (dots_AB / scale_AB).sum(1)


def _exponential(moments: _Moments, zero: NDArray[np.float32]) -> ForecastBaseline:
    alpha = ALPHAS[int(np.argmax(moments.cosines_A))]
    weights = _decay(alpha, moments.length)
    weights /= weights.sum()
    return ForecastBaseline("exponential", weights.astype(np.float32), None, zero, {"alpha": alpha})


def _lag_regression(moments: _Moments, mean: NDArray[np.float32]) -> ForecastBaseline:
    """Solve the normal equations of W + 1 numbers; the last regressor is the mean for all."""
    n, length = moments.n_windows, moments.length
    wide = mean.astype(np.float64)
    sums_WC = moments.sum_x.reshape(length, moments.dim)
    gram = np.zeros((length + 1, length + 1))
    gram[:length, :length] = moments.gram_WW
    gram[:length, length] = gram[length, :length] = sums_WC @ wide
    gram[length, length] = n * (wide @ wide)
    right = np.append(moments.cross_W, moments.sum_y @ wide)
    solution = np.linalg.lstsq(gram, right, rcond=None)[0]
    facts = {f"lag {length - index}": float(one) for index, one in enumerate(solution[:length])}
    return ForecastBaseline(
        "lag regression",
        solution[:length].astype(np.float32),
        None,
        (solution[length] * wide).astype(np.float32),
        facts | {"mean": float(solution[length])},
    )


def _ridge(moments: _Moments, valid: WindowSource, progress: Progress) -> ForecastBaseline:
    """Solve (XᵀX + λ t I) A = XᵀY on centred data, t the mean of the diagonal of XᵀX."""
    n = moments.n_windows
    mean_D, mean_C = moments.sum_x / n, moments.mean_target
    gram_DD = moments.gram_DD - n * np.outer(mean_D, mean_D)
    cross_DC = moments.cross_DC - n * np.outer(mean_D, mean_C)
    scale = float(np.trace(gram_DD)) / len(gram_DD)
    best: ForecastBaseline | None = None
    best_cosine = -np.inf
    progress.begin("ridge", total=len(LAMBDAS), unit="penalties")
    for done, penalty in enumerate(LAMBDAS, start=1):
        penalised = gram_DD.copy()
        penalised[np.diag_indices_from(penalised)] += penalty * max(scale, 1e-12)
        solution_DC = np.linalg.solve(penalised, cross_DC)
        offset = (mean_C - mean_D @ solution_DC).astype(np.float32)
        matrix = np.ascontiguousarray(solution_DC.T, np.float32)
        one = ForecastBaseline("ridge", None, matrix, offset, {"lambda": penalty})
        cosine = _mean_cosine(one, valid)
        if cosine > best_cosine:
            best, best_cosine = one, cosine
        progress.update(done)
    progress.end()
    assert best is not None
    best.facts["valid cosine"] = round(best_cosine, 6)
    return best


def _mean_cosine(baseline: ForecastBaseline, windows: WindowSource) -> float:
    total = 0.0
    for _, contexts, targets in _blocks(windows):
        predicted = baseline(contexts)
        norms = np.linalg.norm(predicted, axis=1) * np.linalg.norm(targets, axis=1)
        total += float(((predicted * targets).sum(1) / np.maximum(norms, 1e-12)).sum())
    return total / len(windows)
