"""Read ontologies as a JSON list of terms: id, name, namespace, synonyms, relations, alt_ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from graphmert.errors import DataError, FormatError
from graphmert.kg.document import DEFAULT_TYPE, KGDocument, read_text
from graphmert.kg.types import KG, Entity, Triple
from graphmert.shards import Ledger


def read_terms(path: Path | str) -> KGDocument:
    """Read a JSON list of terms.

    A term is `{"id": "0000004", "name": …, "namespace": "mondo", "synonyms": […], "relations":
    {"is_a": ["0002816"]}, "alt_ids": […]}`; all but id and name may be missing, other keys are
    not read. An id without ":" gets its namespace before it (`MONDO:0000004`); the namespace is
    the entity's type. Links to ids that are no term are left out and counted.

    Raises:
        FormatError: not JSON, not a list, a term without id or name.
        DataError: no term.
    """
    path = Path(path)
    try:
        terms = json.loads(read_text(path))
    except ValueError as error:
        raise FormatError("not a JSON file", where=str(path), got=error) from error
    if not isinstance(terms, list):
        raise _bad(f"{path}", type(terms).__name__, "a list of terms")
    ledger = Ledger("read_terms")
    entities: dict[str, Entity] = {}
    other_ids: dict[str, str] = {}
    links: list[tuple[str, str, str]] = []
    for place, term in enumerate(terms):
        where = f"{path}, term {place + 1}"
        entity = _entity(term, where)
        ledger.offered()
        if entity.entity_id in entities:
            raise DataError("a term stands twice", where=where, got=entity.entity_id)
        ledger.keep()
        entities[entity.entity_id] = entity
        space = entity.type
        for one in term.get("alt_ids", ()):
            other_ids[_full_id(one, space)] = entity.entity_id
        relations = term.get("relations", {})
        if not isinstance(relations, dict):
            raise _bad(f"{where}, relations", type(relations).__name__, "an object of lists")
        for relation, tails in relations.items():
            links += [(entity.entity_id, relation, _full_id(tail, space)) for tail in tails]
    if not entities:
        raise DataError("the ontology holds no term", where=str(path))
    triples: dict[Triple, None] = {}
    for head, relation, tail in links:
        ledger.offered()
        triple = Triple(head, relation, tail if tail in entities else other_ids.get(tail, tail))
        if triple.tail_id not in entities:
            ledger.leave_out("tail is not in the file", example=" ".join(triple))
        elif triple in triples:
            ledger.leave_out("triple repeated", example=" ".join(triple))
        else:
            ledger.keep()
            triples[triple] = None
    return KGDocument(KG.build(entities.values(), triples), {}, ledger.check(), source=path.name)


def _entity(term: Any, where: str) -> Entity:
    if not isinstance(term, dict) or not all(
        isinstance(term.get(key), str) and term[key].strip() for key in ("id", "name")
    ):
        raise _bad(where, repr(term)[:80], 'an object with the texts "id" and "name"')
    space = term.get("namespace") or DEFAULT_TYPE
    synonyms = tuple(term.get("synonyms") or ())
    return Entity(_full_id(term["id"], space), term["name"].strip(), space, synonyms)


def _full_id(one: str, space: str) -> str:
    return one if ":" in one or space == DEFAULT_TYPE else f"{space.upper()}:{one}"


def _bad(where: str, got: str, expected: str) -> FormatError:
    return FormatError("not a list of terms", where=where, got=got, expected=expected)
