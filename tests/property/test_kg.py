from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphmert.errors import DataError
from graphmert.kg import (
    KG,
    Closure,
    Relation,
    Schema,
    Triple,
    infer_schema,
    read_schema,
    split_by_head,
    triple_id,
    validate,
    write_schema,
)
from graphmert.store import kg_from_tables, kg_to_tables
from strategies import RELATIONS, TYPES, entities, kgs, schemas, triples


@given(st.lists(entities), st.lists(triples), st.randoms(use_true_random=False))
def test_a_graph_does_not_depend_on_order_or_repetition(found, statements, random) -> None:
    graph = KG.build(found, statements)
    again, shuffled = list(found) * 2, list(statements) * 2
    random.shuffle(again)
    random.shuffle(shuffled)
    assert KG.build(again, shuffled) == graph
    assert list(KG.build(again, shuffled).entities) == list(graph.entities)


@given(kgs(), kgs())
def test_adding_is_idempotent_and_takes_any_order(one: KG, two: KG) -> None:
    assert one.add(two) == two.add(one)
    assert one.add(one) == one
    assert one.add(two).add(two) == one.add(two)


@given(st.lists(triples, unique=True))
def test_triple_ids_are_distinct(statements) -> None:
    assert len({triple_id(*one) for one in statements}) == len(statements)


@given(schemas())
def test_schema_round_trips_through_toml(tmp_path: Path, schema: Schema) -> None:
    write_schema(tmp_path / "schema.toml", schema)
    assert read_schema(tmp_path / "schema.toml") == schema


@given(kgs())
def test_a_graph_is_within_the_schema_inferred_from_it(kg: KG) -> None:
    kinds = {one.kind for one in validate(kg, infer_schema(kg))}
    assert kinds <= {"cycle", "antisymmetry"}  # is_a is declared acyclic whatever the data says


def reference_closure(statements: set[Triple], schema: Schema) -> set[Triple]:
    """Apply every rule until nothing new follows."""
    known = set(statements)
    while True:
        new = set()
        for head, name, tail in known:
            rule = schema.relations[name]
            new.update(Triple(head, parent, tail) for parent in rule.sub_relation_of)
            if rule.symmetric:
                new.add(Triple(tail, name, head))
            if rule.inverse is not None:
                new.add(Triple(tail, rule.inverse, head))
            if rule.transitive:
                new.update(
                    Triple(head, name, other.tail_id)
                    for other in known
                    if other.relation == name and other.head_id == tail
                )
        if new <= known:
            return known
        known |= new


@given(st.lists(triples, max_size=10), schemas())
def test_closure_equals_brute_force(statements, schema: Schema) -> None:
    closure = Closure(statements, schema)
    expected = reference_closure(set(statements), schema)
    ends = [f"E:{i}" for i in range(8)]
    found = {
        Triple(h, r, t) for h, r, t in product(ends, RELATIONS, ends) if closure.contains(h, r, t)
    }
    assert found == expected


@given(kgs(), schemas(), st.integers(0, 3), st.integers(0, 2), st.integers(0, 2))
def test_split_keeps_heads_and_mirrors_together(kg, schema, seed, n_valid, n_test) -> None:
    try:
        parts = split_by_head(kg, schema, n_valid_heads=n_valid, n_test_heads=n_test, seed=seed)
    except DataError:  # too few heads
        return
    assert list(parts) == list(kg.triples)
    mirrors = {
        triple: [
            other
            for other in kg.triples
            if (other.head_id, other.tail_id) == (triple.tail_id, triple.head_id)
            and (
                other.relation == schema.relations[triple.relation].inverse
                or (
                    other.relation == triple.relation
                    and schema.relations[triple.relation].symmetric
                )
            )
        ]
        for triple in kg.triples
    }
    held: dict[str, set[str]] = {"valid": set(), "test": set()}
    for triple, part in parts.items():
        for other in mirrors[triple]:
            assert parts[other] == part
        if part != "train" and not mirrors[triple]:
            held[part].add(triple.head_id)
    # All triples of a head whose triples are held out for its own sake are in one part.
    for part, heads in held.items():
        for head in heads:
            assert {parts[one] for one in kg.triples if one.head_id == head} == {part}
    if kg.triples:
        assert {one.relation for one, part in parts.items() if part == "train"} >= {
            one.relation for one, part in parts.items() if part != "train" and not mirrors[one]
        }


@given(kgs(), st.integers(0, 3))
def test_without_inverses_every_head_is_in_one_part(kg: KG, seed: int) -> None:
    schema = Schema(TYPES, {name: Relation(name) for name in RELATIONS})
    try:
        parts = split_by_head(kg, schema, n_valid_heads=1, n_test_heads=1, seed=seed)
    except DataError:
        return
    part_of: dict[str, set[str]] = {}
    for triple, part in parts.items():
        part_of.setdefault(triple.head_id, set()).add(part)
    assert all(len(found) == 1 for found in part_of.values())
    assert sorted(next(iter(one)) for one in part_of.values()).count("test") == 1


@given(kgs())
def test_tables_round_trip(kg: KG) -> None:
    split = {triple: ("train", "valid", "test")[i % 3] for i, triple in enumerate(kg.triples)}
    assert kg_from_tables(*kg_to_tables(kg, split)) == (kg, split)


def test_one_id_with_two_names_is_refused() -> None:
    one = kgs_of("E:1", "first")
    with pytest.raises(DataError, match="E:1"):
        one.add(kgs_of("E:1", "second"))


def kgs_of(entity_id: str, name: str) -> KG:
    from graphmert.kg import Entity

    return KG.build([Entity(entity_id, name, "process")], [])
