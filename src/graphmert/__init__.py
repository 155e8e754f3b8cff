"""Train an encoder on leafy chain graphs and turn what it learned into a knowledge graph."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphmert.chain import LeafTriple, LeafyChain
    from graphmert.export import export_graph
    from graphmert.kg import KG, Entity, Triple, read_obo
    from graphmert.model import GraphMERT, GraphMERTConfig
    from graphmert.pretrained import from_body
    from graphmert.query import open_store
    from graphmert.run import RunConfig, execute, load
    from graphmert.run.encoding import encode_documents
    from graphmert.run.updating import extract_documents
    from graphmert.store import RunDir

__version__ = "0.1.0"

_HOMES = {
    "KG": "kg",
    "Entity": "kg",
    "GraphMERT": "model",
    "GraphMERTConfig": "model",
    "LeafTriple": "chain",
    "LeafyChain": "chain",
    "RunConfig": "run",
    "RunDir": "store",
    "Triple": "kg",
    "encode_documents": "run.encoding",
    "execute": "run",
    "export_graph": "export",
    "extract_documents": "run.updating",
    "from_body": "pretrained",
    "load": "run",
    "open_store": "query",
    "read_obo": "kg",
}

__all__ = [
    "KG",
    "Entity",
    "GraphMERT",
    "GraphMERTConfig",
    "LeafTriple",
    "LeafyChain",
    "RunConfig",
    "RunDir",
    "Triple",
    "encode_documents",
    "execute",
    "export_graph",
    "extract_documents",
    "from_body",
    "load",
    "open_store",
    "read_obo",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import graphmert` stays fast."""
    if name not in _HOMES:
        raise AttributeError(f"module 'graphmert' has no attribute {name!r}")
    return getattr(importlib.import_module(f"graphmert.{_HOMES[name]}"), name)
