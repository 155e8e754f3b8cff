"""A store, opened: the graph of a run directory with its edits, ready for questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from graphmert.curate import Curated, Edit, read_curated
from graphmert.errors import ConfigError, ProvenanceError
from graphmert.export import GraphTables
from graphmert.export.tables import rows_of, short_float
from graphmert.kg import Entity
from graphmert.query.graph import Direction, Graph, Link, Step
from graphmert.query.names import Found, NameTable
from graphmert.store import RunDir

HEAD_MARK, TAIL_MARK = "head", "tail"


@dataclass(frozen=True)
class Evidence:
    """One place that supports a triple; the columns of kg/evidence."""

    triple_id: str
    domain: str
    doc_id: str
    sha256: str
    sent_start: int
    sent_end: int
    sentence: str
    head_start: int
    head_end: int
    head_surface: str
    tail_start: int | None
    tail_end: int | None
    tail_surface: str | None
    locator: str | None
    model_hash: str
    method: str
    score: float

    @property
    def is_inferred(self) -> bool:
        """Whether the tail is not in the text."""
        return self.tail_start is None

    def marked(self) -> str:
        """Return the sentence with head and tail in brackets: "[head: x] is part of [tail: y]".

        Raises:
            ProvenanceError: a surface is not at its place in the sentence.
        """
        spans = [(HEAD_MARK, self.head_start, self.head_end, self.head_surface)]
        if self.tail_start is not None and self.tail_end is not None:
            spans.append((TAIL_MARK, self.tail_start, self.tail_end, self.tail_surface or ""))
        # At one place closing comes before opening; a longer span opens first.
        marks: list[tuple[int, int, int, str]] = []
        for name, start, end, surface in spans:
            first, last = start - self.sent_start, end - self.sent_start
            if first < 0 or self.sentence[first:last] != surface:
                raise ProvenanceError(
                    "a surface is not at its place in the sentence",
                    where=f"triple {self.triple_id}, document {self.doc_id}, {name}",
                    got=repr(self.sentence[max(first, 0) : max(last, 0)]),
                    expected=repr(surface),
                )
            marks += [(first, 1, -last, f"[{name}: "), (last, 0, -first, "]")]
        text, place = "", 0
        for position, _, _, mark in sorted(marks):
            text += self.sentence[place:position] + mark
            place = position
        return text + self.sentence[place:]


@dataclass(frozen=True)
class Explanation:
    """Why a triple is in the graph.

    Attributes:
        triple: columns of kg/triples.
        head, tail: the entities.
        evidence: every place that supports it, best first.
        edits: the edits that touched it.
        withdrawn_by: number of the edit that took it out, or None.
        verified: whether every sentence and surface equals the document's text at its offsets;
            None where the store holds no documents.
    """

    triple: dict[str, Any]
    head: Entity
    tail: Entity
    evidence: tuple[Evidence, ...]
    edits: tuple[Edit, ...] = ()
    withdrawn_by: int | None = None
    verified: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "triple": self.triple,
            "head": asdict(self.head),
            "tail": asdict(self.tail),
            "evidence": [
                {**asdict(one), "score": short_float(one.score), "marked": one.marked()}
                for one in self.evidence
            ],
            "edits": [edit.to_dict() for edit in self.edits],
            "withdrawn_by": self.withdrawn_by,
            "verified": self.verified,
        }


class Store:
    """A graph to ask. Make one with `open_store`."""

    def __init__(self, run: RunDir, curated: Curated) -> None:
        self.run = run
        self.curated = curated

    def __repr__(self) -> str:
        n_entities, n_triples = len(self.tables.entities), len(self.tables.triples)
        return f"Store({str(self.run.path)!r}, {n_entities} entities, {n_triples} triples)"

    @property
    def tables(self) -> GraphTables:
        """The tables with the edits in force."""
        return self.curated.tables

    @cached_property
    def entities(self) -> dict[str, Entity]:
        """Entities by id."""
        return {
            row["entity_id"]: Entity(
                row["entity_id"], row["name"], row["type"], tuple(row["synonyms"])
            )
            for row in rows_of(self.tables.entities)
        }

    @cached_property
    def names(self) -> NameTable:
        """Entities by name."""
        return NameTable((e.entity_id, e.name, e.synonyms) for e in self.entities.values())

    @cached_property
    def graph(self) -> Graph:
        """Triples by their ends."""
        return Graph(links_of(self.tables))

    def find(self, text: str, *, limit: int = 10) -> list[Found]:
        """Return the entities that a text may mean: id, name, synonym, words, like spelling."""
        return self.names.find(text, limit=limit)

    def entity(self, text: str) -> Entity:
        """Return the one entity with that id, name or synonym; an id or a name goes before.

        Raises:
            ConfigError: none, or several; names them.
        """
        found = self.names.exact(text)
        best = [one for one in found if one.how == found[0].how]
        if len(best) == 1:
            return self.entities[best[0].entity_id]
        if best:
            raise ConfigError(
                "several entities have that name",
                got=repr(text),
                expected=f"one of the ids {', '.join(one.entity_id for one in best)}",
            )
        near = [f"{one.name} ({one.entity_id})" for one in self.find(text, limit=3)]
        raise ConfigError(
            "no entity has that name",
            where=str(self.run.path),
            got=repr(text),
            fix=f"Near names: {'; '.join(near)}." if near else None,
        )

    def triples(
        self,
        *,
        head: str | None = None,
        relation: str | None = None,
        tail: str | None = None,
        min_score: float = 0.0,
        novel_only: bool = False,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return the triples with these parts, best first, as rows of kg/triples.

        Args:
            head, tail: an entity by id, name or synonym.
            relation: the relation's name.

        Raises:
            ConfigError: no such entity or relation.
        """
        table = self.tables.triples
        if relation is not None:
            self._check_relation(relation)
        wanted = {
            "head_id": None if head is None else self.entity(head).entity_id,
            "relation": relation,
            "tail_id": None if tail is None else self.entity(tail).entity_id,
        }
        for column, value in wanted.items():
            if value is not None:
                table = table.filter(pc.field(column) == value)
        if min_score > 0:
            least = pa.scalar(min_score, pa.float32())
            table = table.filter(pc.field("score") >= least)
        if novel_only:
            table = table.filter(table["novel"])
        order = [("score", "descending"), ("triple_id", "ascending")]
        rows = table.sort_by(order).slice(0, limit).to_pylist()
        return [{**row, "score": short_float(row["score"])} for row in rows]

    def neighbours(
        self, entity: str, *, direction: Direction = "both", relation: str | None = None
    ) -> list[Step]:
        """Return the steps that leave an entity (by id, name or synonym)."""
        if relation is not None:
            self._check_relation(relation)
        entity_id = self.entity(entity).entity_id
        return self.graph.steps(entity_id, direction=direction, relation=relation)

    def paths(
        self, start: str, goal: str, *, max_hops: int = 4, limit: int = 10
    ) -> list[tuple[Step, ...]]:
        """Return paths between two entities (by id, name or synonym), shortest first."""
        ends = (self.entity(start).entity_id, self.entity(goal).entity_id)
        return self.graph.paths(*ends, max_hops=max_hops, limit=limit)

    def explain(self, triple_id: str) -> Explanation:
        """Return a triple with all its evidence and edits; withdrawn ones are explained too.

        Raises:
            ConfigError: there is no such triple.
        """
        link = self.graph.links.get(triple_id)
        withdrawn = self.curated.withdrawn.get(triple_id)
        if link is not None:
            rows = self.tables.triples.filter(pc.field("triple_id") == triple_id)
            triple, evidence = rows.to_pylist()[0], self.tables.evidence_of(triple_id)
        elif withdrawn is not None:
            triple, evidence = dict(withdrawn["triple"]), withdrawn["evidence"]
        else:
            raise ConfigError(
                "there is no such triple",
                where=str(self.run.path),
                got=triple_id,
                fix="`graphmert query` lists the ids of triples.",
            )
        numbers = set(self.curated.touched.get(triple_id, ()))
        if withdrawn is not None:
            numbers.add(withdrawn["edit"])
        places = sorted((Evidence(**row) for row in evidence), key=_best_first)
        return Explanation(
            triple={**triple, "score": short_float(triple["score"])},
            head=self._entity_of(triple["head_id"], triple["head"]),
            tail=self._entity_of(triple["tail_id"], triple["tail"]),
            evidence=tuple(places),
            edits=tuple(one for one in self.curated.edits if one.number in numbers),
            withdrawn_by=None if withdrawn is None else withdrawn["edit"],
            verified=self._verify(places),
        )

    def _entity_of(self, entity_id: str, name: str) -> Entity:
        return self.entities.get(entity_id) or Entity(entity_id, name, "")

    def _check_relation(self, relation: str) -> None:
        known = {*self.tables.schema.relations, *self.tables.triples["relation"].to_pylist()}
        if relation not in known:
            raise ConfigError(
                "no such relation",
                got=repr(relation),
                expected=f"one of {', '.join(sorted(known))}",
            )

    @cached_property
    def _texts(self) -> dict[str, str]:
        table = self.run.read("corpus/documents")
        return dict(zip(table["doc_id"].to_pylist(), table["text"].to_pylist(), strict=True))

    def _verify(self, evidence: Sequence[Evidence]) -> bool | None:
        if not self.run.has("corpus/documents"):
            return None
        return all(_is_true(one, self._texts.get(one.doc_id)) for one in evidence)


def open_store(path: Path | str) -> Store:
    """Open the graph of a run directory, with its edits in force.

    Raises:
        FormatError: the folder holds no extracted graph, or a table or the log is damaged.
    """
    run = RunDir(path)
    return Store(run, read_curated(run))


def links_of(tables: GraphTables) -> Iterable[Link]:
    """Yield the triples of a graph as links."""
    names = [one.name for one in fields(Link)]
    columns = (tables.triples[name].to_pylist() for name in names)
    for values in zip(*columns, strict=True):
        yield Link(*values)


def _best_first(one: Evidence) -> tuple[Any, ...]:
    return -one.score, one.is_inferred, one.doc_id, one.head_start


def _is_true(one: Evidence, text: str | None) -> bool:
    if text is None:
        return False
    pieces = [
        (one.sent_start, one.sent_end, one.sentence),
        (one.head_start, one.head_end, one.head_surface),
    ]
    if one.tail_start is not None:
        pieces.append((one.tail_start, one.tail_end or 0, one.tail_surface or ""))
    return all(text[start:end] == piece for start, end, piece in pieces)
