"""Each rule of the schema refuses the triple that breaks it, and no other."""

from __future__ import annotations

import pytest

from graphmert.kg import KG, Entity, Relation, Schema, SchemaGate, Triple, validate

SCHEMA = Schema(
    ("a", "b"),
    {
        "is_a": Relation("is_a", acyclic=True, antisymmetric=True),
        "near": Relation("near", antisymmetric=True),
        "one": Relation("one", cardinality=1),
        "to_b": Relation("to_b", range=frozenset({"b"})),
    },
)


def test_rules_and_what_they_leave() -> None:
    gate = SchemaGate(SCHEMA, [Triple("1", "is_a", "2"), Triple("1", "one", "5")])
    gate.add(Triple("2", "is_a", "3"))
    gate.add(Triple("7", "near", "8"))
    refused = {
        Triple("1", "to_b", "2"): "range",
        Triple("1", "one", "6"): "cardinality",
        Triple("8", "near", "7"): "antisymmetric",
        Triple("2", "is_a", "1"): "antisymmetric",
        Triple("3", "is_a", "1"): "cycle",
    }
    for triple, rule in refused.items():
        assert f"schema, {rule}" in str(gate.objection(triple, "a")), triple
    free = [
        Triple("1", "one", "5"),  # known already, so it is no second tail
        Triple("2", "one", "6"),
        Triple("1", "is_a", "3"),
        Triple("8", "near", "9"),
    ]
    assert [gate.objection(triple, "a") for triple in free] == [None] * len(free)
    assert gate.objection(Triple("1", "to_b", "2"), "b") is None


SUB = Schema(
    ("event",),
    {
        "before": Relation("before", acyclic=True),
        "just_before": Relation("just_before", sub_relation_of=("before",)),
        "right_before": Relation("right_before", sub_relation_of=("just_before",)),
        "causes": Relation("causes", antisymmetric=True),
        "triggers": Relation("triggers", sub_relation_of=("causes",)),
        "located": Relation("located", cardinality=1),
        "inside": Relation("inside", sub_relation_of=("located",)),
    },
)


@pytest.mark.parametrize(
    ("known", "offered", "rule"),
    [
        ("a before b", "b just_before a", "cycle"),
        ("a right_before b", "b just_before a", "cycle"),
        ("a right_before b", "b before a", "cycle"),
        ("a causes b", "b triggers a", "antisymmetric"),
        ("a triggers b", "b causes a", "antisymmetric"),
        ("a located b", "a inside c", "cardinality"),
        ("a inside b", "a located c", "cardinality"),
    ],
)
def test_a_triple_counts_under_every_relation_that_it_implies(
    known: str, offered: str, rule: str
) -> None:
    first, second = Triple(*known.split()), Triple(*offered.split())
    gate = SchemaGate(SUB, [first])
    assert f"schema, {rule}" in str(gate.objection(second, "event"))
    graph = KG.build([Entity(one, one, "event") for one in "abc"], [first, second])
    kinds = {one.kind for one in validate(graph, SUB)}
    assert kinds == {"antisymmetry" if rule == "antisymmetric" else rule}
    assert gate.objection(Triple("c", second.relation, "a"), "event") is None
