"""Each rule of the schema refuses the triple that breaks it, and no other."""

from __future__ import annotations

from graphmert.kg import Relation, Schema, Triple
from graphmert.run.gate import SchemaGate

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
