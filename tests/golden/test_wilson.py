"""Wilson intervals against the roots of the equation that defines them, and a published case."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphmert.errors import DataError
from graphmert.evaluate.proportions import Z_95, share_of, wilson


@given(st.integers(1, 400), st.data())
def test_the_ends_solve_the_score_equation(n: int, data: st.DataObject) -> None:
    """(p - P)² = z² P (1 - P) / n at both ends P, the observed share p between them."""
    n_yes = data.draw(st.integers(0, n))
    interval = wilson(n_yes, n)
    assert interval is not None
    p = n_yes / n
    assert 0 <= interval.low <= interval.value == p <= interval.high <= 1
    for end in (interval.low, interval.high):
        assert (p - end) ** 2 == pytest.approx(Z_95**2 * end * (1 - end) / n, abs=1e-12)


def test_published_values() -> None:
    """Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611."""
    interval = share_of(81, 263)
    assert interval is not None
    assert (round(interval["low"], 4), round(interval["high"], 4)) == (0.2553, 0.3662)
    nothing = wilson(0, 20)
    assert nothing is not None
    assert (nothing.low, round(nothing.high, 4)) == (0.0, 0.1611)
    assert math.isclose(Z_95, 1.96, abs_tol=1e-3)


def test_a_share_of_nothing_is_none_and_more_than_all_is_refused() -> None:
    assert wilson(0, 0) is None
    assert share_of(0, 0) is None
    with pytest.raises(DataError, match="3 of 2"):
        wilson(3, 2)
