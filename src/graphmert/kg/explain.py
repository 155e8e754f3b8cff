"""Say in words what each violation of a schema means and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

from graphmert.kg.schema import Relation, Schema, Violation
from graphmert.kg.types import KG, Triple

_OF_ENTITIES = ("dangling_id", "unknown_type")


@dataclass(frozen=True)
class Explanation:
    """One violation in words.

    Attributes:
        kind: the kind of violation.
        triple: head, relation and tail with their names.
        problem: what is wrong.
        rule: the rule of the schema that says so.
        fix: what to change, in the data or in the schema.
    """

    kind: str
    triple: str
    problem: str
    rule: str
    fix: str


def explain_violation(violation: Violation, kg: KG, schema: Schema) -> Explanation:
    """Return a violation of `validate` with its triple, its rule and what to do."""
    triple = violation.triple
    relation = schema.relations.get(triple.relation)
    rule, fix = _rule_and_fix(violation, kg, relation)
    return Explanation(violation.kind, _shown(triple, kg), violation.message, rule, fix)


def _shown(triple: Triple, kg: KG) -> str:
    def end(entity_id: str) -> str:
        entity = kg.entities.get(entity_id)
        named = entity is not None and entity.name != entity_id
        return f"{entity_id} ({entity.name})" if entity is not None and named else entity_id

    return f"{end(triple.head_id)} | {triple.relation} | {end(triple.tail_id)}"


def _type_of(kg: KG, entity_id: str) -> str:
    entity = kg.entities.get(entity_id)
    return entity.type if entity is not None else "nothing"


def _rule_and_fix(violation: Violation, kg: KG, relation: Relation | None) -> tuple[str, str]:
    triple, kind = violation.triple, violation.kind
    section = f"[relations.{triple.relation}]"
    if kind == "unknown_relation" or (relation is None and kind != "dangling_id"):
        fix = f"add {section} to the schema, list {triple.relation!r} under aliases of the "
        fix += "relation it means, or correct the triple"
        return "every relation of a triple is a section of the schema", fix
    if kind == "dangling_id":
        return (
            "both ends of a triple are entities of the graph",
            "add the missing entity, correct the id, or remove the triple",
        )
    if kind == "unknown_type":
        return (
            "every entity type is listed under types",
            "add the type to types, or correct the entity's type",
        )
    assert relation is not None
    if kind in ("domain", "range"):
        allowed = sorted(relation.domain if kind == "domain" else relation.range)
        end = triple.head_id if kind == "domain" else triple.tail_id
        fix = f"add {_type_of(kg, end)!r} to {kind}, give {end} another type, turn the triple "
        fix += "round if head and tail are mixed up, or remove it"
        return f"{section} {kind} = {allowed}", fix
    if kind == "cardinality":
        return (
            f"{section} cardinality = {relation.cardinality}",
            f"keep at most {relation.cardinality} tails of {triple.head_id}, or raise cardinality",
        )
    if kind == "antisymmetry":
        return (
            f"{section} antisymmetric = true",
            "remove the wrong one of the two triples, or set antisymmetric = false",
        )
    return (
        f"{section} acyclic = true",
        "remove one triple of the cycle, or set acyclic = false",
    )
