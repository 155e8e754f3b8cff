"""The schema of a knowledge graph: inferred, written as TOML for editing, and enforced."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from graphmert.errors import FormatError, SchemaError
from graphmert.kg.document import Typedef
from graphmert.kg.types import KG, Triple
from graphmert.shards import atomic_write_text

ViolationKind = Literal[
    "unknown_relation",
    "dangling_id",
    "unknown_type",
    "domain",
    "range",
    "antisymmetry",
    "cycle",
    "cardinality",
]


@dataclass(frozen=True)
class Relation:
    """What the schema says of one relation.

    Attributes:
        name: the relation as triples write it.
        label: the relation as words, such as "part of".
        domain, range: entity types of heads and tails; empty allows every type.
        inverse: the relation that says the same from tail to head.
        sub_relation_of: relations that every triple of this one implies.
        symmetric, antisymmetric, transitive, acyclic: the usual properties.
        cardinality: the most tails one head may have, or None.
        aliases: other names that importers accept for it.
        description: what it means, in a sentence, or "".
    """

    name: str
    label: str = ""
    domain: frozenset[str] = frozenset()
    range: frozenset[str] = frozenset()
    inverse: str | None = None
    sub_relation_of: tuple[str, ...] = ()
    symmetric: bool = False
    antisymmetric: bool = False
    transitive: bool = False
    acyclic: bool = False
    cardinality: int | None = None
    aliases: tuple[str, ...] = ()
    description: str = ""

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.name.replace("_", " "))

    @property
    def words(self) -> str:
        """The label, with the description behind a colon where there is one."""
        return f"{self.label}: {self.description}" if self.description else self.label


@dataclass(frozen=True)
class Schema:
    """Entity types and relations by name.

    Raises:
        SchemaError: it contradicts itself.
    """

    types: tuple[str, ...] = ()
    relations: dict[str, Relation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_consistent(self)

    @property
    def relation_names(self) -> tuple[str, ...]:
        """The relations, sorted; a relation's index everywhere is its place here."""
        return tuple(sorted(self.relations))

    def super_relations(self, name: str) -> frozenset[str]:
        """Return every relation that a triple of `name` implies, `name` included."""
        found: set[str] = set()
        todo = [name]
        while todo:
            one = todo.pop()
            if one not in found:
                found.add(one)
                relation = self.relations.get(one)
                todo.extend(relation.sub_relation_of if relation else ())
        return frozenset(found)


@dataclass(frozen=True)
class Violation:
    """One way in which a graph breaks its schema."""

    kind: ViolationKind
    triple: Triple
    message: str


def infer_schema(kg: KG, *, typedefs: Mapping[str, Typedef] | None = None) -> Schema:
    """Infer a schema from a graph: types seen, and for each relation its domain and range.

    `is_a` is taken as transitive, antisymmetric and acyclic. Everything else (label, description,
    transitive, symmetric, inverse, sub-relation) comes from `typedefs`, as far as the relations
    it names occur in the graph.

    Args:
        kg: the graph.
        typedefs: relation declarations of the source, such as `KGDocument.typedefs`.
    """
    domains: dict[str, set[str]] = defaultdict(set)
    ranges: dict[str, set[str]] = defaultdict(set)
    for head_id, name, tail_id in kg.triples:
        for ends, entity_id in ((domains[name], head_id), (ranges[name], tail_id)):
            if (entity := kg.entities.get(entity_id)) is not None:
                ends.add(entity.type)
    relations: dict[str, Relation] = {}
    for name in kg.relations:
        is_a = name == "is_a"
        typedef = (typedefs or {}).get(name) or Typedef(name, name.replace("_", " "))
        inverse = typedef.inverse if typedef.inverse in domains else None
        parents = (one for one in typedef.sub_relation_of if one in domains and one != name)
        relations[name] = Relation(
            name=name,
            label=typedef.label,
            domain=frozenset(domains[name]),
            range=frozenset(ranges[name]),
            inverse=inverse,
            sub_relation_of=tuple(sorted(parents)),
            symmetric=typedef.symmetric,
            antisymmetric=typedef.antisymmetric or is_a,
            transitive=typedef.transitive or is_a,
            acyclic=is_a,
            description=typedef.description,
        )
    return Schema(kg.types, _pair_inverses(relations))


def _pair_inverses(relations: dict[str, Relation]) -> dict[str, Relation]:
    """Declare an inverse on both sides when the source declares it on one."""
    paired = dict(relations)
    for name, relation in relations.items():
        if relation.inverse is not None and paired[relation.inverse].inverse is None:
            values = {
                one.name: getattr(paired[relation.inverse], one.name) for one in fields(Relation)
            }
            paired[relation.inverse] = Relation(**{**values, "inverse": name})
    return paired


# --- validation -----------------------------------------------------------------------------


def validate(kg: KG, schema: Schema) -> list[Violation]:
    """List every way in which a graph breaks a schema; an empty list means it is valid.

    Checks unknown relations, ids that are no entity, types the schema does not know, domain and
    range; and, counting triples of sub-relations, antisymmetry, cardinality, and cycles of acyclic
    relations, each cycle named.
    """
    violations: list[Violation] = []
    edges: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    known_types = set(schema.types)
    supers = {name: schema.super_relations(name) for name in schema.relations}
    for triple in kg.triples:
        relation = schema.relations.get(triple.relation)
        violations.extend(_check_ends(kg, triple, relation, known_types))
        if relation is None:
            nearest = _nearest(triple.relation, schema.relations)
            message = f"relation {triple.relation!r} is not in the schema{nearest}"
            violations.append(Violation("unknown_relation", triple, message))
            continue
        for name in supers[triple.relation]:
            edges[name][triple.head_id].append(triple.tail_id)
    for name, relation in sorted(schema.relations.items()):
        if relation.antisymmetric:
            violations.extend(_check_antisymmetry(name, edges[name]))
        if relation.cardinality is not None:
            violations.extend(_check_cardinality(name, relation.cardinality, edges[name]))
        if relation.acyclic:
            for cycle in _cycles(edges[name]):
                triple = Triple(cycle[0], name, cycle[1])
                message = f"{name} is acyclic but has the cycle {' -> '.join(cycle)}"
                violations.append(Violation("cycle", triple, message))
    return violations


def require_valid(kg: KG, schema: Schema, *, where: str | None = None) -> None:
    """Raise unless a graph keeps its schema.

    Raises:
        SchemaError: says how many violations of each kind, and the first ones in words.
    """
    violations = validate(kg, schema)
    if not violations:
        return
    counts: dict[str, int] = defaultdict(int)
    for violation in violations:
        counts[violation.kind] += 1
    summary = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    first = {violation.kind: violation.message for violation in reversed(violations)}
    raise SchemaError(
        "the knowledge graph breaks its schema",
        where=where,
        got=f"{summary} ({'; '.join(first[kind] for kind in sorted(first))})",
        expected="no violation",
        fix="Correct the triples, or edit the schema where it is too narrow.",
    )


def _check_ends(
    kg: KG, triple: Triple, relation: Relation | None, known_types: set[str]
) -> Iterable[Violation]:
    for end, entity_id in (("head", triple.head_id), ("tail", triple.tail_id)):
        entity = kg.entities.get(entity_id)
        if entity is None:
            yield Violation("dangling_id", triple, f"{end} {entity_id!r} is no entity of the graph")
            continue
        if entity.type not in known_types:
            message = f"{end} {entity_id} has the type {entity.type!r}, which is not in the schema"
            yield Violation("unknown_type", triple, message)
        allowed = () if relation is None else relation.domain if end == "head" else relation.range
        if allowed and entity.type not in allowed:
            kind: ViolationKind = "domain" if end == "head" else "range"
            message = (
                f"{end} {entity_id} of {triple.relation} has the type {entity.type!r}, "
                f"outside {sorted(allowed)}"
            )
            yield Violation(kind, triple, message)


def _check_antisymmetry(name: str, edges: Mapping[str, list[str]]) -> Iterable[Violation]:
    tails_of = {head_id: set(tails) for head_id, tails in edges.items()}
    for head_id in sorted(tails_of):
        for tail_id in sorted(tails_of[head_id]):
            if head_id < tail_id and head_id in tails_of.get(tail_id, ()):
                message = f"{name} holds both ways between {head_id} and {tail_id}"
                yield Violation("antisymmetry", Triple(head_id, name, tail_id), message)


def _check_cardinality(
    name: str, limit: int, edges: Mapping[str, list[str]]
) -> Iterable[Violation]:
    for head_id in sorted(edges):
        tails = sorted(set(edges[head_id]))
        if len(tails) > limit:
            message = f"{head_id} has {len(tails)} tails under {name}, more than {limit}"
            yield Violation("cardinality", Triple(head_id, name, tails[limit]), message)


def _cycles(edges: Mapping[str, list[str]]) -> list[list[str]]:
    """Return cycles as closed paths, at least one of every group of nodes that has any.

    A depth-first walk without recursion: an edge back to a node on the path closes a cycle.
    """
    cycles: list[list[str]] = []
    done: set[str] = set()
    for start in sorted(edges):
        if start in done:
            continue
        path: list[str] = [start]
        place = {start: 0}
        walks = [iter(sorted(set(edges.get(start, ()))))]
        while walks:
            step = next(walks[-1], None)
            if step is None:
                walks.pop()
                node = path.pop()
                del place[node]
                done.add(node)
            elif step in place:
                cycles.append([*path[place[step] :], step])
            elif step not in done:
                place[step] = len(path)
                path.append(step)
                walks.append(iter(sorted(set(edges.get(step, ())))))
    return cycles


def _check_consistent(schema: Schema) -> None:
    for name, relation in schema.relations.items():
        problem = _contradiction(schema, name, relation)
        if problem is not None:
            raise SchemaError(
                "the schema contradicts itself",
                where=f"relation {name}",
                got=problem,
                fix="Edit schema.toml.",
            )


def _contradiction(schema: Schema, name: str, relation: Relation) -> str | None:
    if relation.name != name:
        return f"the name {relation.name!r} under the key {name!r}"
    named = [*relation.sub_relation_of, *([relation.inverse] if relation.inverse else [])]
    for other in named:
        if other not in schema.relations:
            return f"it names the relation {other!r}, which is not there"
    back = schema.relations[relation.inverse].inverse if relation.inverse else name
    if back is not None and back != name:
        return f"its inverse {relation.inverse!r} has {back!r} as inverse"
    for parent in relation.sub_relation_of:
        if name in schema.super_relations(parent):
            return f"it is a sub-relation of itself through {parent!r}"
    for one in sorted(relation.domain | relation.range):
        if one not in schema.types:
            return f"it names the type {one!r}, which is not there"
    if relation.symmetric and (relation.antisymmetric or relation.acyclic):
        return "symmetric together with antisymmetric or acyclic"
    if relation.cardinality is not None and relation.cardinality < 1:
        return f"cardinality {relation.cardinality}"
    return None


# --- TOML -----------------------------------------------------------------------------------

_HEADER = """\
# Schema of the seed knowledge graph. Edit it, then run again: it is read before training.
#
# types            the entity types.
# relations.NAME   one section for each relation:
#   label            the relation as words
#   domain, range    types of heads and tails; leave out or [] to allow every type
#   inverse          relation that says the same from tail to head
#   sub_relation_of  relations that each triple of this one implies
#   symmetric, antisymmetric, transitive, acyclic    true or false
#   cardinality      the most tails one head may have; leave out for no limit
#   aliases          other names that importers accept for it
"""
_DESCRIPTION = "#   description      what it means, in a sentence\n"
_TEXTS = ("domain", "range", "sub_relation_of", "aliases")
_FLAGS = ("symmetric", "antisymmetric", "transitive", "acyclic")


def write_schema(path: Path | str, schema: Schema) -> None:
    """Write a schema as commented TOML, which `read_schema` reads back to an equal one."""
    atomic_write_text(path, schema_to_toml(schema))


def schema_to_toml(schema: Schema) -> str:
    """Return a schema as commented TOML."""
    # Schemas without descriptions keep the bytes that they had before there were any.
    described = any(relation.description for relation in schema.relations.values())
    lines = [_HEADER + _DESCRIPTION * described, f"types = {_texts(schema.types)}"]
    for name in schema.relation_names:
        relation = schema.relations[name]
        lines += ["", f"[relations.{_text(name)}]", f"label = {_text(relation.label)}"]
        if relation.description:
            lines.append(f"description = {_text(relation.description)}")
        lines += [f"domain = {_texts(relation.domain)}", f"range = {_texts(relation.range)}"]
        if relation.inverse is not None:
            lines.append(f"inverse = {_text(relation.inverse)}")
        if relation.sub_relation_of:
            lines.append(f"sub_relation_of = {_texts(relation.sub_relation_of)}")
        lines += [f"{flag} = {str(getattr(relation, flag)).lower()}" for flag in _FLAGS]
        if relation.cardinality is not None:
            lines.append(f"cardinality = {relation.cardinality}")
        if relation.aliases:
            lines.append(f"aliases = {_texts(relation.aliases)}")
    return "\n".join(lines) + "\n"


def read_schema(path: Path | str) -> Schema:
    """Read a schema; a key it does not know is refused.

    Raises:
        FormatError: missing file, not UTF-8, bad TOML, an unknown key (names the nearest) or a
            value of the wrong type.
        SchemaError: the schema contradicts itself.
    """
    path = Path(path)
    try:
        tree = tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError as error:
        raise FormatError("schema file not found", where=str(path)) from error
    except UnicodeDecodeError as error:
        got = f"byte {error.object[error.start]:#04x} at offset {error.start}"
        raise FormatError(
            "schema file is not UTF-8", where=str(path), got=got, expected="UTF-8 text"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise FormatError("schema is not valid TOML", where=str(path), got=error) from error
    _refuse_unknown(tree, ("types", "relations"), f"{path}, top level")
    types = _read_texts(tree, "types", f"{path}, types")
    sections = tree.get("relations", {})
    if not isinstance(sections, dict):
        raise _wrong_type(f"{path}, relations", sections, "sections [relations.NAME]")
    relations = {name: _read_relation(name, section, path) for name, section in sections.items()}
    return Schema(tuple(sorted(types)), dict(sorted(relations.items())))


def _read_relation(name: str, section: Any, path: Path) -> Relation:
    where = f"{path}, relations.{name}"
    if not isinstance(section, dict):
        raise _wrong_type(where, section, "a section")
    allowed = tuple(one.name for one in fields(Relation) if one.name != "name")
    _refuse_unknown(section, allowed, where)
    values: dict[str, Any] = {}
    for key, value in section.items():
        spot = f"{where}.{key}"
        if key in _TEXTS:
            found = _read_texts(section, key, spot)
            values[key] = frozenset(found) if key in ("domain", "range") else found
            continue
        kind = bool if key in _FLAGS else int if key == "cardinality" else str
        if type(value) is not kind:
            names = {bool: "true or false", int: "a whole number", str: "a text"}
            raise _wrong_type(spot, value, names[kind])
        values[key] = value
    return Relation(name=name, **values)


def _read_texts(tree: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = tree.get(key, [])
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise _wrong_type(where, values, "a list of texts")
    return tuple(values)


def _wrong_type(where: str, got: object, expected: str) -> FormatError:
    return FormatError(
        "schema value has the wrong type", where=where, got=repr(got), expected=expected
    )


def _refuse_unknown(tree: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    names = tuple(allowed)
    for key in tree:
        if key not in names:
            raise FormatError(
                "unknown key in the schema",
                where=where,
                got=repr(key),
                expected=f"one of {', '.join(names)}",
                fix=f"Remove it{_nearest(key, names)}.",
            )


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; nearest: {found[0]!r}" if found else ""


def _text(value: str) -> str:
    # A JSON string is a TOML string but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _texts(values: Iterable[str]) -> str:
    return "[" + ", ".join(_text(value) for value in sorted(values)) + "]"
