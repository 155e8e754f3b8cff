"""Code: files to facts, facts to a graph, and questions about it."""

from __future__ import annotations

from graphmert.domains.code.ontology import load_ontology, load_profile, rename_relation

__all__ = ["load_ontology", "load_profile", "rename_relation"]
