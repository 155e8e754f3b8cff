from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from graphmert.errors import FormatError, SchemaError
from graphmert.kg import (
    KG,
    Closure,
    Entity,
    Relation,
    Schema,
    Triple,
    Violation,
    read_schema,
    require_valid,
    validate,
    write_schema,
)

SCHEMA = Schema(
    ("drug", "gene"),
    {
        "is_a": Relation("is_a", transitive=True, antisymmetric=True, acyclic=True),
        "treats": Relation("treats", domain=frozenset({"drug"}), cardinality=1),
        "kind_of": Relation("kind_of", sub_relation_of=("is_a",)),
    },
)
ENTITIES = [Entity("a", "A", "drug"), Entity("b", "B", "gene"), Entity("c", "C", "gene")]


def violations(*rows: tuple[str, str, str], entities: list[Entity] = ENTITIES) -> list[Violation]:
    return validate(KG.build(entities, [Triple(*row) for row in rows]), SCHEMA)


def test_descriptions_are_kept_and_change_nothing_where_there_are_none(tmp_path: Path) -> None:
    path = tmp_path / "schema.toml"
    write_schema(path, SCHEMA)
    assert "description" not in path.read_text(encoding="utf-8")
    assert read_schema(path) == SCHEMA
    words = 'Cures, "mostly";\nnot always.'
    treats = replace(SCHEMA.relations["treats"], description=words)
    described = Schema(SCHEMA.types, SCHEMA.relations | {"treats": treats})
    write_schema(path, described)
    assert read_schema(path) == described
    assert "#   description" in path.read_text(encoding="utf-8")
    assert treats.words == f"treats: {words}"
    assert SCHEMA.relations["kind_of"].words == "kind of"


def test_a_valid_graph_has_no_violation() -> None:
    assert violations(("a", "treats", "b"), ("b", "is_a", "c"), ("a", "kind_of", "c")) == []


@pytest.mark.parametrize(
    ("rows", "kind", "words"),
    [
        (
            [("a", "treat", "b")],
            "unknown_relation",
            "'treat' is not in the schema; nearest: 'treats'",
        ),
        ([("a", "treats", "x")], "dangling_id", "tail 'x' is no entity"),
        ([("x", "is_a", "b")], "dangling_id", "head 'x' is no entity"),
        (
            [("b", "treats", "c")],
            "domain",
            "head b of treats has the type 'gene', outside ['drug']",
        ),
        ([("a", "treats", "b"), ("a", "treats", "c")], "cardinality", "a has 2 tails under treats"),
        ([("a", "is_a", "a")], "cycle", "a -> a"),
        (
            [("a", "is_a", "b"), ("b", "kind_of", "c"), ("c", "is_a", "a")],
            "cycle",
            "is_a is acyclic but has the cycle a -> b -> c -> a",
        ),
    ],
    ids=["relation", "tail", "head", "domain", "cardinality", "loop", "cycle"],
)
def test_each_violation_is_named(rows: list[tuple[str, str, str]], kind: str, words: str) -> None:
    found = violations(*rows)
    assert [one.kind for one in found] == [kind]
    assert words in found[0].message


def test_two_way_triples_break_antisymmetry_once() -> None:
    kinds = [one.kind for one in violations(("a", "is_a", "b"), ("b", "is_a", "a"))]
    assert sorted(kinds) == ["antisymmetry", "cycle"]


def test_an_unknown_type_is_named() -> None:
    odd = [Entity("a", "A", "planet"), *ENTITIES[1:]]
    found = violations(("a", "is_a", "b"), entities=odd)
    assert [one.kind for one in found] == ["unknown_type"]


def test_a_long_chain_needs_no_deep_recursion() -> None:
    rows = [Triple(f"e{i}", "is_a", f"e{i + 1}") for i in range(5000)]
    entities = [Entity(f"e{i}", str(i), "gene") for i in range(5001)]
    assert validate(KG.build(entities, rows), SCHEMA) == []
    closed = KG.build(entities, [*rows, Triple("e5000", "is_a", "e0")])
    assert [one.kind for one in validate(closed, SCHEMA)] == ["cycle"]


def test_require_valid_says_what_and_how_many() -> None:
    graph = KG.build(ENTITIES, [Triple("a", "treat", "b"), Triple("a", "is_a", "x")])
    with pytest.raises(SchemaError) as caught:
        require_valid(graph, SCHEMA, where="seed.obo")
    text = str(caught.value)
    assert "seed.obo" in text
    assert "1 dangling_id, 1 unknown_relation" in text
    assert "'x' is no entity" in text


@pytest.mark.parametrize(
    "relation",
    [
        Relation("r", inverse="absent"),
        Relation("r", sub_relation_of=("r",)),
        Relation("r", domain=frozenset({"absent"})),
        Relation("r", symmetric=True, antisymmetric=True),
        Relation("r", cardinality=0),
        Relation("other"),
    ],
    ids=["inverse", "circle", "type", "symmetric", "cardinality", "key"],
)
def test_a_schema_that_contradicts_itself_is_refused(relation: Relation) -> None:
    with pytest.raises(SchemaError, match="relation r"):
        Schema(("gene",), {"r": relation})


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("typs = []\n", FormatError, "nearest: 'types'"),
        ("[relations.r]\ntransitiv = true\n", FormatError, "nearest: 'transitive'"),
        ("[relations.r]\ntransitive = 1\n", FormatError, "true or false"),
        ("[relations.r]\ndomain = 'gene'\n", FormatError, "list of texts"),
        ("[relations.r]\ncardinality = true\n", FormatError, "whole number"),
        ("[relations\n", FormatError, "not valid TOML"),
        ("[relations.r]\ninverse = 's'\n", SchemaError, "'s', which is not there"),
    ],
)
def test_reading_a_schema_is_strict(
    tmp_path: Path, text: str, error: type[Exception], words: str
) -> None:
    path = tmp_path / "schema.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(error, match=words):
        read_schema(path)


def test_the_written_schema_explains_itself(tmp_path: Path) -> None:
    path = tmp_path / "schema.toml"
    write_schema(path, SCHEMA)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Schema of the seed")
    assert 'label = "kind of"' in text
    assert read_schema(path) == SCHEMA


def test_closure_follows_sub_relations_and_paths() -> None:
    closure = Closure([Triple("a", "kind_of", "b"), Triple("b", "is_a", "c")], SCHEMA)
    assert closure.contains("a", "is_a", "c")
    assert not closure.contains("a", "kind_of", "c")
    assert not closure.contains("c", "is_a", "a")
    assert not closure.contains("a", "unknown", "c")
    assert Triple("a", "is_a", "b") in closure
