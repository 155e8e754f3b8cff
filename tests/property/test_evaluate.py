"""Properties of ranks, intervals and calibration."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graphmert.evaluate.bootstrap import clustered_interval
from graphmert.evaluate.calibration import IsotonicCalibrator, choose_threshold, reliability
from graphmert.evaluate.ranks import filtered_rank

scores = st.lists(st.integers(-5, 5), min_size=2, max_size=25)
pairs = st.lists(st.tuples(st.integers(-9, 9), st.booleans()), min_size=1, max_size=60)


@given(scores, st.data())
def test_rank_is_within_bounds_and_follows_a_permutation(s: list[int], data: st.DataObject) -> None:
    true = data.draw(st.integers(0, len(s) - 1))
    known = data.draw(st.sets(st.integers(0, len(s) - 1)))
    rank = filtered_rank(np.array(s, float), true, sorted(known))
    assert 1 <= rank <= len(s) - len(known - {true})
    order = data.draw(st.permutations(range(len(s))))
    place = {old: new for new, old in enumerate(order)}
    moved = filtered_rank(
        np.array([s[old] for old in order], float), place[true], [place[k] for k in known]
    )
    assert moved == rank


@given(scores, st.data())
def test_filtering_never_worsens_a_rank(s: list[int], data: st.DataObject) -> None:
    true = data.draw(st.integers(0, len(s) - 1))
    known = data.draw(st.sets(st.integers(0, len(s) - 1)))
    array = np.array(s, float)
    assert filtered_rank(array, true, sorted(known)) <= filtered_rank(array, true, [])


@given(scores)
def test_ranks_of_all_entities_add_up(s: list[int]) -> None:
    """Realistic ranks are a fair numbering: they sum to 1 + 2 + … + N whatever the ties."""
    total = sum(filtered_rank(np.array(s, float), i, []) for i in range(len(s)))
    assert total == len(s) * (len(s) + 1) / 2


@settings(max_examples=30)
@given(pairs, st.integers(0, 99), st.sampled_from(["micro", "macro"]))
def test_interval_stays_within_the_values(
    rows: list[tuple[int, bool]], seed: int, average: str
) -> None:
    values = [float(correct) for _, correct in rows]
    heads = [score for score, _ in rows]
    interval = clustered_interval(
        values, heads, [h % 3 for h in heads], average=average, seed=seed, n_resamples=20
    )
    assert -1e-9 <= interval.low <= interval.high <= 1 + 1e-9
    assert -1e-9 <= interval.value <= 1 + 1e-9


@given(pairs)
def test_isotonic_is_monotone_keeps_the_mean_and_is_calibrated(
    rows: list[tuple[int, bool]],
) -> None:
    s, correct = [float(a) for a, _ in rows], [b for _, b in rows]
    curve = IsotonicCalibrator.fit(s, correct)
    p = curve.predict(s)
    assert (np.diff(curve.predict(np.linspace(-10, 10, 50))) >= -1e-12).all()
    assert abs(p.mean() - np.mean(correct)) < 1e-9


@given(pairs, st.randoms())
def test_reliability_does_not_depend_on_row_order(rows: list[tuple[int, bool]], random) -> None:
    shuffled = rows[:]
    random.shuffle(shuffled)
    results = [
        reliability([(a + 9) / 18 for a, _ in r], [b for _, b in r]).to_dict()
        for r in (rows, shuffled)
    ]
    assert results[0] == results[1]
    assert 0 <= results[0]["ece"] <= 1


@given(pairs)
def test_no_threshold_beats_the_chosen_one(rows: list[tuple[int, bool]]) -> None:
    p, correct = np.array([(a + 9) / 18 for a, _ in rows]), np.array([b for _, b in rows])
    best = choose_threshold(p, correct)
    for threshold in p:
        accepted = p >= threshold
        f1 = 2 * correct[accepted].sum() / max(accepted.sum() + correct.sum(), 1)
        assert f1 <= best.f1 + 1e-12
