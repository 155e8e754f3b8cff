"""Triples of a graph in integers, drawn in batches for the regularisers.

Legend: T triples of a batch, C names, E relations, Y entity types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from graphmert.batch import ConstraintBatch, collate
from graphmert.chain import LeafyChain
from graphmert.kg.rules import FactRules


@dataclass(frozen=True)
class FactSource:
    """Draw batches of triples, each a pure function of the generator given.

    Attributes:
        triples: int64 (n, 3), head, relation and tail as entity rows and relation indices.
        name_roots: token ids of each entity's name, specials included, by entity row.
        rules: the schema.
        n_triples: triples in a batch.
        inherited_share: share of them that are members of a parent, drawn with its subclass.
        pad_id: fills name batches.
    """

    triples: np.ndarray
    name_roots: Sequence[tuple[int, ...]]
    rules: FactRules
    n_triples: int
    pad_id: int
    inherited_share: float = 0.25

    @cached_property
    def by_relation(self) -> list[np.ndarray]:
        """Rows of the triples of each relation that occurs."""
        relation = self.triples[:, 1]
        return [np.flatnonzero(relation == r) for r in np.unique(relation)]

    @cached_property
    def inherited(self) -> np.ndarray:
        """int64 (n, 2): a subclass and the row of a triple (its parent, relation, member)."""
        if self.rules.inherits < 0:
            return np.zeros((0, 2), dtype=np.int64)
        members: dict[int, list[int]] = {}
        for row in np.flatnonzero(self.rules.member_E[self.triples[:, 1]]):
            members.setdefault(int(self.triples[row, 0]), []).append(int(row))
        found = [
            (int(heir), row)
            for heir, relation, parent in self.triples
            if relation == self.rules.inherits
            for row in members.get(int(parent), ())
        ]
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    @cached_property
    def known_tails(self) -> dict[tuple[int, int], frozenset[int]]:
        """(head, relation) -> true tails."""
        tails: dict[tuple[int, int], set[int]] = {}
        for head, relation, tail in self.triples.tolist():
            tails.setdefault((head, relation), set()).add(tail)
        return {key: frozenset(value) for key, value in tails.items()}

    def draw(self, rng: np.random.Generator) -> ConstraintBatch:
        """Draw relations evenly, then a triple of each; and members of parents with their heirs."""
        n_inherited = round(self.inherited_share * self.n_triples) if len(self.inherited) else 0
        groups = self.by_relation
        chosen = rng.integers(len(groups), size=self.n_triples - n_inherited)
        rows = [int(groups[g][rng.integers(len(groups[g]))]) for g in chosen]
        pairs = self.inherited[rng.integers(len(self.inherited), size=n_inherited)]
        first = len(rows)
        rows += pairs[:, 1].tolist()
        return self.batch(np.array(rows), heirs=pairs[:, 0], members=np.arange(first, len(rows)))

    def batch(self, rows: np.ndarray, *, heirs: np.ndarray, members: np.ndarray) -> ConstraintBatch:
        """Lay out the given triples; `heirs[i]` inherits what triple `members[i]` of them says."""
        head, relation, tail = self.triples[rows].T
        entities = np.unique(np.concatenate([head, tail, heirs]))
        column = {int(entity): i for i, entity in enumerate(entities)}
        excluded = np.zeros((len(rows), len(entities)), dtype=bool)
        for i, (h, r, t) in enumerate(zip(head, relation, tail, strict=True)):
            for other in self.known_tails[int(h), int(r)] - {int(t)}:
                if other in column:
                    excluded[i, column[other]] = True
        names = collate(
            [LeafyChain(self.name_roots[int(entity)]) for entity in entities], pad_id=self.pad_id
        )
        rules = self.rules

        def columns(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.searchsorted(entities, values).astype(np.int64))

        return ConstraintBatch(
            names=names,
            head_T=columns(head),
            relation_T=torch.from_numpy(relation.astype(np.int64)),
            tail_T=columns(tail),
            head_types_TY=torch.from_numpy(rules.domain_EY[relation]),
            tail_types_TY=torch.from_numpy(rules.range_EY[relation]),
            antisymmetric_T=torch.from_numpy(rules.antisymmetric_E[relation]),
            acyclic_T=torch.from_numpy(rules.acyclic_E[relation]),
            member_P=torch.from_numpy(members.astype(np.int64)),
            heir_P=columns(heirs),
            excluded_TC=torch.from_numpy(excluded),
        )
