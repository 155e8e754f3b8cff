"""Write a knowledge graph in the forms that other programs read, with its provenance."""

from __future__ import annotations

from graphmert.export.tables import GraphTables
from graphmert.export.write import FORMATS, Exported, export_graph

__all__ = ["FORMATS", "Exported", "GraphTables", "export_graph"]
