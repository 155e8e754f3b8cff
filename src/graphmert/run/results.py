"""Results by document, kept on disk in a fixed number of files, so that few are written again.

A document belongs to the file named by the first three hex digits of its key. A file is a Parquet
table with one row a document, in order of key; each table of a document is a list of records in
one cell. The same documents give the same bytes, in whatever order they came and went.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from graphmert.shards import Ledger, read_table, write_table
from graphmert.store import schema_of

_MARK = b"graphmert.result_of"
_LATER = ("triple_id", "locator", "model_hash", "method", "score")  # written with the graph

PROPOSALS = pa.schema(
    [
        pa.field("head_id", pa.string()),
        pa.field("relation", pa.string()),
        pa.field("tail_id", pa.string()),
        pa.field("head", pa.string()),
        pa.field("tail", pa.string()),
        pa.field("phrase", pa.int32()),
        # The order of proposals comes from these; kg/triples has less exact scores.
        pa.field("exact_score", pa.float64()),
        pa.field("raw", pa.float64()),
        *(one for one in schema_of("kg/evidence") if one.name not in _LATER),
    ]
)
TABLES: dict[str, pa.Schema] = {
    "corpus/sequences": schema_of("corpus/sequences"),
    "corpus/mentions": schema_of("corpus/mentions"),
    "corpus/candidates": schema_of("corpus/candidates"),
    "kg/rejected": schema_of("kg/rejected"),
    "proposals": PROPOSALS,
}
_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        *(pa.field(name, pa.list_(pa.struct(list(one)))) for name, one in TABLES.items()),
        pa.field("ledgers", pa.string(), nullable=False),
    ]
)


def key_of(doc_id: str, sha256: str) -> str:
    """Return the key of a document: a hash of its id and of its text."""
    return hashlib.sha256(f"{len(doc_id)}:{doc_id}{sha256}".encode()).hexdigest()


def file_of(key: str) -> str:
    """Return the name of the file that holds a document's result: one of 4,096."""
    return f"{key[:3]}.parquet"


@dataclass(frozen=True)
class DocumentResult:
    """What one document yields, by table, and its ledgers."""

    key: str
    tables: Mapping[str, pa.Table]
    ledgers: Sequence[Ledger]


class ResultFile:
    """The results of some documents under one fingerprint; those of another count as absent."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self.fingerprint = fingerprint

    def keys(self) -> set[str]:
        """Return the documents whose results are there."""
        table = self._read(["key"])
        return set() if table is None else set(table["key"].to_pylist())

    def replace(self, wanted: Collection[str], results: Sequence[DocumentResult]) -> None:
        """Keep the wanted documents' results, add others, and write the file."""
        parts = [_as_rows(results)]
        if (old := self._read(_SCHEMA.names)) is not None:
            new = {one.key for one in results}
            keep = [key in wanted and key not in new for key in old["key"].to_pylist()]
            parts.append(old.filter(pa.array(keep, pa.bool_())))
        table = pa.concat_tables(parts)
        table = table.take(pa.array(np.argsort(table["key"].to_pylist(), kind="stable")))
        mark = {_MARK: self.fingerprint.encode()}
        write_table(self.path, table.combine_chunks().replace_schema_metadata(mark))

    def table(self, name: str) -> pa.Table:
        """Return one table of all documents, in order of key."""
        rows = self._read([name])
        if rows is None:
            return TABLES[name].empty_table()
        records = rows[name].combine_chunks().flatten()
        return pa.Table.from_arrays(records.flatten(), schema=TABLES[name])

    def ledgers(self) -> Iterator[list[Ledger]]:
        """Yield the ledgers of each document."""
        table = self._read(["ledgers"])
        for text in [] if table is None else table["ledgers"].to_pylist():
            yield [Ledger.from_dict(one) for one in json.loads(text)]

    def _read(self, columns: Sequence[str]) -> pa.Table | None:
        if not self.path.is_file():
            return None
        table = read_table(self.path, columns)
        if (table.schema.metadata or {}).get(_MARK) != self.fingerprint.encode():
            return None
        schema = pa.schema([_SCHEMA.field(name) for name in columns])
        return table.replace_schema_metadata(None).cast(schema)


def _as_rows(results: Sequence[DocumentResult]) -> pa.Table:
    """Lay results out as rows of `_SCHEMA`."""
    columns: dict[str, pa.Array] = {"key": pa.array([one.key for one in results], pa.string())}
    for name, schema in TABLES.items():
        tables = [one.tables[name].cast(schema) for one in results]
        offsets = np.cumsum([0, *(table.num_rows for table in tables)]).astype(np.int32)
        joined = pa.concat_tables([schema.empty_table(), *tables]).combine_chunks()
        arrays = [
            column.chunk(0) if column.num_chunks else pa.array([], column.type)
            for column in joined.columns
        ]
        records = pa.StructArray.from_arrays(arrays, fields=list(schema))
        columns[name] = pa.ListArray.from_arrays(pa.array(offsets), records)
    texts = [json.dumps([one.to_dict() for one in own.ledgers]) for own in results]
    columns["ledgers"] = pa.array(texts, pa.string())
    arrays = [columns[field.name].cast(field.type) for field in _SCHEMA]
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)
