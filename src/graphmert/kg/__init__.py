"""Knowledge graphs: entities, triples, schema, closure, splits and readers. Symbols only."""

from __future__ import annotations

from graphmert.kg.closure import Closure
from graphmert.kg.compare import (
    KGDifference,
    compare_kgs,
    describe_kg,
    merge_documents,
    require_triples,
)
from graphmert.kg.document import KGDocument, Typedef, join_documents, without_relations
from graphmert.kg.explain import Explanation, explain_violation
from graphmert.kg.gate import SchemaGate
from graphmert.kg.listed import describe_entities, read_listed, require_apart
from graphmert.kg.obo import read_obo
from graphmert.kg.rdf import read_rdf
from graphmert.kg.reading import read_kg, rename_aliases
from graphmert.kg.reduce import ReduceSettings, reduce_seed, schema_without
from graphmert.kg.rows import read_rows, schema_beside, write_rows
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
from graphmert.kg.terms import read_terms
from graphmert.kg.types import KG, Entity, Triple, triple_id
from graphmert.kg.wordnet import read_wordnet

__all__ = [
    "KG",
    "Closure",
    "Entity",
    "Explanation",
    "KGDifference",
    "KGDocument",
    "ReduceSettings",
    "Relation",
    "Schema",
    "SchemaGate",
    "Triple",
    "Typedef",
    "Violation",
    "compare_kgs",
    "describe_entities",
    "describe_kg",
    "explain_violation",
    "infer_schema",
    "join_documents",
    "merge_documents",
    "read_kg",
    "read_listed",
    "read_obo",
    "read_rdf",
    "read_rows",
    "read_schema",
    "read_terms",
    "read_wordnet",
    "reduce_seed",
    "rename_aliases",
    "require_apart",
    "require_triples",
    "require_valid",
    "schema_beside",
    "schema_without",
    "split_by_head",
    "triple_id",
    "validate",
    "without_relations",
    "write_rows",
    "write_schema",
]
