"""N-Triples and Turtle, with every statement's score and evidence in PROV-O terms."""

from __future__ import annotations

import contextlib
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from graphmert.errors import ConfigError
from graphmert.export.tables import GraphTables, rows_of, short_float
from graphmert.shards import atomic_path

Annotation = Literal["reified", "rdf12", "none"]
ANNOTATIONS: tuple[Annotation, ...] = ("reified", "rdf12", "none")
DEFAULT_BASE = "urn:graphmert:"

PREFIXES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "rdfs": "http://www.w3.org/2000/01/rdf-schema#",
    "skos": "http://www.w3.org/2004/02/skos/core#",
    "oio": "http://www.geneontology.org/formats/oboInOwl#",
    "prov": "http://www.w3.org/ns/prov#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
}
_ESCAPES = {
    "\\": "\\\\",
    '"': '\\"',
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    **{chr(code): f"\\u{code:04X}" for code in (*range(9), 11, 12, *range(14, 32), 127)},
}
_TO_ESCAPE = re.compile(r'[\x00-\x1f"\\\x7f]')
_OBO_ID = re.compile(r"([A-Z][A-Za-z]+):(\d+)")
_OBO_PURL = "http://purl.obolibrary.org/obo/"
_BASE = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*:[^\s<>"{}|^`\\]+')


class Iri(NamedTuple):
    """A full IRI, or a name under a prefix of `PREFIXES` or "g"."""

    text: str
    prefix: str = ""


class Value(NamedTuple):
    """A plain text, or a value of an XSD datatype."""

    text: str
    datatype: str = ""


class Quoted(NamedTuple):
    """A triple as a term, of RDF 1.2."""

    subject: Iri
    predicate: Iri
    object: Iri


Term = Iri | Value | Quoted
Pairs = list[tuple[Iri, Term]]


def write_ntriples(
    tables: GraphTables,
    path: Path,
    *,
    base: str = DEFAULT_BASE,
    purls: bool = True,
    annotation: Annotation = "reified",
) -> list[Path]:
    """Write N-Triples: one statement a line, every IRI in full."""
    names = _Names(base, purls)
    with _opened(path) as out:
        for subject, pairs in _blocks(tables, names, annotation):
            for predicate, value in pairs:
                parts = (names.full(term) for term in (subject, predicate, value))
                out.write(" ".join(parts) + " .\n")
    return [path]


def write_turtle(
    tables: GraphTables,
    path: Path,
    *,
    base: str = DEFAULT_BASE,
    purls: bool = True,
    annotation: Annotation = "reified",
) -> list[Path]:
    """Write Turtle: one block for each subject."""
    names = _Names(base, purls)
    with _opened(path) as out:
        for prefix, iri in names.prefixes.items():
            out.write(f"@prefix {prefix}: <{iri}> .\n")
        for subject, pairs in _blocks(tables, names, annotation):
            body = " ;\n    ".join(f"{names.short(p)} {names.short(value)}" for p, value in pairs)
            out.write(f"\n{names.short(subject)} {body} .\n")
    return [path]


@dataclass(frozen=True)
class _Names:
    """How ids become IRIs, and how terms are written."""

    base: str
    purls: bool

    def __post_init__(self) -> None:
        if not _BASE.fullmatch(self.base):
            raise ConfigError(
                "the base is no IRI",
                where="--base",
                got=repr(self.base),
                expected="an IRI such as urn:graphmert: or https://example.org/kg/",
            )

    @property
    def prefixes(self) -> dict[str, str]:
        return {**PREFIXES, "g": self._under("vocab", "")}

    def of(self, kind: str, identifier: str) -> Iri:
        """The IRI of a thing; its id can be read back from the last part."""
        return Iri(self._under(kind, urllib.parse.quote(identifier, safe=":")))

    def entity(self, entity_id: str) -> Iri:
        """The IRI of an entity: its own in the OBO library for ids such as GO:0008150."""
        match = _OBO_ID.fullmatch(entity_id) if self.purls else None
        if match:
            return Iri(f"{_OBO_PURL}{match[1]}_{match[2]}")
        return self.of("entity", entity_id)

    def _under(self, kind: str, name: str) -> str:
        mark = ":" if self.base.endswith(":") else "/"
        return f"{self.base.removesuffix(mark)}{mark}{kind}{mark}{name}"

    def full(self, term: Term) -> str:
        """A term in N-Triples."""
        if isinstance(term, Iri):
            start = self.prefixes[term.prefix] if term.prefix else ""
            return f"<{start}{term.text}>"
        return self._written(term, self.full)

    def short(self, term: Term) -> str:
        """A term in Turtle."""
        if isinstance(term, Iri):
            return f"{term.prefix}:{term.text}" if term.prefix else f"<{term.text}>"
        return self._written(term, self.short)

    def _written(self, term: Value | Quoted, write: Any) -> str:
        if isinstance(term, Quoted):
            return f"<<( {' '.join(write(part) for part in term)} )>>"
        text = _TO_ESCAPE.sub(lambda match: _ESCAPES[match[0]], term.text)
        return f'"{text}"^^{write(Iri(term.datatype, "xsd"))}' if term.datatype else f'"{text}"'


def _blocks(
    tables: GraphTables, names: _Names, annotation: Annotation
) -> Iterator[tuple[Iri, Pairs]]:
    """Yield every subject with its predicates and objects."""
    kind = Iri("type", "rdf")
    for relation in sorted({*tables.schema.relations, *tables.triples["relation"].to_pylist()}):
        known = tables.schema.relations.get(relation)
        label = relation.replace("_", " ") if known is None else known.label
        pairs: Pairs = [(kind, Iri("Property", "rdf")), (Iri("label", "rdfs"), Value(label))]
        if known is not None and known.description:
            pairs.append((Iri("comment", "rdfs"), Value(known.description)))
        yield names.of("relation", relation), [*pairs, (Iri("shorthand", "oio"), Value(relation))]
    for row in rows_of(tables.entities):
        pairs = [
            (kind, names.of("type", row["type"])),
            (Iri("label", "rdfs"), Value(row["name"])),
            (Iri("id", "oio"), Value(row["entity_id"])),
            (Iri("hasOBONamespace", "oio"), Value(row["type"])),
        ]
        pairs += [(Iri("altLabel", "skos"), Value(one)) for one in row["synonyms"]]
        pairs += [(Iri("mergedFrom", "g"), Value(one)) for one in row["merged_from"]]
        yield names.entity(row["entity_id"]), pairs
    for row in rows_of(tables.triples):
        triple = Quoted(
            names.entity(row["head_id"]),
            names.of("relation", row["relation"]),
            names.entity(row["tail_id"]),
        )
        yield triple.subject, [(triple.predicate, triple.object)]
        if annotation != "none":
            yield from _statement(tables, names, annotation, row, triple)


def _statement(
    tables: GraphTables, names: _Names, annotation: Annotation, row: dict[str, Any], triple: Quoted
) -> Iterator[tuple[Iri, Pairs]]:
    """Yield the node that stands for a triple, and one for each of its evidence rows."""
    identity = row["triple_id"]
    pairs: Pairs = []
    if annotation == "rdf12":
        pairs.append((Iri("reifies", "rdf"), triple))
    else:
        pairs.append((Iri("type", "rdf"), Iri("Statement", "rdf")))
        parts = zip(("subject", "predicate", "object"), triple, strict=True)
        pairs += [(Iri(name, "rdf"), term) for name, term in parts]
    pairs += [
        (Iri("score", "g"), _number(row["score"])),
        (Iri("novel", "g"), Value(str(row["novel"]).lower(), "boolean")),
    ]
    evidence = tables.evidence_of(identity)
    places = [names.of("evidence", f"{identity}:{number}") for number in range(len(evidence))]
    pairs += [(Iri("wasDerivedFrom", "prov"), place) for place in places]
    yield names.of("triple", identity), pairs
    for place, one in zip(places, evidence, strict=True):
        yield place, _evidence(names, one)


def _evidence(names: _Names, row: dict[str, Any]) -> Pairs:
    pairs: Pairs = [
        (Iri("type", "rdf"), Iri("Entity", "prov")),
        (Iri("wasQuotedFrom", "prov"), names.of("document", row["doc_id"])),
        (Iri("value", "prov"), Value(row["sentence"])),
        (Iri("score", "g"), _number(row["score"])),
    ]
    texts = ("domain", "sha256", "head_surface", "tail_surface", "locator", "model_hash", "method")
    numbers = ("sent_start", "sent_end", "head_start", "head_end", "tail_start", "tail_end")
    for name in (*numbers, *texts):
        if row[name] is not None:
            datatype = "integer" if name in numbers else ""
            pairs.append((Iri(_camel(name), "g"), Value(str(row[name]), datatype)))
    return pairs


def _number(value: float) -> Value:
    return Value(repr(short_float(value)), "double")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as out,
    ):
        yield out
