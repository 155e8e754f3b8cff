"""Results of finished shards on disk, so that work that was killed does not begin anew.

A file holds a line of JSON and the tables it names as Arrow streams; nothing in it is executed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from graphmert.errors import FormatError
from graphmert.shards import Ledger, atomic_write_bytes


class KeptResults:
    """Results of the shards of one pass, each a file of a folder; for `shards.map_shards`.

    A result is made of tables, arrays of one dimension, ledgers, plain values, and tuples, lists,
    dicts and the given dataclasses of these.

    Args:
        folder: of all passes of a work; made when the first result is written.
        name: start of the file names, one a pass.
        fingerprint: hash of all that the results depend on, the number of shards too; results of
            another one are not read.
        records: dataclasses that results may hold.
    """

    def __init__(
        self, folder: Path, name: str, fingerprint: str, *, records: Sequence[type] = ()
    ) -> None:
        self.folder = folder
        self.name = name
        self.fingerprint = fingerprint
        self.records = {one.__name__: one for one in records}

    def read(self, index: int) -> tuple[bool, Any]:
        """Return (whether the shard's result is here, the result).

        Raises:
            FormatError: the file is damaged.
        """
        path = self._path(index)
        if not path.is_file():
            return False, None
        data = path.read_bytes()
        line, _, body = data.partition(b"\n")
        try:
            head = json.loads(line)
            if head["fingerprint"] != self.fingerprint:
                return False, None
            if head["sha256"] != _digest(head, body):
                raise ValueError("another checksum")
            tables = list(_tables(body, head["sizes"]))
            return True, self._decode(head["value"], tables)
        except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise FormatError(
                "the result of a shard is not readable",
                where=str(path),
                got=error,
                fix="Delete it and run the stage again.",
            ) from error

    def write(self, index: int, result: Any) -> None:
        """Keep a shard's result, whole or not at all.

        Raises:
            CapabilityError: the disk is full.
        """
        tables: list[pa.Table] = []
        value = self._encode(result, tables)
        parts = [_to_bytes(table) for table in tables]
        body = b"".join(parts)
        head: dict[str, Any] = {
            "fingerprint": self.fingerprint,
            "value": value,
            "sizes": [len(part) for part in parts],
        }
        line = json.dumps(head | {"sha256": _digest(head, body)}, ensure_ascii=True)
        atomic_write_bytes(self._path(index), line.encode() + b"\n" + body)

    def _path(self, index: int) -> Path:
        return self.folder / f"{self.name}-{index:05d}.kept"

    def _encode(self, value: Any, tables: list[pa.Table]) -> Any:
        """Return a value as JSON, its tables apart."""
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, pa.Table):
            tables.append(value)
            return {"table": len(tables) - 1}
        if isinstance(value, np.ndarray) and value.ndim == 1:
            tables.append(pa.table({"values": value}))
            return {"array": len(tables) - 1}
        if isinstance(value, Ledger):
            return {"ledger": value.to_dict()}
        if isinstance(value, tuple | list):
            kind = "tuple" if isinstance(value, tuple) else "list"
            return {kind: [self._encode(one, tables) for one in value]}
        if isinstance(value, Mapping):
            pairs = ((key, one) for key, one in value.items())
            return {"dict": [[self._encode(x, tables) for x in pair] for pair in pairs]}
        if isinstance(value, np.ndarray):
            raise TypeError(f"an array of {value.ndim} dimensions cannot be kept")
        if type(value).__name__ in self.records:
            fields = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
            return {
                "record": type(value).__name__,
                "fields": {name: self._encode(one, tables) for name, one in fields.items()},
            }
        raise TypeError(f"a {type(value).__name__} cannot be kept")

    def _decode(self, value: Any, tables: Sequence[pa.Table]) -> Any:
        if not isinstance(value, dict):
            return value
        if "record" in value:
            fields = {name: self._decode(one, tables) for name, one in value["fields"].items()}
            return self.records[value["record"]](**fields)
        ((kind, held),) = value.items()
        if kind == "table":
            return tables[held]
        if kind == "array":
            return np.array(tables[held]["values"].to_numpy())
        if kind == "ledger":
            return Ledger.from_dict(held)
        if kind == "dict":
            return {self._decode(key, tables): self._decode(one, tables) for key, one in held}
        return {"tuple": tuple, "list": list}[kind](self._decode(one, tables) for one in held)


def drop_kept(folder: Path) -> None:
    """Delete the results of a work that is done."""
    if folder.is_dir():
        shutil.rmtree(folder)


def _digest(head: Mapping[str, Any], body: bytes) -> str:
    own = {name: head[name] for name in ("fingerprint", "value", "sizes")}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode() + body).hexdigest()


def _to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _tables(body: bytes, sizes: Sequence[int]) -> Iterator[pa.Table]:
    start = 0
    for size in sizes:
        with pa.ipc.open_stream(body[start : start + size]) as reader:
            yield reader.read_all()
        start += size


__all__ = ["KeptResults", "drop_kept"]
