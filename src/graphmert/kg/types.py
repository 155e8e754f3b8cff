"""Entities, triples and the graph that holds them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from graphmert.errors import DataError


@dataclass(frozen=True, slots=True)
class Entity:
    """One thing of the knowledge graph, with its preferred name and its other exact names."""

    entity_id: str
    name: str
    type: str
    synonyms: tuple[str, ...] = ()


class Triple(NamedTuple):
    """One statement: head, relation, tail, all by id. Sorts by its three parts."""

    head_id: str
    relation: str
    tail_id: str

    @property
    def triple_id(self) -> str:
        """Content hash of the triple, see `triple_id`."""
        return triple_id(*self)


def triple_id(head_id: str, relation: str, tail_id: str) -> str:
    """Return the first 16 hex digits of the SHA-256 of the three ids.

    Each part is preceded by its length, so that no two triples share a text.
    """
    text = "".join(f"{len(part)}:{part}" for part in (head_id, relation, tail_id))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


@dataclass(frozen=True)
class KG:
    """Entities by id and distinct triples. Two graphs with the same content are equal.

    Build with `KG.build`, which sorts and removes duplicates; a triple may name an id that is
    not an entity, which `validate` reports.
    """

    entities: dict[str, Entity] = field(default_factory=dict)
    triples: tuple[Triple, ...] = ()

    @classmethod
    def build(cls, entities: Iterable[Entity], triples: Iterable[Triple]) -> KG:
        """Sort entities and triples and remove duplicates; the order given plays no part.

        An entity given twice keeps its name and type and gets the synonyms of both.

        Raises:
            DataError: one id with two names or two types.
        """
        found: dict[str, Entity] = {}
        for entity in entities:
            other = found.get(entity.entity_id)
            if other is None:
                synonyms = entity.synonyms
            elif (other.name, other.type) == (entity.name, entity.type):
                synonyms = other.synonyms + entity.synonyms
            else:
                raise _two_meanings(other, entity)
            unique = tuple(sorted(set(synonyms) - {entity.name}))
            found[entity.entity_id] = Entity(entity.entity_id, entity.name, entity.type, unique)
        return cls({key: found[key] for key in sorted(found)}, tuple(sorted(set(triples))))

    def add(self, other: KG) -> KG:
        """Return the union with another graph, the same whichever comes first.

        Raises:
            DataError: one id with two names or two types.
        """
        entities = [*self.entities.values(), *other.entities.values()]
        return KG.build(entities, [*self.triples, *other.triples])

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that occur in triples, sorted."""
        return tuple(sorted({triple.relation for triple in self.triples}))

    @property
    def types(self) -> tuple[str, ...]:
        """The entity types that occur, sorted."""
        return tuple(sorted({entity.type for entity in self.entities.values()}))


def _two_meanings(one: Entity, two: Entity) -> DataError:
    names = sorted([f"{one.name!r} ({one.type})", f"{two.name!r} ({two.type})"])
    return DataError(
        "one entity id stands for two entities",
        where=one.entity_id,
        got=" and ".join(names),
        expected="one name and one type for each id",
        fix="Give one of them another id, or make name and type agree.",
    )
