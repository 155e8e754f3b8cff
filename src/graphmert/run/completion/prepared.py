"""What preparing left in the run directory, as training and ranking use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphmert.batch import RelationNames
from graphmert.kg import Schema, read_schema
from graphmert.known import KnownGraph
from graphmert.run.completion.prepare import leaf_tokens
from graphmert.store import RunDir, chains_from_table
from graphmert.tokens import Tokenizer
from graphmert.walks import EntityTexts

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Completion:
    """Tables of the prepare stage with entities and relations as indices.

    Attributes:
        triples: "train", "valid", "test" and "mirrors" -> int64 (X, 3).
        texts: the chains of all entities, without leaves.
    """

    run: RunDir
    tokenizer: Tokenizer
    schema: Schema
    entity_ids: tuple[str, ...]
    relations: tuple[str, ...]
    triples: Mapping[str, np.ndarray]
    texts: EntityTexts

    @classmethod
    def load(cls, path: Path, *, max_leaf_tokens: int) -> Completion:
        """Read the tables of a run directory."""
        run = RunDir(path)
        tokenizer = Tokenizer.load(path / "chains")
        schema = read_schema(run.seed_schema)
        entities = run.read("seed/entities")
        entity_ids = tuple(entities["entity_id"].to_pylist())
        row_of = {one: row for row, one in enumerate(entity_ids)}
        relations = schema.relation_names
        place_of = {name: place for place, name in enumerate(relations)}
        rows: dict[str, list[tuple[int, int, int]]] = {one: [] for one in (*PARTS, "mirrors")}
        split, mirrors = run.read("seed/triples"), run.read("seed/mirrors")
        for table, parts in (
            (split, split["split"].to_pylist()),
            (mirrors, ["mirrors"] * mirrors.num_rows),
        ):
            ends = (table[name].to_pylist() for name in ("head_id", "relation", "tail_id"))
            for head, relation, tail, part in zip(*ends, parts, strict=True):
                rows[part].append((row_of[head], place_of[relation], row_of[tail]))
        table = run.read("chains/chains").select(["chain_id", "roots"])
        heads = run.read("chains/heads")
        texts = EntityTexts(
            roots=[tuple(one) for one in table["roots"].to_pylist()],
            head_end=heads["root_end"].to_pylist(),
            leaves=leaf_tokens(entities["name"].to_pylist(), tokenizer, max_leaf_tokens),
            mask_id=tokenizer.mask_id,
            pad_id=tokenizer.pad_id,
        )
        triples = {one: np.array(found, np.int64).reshape(-1, 3) for one, found in rows.items()}
        return cls(run, tokenizer, schema, entity_ids, relations, triples, texts)

    def graph(self, *parts: str) -> KnownGraph:
        """The triples of some parts, read from both ends."""
        rows = np.concatenate([np.zeros((0, 3), np.int64), *(self.triples[one] for one in parts)])
        return KnownGraph.build(
            rows, n_entities=len(self.entity_ids), n_relations=len(self.relations)
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Words of the directed relations."""
        own = [self.schema.relations[name].label.strip() for name in self.relations]
        return (*own, *(f"inverse of {label}" for label in own))

    def relation_words(self) -> RelationNames:
        """The words of the directed relations as tokens; a hidden relation is one mask token."""
        encoded = self.tokenizer.encode_batch(list(self.labels))
        words = tuple(tuple(int(i) for i in one.ids) for one in encoded)
        return RelationNames((*words, (self.tokenizer.mask_id,)))

    def leaves_in_chains(self) -> np.ndarray:
        """The triples that the stored training chains hold, directed, int64 (X, 3)."""
        found = [
            (triple.head_entity, triple.relation, triple.tail_entity)
            for chain in chains_from_table(self.run.read("chains/chains"))
            for triple in chain.triples
        ]
        return np.array(found, dtype=np.int64).reshape(-1, 3)
