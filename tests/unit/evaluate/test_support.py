from __future__ import annotations

import dataclasses

from graphmert.evaluate.support import support_score
from graphmert.export import GraphTables
from graphmert.kg import Relation, Schema
from graphmert.store import empty_table
from toy_graph import SCHEMA, make_tables, table


def with_rows(tables: GraphTables, name: str, **changes: object) -> GraphTables:
    """The tables with values changed in the first row of one."""
    rows = getattr(tables, name).to_pylist()
    rows[0] |= changes
    return dataclasses.replace(tables, **{name: table(f"kg/{name}", rows)})


def test_the_first_reason_counts_and_all_triples_are_counted() -> None:
    found = support_score(make_tables(), threshold=0.5)
    assert (found["n"], found["n_supported"]) == (3, 2)
    assert found["unsupported"] == {"score below the threshold": 1}
    assert found["score"]["value"] == 0.666667
    found = support_score(make_tables(), threshold=0.0)
    assert found["unsupported"] == {"no sentence holds both surfaces": 1}


def test_a_surface_that_is_not_in_its_sentence_supports_nothing() -> None:
    tables = make_tables()
    for changes in (
        {"tail_surface": "cell groWth"},
        {"head_surface": "x"},
        {"tail_start": 999, "tail_end": 1010},
        {"tail_start": None, "tail_end": None, "tail_surface": None},
    ):
        found = support_score(with_rows(tables, "evidence", **changes), threshold=0.5)
        assert found["unsupported"]["no sentence holds both surfaces"] == 1, changes


def test_the_schema_counts() -> None:
    narrow = Relation("regulates", range=frozenset({"part"}))
    relations = {**SCHEMA.relations, "regulates": narrow, "speeds_up": Relation("speeds_up")}
    schema = Schema(SCHEMA.types, relations)
    tables = dataclasses.replace(make_tables(), schema=schema)
    found = support_score(tables, threshold=0.0)
    assert found["unsupported"]["schema: range"] == 1
    assert found["n_supported"] == 1


def test_the_seed_joins_cycles_and_cardinalities() -> None:
    schema = Schema(
        SCHEMA.types,
        {**SCHEMA.relations,
         "part_of": Relation("part_of", cardinality=1), "has_part": Relation("has_part")},
    )  # fmt: skip
    tables = dataclasses.replace(make_tables(), schema=schema)
    alone = support_score(tables, threshold=0.0)
    # T:6 has two tails under part_of by itself; the later one breaks the limit.
    assert alone["unsupported"]["schema: cardinality"] == 1
    rows = make_tables().triples.to_pylist()[:1]
    one = dataclasses.replace(
        tables, triples=table("kg/triples", [rows[0]]), evidence=empty_table("kg/evidence")
    )
    assert "schema" not in str(support_score(one, threshold=0.0)["unsupported"])


def test_a_score_at_the_threshold_reaches_it() -> None:
    # As float32, 0.7 is 0.69999998….
    assert support_score(make_tables(), threshold=0.7)["n_supported"] == 2


def test_an_empty_graph_has_no_score() -> None:
    tables = make_tables()
    empty = dataclasses.replace(
        tables, triples=empty_table("kg/triples"), evidence=empty_table("kg/evidence")
    )
    assert support_score(empty, threshold=0.5)["score"] is None
