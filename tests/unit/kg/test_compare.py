from __future__ import annotations

import pytest
from hypothesis import given

from graphmert.errors import DataError
from graphmert.kg import (
    KG,
    Entity,
    KGDocument,
    Relation,
    Schema,
    Triple,
    compare_kgs,
    describe_kg,
    explain_violation,
    merge_documents,
    require_triples,
    validate,
    without_relations,
)
from graphmert.shards import Ledger
from strategies import kgs


def document(kg: KG, **definitions: str) -> KGDocument:
    ledger = Ledger("test")
    ledger.offered(len(kg.triples))
    ledger.keep(len(kg.triples))
    return KGDocument(kg, definitions, ledger, source="x")


A, B, C = Entity("a", "A", "x", ("alpha",)), Entity("b", "B", "y"), Entity("c", "C", "y")
ONE = KG.build([A, B], [Triple("a", "is_a", "b")])
TWO = KG.build([Entity("a", "Aa", "x"), C], [Triple("a", "near", "c"), Triple("a", "is_a", "b")])


def test_counts() -> None:
    found = describe_kg(document(TWO, a="What."))
    assert found["entities_by_type"] == {"x": 1, "y": 1}
    assert found["triples_by_relation"] == {"is_a": 1, "near": 1}
    assert (found["definitions"], found["ends_that_are_no_entity"]) == (1, 1)
    assert (found["most_triples_of_a_head"], found["entities_without_triple"]) == (2, 0)


def test_differences() -> None:
    found = compare_kgs(ONE, TWO)
    assert [one.entity_id for one in found.added_entities] == ["c"]
    assert [one.entity_id for one in found.removed_entities] == ["b"]
    assert [(one.name, two.name) for one, two in found.changed_entities] == [("A", "Aa")]
    assert found.added_triples == (Triple("a", "near", "c"),)
    assert found.removed_triples == ()
    assert not found.is_empty


@given(kgs(), kgs())
def test_a_graph_and_the_difference_give_the_other(one: KG, two: KG) -> None:
    found = compare_kgs(one, two)
    assert found.is_empty == (one == two)
    triples = (set(one.triples) - set(found.removed_triples)) | set(found.added_triples)
    gone = {entity.entity_id for entity in found.removed_entities}
    changed = {new.entity_id: new for _, new in found.changed_entities}
    entities = [
        changed.get(entity_id, entity)
        for entity_id, entity in one.entities.items()
        if entity_id not in gone
    ]
    assert KG.build([*entities, *found.added_entities], triples) == two


def test_merging_stops_at_two_names_or_keeps_one() -> None:
    with pytest.raises(DataError, match="two entities"):
        merge_documents([document(ONE), document(TWO)])
    first = merge_documents([document(ONE), document(TWO)], prefer="first")
    assert first.kg.entities["a"] == Entity("a", "A", "x", ("Aa", "alpha"))
    last = merge_documents([document(ONE), document(TWO)], prefer="last")
    assert last.kg.entities["a"] == Entity("a", "Aa", "x", ("A", "alpha"))
    assert len(first.kg.triples) == 2
    assert first.ledger.reasons == {"another name or type of the same id": 1}


@given(kgs())
def test_merging_with_itself_changes_nothing(kg: KG) -> None:
    assert merge_documents([document(kg), document(kg)]).kg == kg


def test_unwanted_relations_go_to_the_ledger() -> None:
    found = without_relations(document(TWO), ["near"])
    assert found.kg.relations == ("is_a",)
    assert found.ledger.check().reasons == {"relation near is not wanted": 1}
    with pytest.raises(DataError, match="no triple"):
        require_triples(without_relations(document(TWO), ["near", "is_a"]))


SCHEMA = Schema(
    ("x", "y"),
    {
        "is_a": Relation("is_a", antisymmetric=True, acyclic=True),
        "near": Relation("near", domain=frozenset({"y"}), range=frozenset({"x"}), cardinality=1),
    },
)
EXPLAINED = {
    "unknown_relation": ([("a", "nere", "b")], "section of the schema", "[relations.nere]"),
    "dangling_id": ([("a", "is_a", "gone")], "entities of the graph", "add the missing entity"),
    "domain": ([("a", "near", "a")], "domain = ['y']", "add 'x' to domain"),
    "range": ([("b", "near", "c")], "range = ['x']", "add 'y' to range"),
    "cardinality": ([("b", "near", "a"), ("b", "near", "d")], "cardinality = 1", "at most 1"),
    "antisymmetry": ([("a", "is_a", "b"), ("b", "is_a", "a")], "antisymmetric", "remove the wrong"),
    "cycle": ([("a", "is_a", "b"), ("b", "is_a", "a")], "acyclic = true", "of the cycle"),
    "unknown_type": ([("e", "is_a", "a")], "listed under types", "add the type"),
}


@pytest.mark.parametrize("kind", EXPLAINED)
def test_every_violation_has_its_rule_and_its_remedy(kind: str) -> None:
    rows, rule, fix = EXPLAINED[kind]
    entities = [A, B, C, Entity("d", "D", "x"), Entity("e", "E", "z")]
    kg = KG.build(entities, [Triple(*row) for row in rows])
    found = next(one for one in validate(kg, SCHEMA) if one.kind == kind)
    told = explain_violation(found, kg, SCHEMA)
    assert told.kind == kind
    assert rule in told.rule
    assert fix in told.fix
    assert told.problem == found.message
    assert f"| {found.triple.relation} |" in told.triple
