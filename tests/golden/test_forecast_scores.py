"""Scores of next-vector predictions against plain loops in float64."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphmert.domains.vectors import VectorData, write_vectors
from graphmert.domains.vectors.prepare import PrepareSettings, prepare
from graphmert.errors import DataError
from graphmert.evaluate import forecasts
from graphmert.evaluate.forecasts import (
    column,
    document_interval,
    evaluate_forecaster,
    score_predictor,
    summarise_scores,
)
from tiny_vectors import write_documents

SETTINGS = PrepareSettings(test_share=0.5, valid_share=0.1, length=3)


@pytest.fixture
def data(tmp_path: Path) -> VectorData:
    table = write_documents(tmp_path / "v", [9, 14, 3, 10, 11, 13, 8, 12, 6])
    # Repeated vectors: ties in retrieval.
    vectors = np.array(table.vectors)
    vectors[1::7] = vectors[0]
    table = write_vectors(tmp_path / "v", vectors, table.rows(), {"model": "tiny"})
    return prepare(table, tmp_path / "d", SETTINGS)


def predictor(contexts: np.ndarray) -> np.ndarray:
    """Look at order, and give no unit vectors."""
    return contexts[:, 0] + 2 * contexts[:, -1]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(float), b.astype(float)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def naive(data: VectorData) -> list[dict[str, Any]]:
    numbers, starts, ends = data.documents("test")
    every = [row for a, b in zip(starts, ends, strict=True) for row in range(a, b)]
    found = []
    for number, start, end in zip(numbers, starts, ends, strict=True):
        for first in range(start, end - 3):
            context = np.array(data.vectors[first : first + 3])
            guess = predictor(context[None])[0]
            target = data.vectors[first + 3]
            ranks = {}
            for name, rows in (("global", every), ("document", range(start, end))):
                pool = [row for row in rows if not first <= row < first + 3]
                true = cosine(guess, target)
                scores = [cosine(guess, data.vectors[row]) for row in pool if row != first + 3]
                above = sum(score > true + 1e-6 for score in scores)
                equal = sum(abs(score - true) <= 1e-6 for score in scores)
                ranks[name] = (1 + above + equal / 2, len(pool), equal)
            found.append(
                {
                    "doc_id": data.split["doc_id"][int(number)].as_py(),
                    "offset": first - start,
                    "cosine": cosine(guess, target),
                    "cosine_reversed": cosine(predictor(context[None, ::-1])[0], target),
                    "squared_error": float(((guess - target).astype(float) ** 2).mean()),
                    "ranks": ranks,
                }
            )
    return found


@pytest.mark.parametrize("block", [3, 256])
def test_samples(data: VectorData, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(forecasts, "_BLOCK", block)
    scores = score_predictor(predictor, data)
    expected = naive(data)
    rows = scores.samples.to_pylist()
    assert len(rows) == len(expected) == len(data.windows("test", length=3))
    for row, wanted in zip(rows, expected, strict=True):
        assert (row["doc_id"], row["offset"]) == (wanted["doc_id"], wanted["offset"])
        for name in ("cosine", "cosine_reversed", "squared_error"):
            assert row[name] == pytest.approx(wanted[name], abs=1e-5)
        for scope in ("global", "document"):
            assert row[f"rank_{scope}"] == wanted["ranks"][scope][0]
    assert any(one["ranks"]["global"][2] for one in expected)  # ties, which count half
    for scope in ("global", "document"):
        sizes = [one["ranks"][scope][1] for one in expected]
        assert scores.n_candidates[scope] == pytest.approx(np.mean(sizes))
        harmonic = [math.fsum(1 / k for k in range(1, n + 1)) / n for n in sizes]
        assert scores.chance[scope]["mrr"] == pytest.approx(np.mean(harmonic))
        for k in (1, 5, 10):
            share = np.mean([min(1.0, k / n) for n in sizes])
            assert scores.chance[scope][f"r@{k}"] == pytest.approx(share)


def test_random_ranks_give_chance(data: VectorData) -> None:
    """Random predictions reach what is stated as chance."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(60):
        scores = score_predictor(lambda x: rng.normal(size=(len(x), x.shape[2])), data)
        values.append((1 / column(scores.samples, "rank_global")).mean())
    spread = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - scores.chance["global"]["mrr"]) < 5 * spread + 0.01


def test_shuffled_contexts(data: VectorData) -> None:
    seen: list[np.ndarray] = []

    def spy(contexts: np.ndarray) -> np.ndarray:
        seen.append(contexts.copy())
        return contexts.mean(1)

    scores = score_predictor(spy, data, seed=3)
    for plain, shuffled, backwards in zip(seen[0::3], seen[1::3], seen[2::3], strict=True):
        assert np.array_equal(backwards, plain[:, ::-1])
        assert not np.array_equal(shuffled, plain)
        for a, b in zip(plain, shuffled, strict=True):
            assert sorted(map(tuple, a.tolist())) == sorted(map(tuple, b.tolist()))
    # A mean cannot see order.
    for name in ("cosine_shuffled", "cosine_reversed"):
        assert np.allclose(
            column(scores.samples, name), column(scores.samples, "cosine"), atol=1e-6
        )
    again = score_predictor(spy, data, seed=3)
    assert again.samples.equals(scores.samples)


def test_rows_come_with_their_vectors(data: VectorData) -> None:
    def by_row(contexts: np.ndarray, rows: np.ndarray) -> np.ndarray:
        assert rows.shape == contexts.shape[:2]
        assert np.array_equal(data.vectors[rows], contexts)
        return contexts[:, 0] + 2 * contexts[:, -1]

    with_rows = score_predictor(by_row, data, with_rows=True)
    assert with_rows.samples.equals(score_predictor(predictor, data).samples)


def test_summary(data: VectorData) -> None:
    scores = score_predictor(predictor, data)
    summary = summarise_scores(scores, fingerprint="f")
    values = column(scores.samples, "cosine")
    assert summary["cosine"]["value"] == pytest.approx(values.mean(), abs=1e-6)
    assert summary["cosine"]["low"] < summary["cosine"]["value"] < summary["cosine"]["high"]
    ranks = column(scores.samples, "rank_document")
    found = summary["retrieval"]["document"]
    assert found["r@5"]["value"] == pytest.approx((ranks <= 5).mean(), abs=1e-6)
    assert found["mrr"]["value"] == pytest.approx((1 / ranks).mean(), abs=1e-6)
    change = column(scores.samples, "cosine_reversed") - values
    assert summary["order"]["reversed"]["change"]["value"] == pytest.approx(change.mean(), abs=1e-6)
    assert summary["n_documents"] == len(set(scores.samples["doc_id"].to_pylist()))
    assert summary["n_windows"] == scores.samples.num_rows


def test_intervals_resample_documents() -> None:
    """All windows of a document alike: the interval is that of the documents' means."""
    docs = np.repeat(np.arange(6), 50)
    means = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    wide = document_interval(means[docs], docs)
    by_window = document_interval(means[docs], np.arange(300))
    assert wide.value == pytest.approx(0.35)
    assert wide.high - wide.low > 3 * (by_window.high - by_window.low)


def test_evaluation_is_written_and_repeats(data: VectorData, tmp_path: Path) -> None:
    facts = {"system": "x", "trained": False, "n_parameters": 0, "size": 10, "seed": None}
    found = evaluate_forecaster(predictor, data, tmp_path / "run", facts)
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["evaluation.json", "samples-test.parquet", "samples-valid.parquet"]
    assert found["parts"]["test"]["fingerprint"] == data.fingerprint("test")
    assert found["parts"]["valid"]["fingerprint"] == data.fingerprint("valid")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in names}
    evaluate_forecaster(predictor, data, tmp_path / "run", facts)
    assert {name: (tmp_path / "run" / name).read_bytes() for name in names} == before


def test_bad_predictions_are_refused(data: VectorData) -> None:
    with pytest.raises(DataError, match="another shape"):
        score_predictor(lambda x: x, data)
    with pytest.raises(DataError, match="not finite"):
        score_predictor(lambda x: np.full((len(x), x.shape[2]), np.nan), data)
