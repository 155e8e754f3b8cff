"""Compact batches: the live nodes of many chains, padded to the longest, and their labels.

Legend: B chains, N nodes (roots first, then leaf groups), T triples of the whole batch,
M longest head, L longest leaf group, S masked spans, Q entity queries, P labelled positions,
C names, Y entity types.
Flat positions index the (B * N) nodes row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmert.chain import NAME_LEAF, ROOT, TAIL_LEAF, LeafyChain
from graphmert.masking import IGNORE, MaskedChain


@dataclass(frozen=True)
class ConstraintBatch:
    """Triples of the graph and what its schema says of them, for the regularisers.

    Attributes:
        names: chains of the entities' names, one row each.
        head_T, relation_T, tail_T: int64; head and tail as rows of `names`.
        head_types_TY, tail_types_TY: bool, types the relation allows at either end.
        antisymmetric_T, acyclic_T: bool, what the relation is.
        member_P: int64, triples (parent, relation, member) that a subclass inherits.
        heir_P: int64, row of that subclass, for which (heir, relation, member) holds too.
        excluded_TC: bool, names that are also true tails of the triple's head and relation.
    """

    names: ChainBatch
    head_T: Tensor
    relation_T: Tensor
    tail_T: Tensor
    head_types_TY: Tensor
    tail_types_TY: Tensor
    antisymmetric_T: Tensor
    acyclic_T: Tensor
    member_P: Tensor
    heir_P: Tensor
    excluded_TC: Tensor

    def counts(self) -> dict[str, int]:
        """How many terms each regulariser sums over."""
        n_triples = len(self.head_T)
        return {
            "type": 2 * n_triples,
            "antisymmetry": int(self.antisymmetric_T.sum()),
            "acyclicity": int(self.acyclic_T.sum()),
            "inheritance": len(self.member_P),
            "contrastive": n_triples,
        }


@dataclass(frozen=True)
class Labels:
    """What the objectives of one batch ask; an absent objective has length-zero tensors.

    Attributes:
        mlm_position_P, mlm_label_P: flat positions of masked roots and their token ids.
        sbo_left_P, sbo_right_P, sbo_offset_P, sbo_label_P: flat positions of the roots beside
            a masked span, place in the span, token id.
        leaf_position_P, leaf_label_P: flat positions of masked tail leaves and token ids.
        relation_triple_P, relation_label_P: triple index in the batch and relation index.
        entity_triple_Q: triple index of each entity query.
        entity_positive_Q: column of its true name among the batch's names.
        entity_excluded_QC: bool, names that are also true for the query and must not count
            as negatives.
        names: chains of the candidate names, or None.
        name_entity_C: rows of the entity table, one per name.
        constraints: triples for the regularisers, or None.
        name_row_C: rows of this batch whose roots are the candidates, in place of `names`.
        known: what the graph says of the candidates, or None.
    """

    mlm_position_P: Tensor
    mlm_label_P: Tensor
    sbo_left_P: Tensor
    sbo_right_P: Tensor
    sbo_offset_P: Tensor
    sbo_label_P: Tensor
    leaf_position_P: Tensor
    leaf_label_P: Tensor
    relation_triple_P: Tensor
    relation_label_P: Tensor
    entity_triple_Q: Tensor
    entity_positive_Q: Tensor
    entity_excluded_QC: Tensor
    names: ChainBatch | None = None
    name_entity_C: Tensor | None = None
    constraints: ConstraintBatch | None = None
    name_row_C: Tensor | None = None
    known: KnownBatch | None = None


@dataclass(frozen=True)
class KnownBatch:
    """What a graph says of the candidates of a batch, the triples asked for left out.

    Attributes:
        feature_CF: float32, see `graphmert.known.features`.
        link_query_L, link_column_L, link_relation_L: int64, known triples from the head of an
            entity query (by its place among the queries) to a candidate (column).
        offset_C: float32, what is added to a candidate's logit: minus the logarithm of its
            chance to be in the batch.
    """

    feature_CF: Tensor
    link_query_L: Tensor
    link_column_L: Tensor
    link_relation_L: Tensor
    offset_C: Tensor


@dataclass(frozen=True)
class ChainBatch:
    """Live nodes of B chains.

    Attributes:
        token_BN: int64, token ids (or vector rows), 0 at padding.
        padding_mask_BN: bool, True at real nodes.
        kind_BN: int64, ROOT, TAIL_LEAF or NAME_LEAF.
        root_BN: int64, index of the node's root in its chain.
        triple_BN: int64, triple index in the batch, -1 for roots and padding.
        slot_BN: int64, place in the tail or in the relation name.
        relation_T, row_T, head_start_T, head_end_T: relation, chain, head span of each triple.
        ordinal_T: int64, how many earlier triples of the chain hang on the same root.
        head_index_TM, head_mask_TM: flat positions of head roots.
        leaf_index_TL, leaf_mask_TL: flat positions of all leaves of a triple, names included.
        tail_mask_TL: True at tail leaves only.
        vectors_BNC: optional float input vectors in place of tokens.
        head_type_T, tail_type_T: entity types at both ends of each triple, -1 where unknown.
        shown_BN: bool, leaves of shown triples; None where there are none.
        labels: what is asked, or None.
        n_samples: B.
    """

    token_BN: Tensor
    padding_mask_BN: Tensor
    kind_BN: Tensor
    root_BN: Tensor
    triple_BN: Tensor
    slot_BN: Tensor
    relation_T: Tensor
    row_T: Tensor
    head_start_T: Tensor
    head_end_T: Tensor
    ordinal_T: Tensor
    head_index_TM: Tensor
    head_mask_TM: Tensor
    leaf_index_TL: Tensor
    leaf_mask_TL: Tensor
    tail_mask_TL: Tensor
    vectors_BNC: Tensor | None = None
    head_type_T: Tensor | None = None
    tail_type_T: Tensor | None = None
    labels: Labels | None = field(default=None)
    shown_BN: Tensor | None = None

    @property
    def n_samples(self) -> int:
        """Number of chains."""
        return int(self.token_BN.shape[0])

    @property
    def n_triples(self) -> int:
        """Number of triples over all chains, queries included."""
        return int(self.relation_T.shape[0])

    def to(self, device: torch.device | str) -> ChainBatch:
        """Move every tensor to a device."""
        return _move(self, device)

    def counts(self) -> dict[str, int]:
        """How many predictions each objective makes on this batch, before any forward pass."""
        if self.labels is None:
            return {}
        asked = {
            "mlm": len(self.labels.mlm_label_P),
            "sbo": len(self.labels.sbo_label_P),
            "leaf": len(self.labels.leaf_label_P),
            "relation": len(self.labels.relation_label_P),
            "entity": len(self.labels.entity_positive_Q),
        }
        if self.labels.constraints is not None:
            asked |= self.labels.constraints.counts()
        sums = {f"{name}_sum": self.n_samples for name in asked}
        return asked | sums | {"nodes": asked["mlm"] + asked["leaf"]}


def _move(value: Any, device: torch.device | str) -> Any:
    moved = {}
    for item in fields(value):
        old = getattr(value, item.name)
        if isinstance(old, Tensor):
            moved[item.name] = old.to(device)
        elif isinstance(old, ChainBatch | Labels | ConstraintBatch | KnownBatch):
            moved[item.name] = _move(old, device)
    return replace(value, **moved)


@dataclass(frozen=True)
class RelationNames:
    """Token ids of each relation's words; row `n_relations` stands for a hidden relation."""

    tokens: tuple[tuple[int, ...], ...] = ()

    def of(self, relation: int) -> tuple[int, ...]:
        """Tokens of a relation; empty where no names are given."""
        return self.tokens[relation] if self.tokens else ()


def collate(
    chains: Sequence[LeafyChain],
    *,
    relation_names: RelationNames | None = None,
    pad_id: int = 0,
    vectors: np.ndarray | None = None,
) -> ChainBatch:
    """Lay chains out as one compact batch.

    Args:
        chains: B chains; a triple's leaves follow the roots in order of the chain's triples.
        relation_names: if given, each leaf group begins with its relation's words.
        vectors: float table (n, C); the chain's integers are then rows of it, -1 is masked.
    Returns:
        A batch with N = the largest number of live nodes.
    """
    names = relation_names or RelationNames()
    table, padding_mask = _node_table(chains, names, pad_id)
    token, kind, root, triple, slot = (torch.from_numpy(column) for column in table)
    groups = _groups(chains, names, n_nodes=table.shape[2])
    shown_BN = None
    if groups.shown:
        flags = np.zeros(table.shape[1] * table.shape[2], dtype=bool)
        flags[np.concatenate(groups.shown)] = True
        shown_BN = torch.from_numpy(flags.reshape(table.shape[1:]))
    fields_TC = np.array(groups.fields, dtype=np.int64).reshape(-1, 7)
    relation, row, start, end, ordinal, head_type, tail_type = torch.from_numpy(fields_TC.T.copy())
    head_index, head_mask = _ragged(groups.heads)
    leaf_index, leaf_mask = _ragged(groups.leaves)
    tail_flag, _ = _ragged(groups.tail_flags)
    lookup = None
    if vectors is not None:
        picked = vectors[table[0].clip(min=0)]
        lookup = torch.from_numpy(np.ascontiguousarray(picked, dtype=np.float32))
    return ChainBatch(
        token_BN=token,
        padding_mask_BN=torch.from_numpy(padding_mask),
        kind_BN=kind,
        root_BN=root,
        triple_BN=triple,
        slot_BN=slot,
        relation_T=relation,
        row_T=row,
        head_start_T=start,
        head_end_T=end,
        ordinal_T=ordinal,
        head_index_TM=torch.from_numpy(head_index),
        head_mask_TM=torch.from_numpy(head_mask),
        leaf_index_TL=torch.from_numpy(leaf_index),
        leaf_mask_TL=torch.from_numpy(leaf_mask),
        tail_mask_TL=torch.from_numpy(tail_flag.astype(bool)),
        vectors_BNC=lookup,
        head_type_T=head_type,
        tail_type_T=tail_type,
        shown_BN=shown_BN,
    )


def _node_table(
    chains: Sequence[LeafyChain], names: RelationNames, pad_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Columns of all nodes, int64 (5, B, N), and the padding mask; triples count over the batch."""
    columns = [_columns(chain, names) for chain in chains]
    n_nodes = max((column.shape[1] for column in columns), default=1)
    table = np.zeros((5, len(chains), n_nodes), dtype=np.int64)
    table[0] = pad_id
    table[3] = -1
    padding_mask = np.zeros((len(chains), n_nodes), dtype=bool)
    offset = 0
    for row, (chain, column) in enumerate(zip(chains, columns, strict=True)):
        size = column.shape[1]
        table[:, row, :size] = column
        table[3, row, :size] += np.where(column[3] >= 0, offset, 0)
        padding_mask[row, :size] = True
        offset += len(chain.triples)
    return table, padding_mask


@dataclass
class _Groups:
    """Flat places of each triple's head and leaves, and numbers of each.

    Fields: relation, row, start, end, ordinal, type of head, type of tail.
    """

    heads: list[np.ndarray] = field(default_factory=list)
    leaves: list[np.ndarray] = field(default_factory=list)
    tail_flags: list[np.ndarray] = field(default_factory=list)
    fields: list[tuple[int, ...]] = field(default_factory=list)
    shown: list[np.ndarray] = field(default_factory=list)


def _groups(chains: Sequence[LeafyChain], names: RelationNames, *, n_nodes: int) -> _Groups:
    found = _Groups()
    for row, chain in enumerate(chains):
        base = row * n_nodes
        first = base + len(chain.roots)
        ordinals: dict[int, int] = {}
        for triple in chain.triples:
            start, end = triple.head_start, triple.head_end
            n_name = len(names.of(triple.relation))
            size = n_name + len(triple.tail)
            found.heads.append(np.arange(base + start, base + end))
            found.leaves.append(np.arange(first, first + size))
            found.tail_flags.append(np.arange(size) >= n_name)
            if triple.shown:
                found.shown.append(found.leaves[-1])
            ordinal = ordinals.get(start, 0)
            ordinals[start] = ordinal + 1
            types = (triple.head_type, triple.tail_type)
            found.fields.append((triple.relation, row, start, end, ordinal, *types))
            first += size
    return found


def text_batch(token_BN: Tensor, padding_mask_BN: Tensor) -> ChainBatch:
    """A batch of plain texts: roots only, no leaf anywhere.

    Args:
        token_BN: int64 token ids. padding_mask_BN: bool, True at real tokens.
    """
    n_chains, n_nodes = token_BN.shape
    zero_BN = torch.zeros_like(token_BN)
    place_BN = torch.arange(n_nodes, device=token_BN.device).expand(n_chains, n_nodes)
    none_T = zero_BN.new_zeros(0)
    none_TM = zero_BN.new_zeros(0, 0)
    return ChainBatch(
        token_BN=token_BN,
        padding_mask_BN=padding_mask_BN,
        kind_BN=zero_BN,
        root_BN=place_BN,
        triple_BN=zero_BN - 1,
        slot_BN=zero_BN,
        relation_T=none_T,
        row_T=none_T,
        head_start_T=none_T,
        head_end_T=none_T,
        ordinal_T=none_T,
        head_index_TM=none_TM,
        head_mask_TM=none_TM.bool(),
        leaf_index_TL=none_TM,
        leaf_mask_TL=none_TM.bool(),
        tail_mask_TL=none_TM.bool(),
    )


def _columns(chain: LeafyChain, names: RelationNames) -> np.ndarray:
    """int64 (5, n): token, kind, root, triple, slot of the chain's live nodes."""
    n_roots = len(chain.roots)
    token, kind, root, triple_of, slot = [list(chain.roots)], [ROOT] * n_roots, [], [], []
    root = list(range(n_roots))
    triple_of = [-1] * n_roots
    slot = [0] * n_roots
    for index, triple in enumerate(chain.triples):
        name = names.of(triple.relation)
        size = len(name) + len(triple.tail)
        token.append([*name, *triple.tail])
        kind += [NAME_LEAF] * len(name) + [TAIL_LEAF] * len(triple.tail)
        root += [triple.head_start] * size
        triple_of += [index] * size
        slot += [*range(len(name)), *range(len(triple.tail))]
    flat = [t for part in token for t in part]
    return np.array([flat, kind, root, triple_of, slot], dtype=np.int64)


def _ragged(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Pad rows of different lengths with zeros: (int64 (T, longest), bool mask)."""
    longest = max((len(row) for row in rows), default=0)
    index = np.zeros((len(rows), longest), dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=bool)
    for i, row in enumerate(rows):
        index[i, : len(row)] = row
        mask[i, : len(row)] = True
    return index, mask


def collate_masked(
    masked: Sequence[MaskedChain],
    *,
    relation_names: RelationNames | None = None,
    pad_id: int = 0,
    names: ChainBatch | None = None,
    name_entities: np.ndarray | None = None,
    excluded: Sequence[frozenset[int]] = (),
    vectors: np.ndarray | None = None,
    constraints: ConstraintBatch | None = None,
) -> ChainBatch:
    """Collate masked chains with their labels.

    Args:
        names, name_entities: encoded candidates of MNM-entity and their entity rows.
        excluded: for each entity query in order, entity rows that are true as well.
        constraints: triples for the regularisers.
    """
    batch = collate(
        [m.chain for m in masked], relation_names=relation_names, pad_id=pad_id, vectors=vectors
    )
    asked = _asked(masked, batch)
    entity_triples, positives, not_negative = _entity_labels(asked.entity, name_entities, excluded)
    mlm, sbo, leaf = (
        _join(parts, n) for parts, n in ((asked.mlm, 2), (asked.sbo, 4), (asked.leaf, 2))
    )
    relation = torch.tensor(asked.relation, dtype=torch.int64).reshape(-1, 2)
    labels = Labels(
        mlm_position_P=mlm[0],
        mlm_label_P=mlm[1],
        sbo_left_P=sbo[0],
        sbo_right_P=sbo[1],
        sbo_offset_P=sbo[2],
        sbo_label_P=sbo[3],
        leaf_position_P=leaf[0],
        leaf_label_P=leaf[1],
        relation_triple_P=relation[:, 0],
        relation_label_P=relation[:, 1],
        entity_triple_Q=entity_triples,
        entity_positive_Q=positives,
        entity_excluded_QC=not_negative,
        names=names,
        name_entity_C=None if name_entities is None else torch.from_numpy(name_entities),
        constraints=constraints,
    )
    return replace(batch, labels=labels)


@dataclass
class _Asked:
    """What each objective asks, as int64 columns; relation and entity as (triple, label)."""

    mlm: list[np.ndarray] = field(default_factory=list)
    sbo: list[np.ndarray] = field(default_factory=list)
    leaf: list[np.ndarray] = field(default_factory=list)
    relation: list[tuple[int, int]] = field(default_factory=list)
    entity: list[tuple[int, int]] = field(default_factory=list)


def _asked(masked: Sequence[MaskedChain], batch: ChainBatch) -> _Asked:
    found = _Asked()
    n_nodes = int(batch.token_BN.shape[1])
    leaf_index, tail_mask = batch.leaf_index_TL.numpy(), batch.tail_mask_TL.numpy()
    triple = 0
    for row, item in enumerate(masked):
        places = np.flatnonzero(item.root_labels != IGNORE)
        found.mlm.append(np.stack([places + row * n_nodes, item.root_labels[places]]))
        found.sbo.extend(_span_boundary(item, row * n_nodes))
        for index, labels in enumerate(item.leaf_labels):
            positions = leaf_index[triple][tail_mask[triple]]
            places = np.flatnonzero(labels != IGNORE)
            found.leaf.append(np.stack([positions[places], labels[places]]))
            if item.relation_labels[index] != IGNORE:
                found.relation.append((triple, int(item.relation_labels[index])))
            if item.entity_labels[index] >= 0:
                found.entity.append((triple, int(item.entity_labels[index])))
            triple += 1
    return found


def _join(parts: Sequence[np.ndarray], n_columns: int) -> Tensor:
    """Columns of all parts side by side, int64 (n_columns, P)."""
    empty = np.zeros((n_columns, 0), dtype=np.int64)
    return torch.from_numpy(np.concatenate([empty, *parts], axis=1))


def _span_boundary(item: MaskedChain, base: int) -> list[np.ndarray]:
    """int64 (4, tokens): left root, right root, place in span, label, for each masked span."""
    n_roots = len(item.chain.roots)
    rows = []
    for start, end in item.spans:
        if start == 0 or end == n_roots:
            continue
        place = np.arange(end - start)
        rows.append(
            np.stack(
                [
                    np.full_like(place, base + start - 1),
                    np.full_like(place, base + end),
                    place,
                    item.root_labels[start:end],
                ]
            )
        )
    return rows


def _entity_labels(
    entity: Sequence[tuple[int, int]],
    name_entities: np.ndarray | None,
    excluded: Sequence[frozenset[int]],
) -> tuple[Tensor, Tensor, Tensor]:
    if name_entities is None:
        none = torch.zeros(0, dtype=torch.int64)
        return none, none, torch.zeros(0, 0, dtype=torch.bool)
    column = {int(row): i for i, row in enumerate(name_entities)}
    pairs = torch.tensor(entity, dtype=torch.int64).reshape(-1, 2)
    positives = torch.tensor([column[e] for _, e in entity], dtype=torch.int64)
    not_negative = torch.zeros(len(entity), len(column), dtype=torch.bool)
    for query, true_tails in enumerate(excluded):
        for other in true_tails:
            if other in column and other != entity[query][1]:
                not_negative[query, column[other]] = True
    return pairs[:, 0], positives, not_negative
