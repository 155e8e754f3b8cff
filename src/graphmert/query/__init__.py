"""Ask a graph: entities by any name, triples by their parts, neighbours, paths, reasons."""

from __future__ import annotations

from graphmert.query.graph import Graph, Link, Step
from graphmert.query.names import Found, NameTable, fold_name
from graphmert.query.opened import Evidence, Explanation, Store, open_store

__all__ = [
    "Evidence",
    "Explanation",
    "Found",
    "Graph",
    "Link",
    "NameTable",
    "Step",
    "Store",
    "fold_name",
    "open_store",
]
