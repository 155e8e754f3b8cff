"""Taking seed triples away: the same ones every time, more of them with a larger share."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest

from graphmert.errors import ConfigError
from graphmert.kg import ReduceSettings, Relation, Schema, reduce_seed, schema_without
from graphmert.store import make_table

SCHEMA = Schema(
    ("t",),
    {
        "has": Relation("has", inverse="part_of"),
        "likes": Relation("likes"),
        "loves": Relation("loves", sub_relation_of=("likes",)),
        "part_of": Relation("part_of", inverse="has"),
    },
)


def table(*, reverse: bool = False) -> pa.Table:
    rows = [
        (f"e{i}", relation, f"e{i + 1}", "test" if i % 5 == 4 else "train")
        for relation, n in (("has", 10), ("likes", 40), ("loves", 1), ("part_of", 25))
        for i in range(n)
    ]
    columns = zip(*(reversed(rows) if reverse else rows), strict=True)
    names = ("head_id", "relation", "tail_id", "split")
    return make_table("seed/triples", dict(zip(names, map(list, columns), strict=True)))


def kept(share: float, **changes: object) -> set[tuple[str, ...]]:
    settings = ReduceSettings.model_validate({"share": share, **changes})
    found, _, ledger = reduce_seed(table(), SCHEMA, settings)
    assert ledger.n_offered == len(table())
    assert ledger.n_kept == len(found)
    return {tuple(row.values()) for row in found.to_pylist()}


def counts(rows: set[tuple[str, ...]], part: str) -> Counter[str]:
    return Counter(row[1] for row in rows if row[3] == part)


def test_every_relation_loses_its_share_of_training_triples_alone() -> None:
    whole, left = kept(0.0), kept(0.25)
    assert counts(whole, "train") == {"has": 8, "likes": 32, "loves": 1, "part_of": 20}
    assert counts(left, "train") == {"has": 6, "likes": 24, "loves": 1, "part_of": 15}
    assert counts(left, "test") == counts(whole, "test")


def test_a_larger_share_takes_the_same_and_more() -> None:
    assert kept(0.75) < kept(0.5) < kept(0.25) < kept(0.0)
    assert kept(0.5) != kept(0.5, seed=1)


def test_the_order_of_rows_plays_no_part() -> None:
    settings = ReduceSettings(share=0.5)
    one, two = (reduce_seed(table(reverse=turn), SCHEMA, settings)[0] for turn in (False, True))
    assert {tuple(row.values()) for row in one.to_pylist()} == {
        tuple(row.values()) for row in two.to_pylist()
    }
    everything = table().to_pylist()
    assert [row for row in everything if row in one.to_pylist()] == one.to_pylist()


def test_a_relation_taken_away_leaves_every_part_and_the_schema() -> None:
    settings = ReduceSettings(relations=("likes", "has"))
    found, schema, ledger = reduce_seed(table(), SCHEMA, settings)
    assert set(found["relation"].to_pylist()) == {"loves", "part_of"}
    assert schema.relation_names == ("loves", "part_of")
    assert schema.relations["loves"].sub_relation_of == ()
    assert schema.relations["part_of"].inverse is None
    assert ledger.reasons == {
        "relation has is taken away": 10,
        "relation likes is taken away": 40,
    }
    assert schema_without(SCHEMA, ()) is SCHEMA
    with pytest.raises(ConfigError, match="not there"):
        reduce_seed(table(), SCHEMA, ReduceSettings(relations=("like",)))


def test_nothing_is_set_by_default() -> None:
    assert not ReduceSettings().is_set
    assert ReduceSettings(share=0.1).is_set
    assert ReduceSettings(relations=("a",)).is_set
