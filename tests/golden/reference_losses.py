"""The training objectives as loops over labels in float64.

Written from the equations alone; imports nothing from the package.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from golden.reference_decay import gelu_array

IGNORED = -100


def log_sum_exp(values: Sequence[float]) -> float:
    """ln of the sum of exponentials."""
    top = max(values)
    return top + math.log(math.fsum(math.exp(v - top) for v in values))


def cross_entropy_sum(
    logits_NV: np.ndarray, labels_N: Sequence[int], *, ignored: int = IGNORED
) -> tuple[float, int]:
    """Return (sum of -ln p(label), number of labels that count)."""
    total, count = 0.0, 0
    for row, label in zip(logits_NV, labels_N, strict=True):
        if label == ignored:
            continue
        total += log_sum_exp([float(v) for v in row]) - float(row[label])
        count += 1
    return total, count


def mean_cross_entropy(
    logits_NV: np.ndarray, labels_N: Sequence[int], *, ignored: int = IGNORED
) -> float:
    """Mean of -ln p(label) over the labels that count; 0 if none does."""
    total, count = cross_entropy_sum(logits_NV, labels_N, ignored=ignored)
    return total / count if count else 0.0


def layer_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, eps: float = 1e-5
) -> np.ndarray:
    """Normalise the last axis: (x - mean) / sqrt(variance + eps) * weight + bias."""
    out = np.zeros_like(x, dtype=np.float64)
    for index in np.ndindex(*x.shape[:-1]):
        row = x[index]
        mean = math.fsum(row) / len(row)
        variance = math.fsum((v - mean) ** 2 for v in row) / len(row)
        out[index] = (row - mean) / math.sqrt(variance + eps) * weight + bias
    return out


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """x W^T + b, weight stored as (out, in)."""
    out = x @ weight.T
    return out if bias is None else out + bias


def vocab_head(
    x_MD: np.ndarray,
    *,
    dense: tuple[np.ndarray, np.ndarray],
    norm: tuple[np.ndarray, np.ndarray],
    decoder: tuple[np.ndarray, np.ndarray],
    eps: float = 1e-5,
) -> np.ndarray:
    """Linear, GELU, LayerNorm, decoder."""
    return linear(layer_norm(gelu_array(linear(x_MD, *dense)), *norm, eps=eps), *decoder)


def span_boundary_logits(
    x_ND: np.ndarray,
    spans: Sequence[tuple[int, int]],
    *,
    positions_PD: np.ndarray,
    dense_0: tuple[np.ndarray, np.ndarray],
    norm_0: tuple[np.ndarray, np.ndarray],
    dense_1: tuple[np.ndarray, np.ndarray],
    norm_1: tuple[np.ndarray, np.ndarray],
    decoder: tuple[np.ndarray, np.ndarray],
    eps: float = 1e-5,
) -> np.ndarray:
    """Predict each token of each half-open span from its two outer neighbours and its place.

    Input [h_(start-1) | h_end | position of the token in the span]; Linear, GELU, LayerNorm,
    Linear, GELU, LayerNorm, decoder. Rows run over spans, then over their tokens.
    """
    rows = []
    for start, end in spans:
        for token in range(start, end):
            rows.append(np.concatenate([x_ND[start - 1], x_ND[end], positions_PD[token - start]]))
    y = np.array(rows)
    y = layer_norm(gelu_array(linear(y, *dense_0)), *norm_0, eps=eps)
    y = layer_norm(gelu_array(linear(y, *dense_1)), *norm_1, eps=eps)
    return linear(y, *decoder)


def relation_logits(
    x_ND: np.ndarray,
    slots: Sequence[tuple[Sequence[int], Sequence[int], int]],
    *,
    slot_vectors_SD: np.ndarray,
    weight_ED: np.ndarray,
    bias_E: np.ndarray,
) -> np.ndarray:
    """Linear(mean head state + mean leaf state + slot vector) per (heads, leaves, slot)."""
    out = np.zeros((len(slots), len(bias_E)))
    for i, (heads, leaves, slot) in enumerate(slots):
        state = np.array(slot_vectors_SD[slot], dtype=np.float64)
        for node in heads:
            state = state + x_ND[node] / len(heads)
        for node in leaves:
            state = state + x_ND[node] / len(leaves)
        out[i] = weight_ED @ state + bias_E
    return out


def unit(x: np.ndarray) -> np.ndarray:
    """Rows scaled to length one."""
    return np.array([row / math.sqrt(math.fsum(v * v for v in row)) for row in x])


def info_nce(
    queries_QD: np.ndarray,
    candidates_CD: np.ndarray,
    positive_Q: Sequence[int],
    *,
    temperature: float,
    false_negatives: Sequence[Sequence[int]] | None = None,
    normalise: bool = True,
) -> float:
    """Mean over queries of -ln softmax(cos / temperature)[positive].

    Candidates that are true for a query without being its positive stay out of its softmax.
    A query whose positive is IGNORED does not count.
    """
    if normalise:
        queries_QD, candidates_CD = unit(queries_QD), unit(candidates_CD)
    total, count = 0.0, 0
    for i, query in enumerate(queries_QD):
        positive = positive_Q[i]
        if positive == IGNORED:
            continue
        left_out = set(false_negatives[i]) if false_negatives is not None else set()
        left_out.discard(positive)
        scores = [
            float(query @ candidate) / temperature
            for c, candidate in enumerate(candidates_CD)
            if c not in left_out
        ]
        truth = float(query @ candidates_CD[positive]) / temperature
        total += log_sum_exp(scores) - truth
        count += 1
    return total / count if count else 0.0


def weighted_total(
    parts: Mapping[str, tuple[float, int]], weights: Mapping[str, float], *, mean: bool = True
) -> float:
    """Sum of weight times the mean (or the sum) of every objective; empty objectives add 0."""
    total = 0.0
    for name, (value, count) in parts.items():
        if count:
            total += weights[name] * (value / count if mean else value)
    return total
