"""Split a graph by head entity, so that held-out heads are never seen as heads in training."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection

from graphmert.errors import DataError
from graphmert.kg.schema import Schema
from graphmert.kg.types import KG, Triple

MAX_SHARE = 0.1


def split_by_head(
    kg: KG,
    schema: Schema,
    *,
    n_valid_heads: int,
    n_test_heads: int,
    seed: int,
    eligible: Collection[str] | None = None,
    stratify_relations: bool = True,
) -> dict[Triple, str]:
    """Assign every triple to "train", "valid" or "test" by its head.

    All triples of a held-out head go to its part. Where a triple and its inverse (or its mirror
    under a symmetric relation) are both there, the mirror goes with the held-out head too, and
    heads tied in this way are never in different held-out parts. Heads are drawn in the order
    of SHA-256(seed, id), the same on every machine. No relation loses its last training head.

    Args:
        kg: the graph.
        schema: names inverse and symmetric relations.
        n_valid_heads, n_test_heads: how many heads to hold out.
        seed: another seed draws other heads.
        eligible: the ids that may be held out, such as those with a definition; None is all.
        stratify_relations: first give every relation, the rarest first, its equal share of the
            held-out heads, but at most a tenth of the heads it has.

    Returns:
        The part of each triple, in the graph's order.

    Raises:
        DataError: fewer heads can be held out than asked for.
    """
    draw = _Draw(kg, schema, seed=seed, eligible=eligible)
    for part, n_heads in (("test", n_test_heads), ("valid", n_valid_heads)):
        draw.take(part, n_heads, stratify=stratify_relations)
    parts: dict[Triple, str] = {}
    for triple in kg.triples:
        mirrors = draw.mirrors.get(triple, [])
        heads = [triple.head_id, *(mirror.head_id for mirror in mirrors)]
        held = [draw.part[head] for head in heads if head in draw.part]
        parts[triple] = held[0] if held else "train"
    return parts


class _Draw:
    """The state of drawing heads: who is taken, and what each relation has left."""

    def __init__(
        self, kg: KG, schema: Schema, *, seed: int, eligible: Collection[str] | None
    ) -> None:
        self.part: dict[str, str] = {}
        self.relations_of: dict[str, set[str]] = defaultdict(set)
        for triple in kg.triples:
            self.relations_of[triple.head_id].add(triple.relation)
        self.mirrors = _mirrors(kg, schema)
        self.tied: dict[str, set[str]] = defaultdict(set)
        for triple, mirrors in self.mirrors.items():
            self.tied[triple.head_id].update(mirror.head_id for mirror in mirrors)
        allowed = None if eligible is None else set(eligible)
        heads = [head for head in self.relations_of if allowed is None or head in allowed]
        self.order = sorted(heads, key=lambda head: _draw_key(seed, head))
        self.n_heads = Counter(one for names in self.relations_of.values() for one in names)
        self.n_left = Counter(self.n_heads)

    def take(self, part: str, n_wanted: int, *, stratify: bool) -> None:
        taken: Counter[str] = Counter()
        n_taken = 0
        passes: list[tuple[str | None, int]] = [(None, n_wanted)]
        if stratify and n_wanted:
            share = -(-n_wanted // max(1, len(self.n_heads)))
            rarest = sorted(self.n_heads, key=lambda name: (self.n_heads[name], name))
            quotas = [(name, min(share, _most(self.n_heads[name]))) for name in rarest]
            passes = [*quotas, *passes]
        for relation, quota in passes:
            for head in self.order:
                if n_taken >= n_wanted or (relation is not None and taken[relation] >= quota):
                    break
                names = self.relations_of[head]
                if (relation is None or relation in names) and self._is_free(head, part):
                    self.part[head] = part
                    self.n_left.subtract(names)
                    taken.update(names)
                    n_taken += 1
        if n_taken < n_wanted:
            raise DataError(
                f"too few heads can be held out for {part}",
                got=n_taken,
                expected=n_wanted,
                fix="Ask for fewer held-out heads. A head needs a triple and a definition (or a "
                "mention in the corpus), and every relation keeps a head for training.",
            )

    def _is_free(self, head: str, part: str) -> bool:
        if head in self.part:
            return False
        if any(self.part.get(other, part) != part for other in self.tied.get(head, ())):
            return False
        return all(self.n_left[name] > 1 for name in self.relations_of[head])


def _most(n_heads: int) -> int:
    """The most heads of a relation with `n_heads` that stratifying may draw for one part."""
    return max(int(MAX_SHARE * n_heads), 1 if n_heads >= 3 else 0)


def _mirrors(kg: KG, schema: Schema) -> dict[Triple, list[Triple]]:
    """Return for triples the ones of the graph that say the same from tail to head."""
    turned: dict[str, set[str]] = defaultdict(set)
    for name, relation in schema.relations.items():
        if relation.symmetric:
            turned[name].add(name)
        if relation.inverse is not None:
            turned[name].add(relation.inverse)
            turned[relation.inverse].add(name)
    present = set(kg.triples)
    found: dict[Triple, list[Triple]] = {}
    for triple in kg.triples:
        names = sorted(turned.get(triple.relation, ()))
        mirrors = [Triple(triple.tail_id, name, triple.head_id) for name in names]
        if mirrors := [mirror for mirror in mirrors if mirror in present]:
            found[triple] = mirrors
    return found


def _draw_key(seed: int, head: str) -> bytes:
    return hashlib.sha256(f"{seed}:{head}".encode()).digest()
