"""What the ontology says of a profile's relations, in the integers of the regularisers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphmert.domains.code.ontology import load_ontology
from graphmert.kg.rules import FactRules

INHERITS = "inherits_from"
INHERITED = frozenset({"declares", "has_field"})
"""Relations of a class to its members: a subclass has them too."""


def entity_types() -> tuple[str, ...]:
    """The types of the ontology; a type's index everywhere is its place here."""
    return load_ontology().types


def fact_rules(profile: Mapping[str, tuple[str, ...]]) -> FactRules:
    """Rules of every relation of a profile.

    A relation made of several has the domains and ranges of all, and a property only where each
    of them has it.
    """
    ontology = load_ontology()
    types = entity_types()
    index = {name: i for i, name in enumerate(types)}
    domain = np.zeros((len(profile), len(types)), dtype=bool)
    codomain = np.zeros_like(domain)
    for row, members in enumerate(profile.values()):
        for name in members:
            relation = ontology.relations[name]
            domain[row, [index[t] for t in relation.domain or types]] = True
            codomain[row, [index[t] for t in relation.range or types]] = True
    every = [[ontology.relations[name] for name in members] for members in profile.values()]
    inherits = [i for i, members in enumerate(profile.values()) if INHERITS in members]
    return FactRules(
        domain_EY=domain,
        range_EY=codomain,
        antisymmetric_E=np.array([all(one.antisymmetric for one in group) for group in every]),
        acyclic_E=np.array([all(one.acyclic for one in group) for group in every]),
        inherits=inherits[0] if inherits else -1,
        member_E=np.array([bool(set(m) & INHERITED) for m in profile.values()]),
    )
