"""Score next-vector predictions on one fixed set of windows.

A run or baseline folder gets three files::

    evaluation.json   {"format", "system", "trained", "n_parameters", "size", "seed",
                       "config_hash" (of the settings without the seed, or null),
                       "train_fingerprint" (of the training documents, or null), "data",
                       "parts": {"valid": PART, "test": PART}}
                      PART: {"fingerprint", "n_windows", "n_documents", "mse", "cosine": INTERVAL,
                       "retrieval": {"global"|"document": {"r@1", "r@5", "r@10", "mrr": INTERVAL,
                       "n_candidates", "chance": {"r@1", …, "mrr"}}},
                       "order": {"shuffled"|"reversed": {"cosine": INTERVAL, "change": INTERVAL}}}
    samples-test.parquet, samples-valid.parquet
                      doc_id, offset (of the window in its document), cosine, cosine_shuffled,
                      cosine_reversed, squared_error, rank_global, rank_document
    latency.json      milliseconds by batch size; may differ between identical runs

INTERVAL is {"value", "low", "high"}: the mean over windows and its 95 % percentile interval over
resampled documents. The cosine is that of prediction and target, per window.

Retrieval: the prediction ranks vectors by cosine; the true next vector should come first.
Candidates are all vectors of the part's documents (global) or of the window's own document,
without the context. Ties count half (realistic rank). Chance is what random ranks would give.

Shapes: M windows, B windows of a block, W vectors of a context, C channels, K candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graphmert import shards
from graphmert.domains.vectors.data import Part, VectorData, Windows
from graphmert.errors import DataError
from graphmert.evaluate.bootstrap import Interval, clustered_interval
from graphmert.progress import Progress, Silent

Predictor = Callable[..., NDArray[np.float32]]
"""Contexts (B, W, C) float32 to predictions (B, C); with rows (B, W) int64 where asked for."""

EVALUATION_FORMAT = "graphmert-vector-evaluation-1"
CUTOFFS = (1, 5, 10)
_BLOCK = 256
_TIE = 1e-6

SAMPLES_SCHEMA = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("offset", pa.int32(), nullable=False),
        pa.field("cosine", pa.float32(), nullable=False),
        pa.field("cosine_shuffled", pa.float32(), nullable=False),
        pa.field("cosine_reversed", pa.float32(), nullable=False),
        pa.field("squared_error", pa.float32(), nullable=False),
        pa.field("rank_global", pa.float32(), nullable=False),
        pa.field("rank_document", pa.float32(), nullable=False),
    ]
)


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of every window of a part, in the order of its documents.

    Attributes:
        samples: the table of samples-*.parquet.
        n_candidates: mean number of candidates, by scope.
        chance: R@k and MRR of random ranks, by scope.
    """

    samples: pa.Table
    n_candidates: Mapping[str, float]
    chance: Mapping[str, Mapping[str, float]]


def score_predictor(
    predictor: Predictor,
    data: VectorData,
    part: Part = "test",
    *,
    with_rows: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Scores:
    """Predict all windows of a part and score each.

    Memory is bounded by a block of windows times the vectors of the part.

    Args:
        predictor: any callable (B, W, C) → (B, C).
        data: the data set.
        part: which part; the windows have the data set's length.
        with_rows: call predictor(contexts, rows), rows of the vectors, for predictors that hang
            leaves on them.
        seed: of the shuffled contexts.
        progress: told how many windows are done.

    Raises:
        DataError: a prediction has another shape or is not finite.

    Checked by: tests/golden/test_forecast_scores.py
    """
    progress = progress or Silent()
    windows = data.windows(part)
    length = windows.length
    numbers, starts, ends = data.documents(part)
    candidates = _Candidates(data, starts, ends)
    doc_ids = data.split["doc_id"].to_pylist()
    orders = np.random.default_rng(seed).permuted(
        np.tile(np.arange(length), (len(windows), 1)), axis=1
    )
    parts: list[pa.Table] = []
    progress.begin(f"score {part}", total=len(windows), unit="windows")
    for document, first, last in _by_document(windows, numbers):
        doc_id = doc_ids[int(numbers[document])]
        for begin in range(first, last, _BLOCK):
            index = slice(begin, min(begin + _BLOCK, last))
            values = _score_block(predictor, windows, index, orders[index], with_rows)
            predicted = values.pop("predicted")
            places = windows.starts[index] - int(starts[document])
            ranks = candidates.ranks(predicted, document, places, length)
            values |= {"offset": places, "rank_global": ranks[0], "rank_document": ranks[1]}
            values["doc_id"] = [doc_id] * len(places)
            arrays = [pa.array(values[field.name], field.type) for field in SAMPLES_SCHEMA]
            parts.append(pa.Table.from_arrays(arrays, schema=SAMPLES_SCHEMA))
            progress.update(index.stop)
    progress.end()
    sizes = _pool_sizes(windows, numbers, ends - starts)
    return Scores(
        samples=pa.concat_tables(parts).combine_chunks(),
        n_candidates={scope: float(one.mean()) for scope, one in sizes.items()},
        chance={scope: chance_of_ranks(one) for scope, one in sizes.items()},
    )


def _pool_sizes(
    windows: Windows, numbers: NDArray[np.int64], n_rows: NDArray[np.int64]
) -> dict[str, NDArray[np.int64]]:
    """Return how many candidates each window has, by scope."""
    n_own = dict(zip(numbers.tolist(), n_rows.tolist(), strict=True))
    return {
        "global": np.full(len(windows), int(n_rows.sum())) - windows.length,
        "document": np.array([n_own[one] for one in windows.doc.tolist()]) - windows.length,
    }


def _score_block(
    predictor: Predictor,
    windows: Windows,
    index: slice,
    order_BW: NDArray[np.int64],
    with_rows: bool,
) -> dict[str, Any]:
    """Return predictions and what is compared with the target, for one block of windows."""
    contexts, targets = windows.contexts(index), windows.targets(index)
    rows_BW = windows.context_rows(index)
    in_order = np.tile(np.arange(windows.length), (len(contexts), 1))

    def predict(order: NDArray[np.int64]) -> NDArray[np.float32]:
        moved = np.take_along_axis(contexts, order[:, :, None], axis=1)
        if with_rows:
            return _checked(predictor(moved, np.take_along_axis(rows_BW, order, axis=1)), moved)
        return _checked(predictor(moved), moved)

    predicted = predict(in_order)
    return {
        "predicted": predicted,
        "cosine": _cosine(predicted, targets),
        "cosine_shuffled": _cosine(predict(order_BW), targets),
        "cosine_reversed": _cosine(predict(in_order[:, ::-1]), targets),
        "squared_error": np.square(predicted - targets).mean(1),
    }


def _by_document(windows: Windows, numbers: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Yield (place of the document in the part, first window, end) of documents with windows."""
    place = {int(number): index for index, number in enumerate(numbers)}
    docs = windows.doc
    firsts = np.flatnonzero(np.r_[True, docs[1:] != docs[:-1]])
    for first, last in zip(firsts, np.r_[firsts[1:], len(docs)], strict=True):
        yield place[int(docs[first])], int(first), int(last)


def _checked(predicted: Any, contexts: NDArray[np.float32]) -> NDArray[np.float32]:
    predicted = np.asarray(predicted, np.float32)
    expected = (contexts.shape[0], contexts.shape[2])
    if predicted.shape != expected:
        raise DataError(
            "prediction has another shape", got=predicted.shape, expected=f"(B, C) = {expected}"
        )
    if not np.isfinite(predicted).all():
        raise DataError("a prediction is not finite", got="NaN or infinity")
    return predicted


def _cosine(a_BC: NDArray[np.float32], b_BC: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(a_BC, axis=1) * np.linalg.norm(b_BC, axis=1)
    return (a_BC * b_BC).sum(1) / np.maximum(norms, 1e-12)


class _Candidates:
    """All vectors of a part at length one, documents one after another."""

    def __init__(
        self, data: VectorData, starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> None:
        lengths = ends - starts
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - lengths
        self.n_all = int(lengths.sum())
        self._unit_KC = np.empty((self.n_all, data.dim), np.float32)
        for place, start, end in zip(self._starts, starts, ends, strict=True):
            block = np.asarray(data.vectors[start:end])
            norms = np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)
            self._unit_KC[place : place + len(block)] = block / norms

    def ranks(
        self,
        predicted_BC: NDArray[np.float32],
        document: int,
        places: NDArray[np.int64],
        length: int,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the realistic rank of the true next vector, global and within the document.

        Args:
            predicted_BC: predictions for windows of one document.
            document: place of the document in the part.
            places: first row of each window in the document.
            length: vectors of a context, which are no candidates.
        """
        norms = np.maximum(np.linalg.norm(predicted_BC, axis=1, keepdims=True), 1e-12)
        scores_BK = (predicted_BC / norms) @ self._unit_KC.T
        start, end = int(self._starts[document]), int(self._ends[document])
        rows = np.arange(len(places))
        first = start + places
        true_B1 = scores_BK[rows, first + length][:, None]
        context_BW = scores_BK[rows[:, None], first[:, None] + np.arange(length)]
        ranks = []
        for part in (scores_BK, scores_BK[:, start:end]):
            above = (part > true_B1 + _TIE).sum(1) - (context_BW > true_B1 + _TIE).sum(1)
            near = (np.abs(part - true_B1) <= _TIE).sum(1)
            equal = near - 1 - (np.abs(context_BW - true_B1) <= _TIE).sum(1)
            ranks.append(1 + above + equal / 2)
        return ranks[0], ranks[1]


def chance_of_ranks(n_candidates: NDArray[np.int64]) -> dict[str, float]:
    """Return R@k and MRR of uniformly random ranks among n candidates, averaged over queries."""
    sizes, times = np.unique(n_candidates, return_counts=True)
    share = times / times.sum()
    found = {f"r@{k}": float((np.minimum(1.0, k / sizes) * share).sum()) for k in CUTOFFS}
    harmonic = [float((1 / np.arange(1, size + 1)).sum()) / size for size in sizes.tolist()]
    return found | {"mrr": float((np.array(harmonic) * share).sum())}


# --- summaries ------------------------------------------------------------------------------


def summarise_scores(
    scores: Scores, *, fingerprint: str, seed: int = 0, n_resamples: int = 1000
) -> dict[str, Any]:
    """Return a PART of evaluation.json: means with intervals over resampled documents."""
    samples = scores.samples
    docs = document_codes(samples)

    def interval(values: NDArray[Any]) -> dict[str, float]:
        return document_interval(values, docs, seed=seed, n_resamples=n_resamples).to_dict()

    cosine = column(samples, "cosine")
    retrieval: dict[str, Any] = {}
    for scope in ("global", "document"):
        ranks = column(samples, f"rank_{scope}")
        retrieval[scope] = {f"r@{k}": interval((ranks <= k).astype(np.float64)) for k in CUTOFFS}
        retrieval[scope] |= {
            "mrr": interval(1 / ranks),
            "n_candidates": round(scores.n_candidates[scope], 3),
            "chance": {name: round(one, 6) for name, one in scores.chance[scope].items()},
        }
    order = {}
    for name in ("shuffled", "reversed"):
        other = column(samples, f"cosine_{name}")
        order[name] = {"cosine": interval(other), "change": interval(other - cosine)}
    return {
        "fingerprint": fingerprint,
        "n_windows": samples.num_rows,
        "n_documents": int(docs.max()) + 1,
        "mse": round(float(column(samples, "squared_error").mean()), 8),
        "cosine": interval(cosine),
        "retrieval": retrieval,
        "order": order,
    }


def column(samples: pa.Table, name: str) -> NDArray[np.float64]:
    """Return a column of numbers in float64."""
    return np.asarray(samples[name].to_numpy(), np.float64)


def document_codes(samples: pa.Table) -> NDArray[np.int64]:
    """Return the number of each sample's document, counted by name."""
    return np.unique(np.asarray(samples["doc_id"].to_pylist()), return_inverse=True)[1]


def document_interval(
    values: NDArray[Any],
    docs: NDArray[np.integer],
    *,
    seed: int = 0,
    n_resamples: int = 1000,
) -> Interval:
    """Return the mean over windows and its interval over resampled documents."""
    return clustered_interval(
        values, docs, np.zeros(len(docs), np.int64), average="micro", seed=seed,
        n_resamples=n_resamples,
    )  # fmt: skip


def evaluate_forecaster(
    predictor: Predictor,
    data: VectorData,
    out: Path | str,
    facts: Mapping[str, Any],
    *,
    parts: Sequence[Part] = ("valid", "test"),
    with_rows: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a predictor on validation and test and write evaluation.json and the samples.

    Args:
        predictor: any callable (B, W, C) → (B, C).
        data: the data set.
        out: the folder of the run or baseline.
        facts: system, trained, n_parameters, size, seed, config_hash and train_fingerprint of
            the predictor; `vectors compare` needs them all.
        parts: what to score.
        with_rows: see `score_predictor`.
        seed: of shuffled contexts and resamples.
        progress: told how many windows are done.

    Returns:
        The content of evaluation.json.
    """
    out = Path(out)
    found: dict[str, Any] = {}
    for part in parts:
        scores = score_predictor(
            predictor, data, part, with_rows=with_rows, seed=seed, progress=progress
        )
        shards.write_table(out / f"samples-{part}.parquet", scores.samples)
        found[part] = summarise_scores(scores, fingerprint=data.fingerprint(part), seed=seed)
    evaluation = {
        **facts,
        "format": EVALUATION_FORMAT,
        "data": {"vectors_sha256": data.info["vectors"]["sha256"], "dim": data.dim,
                 "model": data.info["vectors"]["model"], "length": data.info["length"]},
        "parts": found,
    }  # fmt: skip
    shards.atomic_write_json(out / "evaluation.json", evaluation)
    return evaluation
