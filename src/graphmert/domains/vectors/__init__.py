"""Vectors: sentence embeddings in sequence, windows over them, and links to entities."""

from __future__ import annotations

from graphmert.domains.vectors.data import (
    VectorData,
    VectorTable,
    Windows,
    make_windows,
    open_vectors,
    write_vectors,
)

__all__ = [
    "VectorData",
    "VectorTable",
    "Windows",
    "make_windows",
    "open_vectors",
    "write_vectors",
]
