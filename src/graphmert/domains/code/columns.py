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
