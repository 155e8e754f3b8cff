"""Knowledge graphs: entities, triples, schema, closure, splits and readers. Symbols only."""

from __future__ import annotations

from graphmert.kg.closure import Closure
from graphmert.kg.obo import OboDocument, read_obo
from graphmert.kg.schema import (
    Relation,
    Schema,
    Violation,
    infer_schema,
    read_schema,
    require_valid,
    validate,
    write_schema,
)
from graphmert.kg.split import split_by_head
from graphmert.kg.types import KG, Entity, Triple, triple_id

__all__ = [
    "KG",
    "Closure",
    "Entity",
    "OboDocument",
    "Relation",
    "Schema",
    "Triple",
    "Violation",
    "infer_schema",
    "read_obo",
    "read_schema",
    "require_valid",
    "split_by_head",
    "triple_id",
    "validate",
    "write_schema",
]
