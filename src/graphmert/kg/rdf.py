"""Read ontologies and thesauri in RDF: Turtle, N-Triples, RDF/XML; OWL, RDFS and SKOS words."""

from __future__ import annotations

import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graphmert.errors import CapabilityError, DataError, FormatError
from graphmert.kg.document import DEFAULT_TYPE, KGDocument, Typedef, read_bytes
from graphmert.kg.types import KG, Entity, Triple
from graphmert.shards import Ledger

SUFFIXES = {".ttl": "ttl", ".nt": "nt", ".rdf": "rdf", ".owl": "rdf", ".xml": "rdf"}

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_RDFS = "http://www.w3.org/2000/01/rdf-schema#"
_OWL = "http://www.w3.org/2002/07/owl#"
_SKOS = "http://www.w3.org/2004/02/skos/core#"
_OIO = "http://www.geneontology.org/formats/oboInOwl#"
_OBO = "http://purl.obolibrary.org/obo/"

_TYPE, _SUB_CLASS = f"{_RDF}type", f"{_RDFS}subClassOf"
_LABELS = (f"{_RDFS}label", f"{_SKOS}prefLabel")
_EXACT = (f"{_OIO}hasExactSynonym", f"{_SKOS}altLabel")
_INEXACT = tuple(f"{_OIO}has{kind}Synonym" for kind in ("Broad", "Narrow", "Related"))
_DEFINITIONS = (f"{_OBO}IAO_0000115", f"{_SKOS}definition")
_DESCRIPTIONS = (*_DEFINITIONS, f"{_RDFS}comment")
_SKOS_RELATIONS = tuple(f"{_SKOS}{name}" for name in ("broader", "narrower", "related"))
_PROPERTIES = {
    f"{space}{name}"
    for space, name in (
        (_RDF, "Property"),
        *((_OWL, f"{kind}Property") for kind in ("Object", "Datatype", "Annotation", "Ontology")),
        *((_OWL, f"{kind}Property") for kind in ("Transitive", "Symmetric", "Asymmetric")),
        *((_OWL, f"{kind}Property") for kind in ("Functional", "InverseFunctional")),
    )
}
_FLAGS = {
    f"{_OWL}TransitiveProperty": "transitive",
    f"{_OWL}SymmetricProperty": "symmetric",
    f"{_OWL}AsymmetricProperty": "antisymmetric",
}
# Subjects of these types describe a file or its statements.
_SCHEMA_TYPES = {f"{_OWL}{name}" for name in ("Ontology", "AllDisjointClasses", "Axiom")} | {
    f"{_RDF}Statement",
    "http://www.w3.org/ns/prov#Entity",
}
# Links of these vocabularies describe terms; they relate no two of them.
_DESCRIBING = (
    _RDF, _RDFS, _OWL, _SKOS, _OIO, f"{_OBO}IAO_", "http://purl.org/dc/",
    "http://xmlns.com/foaf/", "http://www.w3.org/ns/prov#", "http://schema.org/",
)  # fmt: skip
_OBO_ID = re.compile(r"http://purl\.obolibrary\.org/obo/([A-Za-z]+)_(\w+)")
_CAMEL = re.compile(r"(?<=[a-z0-9])[A-Z](?=[a-z])")
# Entities that name entities can grow without bound; flat ones are usual in OWL files.
_NESTED_ENTITY = re.compile(rb"<!ENTITY\s+\S+\s+(\"[^\"]*&|'[^']*&)")


def read_rdf(path: Path | str) -> KGDocument:
    """Read entities and triples from an RDF file, plain or gzipped.

    Entities are the classes, individuals and concepts of the file; their name is `rdfs:label` or
    `skos:prefLabel` (English where there are several), else the last part of the IRI; their
    synonyms `oboInOwl:hasExactSynonym` or `skos:altLabel`; their type the OBO namespace or the
    class they are an instance of. Triples are `rdfs:subClassOf` (as is_a), existential
    restrictions (some values from), SKOS broader, narrower and related, and every other
    statement between two entities. IRIs of the OBO library become ids such as GO:0008150.

    Raises:
        CapabilityError: the package pyoxigraph is missing.
        FormatError: unknown ending or bad syntax; names file and line.
        DataError: no entity.
    """
    path = Path(path)
    return _Reading(path, _statements(path)).document()


def _statements(path: Path) -> dict[str, list[tuple[str, Any]]]:
    """Return (predicate, object) by subject; blank subjects begin with "_:"."""
    try:
        import pyoxigraph
    except ImportError as error:
        raise CapabilityError(
            "reading RDF needs the package pyoxigraph",
            where=str(path),
            fix="Install it: pip install 'graphmert[rdf]'.",
        ) from error
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in SUFFIXES:
        raise FormatError(
            "no known RDF format", where=str(path), got=suffix, expected=", ".join(SUFFIXES)
        )
    form = {
        "ttl": pyoxigraph.RdfFormat.TURTLE,
        "nt": pyoxigraph.RdfFormat.N_TRIPLES,
        "rdf": pyoxigraph.RdfFormat.RDF_XML,
    }[SUFFIXES[suffix]]
    found: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    data = read_bytes(path)
    if SUFFIXES[suffix] == "rdf" and _NESTED_ENTITY.search(data):
        raise FormatError(
            "an XML entity is made of other entities, which is not read", where=str(path),
            fix="Write the entity out.",
        )  # fmt: skip
    try:
        for quad in pyoxigraph.parse(io.BytesIO(data), form, base_iri="urn:graphmert:base"):
            found[_key(quad.subject)].append((quad.predicate.value, quad.object))
    except (SyntaxError, ValueError, OSError) as error:
        line = getattr(error, "lineno", None)
        raise FormatError(
            "RDF cannot be read",
            where=f"{path}, line {line}" if line else str(path),
            got=str(error).splitlines()[0],
            expected=SUFFIXES[suffix],
            fix="Correct the file, or give it the ending of its own format.",
        ) from error
    return dict(found)


def _key(term: Any) -> str:
    return f"_:{term.value}" if type(term).__name__ == "BlankNode" else str(term.value)


class _Reading:
    """The statements of one file, and what they say of entities and relations."""

    def __init__(self, path: Path, statements: dict[str, list[tuple[str, Any]]]) -> None:
        self.path = path
        self.statements = statements
        self.ledger = Ledger("read_rdf")
        self.properties = {
            subject
            for subject in statements
            if any(one in _PROPERTIES for one in self._values(subject, _TYPE))
        }
        self.relation_of = self._name_relations()
        self.deprecated = {
            subject
            for subject in statements
            if "true" in self._values(subject, f"{_OWL}deprecated")
        }

    def document(self) -> KGDocument:
        links = self._links()
        named = {end for head, _, tail in links for end in (head, tail)}
        subjects = sorted(
            subject
            for subject in {*self.statements, *named}
            if self._is_entity(subject, subject in named)
        )
        self.ledger.offered(len(subjects))
        alive = [one for one in subjects if one not in self.deprecated]
        dead = len(subjects) - len(alive)
        self.ledger.keep(len(alive))
        example = next((one for one in subjects if one in self.deprecated), None)
        self.ledger.leave_out("deprecated entity", dead, example)
        if not alive:
            raise DataError(
                "the RDF file holds no entity",
                where=str(self.path),
                expected="classes, individuals or concepts",
                fix="Check that it is an ontology or thesaurus, and is whole.",
            )
        kinds = {one: self._kind_of(one) for one in alive}
        entities = [
            Entity(self._id(one), self._name_of(one), kinds[one], self._synonyms_of(one))
            for one in alive
        ]
        definitions = {
            self._id(one): text for one in alive if (text := self._text(one, _DEFINITIONS))
        }
        return KGDocument(
            kg=KG.build(entities, self._triples(links, set(alive))),
            definitions=dict(sorted(definitions.items())),
            ledger=self.ledger.check(),
            typedefs=self._typedefs(),
            source=self.path.name,
            version=self._version(),
        )

    def _links(self) -> list[tuple[str, str, str]]:
        """Return statements that relate two IRIs: (head, relation, tail)."""
        links: list[tuple[str, str, str]] = []
        for subject, pairs in sorted(self.statements.items()):
            if subject.startswith("_:") or subject in self.properties:
                continue
            for predicate, value in pairs:
                kind = type(value).__name__
                if predicate == _SUB_CLASS and kind == "BlankNode":
                    restriction = self._restriction(_key(value))
                    if restriction is None:
                        self._leave_out("class expression that is no restriction", subject)
                    else:
                        links.append((subject, *restriction))
                elif predicate == f"{_OWL}equivalentClass" and kind == "BlankNode":
                    self._leave_out("class expression that is no restriction", subject)
                elif (
                    kind == "NamedNode"
                    and value.value != f"{_OWL}Thing"
                    and (relation := self._relation(predicate)) is not None
                ):
                    links.append((subject, relation, value.value))
        return links

    def _leave_out(self, reason: str, example: str) -> None:
        self.ledger.offered()
        self.ledger.leave_out(reason, example=example)

    def _restriction(self, node: str) -> tuple[str, str] | None:
        """Return (relation, tail) of "some values from" with named parts."""
        pairs = dict(self.statements.get(node, ()))
        prop, target = pairs.get(f"{_OWL}onProperty"), pairs.get(f"{_OWL}someValuesFrom")
        if type(prop).__name__ != "NamedNode" or type(target).__name__ != "NamedNode":
            return None
        assert prop is not None
        assert target is not None
        return self.relation_of.get(prop.value, _local(prop.value)), target.value

    def _relation(self, predicate: str) -> str | None:
        """Return the relation's name, or None for a statement that relates no two entities."""
        if predicate == _SUB_CLASS:
            return "is_a"
        if predicate in _SKOS_RELATIONS:
            return _local(predicate)
        if f"{_OWL}AnnotationProperty" in self._values(predicate, _TYPE):
            return None
        if predicate in self.relation_of:
            return self.relation_of[predicate]
        return None if predicate.startswith(_DESCRIBING) else _local(predicate)

    def _name_relations(self) -> dict[str, str]:
        """Name every declared property; names that two of them share stay with neither."""
        names = {}
        for one in sorted(self.properties):
            label = self._text(one, (f"{_OIO}shorthand", *_LABELS))
            names[one] = re.sub(r"\W+", "_", label).strip("_") if label else _local(one)
        count = Counter(names.values())
        return {one: name if name and count[name] == 1 else one for one, name in names.items()}

    def _typedefs(self) -> dict[str, Typedef]:
        found = {}
        for one, name in self.relation_of.items():
            flags = {
                flag: True for kind, flag in _FLAGS.items() if kind in self._values(one, _TYPE)
            }
            parents = self._values(one, f"{_RDFS}subPropertyOf")
            inverses = [
                self.relation_of[other]
                for other in self._values(one, f"{_OWL}inverseOf")
                if other in self.relation_of
            ]
            found[name] = Typedef(
                relation=name,
                label=(self._text(one, _LABELS) or name).replace("_", " "),
                sub_relation_of=tuple(
                    sorted(self.relation_of[up] for up in parents if up in self.relation_of)
                ),
                inverse=min(inverses, default=None),
                description=self._text(one, _DESCRIPTIONS),
                **flags,
            )
        return dict(sorted(found.items()))

    def _is_entity(self, subject: str, is_named: bool) -> bool:
        if subject.startswith("_:") or subject in self.properties:
            return False
        if subject.startswith((_RDF, _RDFS, _OWL)):
            return False
        kinds = self._values(subject, _TYPE)
        if any(one in _SCHEMA_TYPES for one in kinds):
            return False
        # An IRI of which the file says nothing belongs to another file.
        known = subject in self.statements
        return known and (is_named or bool(kinds) or bool(self._text(subject, _LABELS)))

    def _triples(self, links: list[tuple[str, str, str]], alive: set[str]) -> list[Triple]:
        seen: set[Triple] = set()
        for head, relation, tail in links:
            self.ledger.offered()
            triple = Triple(self._id(head), relation, self._id(tail))
            missing = next((one for one in (tail, head) if one not in alive), None)
            if missing is not None:
                end = "tail" if missing == tail else "head"
                why = "deprecated" if missing in self.deprecated else "not in the file"
                self.ledger.leave_out(f"{end} is {why}", example=" ".join(triple))
            elif triple in seen:
                self.ledger.leave_out("triple repeated", example=" ".join(triple))
            else:
                seen.add(triple)
                self.ledger.keep()
        return sorted(seen)

    def _id(self, subject: str) -> str:
        """Return the id that the file states, else the one its IRI has."""
        return self._text(subject, (f"{_OIO}id",)) or _short(subject)

    def _kind_of(self, subject: str) -> str:
        if space := self._text(subject, (f"{_OIO}hasOBONamespace",)):
            return space
        classes = sorted(
            one
            for one in self._values(subject, _TYPE)
            if not one.startswith((_RDF, _RDFS, _OWL, _SKOS))
        )
        return self._name_of(classes[0]) if classes else DEFAULT_TYPE

    def _name_of(self, subject: str) -> str:
        return self._text(subject, _LABELS) or _words(_local(subject))

    def _synonyms_of(self, subject: str) -> tuple[str, ...]:
        kept: list[str] = []
        name = self._name_of(subject)
        for predicate, value in self.statements.get(subject, ()):
            if predicate in _INEXACT:
                self._leave_out("synonym not exact", self._id(subject))
            elif predicate in _EXACT and type(value).__name__ == "Literal":
                self.ledger.offered()
                text = value.value.strip()
                if not _is_english(value):
                    self.ledger.leave_out("synonym in another language", example=text)
                elif not text or text == name or text in kept:
                    self.ledger.leave_out("synonym repeated", example=self._id(subject))
                else:
                    self.ledger.keep()
                    kept.append(text)
        return tuple(kept)

    def _text(self, subject: str, predicates: tuple[str, ...]) -> str:
        """Return the literal of the first predicate that has any, English before others."""
        for predicate in predicates:
            texts = sorted(
                (not _is_english(value), value.value.strip())
                for name, value in self.statements.get(subject, ())
                if name == predicate and type(value).__name__ == "Literal" and value.value.strip()
            )
            if texts:
                return texts[0][1]
        return ""

    def _values(self, subject: str, predicate: str) -> set[str]:
        pairs = self.statements.get(subject, ())
        return {str(value.value) for name, value in pairs if name == predicate}

    def _version(self) -> str:
        for subject in sorted(self.statements):
            if f"{_OWL}Ontology" in self._values(subject, _TYPE):
                values: Iterator[str] = iter(
                    sorted(
                        self._values(subject, f"{_OWL}versionInfo")
                        or self._values(subject, f"{_OWL}versionIRI")
                    )
                )
                return next(values, "")
        return ""


def _is_english(literal: Any) -> bool:
    return literal.language is None or literal.language.split("-")[0] == "en"


def _short(iri: str) -> str:
    """Return the id of an IRI: PREFIX:NUMBER for the OBO library, else the IRI."""
    match = _OBO_ID.fullmatch(iri)
    return f"{match[1]}:{match[2]}" if match else iri


def _local(iri: str) -> str:
    return re.split(r"[#/:]", iri.rstrip("#/"))[-1]


def _words(name: str) -> str:
    spaced = _CAMEL.sub(lambda match: f" {match[0].lower()}", name.replace("_", " "))
    return spaced.strip() or name
