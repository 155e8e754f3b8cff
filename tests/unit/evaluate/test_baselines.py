from __future__ import annotations

import math

import numpy as np
import pytest

from graphmert.errors import DataError
from graphmert.evaluate.baselines import (
    Bm25Names,
    CharNgramNames,
    LongestNameInText,
    NearestName,
    Query,
    RelationFrequency,
    score_block,
    untrained_baselines,
)

NAMES = [
    "cell death",
    "regulation of cell death",
    "death",
    "cell",
    "apoptotic process",
    "CELL",
]
TEXT = "regulation of cell death: Any process that modulates the rate of cell death by apoptosis."


def query(text: str = TEXT, *, head: int = 1, relation: int = 0) -> Query:
    return Query(head=head, head_name=NAMES[head], relation=relation, text=text)


def test_relation_frequency_counts_training_tails_only() -> None:
    baseline = RelationFrequency([0, 0, 1], [2, 2, 3], n_relations=2, n_entities=6)
    scores = baseline.score([query(relation=0), query(relation=1)])
    assert scores[0].tolist() == [0, -np.inf, 2, 0, 0, 0]
    assert scores[1].tolist() == [0, -np.inf, 0, 1, 0, 0]


def test_longest_name_wins_and_the_head_is_out() -> None:
    scores = LongestNameInText(NAMES).score([query()])[0]
    assert scores.tolist() == [10, -np.inf, 5, 4, 0, 4]  # both entities named "cell" are found


def test_longest_name_needs_whole_words() -> None:
    scores = LongestNameInText(["cell", "(cell)", "β cell"]).score(
        [Query(head=-1, head_name="x", relation=0, text="subcellular; a (cell); β CELLS")]
    )[0]
    assert scores.tolist() == [4, 6, 0]


def test_longest_name_skips_entities_named_like_the_head() -> None:
    scores = LongestNameInText(["a b", "A B", "b"]).score([Query(0, "a b", 0, "a b")])[0]
    assert scores.tolist() == [-np.inf, 0, 1]


def test_bm25_matches_the_formula() -> None:
    names = ["cell death", "cell cell", "x"]
    scores = Bm25Names(names, k1=1.5, b=0.6).score([Query(-1, "", 0, "a cell, the cell: death!")])
    mean_length = 5 / 3

    def term(tf: int, df: int, length: int) -> float:
        idf = math.log(1 + (3 - df + 0.5) / (df + 0.5))
        return idf * tf * 2.5 / (tf + 1.5 * (0.4 + 0.6 * length / mean_length))

    expected = [term(1, 2, 2) + term(1, 1, 2), term(2, 2, 2), 0]
    np.testing.assert_allclose(scores[0], expected, rtol=1e-5)


def test_char_ngram_is_the_cosine_of_tfidf_vectors() -> None:
    names = ["abab", "abc", "zzz"]
    text = "abcab"
    grams = [[f" {s} "[i : i + 3] for i in range(len(s))] for s in [*names, text]]
    vocabulary = sorted({g for one in grams[:3] for g in one})
    idf = [1 + math.log(4 / (1 + sum(g in one for one in grams[:3]))) for g in vocabulary]
    vectors = np.array(
        [[one.count(g) * w for g, w in zip(vocabulary, idf, strict=True)] for one in grams]
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = CharNgramNames(names).score([Query(-1, "", 0, text)])[0]
    np.testing.assert_allclose(scores, vectors[:3] @ vectors[3], rtol=1e-5)


def test_char_ngram_of_a_text_without_known_grams_is_zero() -> None:
    assert CharNgramNames(["abc"]).score([Query(-1, "", 0, "")]).tolist() == [[0.0]]


def test_nearest_name_is_the_cosine() -> None:
    baseline = NearestName(["t"], np.array([[3.0, 4.0]]), np.array([[1.0, 0.0], [0.0, 2.0]]))
    scores = baseline.score([Query(-1, "", 0, "t")])
    np.testing.assert_allclose(scores, [[0.6, 0.8]], rtol=1e-6)
    with pytest.raises(DataError, match="no embedding"):
        baseline.score([Query(-1, "", 0, "another")])
    with pytest.raises(DataError, match="do not fit"):
        NearestName(["t"], np.zeros((1, 2)), np.zeros((3, 4)))


def test_equal_texts_of_different_heads_differ_only_in_the_heads() -> None:
    for baseline in (Bm25Names(NAMES), CharNgramNames(NAMES)):
        first, second = baseline.score([query(head=1), query(head=0)])
        assert (first[1], second[0]) == (-np.inf, -np.inf)
        assert first[2:].tolist() == second[2:].tolist()
        assert np.isfinite([second[1], first[0]]).all()


def test_blocks_equal_the_whole() -> None:
    queries = [query(), query("apoptotic process", head=4), query("cells", head=3, relation=1)]
    for baseline in untrained_baselines(
        NAMES, train_relations=[0, 1], train_tails=[0, 2], n_relations=2
    ):
        whole = baseline.score(queries)
        block = score_block(baseline, queries)
        np.testing.assert_array_equal(np.concatenate([block(0, 2), block(2, 3)]), whole)
        assert whole.dtype == np.float32
