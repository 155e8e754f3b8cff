"""A graph in memory: which triples leave and enter an entity, and paths between two."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from graphmert.errors import ConfigError

Direction = Literal["both", "out", "in"]


@dataclass(frozen=True, slots=True)
class Link:
    """A triple with its score."""

    triple_id: str
    head_id: str
    relation: str
    tail_id: str
    score: float = 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """A link walked from one end to the other.

    Attributes:
        link: the triple.
        forward: from head to tail; False: from tail to head.
    """

    link: Link
    forward: bool

    @property
    def start_id(self) -> str:
        """Where the step starts."""
        return self.link.head_id if self.forward else self.link.tail_id

    @property
    def end_id(self) -> str:
        """Where the step leads."""
        return self.link.tail_id if self.forward else self.link.head_id


class Graph:
    """Links by their ends. Answers are in order of relation, falling score and id.

    Args:
        links: triples; of those with one id the best scored counts.
    """

    def __init__(self, links: Iterable[Link]) -> None:
        best: dict[str, Link] = {}
        for link in links:
            former = best.get(link.triple_id)
            if former is None or link.score > former.score:
                best[link.triple_id] = link
        self.links = best
        self._out: dict[str, list[Link]] = defaultdict(list)
        self._in: dict[str, list[Link]] = defaultdict(list)
        for link in sorted(
            best.values(), key=lambda one: (one.relation, -one.score, one.triple_id)
        ):
            self._out[link.head_id].append(link)
            self._in[link.tail_id].append(link)

    def __len__(self) -> int:
        return len(self.links)

    def out(self, entity_id: str, relation: str | None = None) -> list[Link]:
        """Return the triples whose head an entity is."""
        found = self._out.get(entity_id, ())
        return [link for link in found if relation is None or link.relation == relation]

    def into(self, entity_id: str, relation: str | None = None) -> list[Link]:
        """Return the triples whose tail an entity is."""
        found = self._in.get(entity_id, ())
        return [link for link in found if relation is None or link.relation == relation]

    def steps(
        self, entity_id: str, *, direction: Direction = "both", relation: str | None = None
    ) -> list[Step]:
        """Return the steps that leave an entity, forward ones first."""
        found: list[Step] = []
        if direction in ("both", "out"):
            found += [Step(link, True) for link in self.out(entity_id, relation)]
        if direction in ("both", "in"):
            found += [Step(link, False) for link in self.into(entity_id, relation)]
        return found

    def around(
        self, entity_ids: Sequence[str], *, n_hops: int = 1, limit: int | None = None
    ) -> list[Link]:
        """Return the triples within some hops of entities, nearest first, each once."""
        seen_entities, seen_links = set(entity_ids), set()
        edge = list(dict.fromkeys(entity_ids))
        found: list[Link] = []
        for _ in range(n_hops):
            following: list[str] = []
            for entity_id in edge:
                for step in self.steps(entity_id):
                    if step.link.triple_id not in seen_links:
                        seen_links.add(step.link.triple_id)
                        found.append(step.link)
                    if step.end_id not in seen_entities:
                        seen_entities.add(step.end_id)
                        following.append(step.end_id)
            edge = following
        return found if limit is None else found[:limit]

    def paths(
        self,
        start_id: str,
        goal_id: str,
        *,
        max_hops: int = 4,
        limit: int = 10,
        direction: Direction = "both",
    ) -> list[tuple[Step, ...]]:
        """Return paths between two entities that pass none twice, shortest first.

        Args:
            max_hops: longest path.
            limit: most paths returned.
            direction: `out` walks triples from head to tail only, `in` the other way.
        """
        if max_hops < 1 or limit < 1:
            raise ConfigError(
                "paths need a hop and a place",
                got=f"max_hops {max_hops}, limit {limit}",
                expected="at least 1",
            )
        if start_id == goal_id:
            return []
        hops = self._hops_to(goal_id, max_hops, direction)
        found: list[tuple[Step, ...]] = []
        for length in range(1, max_hops + 1):
            for path in self._paths_of(start_id, goal_id, length, hops, direction):
                found.append(path)
                if len(found) == limit:
                    return found
        return found

    def _hops_to(self, goal_id: str, max_hops: int, direction: Direction) -> dict[str, int]:
        """Hops from each entity near enough to the goal, walking in the direction."""
        turned: dict[Direction, Direction] = {"out": "in", "in": "out", "both": "both"}
        hops = {goal_id: 0}
        edge = [goal_id]
        for distance in range(1, max_hops + 1):
            following = []
            for entity_id in edge:
                for step in self.steps(entity_id, direction=turned[direction]):
                    if step.end_id not in hops:
                        hops[step.end_id] = distance
                        following.append(step.end_id)
            edge = following
        return hops

    def _paths_of(
        self, start_id: str, goal_id: str, length: int, hops: dict[str, int], direction: Direction
    ) -> Iterator[tuple[Step, ...]]:
        """Paths of exactly one length, walking only where the goal is still in reach."""
        if hops.get(start_id, length + 1) > length:
            return
        path: list[Step] = []
        on_path = {start_id}
        walks = [iter(self.steps(start_id, direction=direction))]
        while walks:
            step = next(walks[-1], None)
            if step is None:
                walks.pop()
                if path:
                    on_path.discard(path.pop().end_id)
                continue
            left = length - len(path) - 1
            if step.end_id == goal_id:
                if left == 0:
                    yield (*path, step)
            elif step.end_id not in on_path and hops.get(step.end_id, length + 1) <= left:
                path.append(step)
                on_path.add(step.end_id)
                walks.append(iter(self.steps(step.end_id, direction=direction)))
