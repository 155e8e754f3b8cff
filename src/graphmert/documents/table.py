"""The documents table: one row for each text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from graphmert.errors import DataError
from graphmert.store import make_table


def make_documents(rows: Iterable[tuple[str, str, str, str, Mapping[str, Any]]]) -> pa.Table:
    """Return the documents table of rows (doc_id, title, text, source, meta).

    The text is stored as given, so that offsets are those of the source; sha256 is of its
    UTF-8 bytes, meta is stored as JSON.

    Raises:
        DataError: no row, or one doc_id twice.
    """
    columns: dict[str, list[str]] = {
        name: [] for name in ("doc_id", "sha256", "title", "text", "source", "meta")
    }
    seen: set[str] = set()
    for doc_id, title, text, source, meta in rows:
        if doc_id in seen:
            raise DataError("two documents have one id", where=source, got=doc_id)
        seen.add(doc_id)
        columns["doc_id"].append(doc_id)
        columns["sha256"].append(hashlib.sha256(text.encode("utf-8")).hexdigest())
        columns["title"].append(title)
        columns["text"].append(text)
        columns["source"].append(source)
        columns["meta"].append(json.dumps(meta, sort_keys=True, ensure_ascii=False, default=str))
    if not seen:
        raise DataError(
            "the corpus is empty",
            expected="at least one document",
            fix="Check the path of the corpus.",
        )
    return make_table("corpus/documents", columns)
