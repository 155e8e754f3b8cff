"""Chains of code: a sample's tokens as roots, resolved triples as leaves at their heads' tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field

from graphmert.chain import LeafTriple, LeafyChain
from graphmert.config import Settings
from graphmert.domains.code.rules import entity_types
from graphmert.domains.code.samples import CodeSample
from graphmert.domains.code.tables import EXTERNAL, CodeTables, Edge, Reference, Symbol
from graphmert.shards import Ledger
from graphmert.tokens import Encoding, Tokenizer


class ChainSettings(Settings):
    """How code becomes chains."""

    max_roots: int = Field(default=512, ge=8, description="roots of a chain, specials included")
    max_tail_tokens: int = Field(default=16, ge=1, description="longer tails go to the ledger")
    max_leaves_per_root: int = Field(
        default=64, ge=1, description="leaf tokens that may hang on one root"
    )
    max_triples: int = Field(default=48, ge=0, description="triples of one chain")
    tail_names: Literal["qualified", "short"] = Field(
        default="qualified",
        description="tokens of a tail: its name within its file, or the last part of it",
    )
    max_name_tokens: int = Field(
        default=32, ge=2, description="tokens of an entity's full name, its last ones"
    )


@dataclass(frozen=True)
class Vocabulary:
    """Relations and entities as indices.

    Attributes:
        relations: names; an index is a place here.
        entities: ids of all heads and tails of the profile's triples.
        n_train: how many of them, the first ones, occur in triples of training packages.
    """

    relations: tuple[str, ...]
    entities: tuple[str, ...]
    n_train: int

    @cached_property
    def relation_of(self) -> dict[str, int]:
        """Indices of relations."""
        return {name: i for i, name in enumerate(self.relations)}

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Rows of entities."""
        return {entity_id: i for i, entity_id in enumerate(self.entities)}

    @classmethod
    def build(
        cls,
        tables: CodeTables,
        profile: Mapping[str, tuple[str, ...]],
        part_of: Mapping[str, str],
    ) -> Vocabulary:
        """The relations of the profile in its order, and the entities of its triples.

        Entities of triples whose heads belong to a training package come first.
        """
        first: set[str] = set()
        rest: set[str] = set()
        for edge in tables.edges:
            trains = part_of.get(tables.package_of_entity(edge.head_id), "train") == "train"
            (first if trains else rest).update((edge.head_id, edge.tail_id))
        entities = (*sorted(first), *sorted(rest - first))
        return cls(tuple(profile), entities, len(first))


@dataclass(frozen=True, slots=True)
class Place:
    """A head or mention in a chain: half-open root indices."""

    start: int
    end: int


@dataclass(frozen=True)
class ChainBuilder:
    """Turn samples into chains.

    Attributes:
        tables: the index.
        vocabulary: relations and entities.
        tokenizer: makes roots and tails.
        settings: limits.
    """

    tables: CodeTables
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    settings: ChainSettings

    def build(self, samples: Sequence[CodeSample]) -> tuple[list[LeafyChain], Ledger]:
        """One chain for each sample, and the ledger of triples.

        A sample's triples are those of what it is the code of, and of the variables named in
        it. Each hangs at the first token of its head's name where it is defined, with its whole
        tail; the places where the tail is written are its mentions.
        """
        ledger = Ledger("chains")
        encodings = self.tokenizer.encode_batch([sample.text for sample in samples])
        chains = [
            self._chain(sample, encoding, ledger)
            for sample, encoding in zip(samples, encodings, strict=True)
        ]
        return chains, ledger.check()

    def _chain(self, sample: CodeSample, encoding: Encoding, ledger: Ledger) -> LeafyChain:
        settings, tokenizer = self.settings, self.tokenizer
        offsets = encoding.offsets[: settings.max_roots - 2]
        ids = encoding.ids[: len(offsets)].tolist()
        triples: list[LeafTriple] = []
        leaves: dict[int, int] = defaultdict(int)
        for edge, head in self.offered(sample):
            ledger.offered()
            place = self.root_span(offsets, *head)
            tail = self.tail_tokens(edge.tail_id)
            reason = None
            if place is None:
                reason = "its head lies behind the last root"
            elif len(tail) > settings.max_tail_tokens:
                reason = "tail longer than max_tail_tokens"
            elif leaves[place.start] + len(tail) > settings.max_leaves_per_root:
                reason = "no room at its root (max_leaves_per_root)"
            elif len(triples) >= settings.max_triples:
                reason = "no room in the chain (max_triples)"
            if reason is not None or place is None:
                example = f"{edge.head_id} {edge.relation} {edge.tail_id}"
                ledger.leave_out(reason or "", example=example)
                continue
            leaves[place.start] += len(tail)
            rows = self.vocabulary.row_of
            head_row, tail_row = rows[edge.head_id], rows[edge.tail_id]
            triples.append(
                LeafTriple(
                    relation=self.vocabulary.relation_of[edge.relation],
                    head_start=place.start,
                    head_end=place.end,
                    tail=tail,
                    tail_entity=tail_row,
                    head_entity=head_row,
                    mentions=tuple((m.start, m.end) for m in self.mentions(sample, offsets, edge)),
                    head_type=int(self.type_of_row[head_row]),
                    tail_type=int(self.type_of_row[tail_row]),
                )
            )
            ledger.keep()
        roots = (tokenizer.cls_id, *ids, tokenizer.sep_id)
        return LeafyChain(roots, tuple(triples), sample.entity_id)

    def offered(self, sample: CodeSample) -> list[tuple[Edge, tuple[int, int]]]:
        """Triples of a sample with the text span of their head, relations taking turns."""
        found: list[tuple[tuple[int, int, int], Edge, tuple[int, int]]] = []
        for rank, (entity_id, span) in enumerate(self._heads(sample)):
            seen: dict[str, int] = defaultdict(int)
            edges = self.tables.edges_from.get(entity_id, [])
            for edge in sorted(edges, key=lambda e: (e.relation, -e.score, e.tail_id)):
                turn = seen[edge.relation]
                seen[edge.relation] += 1
                order = self.vocabulary.relation_of[edge.relation]
                found.append(((turn if rank == 0 else turn + 4, rank, order), edge, span))
        return [(edge, span) for _, edge, span in sorted(found, key=lambda one: one[0])]

    def _heads(self, sample: CodeSample) -> list[tuple[str, tuple[int, int]]]:
        """What may be a head: the sample's own entity, then the variables named in its text."""
        heads: list[tuple[str, tuple[int, int]]] = []
        if span := self.own_span(sample):
            heads.append((sample.entity_id, span))
        for symbol in self._variables.get(sample.entity_id, []):
            if span := sample.place(symbol.name_start, symbol.name_end):
                heads.append((symbol.entity_id, span))
        return heads

    @cached_property
    def _variables(self) -> dict[str, list[Symbol]]:
        """Parameters, locals and fields by the definition around them."""
        found: dict[str, list[Symbol]] = defaultdict(list)
        for symbol in self.tables.symbols:
            if symbol.kind == "Variable" and symbol.parent_id is not None:
                found[symbol.parent_id].append(symbol)
        return dict(found)

    def own_span(self, sample: CodeSample) -> tuple[int, int] | None:
        """Where the sample's own name stands in its text; a module's is its path."""
        if sample.kind == "module":
            return 0, len(sample.prefix) - 1
        own = self.tables.symbol_of.get(sample.entity_id)
        return None if own is None else sample.place(own.name_start, own.name_end)

    @staticmethod
    def root_span(offsets: np.ndarray, start: int, end: int) -> Place | None:
        """Roots that cover a span of a sample's text (the first root is CLS), or None.

        Args:
            offsets: int32 (roots, 2), where the tokens stand in the text.
        """
        if not len(offsets):
            return None
        first = int(np.searchsorted(offsets[:, 1], start, side="right"))
        last = int(np.searchsorted(offsets[:, 0], end, side="left"))
        if first >= last or end > int(offsets[-1, 1]):
            return None
        return Place(first + 1, last + 1)

    def mentions(self, sample: CodeSample, offsets: np.ndarray, edge: Edge) -> list[Place]:
        """Where the tail is written in the sample: at its references, or where it is defined.

        A reference counts where the index resolved it to the tail from the head or from the
        sample; a member or parameter is written at its own definition.
        """
        spans: set[tuple[int, int]] = set()
        for source in dict.fromkeys((edge.head_id, sample.entity_id)):
            for reference in self.tables.references_from.get(source, []):
                if reference.doc_id != sample.doc_id:
                    continue
                if self._names(reference, edge.tail_id):
                    spans.add((reference.start, reference.end))
        symbol = self.tables.symbol_of.get(edge.tail_id)
        if symbol is not None and symbol.doc_id == sample.doc_id:
            spans.add((symbol.name_start, symbol.name_end))
        places = []
        for span in sorted(spans):
            inside = sample.place(*span) if span[0] < span[1] else None
            place = None if inside is None else self.root_span(offsets, *inside)
            if place is not None:
                places.append(place)
        return places

    @staticmethod
    def _names(reference: Reference, tail_id: str) -> bool:
        """Whether a reference names the tail: resolved to it, or to the same external name."""
        if reference.target_id == tail_id or tail_id in reference.candidates:
            return True
        if reference.state != "external" or not tail_id.startswith(EXTERNAL):
            return False
        return tail_id.rsplit(".", 1)[-1].endswith(reference.text.rsplit(".", 1)[-1])

    @cached_property
    def type_of_row(self) -> np.ndarray:
        """int64 (entities,), index of each entity's type."""
        index = {name: i for i, name in enumerate(entity_types())}
        types = self.tables.types
        return np.array([index[types[entity]] for entity in self.vocabulary.entities])

    def tail_tokens(self, entity_id: str) -> tuple[int, ...]:
        """Tokens of a tail, all of them."""
        return self._tail_tokens[self.vocabulary.row_of[entity_id]]

    @cached_property
    def _tail_tokens(self) -> list[tuple[int, ...]]:
        labels = [self.tables.label(entity_id) for entity_id in self.vocabulary.entities]
        if self.settings.tail_names == "short":
            labels = [label.rsplit(".", 1)[-1] for label in labels]
        return self._encode(labels)

    @cached_property
    def name_tokens(self) -> list[tuple[int, ...]]:
        """Tokens of every entity's full name, cut at the front to `max_name_tokens`."""
        labels = [self.tables.full_label(entity_id) for entity_id in self.vocabulary.entities]
        keep = self.settings.max_name_tokens
        return [tokens[-keep:] for tokens in self._encode(labels)]

    def _encode(self, labels: Sequence[str]) -> list[tuple[int, ...]]:
        unknown = (self.tokenizer.unk_id,)
        return [tuple(e.ids.tolist()) or unknown for e in self.tokenizer.encode_batch(labels)]
