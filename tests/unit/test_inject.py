from __future__ import annotations

import pyarrow as pa
import pytest

from graphmert.errors import FormatError
from graphmert.inject import inject_simple
from graphmert.kg import triple_id

MENTIONS = pa.table(
    {
        "seq_id": ["s0", "s0", "s0", "s0", "s1"],
        "entity_id": ["b", "a", "b", "x", "a"],
        "start": pa.array([4, 0, 9, 12, 2], pa.int32()),
        "end": pa.array([6, 3, 11, 13, 5], pa.int32()),
        "is_title": [False, True, False, False, False],
    }
)
TRIPLES = pa.table(
    {
        "head_id": ["b", "a", "a", "a", "a", "c"],
        "relation": ["is_a", "part_of", "is_a", "is_a", "is_a", "is_a"],
        "tail_id": ["c", "b", "c", "b", "held", "a"],
        "split": ["train", "train", "train", "train", "test", "train"],
    }
)
N_TOKENS = {"a": 1, "b": 2, "c": 3, "held": 1}


def rows(table: pa.Table) -> list[tuple[object, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def test_title_first_then_place_then_relation() -> None:
    table, ledger = inject_simple(MENTIONS, TRIPLES, n_tail_tokens=N_TOKENS)
    assert rows(table) == [
        ("s0", 0, 3, triple_id("a", "is_a", "b"), 1.0),
        ("s0", 0, 3, triple_id("a", "is_a", "c"), 1.0),
        ("s0", 0, 3, triple_id("a", "part_of", "b"), 1.0),
        ("s0", 4, 6, triple_id("b", "is_a", "c"), 1.0),
        ("s1", 2, 5, triple_id("a", "is_a", "b"), 1.0),
        ("s1", 2, 5, triple_id("a", "is_a", "c"), 1.0),
        ("s1", 2, 5, triple_id("a", "part_of", "b"), 1.0),
    ]
    assert (ledger.n_offered, ledger.n_kept) == (8, 7)
    assert ledger.reasons == {"entity mentioned again in the sequence": 1}


def test_held_out_triples_are_never_injected() -> None:
    table, _ = inject_simple(MENTIONS, TRIPLES, n_tail_tokens=N_TOKENS)
    assert triple_id("a", "is_a", "held") not in table["triple"].to_pylist()


def test_limits_go_to_the_ledger() -> None:
    table, ledger = inject_simple(
        MENTIONS, TRIPLES, n_tail_tokens=N_TOKENS, max_tail_tokens=2, max_triples_per_chain=1
    )
    assert [one[3] for one in rows(table)] == [triple_id("a", "is_a", "b")] * 2
    assert ledger.reasons == {
        "entity mentioned again in the sequence": 1,
        "tail longer than 2 tokens": 3,
        "more than 1 triples on the sequence": 2,
    }
    assert ledger.examples["tail longer than 2 tokens"] == ["c"]


def test_a_tail_without_tokens_is_left_out() -> None:
    _, ledger = inject_simple(MENTIONS, TRIPLES, n_tail_tokens={"b": 2})
    assert ledger.reasons["tail has no token"] == 3


def test_nothing_to_inject() -> None:
    table, ledger = inject_simple(MENTIONS.slice(0, 0), TRIPLES, n_tail_tokens=N_TOKENS)
    assert (table.num_rows, ledger.n_offered) == (0, 0)
    table, ledger = inject_simple(MENTIONS, TRIPLES.slice(0, 0), n_tail_tokens={})
    assert (table.num_rows, ledger.n_offered) == (0, 0)


def test_missing_columns_are_named() -> None:
    with pytest.raises(FormatError, match="is_title"):
        inject_simple(MENTIONS.drop_columns("is_title"), TRIPLES, n_tail_tokens={})
