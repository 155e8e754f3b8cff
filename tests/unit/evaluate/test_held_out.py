from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphmert.evaluate.held_out import query_scores
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
