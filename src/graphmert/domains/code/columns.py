"""Rows of a table by the values of a column."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

# pyarrow makes these functions when it is imported, so that no type checker knows them.
_compute: Any = importlib.import_module("pyarrow.compute")


def rows_where(table: pa.Table, column: str, value: str) -> pa.Table:
    """Return the rows whose column has a value."""
    return table.filter(_compute.equal(table[column], value))


def rows_without(table: pa.Table, column: str, value: str) -> pa.Table:
    """Return the rows whose column has another value."""
    return table.filter(_compute.not_equal(table[column], value))


def rows_in(table: pa.Table, column: str, values: Iterable[str]) -> pa.Table:
    """Return the rows whose column has one of some values."""
    return table.filter(_compute.is_in(table[column], pa.array(list(values), pa.string())))


def distinct(table: pa.Table, column: str) -> list[str]:
    """Return the values of a column, each once, in the order of their first row."""
    return _compute.unique(table[column]).to_pylist()


def rows_in_column(table: pa.Table, column: str, other: pa.Table, other_column: str) -> int:
    """Return how many rows have a value that a column of another table has."""
    values = _compute.unique(other[other_column])
    return _compute.sum(_compute.is_in(table[column], values)).as_py() or 0


def kinds_of(entities: pa.Table, triples: pa.Table) -> dict[str, list[str | None]]:
    """Return the entity types of heads and tails, None for an id that is no entity."""
    ids, kinds = entities["entity_id"].combine_chunks(), entities["type"].combine_chunks()
    found = {}
    for column in ("head_id", "tail_id"):
        places = _compute.index_in(triples[column], ids)
        found[column] = _compute.take(kinds, places).to_pylist()
    return found


def pairs_of(table: pa.Table) -> list[tuple[int, int]]:
    """Return the two columns of a table as pairs of numbers, equal for equal values."""
    first, second = table.columns
    both = pa.chunked_array([*first.chunks, *second.chunks], first.type)
    codes = both.combine_chunks().dictionary_encode().indices.to_pylist()
    return list(zip(codes[: table.num_rows], codes[table.num_rows :], strict=True))
