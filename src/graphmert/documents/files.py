"""Open, decode and take apart the files that hold documents; nothing is read whole but texts."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from graphmert.errors import FormatError

ROW_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_MAX_FIELD = 1 << 30


def suffix_of(path: Path) -> str:
    """Return the ending of a file in lower case, `.gz` apart."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, gzip undone: by its ending or its first bytes."""
    with path.open("rb") as plain:
        is_packed = plain.read(2) == b"\x1f\x8b" or path.name.lower().endswith(".gz")
        if is_packed:
            plain.seek(0)
            with gzip.GzipFile(fileobj=plain) as stream:
                yield stream  # type: ignore[misc]
        else:
            plain.seek(0)
            yield plain


@contextlib.contextmanager
def checked(path: Path) -> Iterator[None]:
    """Turn the errors of a damaged gzip file into ours.

    Raises:
        FormatError: the file is not whole.
    """
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FormatError(
            "gzip file is not whole", where=str(path), got=error,
            fix="Fetch or copy the file again.",
        ) from error  # fmt: skip


def read_text(path: Path) -> str:
    """Return the text of a file, without a byte order mark.

    Raises:
        FormatError: not UTF-8, or a damaged gzip file.
    """
    with opened(path) as stream, checked(path):
        return decode(stream.read(), path).removeprefix("\ufeff")


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers, from 1; line ends are kept.

    Raises:
        FormatError: not UTF-8, or a damaged gzip file.
    """
    with opened(path) as stream, checked(path):
        for number, line in enumerate(stream, start=1):
            text = decode(line, path, number)
            yield number, text.removeprefix("\ufeff") if number == 1 else text


def decode(data: bytes, where: Path | str, line: int = 1) -> str:
    """Decode UTF-8 that begins at a line of a file.

    Raises:
        FormatError: it is not UTF-8; names line and byte.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        start = data.rfind(b"\n", 0, error.start) + 1
        raise FormatError(
            "a document file is not UTF-8",
            where=f"{where}, line {line}",
            got=f"byte {data[error.start]:#04x} at offset {error.start - start} of the line",
            expected="UTF-8 text",
            fix="Save the file as UTF-8.",
        ) from error


# --- rows -----------------------------------------------------------------------------------


def rows_of(path: Path) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield the rows of a JSONL, CSV, TSV or Parquet file, each with its place in the file.

    Raises:
        FormatError: a row that cannot be read; names file and line.
    """
    kinds = {".parquet": _parquet_rows, ".csv": _csv_rows, ".tsv": _csv_rows}
    yield from kinds.get(suffix_of(path), _json_rows)(path)


def _json_rows(path: Path) -> Iterator[tuple[Mapping[str, Any], str]]:
    for number, line in lines_of(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise FormatError(
                "a line is not JSON", where=f"{path}, line {number}", got=error,
                expected="one object a line",
            ) from error  # fmt: skip
        if not isinstance(row, dict):
            raise FormatError(
                "a line is no JSON object", where=f"{path}, line {number}", got=type(row).__name__
            )
        yield row, f"line {number}"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _csv_rows(path: Path) -> Iterator[tuple[Mapping[str, Any], str]]:
    delimiter = "\t" if suffix_of(path) == ".tsv" else ","
    limit = csv.field_size_limit(_MAX_FIELD)
    reader = csv.reader((line for _, line in lines_of(path)), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) != len(header):
            raise FormatError(
                "a column name stands twice", where=f"{path}, line 1", got=", ".join(header)
            )
        for values in reader:
            if not values:
                continue
            place = f"line {reader.line_num}"
            if len(values) != len(header):
                raise FormatError(
                    "a row has another number of fields than the header",
                    where=f"{path}, {place}", got=len(values), expected=len(header),
                    fix="Quote fields that hold the delimiter or a line end.",
                )  # fmt: skip
            yield dict(zip(header, values, strict=True)), place
    except csv.Error as error:
        raise FormatError(
            "a row cannot be read", where=f"{path}, line {reader.line_num}", got=error
        ) from error
    finally:
        csv.field_size_limit(limit)


def _parquet_rows(path: Path) -> Iterator[tuple[Mapping[str, Any], str]]:
    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1_024):
                for row in batch.to_pylist():
                    number += 1
                    yield row, f"row {number}"
    except (pa.ArrowException, OSError) as error:
        raise FormatError(
            "not a readable Parquet file", where=str(path), got=str(error).splitlines()[0]
        ) from error
