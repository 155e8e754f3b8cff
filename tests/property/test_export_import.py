"""An exported graph is imported as the same graph."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphmert.export import GraphTables, export_graph
from graphmert.kg import KG, Entity, Triple
from graphmert.store import schema_of
from toy_graph import graph_tables

reading = pytest.importorskip("graphmert.kg.reading")

# Importers take names without outer blanks, and no name twice for one entity.
plain = st.text(
    string.ascii_letters + string.digits + "\"'\\<>&,;:(){}!éß🧬 -", min_size=1, max_size=10
).filter(lambda text: text == text.strip())
few = settings(max_examples=25)


@pytest.fixture(autouse=True)
def _without_flushing(monkeypatch: pytest.MonkeyPatch) -> None:
    # Flushing every file to disk would take longer than making it.
    monkeypatch.setattr("os.fsync", lambda handle: None)


def with_sane_columns(tables: GraphTables) -> GraphTables:
    """The graph with types and relations that every format can name, and nothing merged."""
    rows = tables.entities.to_pylist()
    kinds = pa.array([row["type"].strip() for row in rows], pa.string())
    nothing = pa.array([[] for _ in rows], pa.list_(pa.string()))
    names = pa.array(
        [sorted({one for one in row["synonyms"] if one != row["name"]}) for row in rows],
        pa.list_(pa.string()),
    )
    columns = {**{name: tables.entities[name] for name in ("entity_id", "name")},
               "type": kinds, "synonyms": names, "merged_from": nothing}  # fmt: skip
    entities = pa.table(columns, schema=schema_of("kg/entities"))
    keep = [
        row for row, one in enumerate(tables.triples["relation"].to_pylist()) if "odd" not in one
    ]
    triples = tables.triples.take(pa.array(keep, pa.int64()))
    return GraphTables(entities, triples, tables.evidence)


def kg_of(tables: GraphTables) -> KG:
    entities = [
        Entity(row["entity_id"], row["name"], row["type"], tuple(row["synonyms"]))
        for row in tables.entities.to_pylist()
    ]
    rows = tables.triples.to_pylist()
    return KG.build(entities, (Triple(r["head_id"], r["relation"], r["tail_id"]) for r in rows))


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("jsonl", {}),
        ("csv", {}),
        ("obo", {}),
        ("turtle", {"annotation": "reified"}),
        ("turtle", {"annotation": "rdf12"}),
        ("ntriples", {"annotation": "reified"}),
        ("ntriples", {"annotation": "none", "purls": False, "base": "https://example.org/kg"}),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(map(str, value.values())),
)
@given(tables=graph_tables(text=plain, identifier=plain))
@few
def test_export_then_import_is_the_same_graph(
    tmp_path: Path, form: Any, options: dict[str, Any], tables: GraphTables
) -> None:
    tables = with_sane_columns(tables)
    ending = {"turtle": "g.ttl", "ntriples": "g.nt", "obo": "g.obo"}.get(form, "folder")
    out = tmp_path / ending
    export_graph(tables, out, format=form, **options)
    document = reading.read_kg(out)
    assert document.kg == kg_of(tables)
    document.ledger.check()
