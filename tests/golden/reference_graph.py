"""Relation bias, hop gates, depth and role of nodes, in float64 loops.

Written from the equations alone; imports nothing from the package. A triple is (relation,
head_start, head_end); a relation past the table is hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

Triples = Sequence[tuple[int, int, int]]
PLAIN, HEAD, RELATION, TAIL = range(4)


class Columns(Protocol):
    """Root index, triple (-1: a root) and whether a leaf is a word of its relation's name."""

    @property
    def root(self) -> Sequence[int]: ...
    @property
    def triple(self) -> Sequence[int]: ...
    @property
    def is_name(self) -> Sequence[bool]: ...


def pair_kind(columns: Columns, triples: Triples, leaf: int, other: int) -> int | None:
    """Return 0 inside the leaf's triple, 1 from the leaf to another root, None elsewhere."""
    t = columns.triple[leaf]
    if columns.triple[other] >= 0:
        return 0 if columns.triple[other] == t else None
    _, start, end = triples[t]
    return 0 if start <= columns.root[other] < end else 1


def relation_bias(columns: Columns, triples: Triples, bias_E2: np.ndarray) -> np.ndarray:
    """(N, N): b[relation of the leaf, kind of the pair], whichever end the leaf is."""
    n = len(columns.root)
    out = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            leaf, other = (i, j) if columns.triple[i] >= 0 else (j, i)
            if columns.triple[leaf] < 0:
                continue
            kind = pair_kind(columns, triples, leaf, other)
            relation = triples[columns.triple[leaf]][0]
            if kind is not None and relation < len(bias_E2):
                out[i, j] = bias_E2[relation, kind]
    return out


def hop_bias(distance_NN: np.ndarray, gate_AG: np.ndarray) -> np.ndarray:
    """(A, N, N): gate of the pair's hops; the last gate is for all that is farther."""
    n_heads, n_rings = gate_AG.shape
    n = len(distance_NN)
    out = np.zeros((n_heads, n, n))
    for a in range(n_heads):
        for i in range(n):
            for j in range(n):
                out[a, i, j] = gate_AG[a, min(int(distance_NN[i, j]), n_rings - 1)]
    return out


def depths(
    columns: Columns, triples: Triples, distance_NN: np.ndarray, *, isolated: bool, max_depth: int
) -> np.ndarray:
    """Hops to the nearest root that a triple hangs on, by the distances of the graph."""
    n = len(columns.root)
    anchors = {start for _, start, _ in triples}
    out = np.zeros(n, dtype=int)
    for i in range(n):
        if isolated and columns.triple[i] < 0:
            continue
        hops = [
            int(distance_NN[i, j])
            for j in range(n)
            if columns.triple[j] < 0 and columns.root[j] in anchors
        ]
        out[i] = min([*hops, max_depth])
    return out


def roles(columns: Columns, triples: Triples, *, isolated: bool) -> np.ndarray:
    """Plain root, head root, word of a relation's name, or tail."""
    out = np.zeros(len(columns.root), dtype=int)
    for i in range(len(out)):
        if columns.triple[i] >= 0:
            out[i] = RELATION if columns.is_name[i] else TAIL
        elif not isolated and any(s <= columns.root[i] < e for _, s, e in triples):
            out[i] = HEAD
    return out
