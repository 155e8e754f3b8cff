"""A small tokenizer and small tables for the tests of the text domain."""

from __future__ import annotations

from functools import cache

import pyarrow as pa

from graphmert.domains.text import make_documents
from graphmert.store import make_table
from graphmert.tokens import Tokenizer


@cache
def toy_tokenizer() -> Tokenizer:
    texts = [
        "growth: the process of getting larger. Cell growth is a growth of a cell.",
        "regulation of growth, the membrane and the plasma membrane in 3.5 steps",
        "abcdefghijklmnopqrstuvwxyz 0123456789 , . ! ? ( ) : ;",
    ] * 3
    return Tokenizer.train(texts, vocab_size=150)


def toy_documents(*texts: str) -> pa.Table:
    """Documents without titles, d0, d1, …"""
    return make_documents((f"d{i}", "", text, "test", {}) for i, text in enumerate(texts))


def toy_entities(**names: str | list[str]) -> pa.Table:
    """Entities by id: a name, or a name and its synonyms."""
    lists = [[value] if isinstance(value, str) else value for value in names.values()]
    return make_table(
        "seed/entities",
        {
            "entity_id": list(names),
            "name": [one[0] for one in lists],
            "type": ["thing"] * len(names),
            "synonyms": [one[1:] for one in lists],
        },
    )
