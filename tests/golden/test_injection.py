"""The injection algorithm against a loop written from the paper's steps."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphmert.errors import FormatError
from graphmert.inject import InjectSettings, inject_scored, training_triples
from graphmert.kg import triple_id

TRIPLES = training_triples(
    pa.table(
        {
            "head_id": ["a", "a", "a", "b", "b", "c", "c"],
            "relation": ["is_a", "near", "near", "is_a", "near", "is_a", "is_a"],
            "tail_id": ["t", "t", "u", "t", "long", "u", "empty"],
            "split": ["train"] * 7,
        }
    )
)
ROWS = TRIPLES.to_pylist()
N_TOKENS = {"t": 1, "u": 2, "long": 9, "empty": 0}
MAX_TAIL = 4

candidates = st.lists(
    st.tuples(
        st.integers(0, 3),  # sequence
        st.integers(0, len(ROWS) - 1),  # triple
        st.integers(30, 99).map(lambda hundredths: hundredths / 100),
    ),
    max_size=40,
    unique_by=lambda row: row[:2],
).map(sorted)
settings = st.builds(
    InjectSettings,
    method=st.just("scored"),
    alpha=st.sampled_from([0.3, 0.55, 0.8]),
    sequences_per_triple=st.sampled_from([0, 1, 2]),
    triples_per_head=st.sampled_from([0, 1, 2]),
    score_bucket=st.sampled_from([0.01, 0.25]),
    relation_bucket=st.sampled_from([1, 3, 100]),
    min_triples_per_relation=st.sampled_from([0, 2, 4]),
    max_per_relation=st.sampled_from([0, 1, 3]),
    max_per_head=st.sampled_from([0, 1, 3]),
)


def as_table(rows: list[tuple[int, int, float]]) -> pa.Table:
    place = {"a": 0, "b": 10, "c": 20}
    heads = [ROWS[triple]["head_id"] for _, triple, _ in rows]
    return pa.table(
        {
            "seq_id": pa.array([f"s{sequence}" for sequence, _, _ in rows], pa.string()),
            "head_id": pa.array(heads, pa.string()),
            "head_start": pa.array([place[head] for head in heads], pa.int32()),
            "head_end": pa.array([place[head] + 5 for head in heads], pa.int32()),
            "is_title": pa.array([False] * len(rows), pa.bool_()),
            "triple": pa.array([triple for _, triple, _ in rows], pa.int32()),
            "score": pa.array([score for _, _, score in rows], pa.float64()),
        }
    )


def by_the_paper(
    rows: list[tuple[int, int, float]], options: InjectSettings, max_chain: int
) -> set[tuple[int, int]]:
    """Apply the steps one after another, row by row."""
    left = [
        row
        for row in rows
        if 0 < N_TOKENS[ROWS[row[1]]["tail_id"]] <= MAX_TAIL and row[2] >= options.alpha
    ]
    if options.sequences_per_triple:
        kept = []
        for triple in {row[1] for row in left}:
            own = sorted((row for row in left if row[1] == triple), key=lambda r: (-r[2], r[0]))
            kept += own[: options.sequences_per_triple]
        left = kept

    def relation(row: tuple[int, int, float]) -> str:
        return ROWS[row[1]]["relation"]

    count = Counter(map(relation, left))
    left = [row for row in left if count[relation(row)] >= options.min_triples_per_relation]
    count = Counter(map(relation, left))
    best = max((row[2] for row in left), default=0.0)
    left.sort(
        key=lambda row: (
            math.floor((best - row[2]) / options.score_bucket),
            count[relation(row)] // options.relation_bucket,
            -row[2],
            row[0],
            row[1],
        )
    )
    for limit, key in (
        (options.triples_per_head, lambda row: (row[0], ROWS[row[1]]["head_id"])),
        (options.max_per_relation, relation),
        (options.max_per_head, lambda row: ROWS[row[1]]["head_id"]),
        (max_chain, lambda row: row[0]),
    ):
        if limit:
            seen: Counter[Any] = Counter()
            kept = []
            for row in left:
                seen[key(row)] += 1
                if seen[key(row)] <= limit:
                    kept.append(row)
            left = kept
    return {row[:2] for row in left}


@given(candidates, settings, st.sampled_from([1, 2, 32]))
def test_injection_equals_the_loop(
    rows: list[tuple[int, int, float]], options: InjectSettings, max_chain: int
) -> None:
    table, ledger = inject_scored(
        as_table(rows),
        TRIPLES,
        options,
        n_tail_tokens=N_TOKENS,
        max_tail_tokens=MAX_TAIL,
        max_triples_per_chain=max_chain,
    )
    key_of = {triple_id(*row.values()): place for place, row in enumerate(ROWS)}
    found = {
        (int(seq_id[1:]), key_of[key])
        for seq_id, key in zip(
            table["seq_id"].to_pylist(), table["triple"].to_pylist(), strict=True
        )
    }
    assert found == by_the_paper(rows, options, max_chain)
    assert len(found) == table.num_rows
    ledger.check()
    assert (ledger.n_offered, ledger.n_kept) == (len(rows), table.num_rows)
    order = list(zip(table["seq_id"].to_pylist(), table["head_start"].to_pylist(), strict=True))
    assert order == sorted(order)


def test_the_paper_keeps_one_triple_a_head_and_one_sequence_a_triple() -> None:
    options = InjectSettings(method="scored")
    assert (options.alpha, options.score_bucket, options.relation_bucket) == (0.55, 0.01, 100)
    assert (options.sequences_per_triple, options.triples_per_head) == (1, 1)
    rows = [(0, 0, 0.9), (0, 1, 0.7), (1, 0, 0.8), (1, 2, 0.6), (2, 2, 0.5)]
    table, ledger = inject_scored(as_table(rows), TRIPLES, options, n_tail_tokens=N_TOKENS)
    assert table["seq_id"].to_pylist() == ["s0", "s1"]
    assert table["score"].to_pylist() == pytest.approx([0.9, 0.6])
    assert ledger.reasons == {
        "score below alpha = 0.55": 1,
        "scores higher in another sequence": 1,
        "a better triple of the same head in the sequence": 1,
    }
    assert ledger.examples["score below alpha = 0.55"] == ["s2: a near u"]


def test_the_rarer_relation_goes_first_among_equal_scores() -> None:
    options = InjectSettings(
        method="scored", sequences_per_triple=0, relation_bucket=1, score_bucket=0.1
    )
    # "near" has one row, "is_a" three: within a bucket of scores "near" wins.
    rows = [(0, 0, 0.92), (0, 1, 0.91), (1, 0, 0.9), (2, 0, 0.9)]
    table, _ = inject_scored(as_table(rows), TRIPLES, options, n_tail_tokens=N_TOKENS)
    assert table["score"].to_pylist()[0] == pytest.approx(0.91)


def test_missing_columns_are_named() -> None:
    with pytest.raises(FormatError, match="score"):
        inject_scored(
            as_table([]).drop_columns("score"), TRIPLES, InjectSettings(), n_tail_tokens={}
        )


def test_unwanted_relations_and_held_out_triples_are_never_offered() -> None:
    table = pa.table(
        {
            "head_id": ["b", "a", "a"],
            "relation": ["x", "y", "z"],
            "tail_id": ["t", "t", "t"],
            "split": ["train", "train", "test"],
        }
    )
    assert training_triples(table)["head_id"].to_pylist() == ["a", "b"]
    assert training_triples(table, leave_out=["y"])["relation"].to_pylist() == ["x"]
