"""Known triples as integers, read from both ends.

A relation r < R is the graph's own; R + r says the same from tail to head, so that asking for a
head is asking for a tail. Legend: N entities, E = 2R directed relations, T directed triples,
C candidates, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from graphmert.errors import DataError


def turned(triples_X3: np.ndarray, n_relations: int) -> np.ndarray:
    """Return triples read from the other end, int64 (X, 3): (t, R + r, h), and back again."""
    head, relation, tail = triples_X3.T
    other = (relation + n_relations) % (2 * n_relations)
    return np.stack([tail, other, head], axis=1)


def mirrored(triples_X3: np.ndarray, inverse_E: np.ndarray) -> np.ndarray:
    """Return what says the same in the graph's own relations: (t, inverse of r, h).

    Args:
        inverse_E: int64 (R,), the inverse of each relation; itself where none is declared.
    """
    head, relation, tail = triples_X3.T
    return np.stack([tail, inverse_E[relation], head], axis=1)


@dataclass(frozen=True)
class KnownGraph:
    """Directed triples, sorted by head, relation and tail.

    Attributes:
        n_entities, n_relations: N and R.
        head_T, relation_T, tail_T: int64; every triple stands twice, once from each end.
        first_N: int64 (N + 1,), entity e heads the triples first[e] to first[e + 1].
        partner_T: int64, where the same triple stands from the other end.
    """

    n_entities: int
    n_relations: int
    head_T: np.ndarray
    relation_T: np.ndarray
    tail_T: np.ndarray
    first_N: np.ndarray
    partner_T: np.ndarray

    @classmethod
    def build(cls, triples_X3: np.ndarray, *, n_entities: int, n_relations: int) -> KnownGraph:
        """Build from triples (head, relation, tail); repeated ones count once.

        Raises:
            DataError: an index out of range.
        """
        rows = np.asarray(triples_X3, dtype=np.int64).reshape(-1, 3)
        limits = np.array([n_entities, n_relations, n_entities])
        if len(rows) and (rows.min() < 0 or (rows >= limits).any()):
            raise DataError(
                "a triple names an entity or relation that is not there",
                got=rows[((rows < 0) | (rows >= limits)).any(axis=1)][0].tolist(),
                expected=f"below {limits.tolist()}",
            )
        both = np.unique(np.concatenate([rows, turned(rows, n_relations)]), axis=0)
        back = turned(both, n_relations)
        order = np.lexsort(back.T[::-1])
        partner = np.empty(len(both), dtype=np.int64)
        partner[order] = np.arange(len(both))
        head, relation, tail = (np.ascontiguousarray(column) for column in both.T)
        first = np.searchsorted(head, np.arange(n_entities + 1))
        return cls(n_entities, n_relations, head, relation, tail, first, partner)

    def __len__(self) -> int:
        return len(self.head_T)

    @property
    def n_directed(self) -> int:
        """E, the relations read from both ends."""
        return 2 * self.n_relations

    @cached_property
    def counts(self) -> np.ndarray:
        """Triples of every entity by relation, int32 (N, E)."""
        counts = np.zeros((self.n_entities, self.n_directed), dtype=np.int32)
        np.add.at(counts, (self.head_T, self.relation_T), 1)
        return counts

    @cached_property
    def _triple_keys(self) -> np.ndarray:
        return self._keys(np.stack([self.head_T, self.relation_T, self.tail_T], axis=1))

    def _keys(self, triples_X3: np.ndarray) -> np.ndarray:
        head, relation, tail = triples_X3.T
        return (head * self.n_directed + relation) * self.n_entities + tail

    def find(self, triples_X3: np.ndarray) -> np.ndarray:
        """Return where directed triples stand, int64 (X,), -1 for those that are not known."""
        wanted = self._keys(np.asarray(triples_X3, dtype=np.int64).reshape(-1, 3))
        place = np.searchsorted(self._triple_keys, wanted).clip(max=max(0, len(self) - 1))
        found = self._triple_keys[place] == wanted if len(self) else np.zeros(len(wanted), bool)
        return np.where(found, place, -1)

    def of(self, entity: int) -> np.ndarray:
        """Return the places of the triples an entity heads."""
        return np.arange(self.first_N[entity], self.first_N[entity + 1])

    def around(self, entities: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the places of the triples that some entities head, in their order."""
        return np.concatenate([np.zeros(0, np.int64), *(self.of(int(one)) for one in entities)])

    def tails(self, head: int, relation: int) -> np.ndarray:
        """Return the known tails of a head and a directed relation, sorted."""
        own = self.of(head)
        return self.tail_T[own[self.relation_T[own] == relation]]


def n_features(n_directed: int) -> int:
    """F: one flag, then presence and count of every directed relation."""
    return 1 + 2 * n_directed


def features(count_CE: np.ndarray, is_shown_C: np.ndarray) -> np.ndarray:
    """What a graph says of entities, float32 (C, F): [shown, count > 0, log(1 + count) / 4].

    Args:
        count_CE: known triples by directed relation.
        is_shown_C: bool; where False nothing is told, and the row is zero.
    """
    parts = [np.ones((len(count_CE), 1)), count_CE > 0, np.log1p(count_CE) / 4]
    told = np.concatenate(parts, axis=1) * is_shown_C[:, None]
    return told.astype(np.float32)


def choose_shown(
    graph: KnownGraph, places: np.ndarray, limit: int, rng: np.random.Generator
) -> np.ndarray:
    """Choose at most `limit` triples of one head, relations in turn, at random within each."""
    if len(places) <= limit:
        return places
    mixed = places[rng.permutation(len(places))]
    order = np.argsort(graph.relation_T[mixed], kind="stable")
    relation = graph.relation_T[mixed][order]
    start = np.searchsorted(relation, relation)
    turn = np.arange(len(mixed)) - start
    # Within a turn relations come in a random order, else the first ones would always win.
    weight = rng.random(graph.n_directed)[relation]
    chosen = order[np.lexsort((weight, turn))[:limit]]
    return np.sort(mixed[chosen])
