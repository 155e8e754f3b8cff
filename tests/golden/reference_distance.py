"""Shortest paths of a leafy chain graph: explicit edges, breadth-first search.

Nodes: roots 0 .. n_roots - 1, then the leaves of triple 0, of triple 1, and so on.
Written from the equations alone; imports nothing from the package.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

Triple = tuple[int, int]  # (head_start root, number of leaves)


def node_table(n_roots: int, triples: Sequence[Triple]) -> list[tuple[int, int, int]]:
    """List (root, triple or -1, slot in its triple or -1) for every node."""
    table = [(root, -1, -1) for root in range(n_roots)]
    for t, (root, n_leaves) in enumerate(triples):
        for k in range(n_leaves):
            table.append((root, t, k))
    return table


def build_edges(n_roots: int, triples: Sequence[Triple], *, rule: str) -> list[set[int]]:
    """Build the adjacency sets edge by edge.

    rule "shortest": the leaves of one triple are fully connected (the paper).
    rule "reference": only consecutive leaves of a triple are connected.
    """
    if rule not in ("shortest", "reference"):
        raise ValueError(rule)
    table = node_table(n_roots, triples)
    neighbours: list[set[int]] = [set() for _ in table]

    def connect(i: int, j: int) -> None:
        neighbours[i].add(j)
        neighbours[j].add(i)

    for root in range(n_roots - 1):
        connect(root, root + 1)
    for i, (root_i, triple_i, slot_i) in enumerate(table):
        if triple_i < 0:
            continue
        connect(i, root_i)
        for j, (_, triple_j, slot_j) in enumerate(table):
            if triple_j != triple_i or j == i:
                continue
            if rule == "shortest" or abs(slot_i - slot_j) == 1:
                connect(i, j)
    return neighbours


def bfs(neighbours: Sequence[set[int]], start: int) -> list[int]:
    """Return the number of hops from `start` to every node (-1: unreachable)."""
    hops = [-1] * len(neighbours)
    hops[start] = 0
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for other in neighbours[node]:
            if hops[other] < 0:
                hops[other] = hops[node] + 1
                queue.append(other)
    return hops


def distance_by_search(
    n_roots: int, triples: Sequence[Triple], *, rule: str = "shortest"
) -> np.ndarray:
    """Return the (N, N) matrix of shortest paths, found by search."""
    neighbours = build_edges(n_roots, triples, rule=rule)
    return np.array([bfs(neighbours, i) for i in range(len(neighbours))], dtype=np.int64)


def distance_closed_form(
    n_roots: int, triples: Sequence[Triple], *, rule: str = "shortest"
) -> np.ndarray:
    """Return the same matrix by |r_i - r_j| + [i is leaf] + [j is leaf] and its exceptions."""
    table = node_table(n_roots, triples)
    out = np.zeros((len(table), len(table)), dtype=np.int64)
    for i, (root_i, triple_i, slot_i) in enumerate(table):
        for j, (root_j, triple_j, slot_j) in enumerate(table):
            if i == j:
                continue
            if triple_i >= 0 and triple_i == triple_j:
                out[i, j] = 1 if rule == "shortest" else min(abs(slot_i - slot_j), 2)
            else:
                out[i, j] = abs(root_i - root_j) + int(triple_i >= 0) + int(triple_j >= 0)
    return out
