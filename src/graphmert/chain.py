"""Leafy chains: text (or vectors) as a chain of roots, seed triples as leaves. Integers only.

A chain stores its roots and the triples that live on it; empty leaf slots do not exist. The
1,024-slot layouts of the sources are views made by `to_dense` and read by `from_dense`.
Legend: R roots, F leaf slots per root, N live nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from graphmert.errors import FormatError

Layout = Literal["paper", "codebert"]
DistanceRule = Literal["shortest", "reference"]

ROOT, TAIL_LEAF, NAME_LEAF = 0, 1, 2


@dataclass(frozen=True, slots=True)
class LeafTriple:
    """One triple on a chain.

    Attributes:
        relation: relation index.
        head_start, head_end: half-open span of root indices of the head.
        tail: token ids of the tail; its leaves hang on root `head_start`.
        tail_entity, head_entity: rows of the entity table, -1 where unknown.
        mentions: half-open root spans where the tail itself is written.
        head_type, tail_type: entity types, -1 where unknown or hidden.
        shown: known here, so that every node of the chain may see its leaves under any visibility.
    """

    relation: int
    head_start: int
    head_end: int
    tail: tuple[int, ...]
    tail_entity: int = -1
    head_entity: int = -1
    mentions: tuple[tuple[int, int], ...] = ()
    head_type: int = -1
    tail_type: int = -1
    shown: bool = False


@dataclass(frozen=True, slots=True)
class LeafyChain:
    """Roots (token ids, or rows of a vector table) and the triples on them."""

    roots: tuple[int, ...]
    triples: tuple[LeafTriple, ...] = ()
    chain_id: str = ""

    def __post_init__(self) -> None:
        n_roots = len(self.roots)
        for index, triple in enumerate(self.triples):
            if not 0 <= triple.head_start < triple.head_end <= n_roots:
                raise FormatError(
                    "a triple's head span lies outside the chain",
                    where=f"chain {self.chain_id or '?'}, triple {index}",
                    got=f"[{triple.head_start}, {triple.head_end})",
                    expected=f"a non-empty span within [0, {n_roots})",
                )
            if not triple.tail:
                raise FormatError(
                    "a triple has no tail tokens",
                    where=f"chain {self.chain_id or '?'}, triple {index}",
                    expected="at least one token id",
                )

    @property
    def n_nodes(self) -> int:
        """Live nodes: roots and leaves."""
        return len(self.roots) + sum(len(triple.tail) for triple in self.triples)


def crop(chain: LeafyChain, max_roots: int) -> LeafyChain:
    """Shorten a chain to its first roots and its last one, with the triples whose heads remain.

    Args:
        max_roots: most roots of the result, at least 2; a shorter chain comes back unchanged.
    """
    if len(chain.roots) <= max_roots:
        return chain
    n_kept = max_roots - 1
    triples = tuple(
        replace(triple, mentions=tuple(span for span in triple.mentions if span[1] <= n_kept))
        for triple in chain.triples
        if triple.head_end <= n_kept
    )
    return LeafyChain((*chain.roots[:n_kept], chain.roots[-1]), triples, chain.chain_id)


@dataclass(frozen=True)
class Nodes:
    """The live nodes of one chain as columns, roots first, then leaves triple by triple.

    Attributes:
        token: int64 (N,), token id or vector row.
        kind: int64 (N,), ROOT, TAIL_LEAF or NAME_LEAF.
        root: int64 (N,), own index for a root, the head's first root for a leaf.
        triple: int64 (N,), index of the triple on the chain, -1 for roots.
        slot: int64 (N,), place in the tail (or in the relation name), 0 for roots.
    """

    token: np.ndarray
    kind: np.ndarray
    root: np.ndarray
    triple: np.ndarray
    slot: np.ndarray


def nodes(chain: LeafyChain) -> Nodes:
    """List the live nodes of a chain: R roots, then the tail tokens of each triple in order."""
    n_roots = len(chain.roots)
    lengths = np.array([len(triple.tail) for triple in chain.triples], dtype=np.int64)
    n_leaves = int(lengths.sum())
    index = np.repeat(np.arange(len(chain.triples)), lengths)
    starts = np.array([triple.head_start for triple in chain.triples], dtype=np.int64)
    tails = [token for triple in chain.triples for token in triple.tail]
    first = np.repeat(np.cumsum(lengths) - lengths, lengths) if n_leaves else np.zeros(0, np.int64)
    return Nodes(
        token=np.concatenate([np.array(chain.roots, np.int64), np.array(tails, np.int64)]),
        kind=np.concatenate([np.full(n_roots, ROOT), np.full(n_leaves, TAIL_LEAF)]),
        root=np.concatenate([np.arange(n_roots), starts[index]]).astype(np.int64),
        triple=np.concatenate([np.full(n_roots, -1), index]).astype(np.int64),
        slot=np.concatenate([np.zeros(n_roots, np.int64), np.arange(n_leaves) - first]),
    )


def distance_matrix(chain: LeafyChain, *, rule: DistanceRule = "shortest") -> np.ndarray:
    """Hops between all live nodes, in closed form.

    d(i, j) = |r_i - r_j| + [i is leaf] + [j is leaf]; leaves on one root: 1 within a triple
    (rule "reference": min(|k_i - k_j|, 2)), 2 across triples; d(i, i) = 0.

    Args:
        chain: R roots and L leaves.
        rule: "shortest" is the paper's graph, "reference" that of its published code.
    Returns:
        int64, shape (N, N) with N = R + L.
    Source: GraphMERT, leafy chain graph. Differs: several triples may share a root.
    Checked by: tests/golden/test_distance.py
    """
    node = nodes(chain)
    leaf = (node.kind != ROOT).astype(np.int64)
    distance_NN = np.abs(node.root[:, None] - node.root[None, :]) + leaf[:, None] + leaf[None, :]
    both = (leaf[:, None] & leaf[None, :]).astype(bool)
    same_triple = both & (node.triple[:, None] == node.triple[None, :])
    if rule == "shortest":
        distance_NN[same_triple] = 1
    else:
        gap = np.abs(node.slot[:, None] - node.slot[None, :])
        distance_NN[same_triple] = np.minimum(gap, 2)[same_triple]
    np.fill_diagonal(distance_NN, 0)
    return distance_NN


@dataclass(frozen=True)
class DenseChain:
    """The fixed-slot view of one chain: R roots with F leaf slots each.

    Attributes:
        layout: "paper" (one triple per root, its tail in the slots) or "codebert" (up to F
            triples per root, one leaf token each).
        token: int64 (R + R*F,), root r at r, leaf k of root r at R + F*r + k.
        relation: int64 (R, F), relation index or -1 for an empty slot.
        head_length: int64 (R, F), head tokens of the slot's triple, 0 for an empty slot.
        graph_structure: int64 (R, F), absolute position of the leaf, or -1.
        tail_entity, head_entity: int64 (R, F), rows of the entity table or -1.
        n_roots: live roots.
    """

    layout: Layout
    token: np.ndarray
    relation: np.ndarray
    head_length: np.ndarray
    graph_structure: np.ndarray
    tail_entity: np.ndarray
    head_entity: np.ndarray
    n_roots: int
    chain_id: str = ""


def to_dense(
    chain: LeafyChain,
    layout: Layout,
    *,
    pad_id: int,
    n_root_slots: int = 128,
    n_leaf_slots: int = 7,
) -> DenseChain:
    """Lay a chain out in fixed slots.

    Raises:
        FormatError: the chain does not fit; the message names the triple and the reason.
    Source: GraphMERT, leafy chain graph (layout "paper"); GraphMERT-CodeBERT ("codebert").
    Checked by: tests/property/test_chain.py
    """
    if len(chain.roots) > n_root_slots:
        raise _does_not_fit(chain, "roots", len(chain.roots), f"at most {n_root_slots} roots")
    token = np.full(n_root_slots * (1 + n_leaf_slots), pad_id, dtype=np.int64)
    token[: len(chain.roots)] = chain.roots
    empty = np.full((n_root_slots, n_leaf_slots), -1, dtype=np.int64)
    relation, structure = empty.copy(), empty.copy()
    tail_entity, head_entity = empty.copy(), empty.copy()
    head_length = np.zeros((n_root_slots, n_leaf_slots), dtype=np.int64)
    used = np.zeros(n_root_slots, dtype=np.int64)
    for index, triple in enumerate(chain.triples):
        root, size = triple.head_start, len(triple.tail)
        first = int(used[root])
        if layout == "paper" and first:
            raise _does_not_fit(
                chain, f"triple {index}", "a second triple", f"one triple on root {root}"
            )
        if layout == "codebert" and size != 1:
            raise _does_not_fit(chain, f"triple {index}", f"{size} tail tokens", "one leaf token")
        if first + size > n_leaf_slots:
            raise _does_not_fit(
                chain, f"triple {index}", first + size, f"at most {n_leaf_slots} leaves a root"
            )
        slots = slice(first, first + size)
        start = n_root_slots + n_leaf_slots * root + first
        token[start : start + size] = triple.tail
        relation[root, slots] = triple.relation
        head_length[root, slots] = triple.head_end - triple.head_start
        structure[root, slots] = np.arange(start, start + size)
        tail_entity[root, slots] = triple.tail_entity
        head_entity[root, slots] = triple.head_entity
        used[root] += size
    return DenseChain(
        layout, token, relation, head_length, structure, tail_entity, head_entity,
        len(chain.roots), chain.chain_id,
    )  # fmt: skip


def from_dense(dense: DenseChain) -> LeafyChain:
    """Read a dense layout back; triples come in order of (root, slot).

    Raises:
        FormatError: a slot holds a leaf without a relation, or a head runs past the roots.
    """
    n_root_slots, n_leaf_slots = dense.relation.shape
    leaves = dense.token[n_root_slots:].reshape(n_root_slots, n_leaf_slots)
    triples: list[LeafTriple] = []
    for root in range(n_root_slots):
        live = np.flatnonzero(dense.graph_structure[root] >= 0)
        groups: Sequence[np.ndarray]
        groups = (
            [live]
            if dense.layout == "paper" and len(live)
            else [live[i : i + 1] for i in range(len(live))]
        )
        for group in groups:
            slot = int(group[0])
            if dense.relation[root, slot] < 0:
                raise FormatError(
                    "a leaf has no relation",
                    where=f"chain {dense.chain_id or '?'}, root {root}, slot {slot}",
                    expected="a relation index",
                )
            triples.append(
                LeafTriple(
                    relation=int(dense.relation[root, slot]),
                    head_start=root,
                    head_end=root + int(dense.head_length[root, slot]),
                    tail=tuple(int(t) for t in leaves[root, group]),
                    tail_entity=int(dense.tail_entity[root, slot]),
                    head_entity=int(dense.head_entity[root, slot]),
                )
            )
    roots = tuple(int(t) for t in dense.token[: dense.n_roots])
    return LeafyChain(roots, tuple(triples), dense.chain_id)


def _does_not_fit(chain: LeafyChain, what: str, got: object, expected: str) -> FormatError:
    return FormatError(
        "the chain does not fit the dense layout",
        where=f"chain {chain.chain_id or '?'}, {what}",
        got=got,
        expected=expected,
        fix="use more slots, or keep the compact form",
    )
