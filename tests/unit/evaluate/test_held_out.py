from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphmert.evaluate.held_out import query_scores, top_one_scores
from graphmert.evaluate.ranks import QueryRow, filtered_rank
from graphmert.kg import Triple

ends, relations = st.sampled_from("abcd"), st.sampled_from("rs")
some = st.lists(st.builds(Triple, ends, relations, ends), max_size=12)


def test_a_case_by_hand() -> None:
    held_out = [Triple("a", "r", "x"), Triple("a", "r", "y"), Triple("b", "r", "x")]
    accepted = [
        Triple("a", "r", "x"),  # right
        Triple("a", "r", "z"),  # wrong
        Triple("a", "r", "k"),  # known
        Triple("c", "r", "x"),  # no held-out tail: left aside
    ]
    found = query_scores(accepted, held_out, known=[Triple("a", "r", "k")], n_resamples=50)
    assert (found["n_queries"], found["n_answered"]) == (2, 1)
    assert (found["n_true"], found["n_accepted"], found["n_correct"]) == (3, 2, 1)
    assert found["n_accepted_elsewhere"] == 1
    assert found["precision"]["value"] == 0.5
    assert found["recall"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert found["f1"]["value"] == pytest.approx(2 / 5)
    assert (found["precision_macro"], found["recall_macro"], found["f1_macro"]) == (0.5, 0.25, 0.25)


def test_nothing_accepted_and_nothing_held_out() -> None:
    found = query_scores([], [Triple("a", "r", "x")], n_resamples=10)
    assert found["precision"] is None
    assert found["precision_macro"] is None
    assert (found["recall"]["value"], found["f1"]["value"]) == (0.0, 0.0)
    empty = query_scores([Triple("a", "r", "x")], [])
    assert (empty["n_queries"], empty["f1"], empty["n_accepted_elsewhere"]) == (0, None, 1)


@given(some, some, some)
def test_scores_are_those_of_sets(
    accepted: list[Triple], held_out: list[Triple], known: list[Triple]
) -> None:
    found = query_scores(accepted, held_out, known=known, n_resamples=5)
    true = set(held_out) - set(known)
    asked = {(h, r) for h, r, _ in true}
    answers = {one for one in set(accepted) - set(known) if (one[0], one[1]) in asked}
    assert (found["n_true"], found["n_accepted"]) == (len(true), len(answers))
    assert found["n_correct"] == len(answers & true)
    if answers:
        assert found["precision"]["value"] == pytest.approx(
            len(answers & true) / len(answers), abs=1e-6
        )
    for name in ("precision", "recall", "f1"):
        if found[name] is not None:
            assert 0 <= found[name]["low"] <= found[name]["high"] <= 1
    assert found == query_scores(accepted[::-1], held_out[::-1], known=known, n_resamples=5)


def test_intervals_narrow_with_more_heads() -> None:
    def run(n: int) -> float:
        held_out = [Triple(f"h{i}", "r", "x") for i in range(n)]
        accepted = [Triple(f"h{i}", "r", "x" if i % 2 else "y") for i in range(n)]
        f1 = query_scores(accepted, held_out, n_resamples=200)["f1"]
        assert f1["low"] < 0.5 < f1["high"]
        return f1["high"] - f1["low"]

    assert run(400) < run(40) / 2


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_best_tail_is_right_where_a_true_one_has_rank_one(n_queries: int, seed: int) -> None:
    """Against the scores themselves: the first entity, known ones left out, is held out."""
    rng = np.random.default_rng(seed)
    rows, n_right = [], 0
    for head in range(n_queries):
        scores = rng.permutation(12).astype(float)
        known = rng.permutation(12)[: rng.integers(1, 6)]
        true = known[: rng.integers(1, len(known) + 1)]
        for tail in true:
            rank = filtered_rank(scores, int(tail), known)
            rows.append(QueryRow(head, 0, int(tail), 1, False, rank))
        seen = np.setdiff1d(known, true)
        open_scores = scores.copy()
        open_scores[seen] = -1
        n_right += int(open_scores.argmax()) in true
    found = top_one_scores(rows, n_resamples=5)
    assert (found["n_queries"], found["n_true"], found["n_correct"]) == (
        n_queries, len(rows), n_right,
    )  # fmt: skip
    assert found["precision"]["value"] == pytest.approx(n_right / n_queries, abs=1e-6)
    assert found["recall"]["value"] == pytest.approx(n_right / len(rows), abs=1e-6)


def test_a_tie_for_the_first_place_is_missed() -> None:
    rows = [QueryRow(0, 0, 1, 1, False, 1.5)]
    assert top_one_scores(rows, n_resamples=5)["n_correct"] == 0
    assert top_one_scores([])["f1"] is None
