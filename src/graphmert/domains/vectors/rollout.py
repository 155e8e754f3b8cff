"""Predict the next vectors of a context and say what they may mean.

A decoder turns a vector into text. `NearestTexts` looks the text up; a decoder that writes new
text, such as Vec2Text for vectors of GTR-T5, fits the same protocol::

    class Vec2TextDecoder:
        def __init__(self):
            import vec2text
            self.corrector = vec2text.load_pretrained_corrector("gtr-base")

        def decode(self, vectors):
            import torch, vec2text
            texts = vec2text.invert_embeddings(torch.from_numpy(vectors), self.corrector)
            return [[DecodedText(text)] for text in texts]

Shapes: B vectors, W vectors of a context, C channels, N vectors of the table, S steps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graphmert.domains.vectors.data import VectorTable
from graphmert.errors import ConfigError, DataError

_BLOCK = 16_384


@dataclass(frozen=True)
class DecodedText:
    """One text for a vector.

    Attributes:
        text: the text.
        score: cosine of its vector with the decoded one; None where the decoder knows none.
        row: its row in the table it was looked up in, or None.
        doc_id: its document, or "".
    """

    text: str
    score: float | None = None
    row: int | None = None
    doc_id: str = ""


class VectorDecoder(Protocol):
    """Turn vectors into texts."""

    def decode(self, vectors: NDArray[np.float32]) -> list[list[DecodedText]]:
        """Return the texts of each vector of (B, C), the best first."""
        ...


class NearestTexts:
    """Decode a vector as the texts of the nearest vectors of a table.

    Args:
        table: the vectors with their texts.
        k: how many texts for each vector.
        exclude: rows that are not offered, such as those of the context.
    """

    def __init__(self, table: VectorTable, *, k: int = 5, exclude: Collection[int] = ()) -> None:
        self._table, self._k = table, k
        self._exclude = np.array(sorted(exclude), np.int64)

    def decode(self, vectors: NDArray[np.float32]) -> list[list[DecodedText]]:
        """Return the k nearest texts of each vector, by cosine; equal ones by row."""
        if vectors.ndim != 2 or vectors.shape[1] != self._table.dim:
            raise DataError(
                "vectors of another dimension than the table",
                where=str(self._table.path),
                got=vectors.shape,
                expected=f"(B, {self._table.dim})",
            )
        scores_BN = np.concatenate(
            [
                _unit(vectors) @ _unit(np.asarray(self._table.vectors[start : start + _BLOCK])).T
                for start in range(0, self._table.n_vectors, _BLOCK)
            ],
            axis=1,
        )
        scores_BN[:, self._exclude] = -2
        best_BK = np.argsort(-scores_BN, axis=1, kind="stable")[:, : self._k]
        rows = self._table.rows(["doc_id", "text"]).take(pa.array(best_BK.ravel()))
        texts = rows["text"].to_pylist()
        doc_ids = rows["doc_id"].to_pylist()
        found = [
            DecodedText(texts[place], float(scores_BN[index, row]), int(row), doc_ids[place])
            for place, (index, row) in enumerate(
                (index, row) for index, best in enumerate(best_BK) for row in best
            )
        ]
        width = best_BK.shape[1]
        return [found[start : start + width] for start in range(0, len(found), width)]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def roll_out(
    predictor: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    context_WC: NDArray[np.float32],
    *,
    n_steps: int = 1,
    normalise: bool = True,
) -> NDArray[np.float32]:
    """Predict several vectors, each from the last W of what is known or predicted so far.

    Args:
        predictor: contexts (B, W, C) to predictions (B, C).
        context_WC: the context.
        n_steps: how many vectors to predict.
        normalise: bring each prediction to the mean length of the context's vectors, because a
            regression predicts shorter vectors than it was shown.

    Returns:
        float32 (S, C).
    """
    if n_steps < 1:
        raise ConfigError("nothing to predict", where="n_steps", got=n_steps, expected="1 or more")
    known = np.asarray(context_WC, np.float32)
    length = float(np.linalg.norm(known, axis=1).mean())
    width = len(known)
    for _ in range(n_steps):
        predicted = np.asarray(predictor(known[-width:][None]), np.float32)[0]
        if normalise:
            predicted = predicted * (length / max(float(np.linalg.norm(predicted)), 1e-12))
        known = np.concatenate([known, predicted[None]])
    return known[width:]
