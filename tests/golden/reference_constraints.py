"""The regularisers as loops over triples in float64.

Written from the equations alone; imports nothing from the package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from golden.reference_losses import log_sum_exp


def unit(x: np.ndarray) -> np.ndarray:
    """A vector at length one."""
    return x / math.sqrt(math.fsum(float(v) ** 2 for v in x))


def score(
    head: np.ndarray, relation: int, tail: np.ndarray, a: np.ndarray, b: np.ndarray, d: np.ndarray
) -> float:
    """cos(d_r * (A h), B t)."""
    return float(np.dot(unit((a @ head) * d[relation]), unit(b @ tail)))


def type_sum(logits: np.ndarray, allowed: np.ndarray) -> float:
    """Sum of -ln of the probability of the allowed types."""
    total = 0.0
    for row, fits in zip(logits, allowed, strict=True):
        inside = [float(v) for v, ok in zip(row, fits, strict=True) if ok]
        total += log_sum_exp([float(v) for v in row]) - log_sum_exp(inside)
    return total


def antisymmetry_sum(forward: Sequence[float], backward: Sequence[float], margin: float) -> float:
    """Sum of max(0, margin + s(t, h) - s(h, t))."""
    return sum(max(0.0, margin + b - f) for f, b in zip(forward, backward, strict=True))


def acyclicity_sum(
    potentials: Sequence[float], edges: Sequence[tuple[int, int]], step: float
) -> float:
    """Sum of max(0, step - (phi(t) - phi(h))) over edges (h, t)."""
    return sum(max(0.0, step - (potentials[t] - potentials[h])) for h, t in edges)


def inheritance_sum(member: Sequence[float], inherited: Sequence[float]) -> float:
    """Sum of max(0, s(parent, m) - s(heir, m))."""
    return sum(max(0.0, m - i) for m, i in zip(member, inherited, strict=True))


def contrastive_sum(logits: np.ndarray, positive: Sequence[int], excluded: np.ndarray) -> float:
    """Sum of -ln softmax over the entities that are not excluded."""
    total = 0.0
    for row, true, out in zip(logits, positive, excluded, strict=True):
        kept = [float(v) for v, gone in zip(row, out, strict=True) if not gone]
        total += log_sum_exp(kept) - float(row[true])
    return total
