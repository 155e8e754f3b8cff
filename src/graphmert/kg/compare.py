"""Count, compare and join knowledge graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from graphmert.errors import DataError
from graphmert.kg.document import KGDocument, join_documents
from graphmert.kg.types import KG, Entity, Triple
from graphmert.shards import Ledger

Preference = Literal["stop", "first", "last"]


def describe_kg(document: KGDocument) -> dict[str, Any]:
    """Return counts of a graph: entities by type, triples by relation, degrees, names."""
    kg = document.kg
    n_out = Counter(triple.head_id for triple in kg.triples)
    n_in = Counter(triple.tail_id for triple in kg.triples)
    names = Counter(entity.name.casefold() for entity in kg.entities.values())
    used = n_out.keys() | n_in.keys()
    return {
        "source": document.source,
        "version": document.version,
        "entities": len(kg.entities),
        "entities_by_type": dict(
            sorted(Counter(entity.type for entity in kg.entities.values()).items())
        ),
        "synonyms": sum(len(entity.synonyms) for entity in kg.entities.values()),
        "definitions": len(document.definitions),
        "triples": len(kg.triples),
        "triples_by_relation": dict(
            sorted(Counter(triple.relation for triple in kg.triples).items())
        ),
        "heads": len(n_out),
        "tails": len(n_in),
        "most_triples_of_a_head": max(n_out.values(), default=0),
        "most_triples_of_a_tail": max(n_in.values(), default=0),
        "entities_without_triple": sum(one not in used for one in kg.entities),
        "names_of_several_entities": sum(count > 1 for count in names.values()),
        "ends_that_are_no_entity": len(used - kg.entities.keys()),
    }


@dataclass(frozen=True)
class KGDifference:
    """What the second of two graphs has more, less and otherwise."""

    added_entities: tuple[Entity, ...]
    removed_entities: tuple[Entity, ...]
    changed_entities: tuple[tuple[Entity, Entity], ...]
    added_triples: tuple[Triple, ...]
    removed_triples: tuple[Triple, ...]

    @property
    def is_empty(self) -> bool:
        """Whether the graphs are equal."""
        return not any(
            (
                self.added_entities,
                self.removed_entities,
                self.changed_entities,
                self.added_triples,
                self.removed_triples,
            )
        )


def compare_kgs(old: KG, new: KG) -> KGDifference:
    """Compare two graphs by entity id and triple."""
    before, after = set(old.triples), set(new.triples)
    shared = [one for one in new.entities if one in old.entities]
    return KGDifference(
        added_entities=tuple(e for one, e in new.entities.items() if one not in old.entities),
        removed_entities=tuple(e for one, e in old.entities.items() if one not in new.entities),
        changed_entities=tuple(
            (old.entities[one], new.entities[one])
            for one in shared
            if old.entities[one] != new.entities[one]
        ),
        added_triples=tuple(sorted(after - before)),
        removed_triples=tuple(sorted(before - after)),
    )


def merge_documents(documents: Sequence[KGDocument], *, prefer: Preference = "stop") -> KGDocument:
    """Join graphs by id; synonyms of both are kept, and a repeated triple counts once.

    Args:
        documents: at least one.
        prefer: where one id has two names or types: stop, or keep the first or last source's
            and make the other name a synonym, which the ledger counts.

    Raises:
        DataError: one id with two names or types, with prefer="stop".
    """
    if prefer == "stop":
        return join_documents(documents)
    ledger = Ledger("merge")
    chosen: dict[str, Entity] = {}
    for document in documents if prefer == "first" else reversed(documents):
        for entity in document.kg.entities.values():
            first = chosen.setdefault(entity.entity_id, entity)
            ledger.offered()
            if (first.name, first.type) == (entity.name, entity.type):
                ledger.keep()
            else:
                shown = f"{entity.entity_id}: {entity.name!r} ({entity.type})"
                ledger.leave_out("another name or type of the same id", example=shown)
    agreed = [
        replace(document, kg=_agree(document.kg, chosen), ledger=Ledger("read_kg"))
        for document in documents
    ]
    joined = join_documents(agreed)
    return replace(joined, ledger=ledger.check())


def _agree(kg: KG, chosen: dict[str, Entity]) -> KG:
    entities = []
    for entity in kg.entities.values():
        first = chosen[entity.entity_id]
        names = [*entity.synonyms, *([entity.name] if entity.name != first.name else [])]
        entities.append(Entity(first.entity_id, first.name, first.type, tuple(names)))
    return KG.build(entities, kg.triples)


def require_triples(document: KGDocument) -> KGDocument:
    """Return the document itself if it has a triple.

    Raises:
        DataError: it has none.
    """
    if not document.kg.triples:
        raise DataError(
            "the knowledge graph has no triple",
            where=document.source,
            expected="at least one triple between its entities",
            fix="Check the source; its ledger names what was left out.",
        )
    return document
