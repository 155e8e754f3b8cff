"""Text: documents, sequences, mentions and chains."""

from __future__ import annotations

from graphmert.domains.text.chains import (
    ChainSet,
    HeadSpan,
    Roots,
    build_chains,
    encode_roots,
    head_spans,
    spans_to_roots,
)
from graphmert.domains.text.corpus import documents_from_definitions, make_documents
from graphmert.domains.text.mentions import find_mentions, fold
from graphmert.domains.text.sequences import make_sequences
from graphmert.sentences import sentences

__all__ = [
    "ChainSet",
    "HeadSpan",
    "Roots",
    "build_chains",
    "documents_from_definitions",
    "encode_roots",
    "find_mentions",
    "fold",
    "head_spans",
    "make_documents",
    "make_sequences",
    "sentences",
    "spans_to_roots",
]
