from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from graphmert.domains.text.selection import select_triples, triple_texts

TRIPLES = pa.table(
    {
        "head_id": ["a", "a", "a", "b"],
        "relation": ["is_a", "is_a", "near", "is_a"],
        "tail_id": ["t", "u", "t", "t"],
    }
)
MENTIONS = pa.table(
    {
        "seq_id": ["s0", "s0", "s0", "s1"],
        "entity_id": ["a", "a", "x", "b"],
        "start": pa.array([5, 0, 9, 1], pa.int32()),
        "end": pa.array([6, 1, 10, 2], pa.int32()),
        "is_title": [False] * 4,
    }
)
SEQUENCES = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
VECTORS = np.array([[0.6, 0.8], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], np.float32)


@pytest.mark.parametrize(("top_k", "kept"), [(1, [1]), (2, [0, 1]), (40, [0, 1, 2])])
def test_the_nearest_triples_of_each_head_are_kept(top_k: int, kept: list[int]) -> None:
    table, ledger = select_triples(
        MENTIONS, TRIPLES, SEQUENCES, {"s0": 0, "s1": 1}, VECTORS, top_k=top_k
    )
    rows = table.to_pylist()
    assert [row["triple"] for row in rows if row["seq_id"] == "s0"] == kept
    assert [row["triple"] for row in rows if row["seq_id"] == "s1"] == [3]
    # The first mention of a head in a sequence is its place.
    assert {row["head_start"] for row in rows if row["head_id"] == "a"} == {0}
    for row in rows:
        sequence = SEQUENCES[int(row["seq_id"][1:])]
        assert row["score"] == pytest.approx(float(sequence @ VECTORS[row["triple"]]))
    assert ledger.n_offered == 7
    assert ledger.reasons["entity mentioned again in the sequence"] == 3
    assert ledger.reasons.get(f"not among the {top_k} best of its head", 0) == 3 - len(kept)


def test_triples_in_words() -> None:
    names = {"a": "yeast", "b": "salt", "t": "bread", "u": "dough"}
    texts = triple_texts(TRIPLES, names, {"is_a": "is a", "near": "is near"})
    assert texts == [
        "yeast is a bread",
        "yeast is a dough",
        "yeast is near bread",
        "salt is a bread",
    ]
