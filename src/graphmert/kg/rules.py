"""A schema in integers: what it says of each relation, for arrays of triples.

Legend: E relations, Y entity types.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FactRules:
    """What the schema says of each relation.

    Attributes:
        domain_EY, range_EY: bool, types allowed at heads and tails.
        antisymmetric_E, acyclic_E: bool.
        inherits: relation of a subclass to its parent, -1 where there is none.
        member_E: bool, relations whose tails a subclass inherits.
    """

    domain_EY: np.ndarray
    range_EY: np.ndarray
    antisymmetric_E: np.ndarray
    acyclic_E: np.ndarray
    inherits: int
    member_E: np.ndarray
