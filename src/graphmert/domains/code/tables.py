"""The tables of a code index, in memory, as training and evaluation read them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from graphmert.domains.code.ontology import rename_relation
from graphmert.kg.types import Triple
from graphmert.shards import Ledger
from graphmert.store import RunDir

EXTERNAL = "ext:"


@dataclass(frozen=True, slots=True)
class Symbol:
    """One definition; the columns of `code/symbols` that chains need."""

    entity_id: str
    kind: str
    name: str
    qualified_name: str
    language: str
    package: str
    path: str
    doc_id: str
    start: int
    end: int
    name_start: int
    name_end: int
    body_start: int
    body_end: int
    docstring_start: int | None
    docstring_end: int | None
    start_line: int
    parent_id: str | None
    is_test: bool
    is_local: bool


@dataclass(frozen=True, slots=True)
class Reference:
    """One place that names something; the columns of `code/references` that chains need."""

    doc_id: str
    package: str
    language: str
    relation: str
    text: str
    start: int
    end: int
    site_start: int
    site_end: int
    line: int
    source_id: str
    target_id: str | None
    candidates: Sequence[str]
    state: str
    resolver: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Edge:
    """A triple under its profile's relation name, with the confidence of its best evidence."""

    head_id: str
    relation: str
    tail_id: str
    score: float


RowT = TypeVar("RowT", Symbol, Reference)


@dataclass(frozen=True)
class CodeTables:
    """An index as columns of values.

    Attributes:
        texts: text of every document.
        package_of: package of every document.
        meta: version, licence and other facts of every document.
        symbols: in the order of the index.
        references: in the order of the index.
        edges: triples that the profile names, in its relation names.
        types: type of every entity.
        names: name of every entity.
        ledger: of the triples of the index.
    """

    texts: Mapping[str, str]
    package_of: Mapping[str, str]
    meta: Mapping[str, Mapping[str, Any]]
    symbols: Sequence[Symbol]
    references: Sequence[Reference]
    edges: Sequence[Edge]
    types: Mapping[str, str]
    names: Mapping[str, str]
    ledger: Ledger

    @classmethod
    def load(
        cls, path: Path | str, profile: Mapping[str, tuple[str, ...]], *, min_score: float = 0.0
    ) -> CodeTables:
        """Read an index.

        Args:
            path: the run directory that `graphmert code index` wrote.
            profile: relation names and what of the ontology becomes them.
            min_score: triples below this confidence are left out.

        Raises:
            FormatError: a table is missing or damaged.
        """
        run = RunDir(Path(path))
        documents = run.read("corpus/documents")
        meta = {
            doc_id: json.loads(text or "{}")
            for doc_id, text in zip(
                documents["doc_id"].to_pylist(), documents["meta"].to_pylist(), strict=True
            )
        }
        texts = dict(
            zip(documents["doc_id"].to_pylist(), documents["text"].to_pylist(), strict=True)
        )
        entities = run.read("kg/entities")
        ids = entities["entity_id"].to_pylist()
        types = dict(zip(ids, entities["type"].to_pylist(), strict=True))
        edges, ledger = _edges(run, profile, types, min_score=min_score)
        return cls(
            texts=texts,
            package_of={doc_id: str(one.get("package", "")) for doc_id, one in meta.items()},
            meta=meta,
            symbols=_rows(run, "code/symbols", Symbol),
            references=_rows(run, "code/references", Reference),
            edges=edges,
            types=types,
            names=dict(zip(ids, entities["name"].to_pylist(), strict=True)),
            ledger=ledger,
        )

    @cached_property
    def symbol_of(self) -> dict[str, Symbol]:
        """Symbols by entity id."""
        return {symbol.entity_id: symbol for symbol in self.symbols}

    @cached_property
    def symbols_in(self) -> dict[str, list[Symbol]]:
        """Symbols by document, in order of their start."""
        found: dict[str, list[Symbol]] = defaultdict(list)
        for symbol in self.symbols:
            found[symbol.doc_id].append(symbol)
        for symbols in found.values():
            symbols.sort(key=lambda one: (one.start, -one.end, one.entity_id))
        return dict(found)

    @cached_property
    def references_from(self) -> dict[str, list[Reference]]:
        """References by the definition around them."""
        found: dict[str, list[Reference]] = defaultdict(list)
        for reference in self.references:
            found[reference.source_id].append(reference)
        return dict(found)

    @cached_property
    def edges_from(self) -> dict[str, list[Edge]]:
        """Edges by head."""
        found: dict[str, list[Edge]] = defaultdict(list)
        for edge in self.edges:
            found[edge.head_id].append(edge)
        return dict(found)

    def package_of_entity(self, entity_id: str) -> str:
        """The package an entity belongs to; empty for external names."""
        symbol = self.symbol_of.get(entity_id)
        if symbol is not None:
            return symbol.package
        if entity_id.startswith("repo:"):
            return entity_id.removeprefix("repo:")
        if entity_id.startswith("java:"):  # java:PACKAGE/DOTTED.NAME
            return entity_id.removeprefix("java:").rsplit("/", 1)[0]
        return self.package_of.get(entity_id.partition("#")[0], "")

    def label(self, entity_id: str) -> str:
        """What the entity is called where it is used: `Console.print`, `width`, `os.path`.

        A variable of a function or class goes by its own name alone.
        """
        symbol = self.symbol_of.get(entity_id)
        if symbol is not None and symbol.qualified_name:
            return symbol.name if symbol.kind == "Variable" else symbol.qualified_name
        if entity_id.startswith(EXTERNAL):
            return entity_id.split(":", 2)[-1]
        return self.names.get(entity_id) or entity_id

    def full_label(self, entity_id: str) -> str:
        """The label with its file before it, so that equal names of different files differ."""
        symbol = self.symbol_of.get(entity_id)
        if symbol is None or not symbol.qualified_name:
            return self.label(entity_id)
        module = symbol.path.rsplit(".", 1)[0]
        return f"{module} {symbol.qualified_name}"


def _edges(
    run: RunDir,
    profile: Mapping[str, tuple[str, ...]],
    types: Mapping[str, str],
    *,
    min_score: float,
) -> tuple[list[Edge], Ledger]:
    """Triples in the profile's relation names, each once, and the ledger of the index's triples."""
    ledger = Ledger("triples of the index")
    best: dict[Triple, float] = {}
    triples = run.read("kg/triples").select(["head_id", "relation", "tail_id", "score"])
    for head, relation, tail, score in zip(
        *(column.to_pylist() for column in triples.columns), strict=True
    ):
        ledger.offered()
        name = rename_relation(profile, relation)
        key = Triple(head, name or "", tail)
        reason = None
        if name is None:
            reason = "its relation is not in the profile"
        elif score < min_score:
            reason = "its confidence is below min_score"
        elif head == tail:
            reason = "its head is its tail"
        elif head not in types or tail not in types:
            reason = "an end is no entity of the index"
        elif key in best:
            reason = "the profile gives it the name of another triple"
        if reason is not None:
            ledger.leave_out(reason, example=f"{head} {relation} {tail}")
            if name is not None and key in best:
                best[key] = max(score, best[key])
            continue
        best[key] = score
        ledger.keep()
    return [Edge(*triple, score) for triple, score in best.items()], ledger.check()


def _rows(run: RunDir, name: str, cls: type[RowT]) -> list[RowT]:
    columns = [field.name for field in fields(cls)]
    table = run.read(name).select(columns)
    return [cls(*row) for row in zip(*(one.to_pylist() for one in table.columns), strict=True)]
