"""Shares with their Wilson interval."""

from __future__ import annotations

import math

from graphmert.errors import DataError
from graphmert.evaluate.bootstrap import Interval

Z_95 = 1.959963984540054


def wilson(n_yes: int, n: int, *, z: float = Z_95) -> Interval | None:
    """Return a share with its Wilson score interval, or None of nothing.

    With p = n_yes / n: centre (p + z²/2n) / (1 + z²/n), half width
    z / (1 + z²/n) · sqrt(p (1 - p) / n + z² / 4n²).

    Args:
        n_yes: successes.
        n: trials, independent of one another.
        z: quantile of the normal distribution; 1.96 for 95 %.

    Raises:
        DataError: n_yes is not within 0..n.

    Checked by: tests/golden/test_wilson.py
    """
    if not 0 <= n_yes <= n:
        raise DataError("no share", got=f"{n_yes} of {n}", expected="0 <= successes <= trials")
    if n == 0:
        return None
    share = n_yes / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding must not push the ends over the share at 0 and 1.
    return Interval(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)))


def share_of(n_yes: int, n: int) -> dict[str, float] | None:
    """Return value, low and high of a share as JSON values, or None of nothing."""
    interval = wilson(n_yes, n)
    return None if interval is None else interval.to_dict()
