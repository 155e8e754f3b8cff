"""Plain lists of triples, and the description of their entities by another source.

Benchmarks of link prediction come as three files, train, valid and test, of lines
`head TAB relation TAB tail` without a header, where entities are bare ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from graphmert.errors import DataError, FormatError
from graphmert.kg.document import DEFAULT_TYPE, KGDocument, read_text
from graphmert.kg.types import KG, Entity, Triple
from graphmert.shards import Ledger


def read_listed(path: Path | str) -> KGDocument:
    """Read a file of `head TAB relation TAB tail` lines; an entity's name is its id.

    Raises:
        FormatError: a line has not three fields, or an empty one; names the line.
        DataError: no line.
    """
    path = Path(path)
    ledger = Ledger("read_listed")
    triples: dict[Triple, None] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 3 or not all(fields):
            raise FormatError(
                "a line is no triple",
                where=f"{path}, line {number}",
                got=f"{len(fields)} fields",
                expected="head, relation and tail with tabs between them",
            )
        triple = Triple(*fields)
        ledger.offered()
        if triple in triples:
            ledger.leave_out("triple repeated", example=" ".join(triple))
            continue
        ledger.keep()
        triples[triple] = None
    if not triples:
        raise DataError("the file holds no triple", where=str(path))
    ids = sorted({one for head, _, tail in triples for one in (head, tail)})
    entities = [Entity(one, one, DEFAULT_TYPE) for one in ids]
    return KGDocument(KG.build(entities, triples), {}, ledger.check(), source=path.name)


def describe_entities(document: KGDocument, source: KGDocument) -> KGDocument:
    """Give entities that are bare ids their names, synonyms, types and definitions.

    Of `source` only entities and definitions are read, never a triple. An id stands for the
    source's entity of that id, or for those that list it under `other_ids`; of several the first
    gives name and type, the other names become synonyms and the definitions are joined.

    Returns:
        The document with the same ids and triples; its ledger counts the entities, those that
        the source does not know are kept as they are, and left out of the count.
    """
    ledger = Ledger("describe_entities")
    entities: list[Entity] = []
    definitions = dict(document.definitions)
    for entity_id, own in document.kg.entities.items():
        ledger.offered()
        known = (entity_id,) if entity_id in source.kg.entities else ()
        known = known or source.other_ids.get(entity_id, ())
        found = [source.kg.entities[one] for one in known]
        if not found:
            ledger.leave_out("not described", example=entity_id)
            entities.append(own)
            continue
        ledger.keep()
        names = dict.fromkeys(name for one in found for name in (one.name, *one.synonyms))
        first, *others = names
        entities.append(Entity(entity_id, first, found[0].type, tuple(others)))
        texts = [source.definitions[one] for one in known if one in source.definitions]
        if texts:
            definitions[entity_id] = "; ".join(dict.fromkeys(texts))
    described = replace(
        document,
        kg=KG.build(entities, document.kg.triples),
        definitions=dict(sorted(definitions.items())),
        ledger=ledger.check(),
        source=f"{document.source} + {source.source}",
    )
    described.ledger.merge(document.ledger)
    return described


def require_apart(parts: dict[str, Iterable[Triple]]) -> None:
    """Refuse parts of a split that share a triple.

    Raises:
        DataError: names the parts and a triple.
    """
    counted = Counter(triple for triples in parts.values() for triple in set(triples))
    shared = sorted(triple for triple, n in counted.items() if n > 1)
    if shared:
        where = [name for name, triples in parts.items() if shared[0] in set(triples)]
        raise DataError(
            "a triple is in two parts of the split",
            where=" and ".join(where),
            got=f"{len(shared)} triples, first {' '.join(shared[0])}",
            expected="none",
        )
