"""What follows from a set of triples, asked one triple at a time."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable

from graphmert.kg.schema import Schema
from graphmert.kg.types import Triple

_N_CACHED = 4_096


class Closure:
    """Decide whether a triple follows from given ones by the schema's rules.

    The rules are inverse, symmetric, sub-relation and transitive. With D(r) the relations
    (and directions) whose triples imply r by the first three rules, and E(s) the edges of s
    that follow by them, (h, r, t) follows if for some s in D(r) there is an edge of E(s) from
    h to t, or a path when s is transitive. Nothing is materialised: paths are searched breadth
    first, and the last reachable sets are kept.

    Args:
        triples: the known triples, such as the seed's training triples.
        schema: the rules; relations it does not name have none.

    Source: none.
    Checked by: tests/property/test_kg.py
    """

    def __init__(self, triples: Iterable[Triple], schema: Schema) -> None:
        self._schema = schema
        self._known: set[Triple] = set()
        self._forward: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        self._backward: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for triple in triples:
            triple = Triple(*triple)
            if triple not in self._known:
                self._known.add(triple)
                self._forward[triple.relation][triple.head_id].append(triple.tail_id)
                self._backward[triple.relation][triple.tail_id].append(triple.head_id)
        self._sources: dict[str, tuple[tuple[str, bool], ...]] = {}
        self._reached: OrderedDict[tuple[str, str], frozenset[str]] = OrderedDict()

    def contains(self, head_id: str, relation: str, tail_id: str) -> bool:
        """Return whether the triple is known or follows."""
        if (head_id, relation, tail_id) in self._known:
            return True
        for source, flipped in self._implying(relation):
            start, end = (tail_id, head_id) if flipped else (head_id, tail_id)
            rule = self._schema.relations.get(source)
            if rule is not None and rule.transitive:
                if end in self._reach(source, start):
                    return True
            elif Triple(start, source, end) in self._known:
                return True
        return False

    def __contains__(self, triple: Triple) -> bool:
        return self.contains(*triple)

    def _implying(self, relation: str) -> tuple[tuple[str, bool], ...]:
        """Return D(relation): pairs (relation, flipped), itself included."""
        if relation not in self._sources:
            found = {(relation, False)}
            todo = [(relation, False)]
            while todo:
                target, flipped = todo.pop()
                for name, other in self._direct(target):
                    pair = (name, flipped != other)
                    if pair not in found:
                        found.add(pair)
                        todo.append(pair)
            self._sources[relation] = tuple(sorted(found))
        return self._sources[relation]

    def _direct(self, target: str) -> Iterable[tuple[str, bool]]:
        """Yield what implies `target` by one rule: sub-relations, inverses, itself turned."""
        own = self._schema.relations.get(target)
        if own is None:
            return
        if own.symmetric:
            yield target, True
        for name, relation in self._schema.relations.items():
            if target in relation.sub_relation_of:
                yield name, False
            if relation.inverse == target or own.inverse == name:
                yield name, True

    def _reach(self, relation: str, start: str) -> frozenset[str]:
        """Return the nodes at the end of a non-empty path of E(relation) from `start`."""
        key = (relation, start)
        if key in self._reached:
            self._reached.move_to_end(key)
            return self._reached[key]
        sources = self._implying(relation)
        found: set[str] = set()
        todo = [start]
        while todo:
            node = todo.pop()
            for source, flipped in sources:
                edges = (self._backward if flipped else self._forward).get(source)
                for step in edges.get(node, ()) if edges else ():
                    if step not in found:
                        found.add(step)
                        todo.append(step)
        reached = frozenset(found)
        self._reached[key] = reached
        if len(self._reached) > _N_CACHED:
            self._reached.popitem(last=False)
        return reached
