"""What the prepare stage left in the run directory, as the later stages use it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from graphmert.chain import LeafTriple, LeafyChain
from graphmert.kg import Schema, read_schema
from graphmert.run.holding import hold_out_documents
from graphmert.store import RunDir, chains_from_table
from graphmert.tokens import Tokenizer

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class HeadSpan:
    """A place where an entity stands in a sequence.

    Attributes:
        chain: row of the chain.
        entity: row of the entity.
        root_start, root_end: root indices.
        char_start, char_end: character offsets in the document.
        is_title: the term that the document defines.
    """

    chain: int
    entity: int
    root_start: int
    root_end: int
    char_start: int
    char_end: int
    is_title: bool


@dataclass(frozen=True)
class Prepared:
    """Tables of the prepare stage with entities and relations as indices.

    Attributes:
        relations: names; a relation's index is its place here, as in the schema.
        triples: part -> int64 (T, 3) rows of head, relation, tail.
        chains: one per sequence, training triples injected.
        chain_documents: document id of each chain.
    """

    run: RunDir
    tokenizer: Tokenizer
    schema: Schema
    entity_ids: tuple[str, ...]
    names: tuple[str, ...]
    types: tuple[str, ...]
    relations: tuple[str, ...]
    relation_labels: tuple[str, ...]
    triples: Mapping[str, np.ndarray]
    chains: Sequence[LeafyChain]
    chain_documents: Sequence[str]
    heads: Sequence[HeadSpan]
    max_tail_tokens: int

    @classmethod
    def load(cls, path: Path, *, max_tail_tokens: int) -> Prepared:
        """Read the tables of a run directory."""
        seed = cls.load_seed(path, max_tail_tokens=max_tail_tokens)
        heads = seed.run.read("chains/heads")
        return replace(
            seed,
            chains=chains_from_table(seed.run.read("chains/chains")),
            chain_documents=seed.run.read("corpus/sequences").column("doc_id").to_pylist(),
            heads=tuple(
                HeadSpan(*row) for row in zip(*(c.to_pylist() for c in heads.columns), strict=True)
            ),
        )

    @classmethod
    def load_seed(cls, path: Path, *, max_tail_tokens: int) -> Prepared:
        """Read the seed and the tokenizer of a run directory, without a document."""
        run = RunDir(path)
        schema = read_schema(run.seed_schema)
        entities = run.read("seed/entities")
        entity_ids = tuple(entities.column("entity_id").to_pylist())
        row_of = {entity_id: row for row, entity_id in enumerate(entity_ids)}
        relations = schema.relation_names
        relation_of = {name: i for i, name in enumerate(relations)}
        split = run.read("seed/triples")
        parts: dict[str, list[tuple[int, int, int]]] = {part: [] for part in PARTS}
        for head, relation, tail, part in zip(
            *(split.column(c).to_pylist() for c in ("head_id", "relation", "tail_id", "split")),
            strict=True,
        ):
            parts[part].append((row_of[head], relation_of[relation], row_of[tail]))
        return cls(
            run=run,
            tokenizer=Tokenizer.load(run.path / "chains"),
            schema=schema,
            entity_ids=entity_ids,
            names=tuple(entities.column("name").to_pylist()),
            types=tuple(entities.column("type").to_pylist()),
            relations=relations,
            relation_labels=tuple(schema.relations[name].label for name in relations),
            triples={
                part: np.array(rows, dtype=np.int64).reshape(-1, 3) for part, rows in parts.items()
            },
            chains=(),
            chain_documents=(),
            heads=(),
            max_tail_tokens=max_tail_tokens,
        )

    @cached_property
    def name_tokens(self) -> tuple[tuple[int, ...], ...]:
        """Tokens of every entity's name, specials apart."""
        encoded = self.tokenizer.encode_batch(list(self.names))
        return tuple(tuple(e.ids.tolist()) or (self.tokenizer.unk_id,) for e in encoded)

    @cached_property
    def part_of_head(self) -> dict[int, str]:
        """The part of every entity that is a head; held-out heads are in one part only."""
        found: dict[int, str] = {}
        for part in reversed(PARTS):
            found.update(dict.fromkeys(self.triples[part][:, 0].tolist(), part))
        held = {int(head): part for part in ("valid", "test") for head in self.triples[part][:, 0]}
        return found | held

    @cached_property
    def tails_seen(self) -> frozenset[int]:
        """Entities that are the tail of a training triple."""
        return frozenset(self.triples["train"][:, 2].tolist())

    def known_tails(self, *parts: str) -> dict[tuple[int, int], frozenset[int]]:
        """(head, relation) -> true tails in the given parts."""
        found: dict[tuple[int, int], set[int]] = defaultdict(set)
        for part in parts:
            for head, relation, tail in self.triples[part].tolist():
                found[head, relation].add(tail)
        return {key: frozenset(tails) for key, tails in found.items()}

    @cached_property
    def title_heads(self) -> dict[int, HeadSpan]:
        """Where each entity is asked about: as the term that a document defines.

        Where no document defines a term, it is where an entity is named first.
        """
        titles = {head.entity: head for head in self.heads if head.is_title}
        if titles:
            return titles
        return {head.entity: head for head in reversed(self.heads)}

    @cached_property
    def held_out_heads(self) -> dict[int, str]:
        """The heads of validation and test triples, with their part."""
        return {one: part for one, part in self.part_of_head.items() if part != "train"}

    @cached_property
    def _held_out_documents(self) -> dict[str, str]:
        """Documents that name held-out heads and train nothing, where none defines a term."""
        if any(head.is_title for head in self.heads):
            return {}
        if self.run.has("corpus/held_out"):
            table = self.run.read("corpus/held_out")
            return dict(zip(*(one.to_pylist() for one in table.columns), strict=True))
        mentions = ((head.chain, head.entity) for head in self.heads)
        return hold_out_documents(mentions, self.chain_documents, self.held_out_heads)

    def document_part(self, chain: int) -> str:
        """The part a chain's document belongs to: held-out documents train nothing.

        A document is held out that defines a held-out head; where none defines a term, one that
        `hold_out_documents` chose.
        """
        if self._held_out_documents:
            return self._held_out_documents.get(self.chain_documents[chain], "train")
        row = self._row_of_document.get(self.chain_documents[chain], -1)
        return self.part_of_head.get(row, "train")

    @cached_property
    def _row_of_document(self) -> dict[str, int]:
        return {entity_id: row for row, entity_id in enumerate(self.entity_ids)}

    def training_chains(self) -> list[LeafyChain]:
        """Chains of training documents that carry a triple, and those that carry none (MLM)."""
        return [chain for i, chain in enumerate(self.chains) if self.document_part(i) == "train"]

    def answered_chains(self, part: str) -> list[LeafyChain]:
        """Chains of held-out heads with their held-out triples as leaves, for losses only."""
        by_head: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for head, relation, tail in self.triples[part].tolist():
            by_head[head].append((relation, tail))
        chains = []
        for entity, pairs in sorted(by_head.items()):
            head = self.title_heads.get(entity)
            if head is None:
                continue
            triples = tuple(
                LeafTriple(
                    relation=relation,
                    head_start=head.root_start,
                    head_end=head.root_end,
                    tail=self.name_tokens[tail],
                    tail_entity=tail,
                    head_entity=entity,
                )
                for relation, tail in pairs
                if len(self.name_tokens[tail]) <= self.max_tail_tokens
            )
            if triples:
                chains.append(replace(self.chains[head.chain], triples=triples))
        return chains
