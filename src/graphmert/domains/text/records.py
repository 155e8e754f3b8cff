"""Read documents from files: text, JSONL, CSV, TSV, Parquet, PubMed XML; one at a time."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from graphmert.config import Settings
from graphmert.domains.text.pubmed import read_citations
from graphmert.errors import FormatError
from graphmert.shards import Ledger

TEXT_SUFFIXES = (".txt", ".md")
ROW_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
SUFFIXES = (*TEXT_SUFFIXES, *ROW_SUFFIXES, ".xml")

_MAX_FIELD = 1 << 30


class CorpusSettings(Settings):
    """How the files of a corpus are read."""

    text_column: str = Field(default="text", description="column or key that holds the text")
    title_column: str = Field(default="title", description="column of the title, if there is one")
    id_column: str = Field(
        default="id",
        description="column of the document's id; without it the id is file name # content hash",
    )
    text_unit: Literal["file", "line"] = Field(
        default="file", description="what is a document in .txt and .md files"
    )
    languages: tuple[str, ...] = Field(
        default=(), description="keep PubMed records in these languages only, such as eng"
    )
    min_chars: int = Field(
        default=1, ge=1, description="shorter texts are left out, blanks at the ends apart"
    )
    take_every: int = Field(
        default=1, ge=1, description="take every n-th document only, to try a run on a part"
    )
    drop_low_information: bool = Field(
        default=True, description="leave out sequences that are measurements or lists of numbers"
    )


@dataclass(frozen=True)
class Record:
    """One document as it was read.

    Attributes:
        doc_id: from the source, or "" where it has none.
        where: path and line or record, for messages.
        source: path of the file under the corpus.
        meta: line or record, and what else the source says.
        skip: why it is no document, or "".
    """

    doc_id: str
    title: str
    text: str
    source: str
    where: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    skip: str = ""


def corpus_files(path: Path | str, ledger: Ledger | None = None) -> list[tuple[Path, str]]:
    """List the files of a corpus with their names under it, in order of name.

    Args:
        path: a file, or a folder searched with its subfolders.
        ledger: counts the files that are of no known kind or hidden.

    Raises:
        FormatError: no such path, or a single file of no known kind.
    """
    path = Path(path)
    if path.is_file():
        if _suffix(path) not in SUFFIXES:
            raise FormatError(
                "no known kind of document file", where=str(path), got=_suffix(path) or "no ending",
                expected=f"{', '.join(SUFFIXES)}, also with .gz",
                fix="Convert it, or give it its usual ending.",
            )  # fmt: skip
        return [(path, path.name)]
    if not path.is_dir():
        raise FormatError("no such corpus", where=str(path), fix="Check the path.")
    found = []
    for one in sorted(path.rglob("*"), key=lambda entry: entry.relative_to(path).as_posix()):
        if not one.is_file():
            continue
        name = one.relative_to(path).as_posix()
        hidden = any(part.startswith(".") for part in Path(name).parts)
        if not hidden and _suffix(one) in SUFFIXES:
            found.append((one, name))
        elif ledger is not None:
            ledger.offered()
            reason = "hidden file" if hidden else "file of no known kind"
            ledger.leave_out(reason, example=name)
    return found


def read_records(path: Path, source: str, settings: CorpusSettings) -> Iterator[Record]:
    """Yield the records of one file, in its order.

    Raises:
        FormatError: damaged, not UTF-8, bad syntax, or no text column; names file and line.
    """
    suffix = _suffix(path)
    if suffix in TEXT_SUFFIXES:
        yield from _text_records(path, source, settings)
    elif suffix == ".xml":
        yield from _pubmed_records(path, source, settings)
    else:
        rows = {".parquet": _parquet_rows, ".csv": _csv_rows, ".tsv": _csv_rows}
        for row, place in rows.get(suffix, _json_rows)(path):
            yield _row_record(row, place, path, source, settings)


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


# --- plain text -----------------------------------------------------------------------------


def _text_records(path: Path, source: str, settings: CorpusSettings) -> Iterator[Record]:
    if settings.text_unit == "line":
        for number, line in _lines(path):
            text = line.rstrip("\r\n")
            yield Record("", "", text, source, f"{path}, line {number}", {"line": number})
        return
    with _open(path) as stream, _checked(path):
        text = _decode(stream.read(), path, 1).removeprefix("\ufeff")
    yield Record(source, "", text, source, str(path))


@contextlib.contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as plain:
        if plain.read(2) == b"\x1f\x8b":
            plain.seek(0)
            with gzip.GzipFile(fileobj=plain) as stream:
                yield stream  # type: ignore[misc]
        else:
            plain.seek(0)
            yield plain


@contextlib.contextmanager
def _checked(path: Path) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FormatError(
            "gzip file is not whole", where=str(path), got=error,
            fix="Fetch or copy the file again.",
        ) from error  # fmt: skip


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with _open(path) as stream, _checked(path):
        for number, line in enumerate(stream, start=1):
            text = _decode(line, path, number)
            yield number, text.removeprefix("\ufeff") if number == 1 else text


def _decode(data: bytes, path: Path, line: int) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        start = data.rfind(b"\n", 0, error.start) + 1
        raise FormatError(
            "a document file is not UTF-8",
            where=f"{path}, line {line}",
            got=f"byte {data[error.start]:#04x} at offset {error.start - start} of the line",
            expected="UTF-8 text",
            fix="Save the file as UTF-8.",
        ) from error


# --- rows -----------------------------------------------------------------------------------


def _json_rows(path: Path) -> Iterator[tuple[Mapping[str, Any], str]]:
    for number, line in _lines(path):
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
    delimiter = "\t" if _suffix(path) == ".tsv" else ","
    limit = csv.field_size_limit(_MAX_FIELD)
    reader = csv.reader((line for _, line in _lines(path)), delimiter=delimiter, strict=True)
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


def _row_record(
    row: Mapping[str, Any], place: str, path: Path, source: str, settings: CorpusSettings
) -> Record:
    where = f"{path}, {place}"
    if settings.text_column not in row:
        raise FormatError(
            "a row has no text",
            where=where,
            got=", ".join(map(str, row)) or "nothing",
            expected=f"the column {settings.text_column!r}",
            fix="Name the column in corpus.text_column.",
        )
    text, title, own_id = (
        _as_text(row.get(name), f"{where}, {name}")
        for name in (settings.text_column, settings.title_column, settings.id_column)
    )
    used = (settings.text_column, settings.title_column, settings.id_column)
    rest = {name: value for name, value in row.items() if name not in used and value is not None}
    kind, _, number = place.partition(" ")
    meta: dict[str, Any] = {kind: int(number)}
    if rest:
        meta["fields"] = rest
    return Record(own_id, title, text, source, where, meta)


def _as_text(value: Any, where: str) -> str:
    if value is None or isinstance(value, str):
        text = value or ""
    elif isinstance(value, int) and not isinstance(value, bool):
        text = str(value)
    else:
        raise FormatError(
            "a value is no text", where=where, got=repr(value)[:80], expected="a text"
        )
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise FormatError(
            "a text holds half a surrogate pair, which is no character", where=where,
            fix="Write the text again from its source.",
        )  # fmt: skip
    return text


# --- PubMed ---------------------------------------------------------------------------------


def _pubmed_records(path: Path, source: str, settings: CorpusSettings) -> Iterator[Record]:
    with _open(path) as stream, _checked(path):
        for place, one in enumerate(read_citations(stream, path), start=1):
            skip = ""
            if settings.languages and one.language not in settings.languages:
                skip = "in another language"
            elif not one.abstract:
                skip = "citation without an abstract"
            # The title stands in the text, a paragraph of its own.
            text = f"{one.title}\n\n{one.abstract}" if one.title else one.abstract
            meta = {
                "record": place,
                "pmid": one.pmid,
                "version": one.version,
                "journal": one.journal,
                "year": one.year,
                "language": one.language,
                "mesh": list(one.mesh),
            }
            where = f"{path}, record {place}"
            yield Record(f"pmid:{one.pmid}", one.title, text, source, where, meta, skip)
