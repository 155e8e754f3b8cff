"""Read documents from files: text, HTML, JSONL, CSV, TSV, Parquet, PubMed XML, MediaWiki dumps and
Debian packages; one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from graphmert.config import Settings
from graphmert.documents.files import (
    ROW_SUFFIXES,
    checked,
    lines_of,
    opened,
    read_text,
    rows_of,
    suffix_of,
)
from graphmert.documents.pages import PAGE_SUFFIXES, is_dump, pages_of
from graphmert.documents.pubmed import read_citations
from graphmert.errors import FormatError
from graphmert.shards import Ledger

TEXT_SUFFIXES = (".txt", ".md")
SUFFIXES = (*TEXT_SUFFIXES, *ROW_SUFFIXES, *PAGE_SUFFIXES, ".xml")


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
    held_out_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of the documents that train nothing because they name held-out heads, "
        "beyond the one that names each first; extraction from the corpus is measured in these",
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
        if suffix_of(path) not in SUFFIXES:
            raise FormatError(
                "no known kind of document file",
                where=str(path),
                got=suffix_of(path) or "no ending",
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
        if not hidden and suffix_of(one) in SUFFIXES:
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
    suffix = suffix_of(path)
    if suffix in TEXT_SUFFIXES:
        yield from _text_records(path, source, settings)
    elif suffix in PAGE_SUFFIXES or (suffix == ".xml" and is_dump(path)):
        yield from _page_records(path, source)
    elif suffix == ".xml":
        yield from _pubmed_records(path, source, settings)
    else:
        for row, place in rows_of(path):
            yield _row_record(row, place, path, source, settings)


# --- one reader for each kind ---------------------------------------------------------------


def _text_records(path: Path, source: str, settings: CorpusSettings) -> Iterator[Record]:
    if settings.text_unit == "line":
        for number, line in lines_of(path):
            text = line.rstrip("\r\n")
            yield Record("", "", text, source, f"{path}, line {number}", {"line": number})
        return
    yield Record(source, "", read_text(path), source, str(path))


def _page_records(path: Path, source: str) -> Iterator[Record]:
    for page in pages_of(path):
        doc_id = f"{source}#{page.inner_id}" if page.inner_id else source
        where = f"{path}, {page.inner_id}" if page.inner_id else str(path)
        yield Record(doc_id, page.title, page.text, source, where)


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
    with opened(path) as stream, checked(path):
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
