"""What the schema has against one more triple, given those that are known and accepted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from graphmert.kg import Schema, Triple


class SchemaGate:
    """Keep the tails of every head and relation, and object to what breaks a rule.

    Triples are offered best first: a rule that only one of two can keep goes to the better one.
    """

    def __init__(self, schema: Schema, known: Iterable[Triple]) -> None:
        self.schema = schema
        self._tails: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for triple in known:
            self.add(triple)

    def add(self, triple: Triple) -> None:
        """Count a triple as accepted."""
        self._tails[triple.relation][triple.head_id].add(triple.tail_id)

    def objection(self, triple: Triple, tail_type: str) -> str | None:
        """Return the rule that the triple breaks, or None."""
        relation = self.schema.relations[triple.relation]
        if relation.range and tail_type not in relation.range:
            return f"schema, range: {triple.relation} does not end in {tail_type}"
        tails = self._tails[triple.relation]
        n_tails = len(tails[triple.head_id])
        is_new = triple.tail_id not in tails[triple.head_id]
        if relation.cardinality is not None and is_new and n_tails >= relation.cardinality:
            return f"schema, cardinality: at most {relation.cardinality} tails"
        if relation.antisymmetric and triple.head_id in tails[triple.tail_id]:
            return "schema, antisymmetric: the reverse triple is known"
        if relation.acyclic and self._reaches(triple.relation, triple.tail_id, triple.head_id):
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
