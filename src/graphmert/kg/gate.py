"""What the schema has against one more triple, given those that are known and accepted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from graphmert.kg.schema import Schema
from graphmert.kg.types import Triple


class SchemaGate:
    """Keep the tails of every head and relation, and object to what breaks a rule.

    A triple counts under every relation that it implies, as `validate` counts it. Triples are
    offered best first: a rule that only one of two can keep goes to the better one.
    """

    def __init__(self, schema: Schema, known: Iterable[Triple]) -> None:
        self.schema = schema
        self._implied: dict[str, tuple[str, ...]] = {}
        self._tails: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for triple in known:
            self.add(triple)

    def add(self, triple: Triple) -> None:
        """Count a triple as accepted."""
        for name in self._implies(triple.relation):
            self._tails[name][triple.head_id].add(triple.tail_id)

    def objection(self, triple: Triple, tail_type: str) -> str | None:
        """Return the rule that the triple breaks, or None."""
        relation = self.schema.relations[triple.relation]
        if relation.range and tail_type not in relation.range:
            return f"schema, range: {triple.relation} does not end in {tail_type}"
        for name in self._implies(triple.relation):
            reason = self._broken(name, triple)
            if reason is not None:
                return reason if name == triple.relation else f"{reason}, under {name}"
        return None

    def _implies(self, relation: str) -> tuple[str, ...]:
        """The relation, then all that it implies."""
        if relation not in self._implied:
            others = self.schema.super_relations(relation) - {relation}
            self._implied[relation] = (relation, *sorted(others))
        return self._implied[relation]

    def _broken(self, name: str, triple: Triple) -> str | None:
        rule = self.schema.relations.get(name)
        if rule is None:
            return None
        tails = self._tails[name]
        own = tails.get(triple.head_id, ())
        full = rule.cardinality is not None and len(own) >= rule.cardinality
        if full and triple.tail_id not in own:
            return f"schema, cardinality: at most {rule.cardinality} tails"
        if rule.antisymmetric and triple.head_id in tails.get(triple.tail_id, ()):
            return "schema, antisymmetric: the reverse triple is known"
        if rule.acyclic and self._reaches(name, triple.tail_id, triple.head_id):
            return "schema, cycle: the tail already leads to the head"
        return None

    def _reaches(self, relation: str, start: str, goal: str) -> bool:
        todo, seen = [start], {start}
        while todo:
            here = todo.pop()
            if here == goal:
                return True
            for parent in self._tails[relation].get(here, ()):
                if parent not in seen:
                    seen.add(parent)
                    todo.append(parent)
        return False
