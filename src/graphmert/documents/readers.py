"""Read documents of many formats into one table."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa

from graphmert.documents.files import ROW_SUFFIXES, read_text, rows_of, suffix_of
from graphmert.documents.pages import PAGE_SUFFIXES, is_dump, pages_of
from graphmert.documents.records import CorpusSettings, read_records
from graphmert.documents.table import make_documents
from graphmert.errors import FormatError
from graphmert.shards import Ledger

TEXT_FIELDS = ("text", "abstract", "content", "body")
ID_FIELDS = ("doc_id", "id", "pmid", "_id")
TITLE_FIELDS = ("title", "name")


class _Text(NamedTuple):
    doc_id: str
    title: str
    text: str
    source: str


@dataclass
class _Reading:
    """What one call reads: the patterns that leave documents out, and the ledger."""

    exclude: tuple[str, ...]
    ledger: Ledger = field(default_factory=lambda: Ledger("documents"))

    def leaves_out(self, name: str) -> bool:
        """Whether a pattern leaves a document out, by its id."""
        return any(fnmatch.fnmatch(name, pattern) for pattern in self.exclude)


def read_documents(
    paths: Sequence[Path | str], *, exclude: Sequence[str] = ()
) -> tuple[pa.Table, Ledger]:
    """Read documents from files and folders, in the order given, the files of a folder by name.

    Read are `.txt`, `.md`, `.html`, `.jsonl`, `.csv` and `.parquet` files, MediaWiki dumps
    (`.xml.bz2`, or any `.bz2` that holds one) and the HTML pages in Debian packages (`.deb`);
    `.gz` around a text is undone. A record's text is its field text, abstract, content or body;
    its id doc_id, id, pmid or _id, else its number; its title is title or name. The id of a file
    is its path from the given folder's name on.

    Args:
        paths: files and folders.
        exclude: patterns (`*` matches everything, also `/`) of document ids to leave out.

    Returns:
        The documents table, and the ledger, which counts documents.

    Raises:
        FormatError: a file that was named is missing, of no known kind or broken.
        DataError: no document, or one id twice.
    """
    reading = _Reading(tuple(exclude))
    rows: list[tuple[str, str, str, str, Mapping[str, Any]]] = []
    for path in (Path(one) for one in paths):
        for one in _read_path(path, reading):
            reading.ledger.offered()
            if reading.leaves_out(one.doc_id):
                reading.ledger.leave_out("excluded by a pattern", example=one.doc_id)
            elif not one.text.strip():
                reading.ledger.leave_out("document without text", example=one.doc_id)
            else:
                reading.ledger.keep()
                rows.append((one.doc_id, one.title, one.text, one.source, {}))
    return make_documents(rows), reading.ledger.check()


def _read_path(path: Path, reading: _Reading) -> Iterator[_Text]:
    if path.is_dir():
        for file in sorted(one for one in path.rglob("*") if one.is_file()):
            name = f"{path.name}/{file.relative_to(path).as_posix()}"
            reader = _reader_of(file)
            if reader is None:
                reading.ledger.offered()
                reading.ledger.leave_out("file of another kind", example=name)
            else:
                yield from reader(file, name)
        return
    if not path.is_file():
        raise FormatError("documents not found", where=str(path), fix="Check the path.")
    reader = _reader_of(path)
    if reader is None:
        raise FormatError(
            "file of a kind that is not read",
            where=str(path),
            got=path.suffix or "no ending",
            expected=", ".join(sorted(_READERS)),
        )
    yield from reader(path, path.name)


def _reader_of(path: Path) -> Callable[[Path, str], Iterator[_Text]] | None:
    return _READERS.get(suffix_of(path))


# --- one reader for each kind ---------------------------------------------------------------


def _plain(path: Path, name: str) -> Iterator[_Text]:
    yield _Text(name, PurePosixPath(name).stem, read_text(path), path.name)


def _pages(path: Path, name: str) -> Iterator[_Text]:
    package = path.name.split("_")[0].removesuffix(".deb")
    for page in pages_of(path):
        if not page.inner_id:
            yield _Text(name, page.title or PurePosixPath(name).stem, page.text, path.name)
        elif suffix_of(path) == ".deb":
            yield _Text(f"{package}/{page.inner_id}", page.title, page.text, path.name)
        else:
            yield _Text(f"{name}#{page.inner_id}", page.title, page.text, path.name)


def _xml(path: Path, name: str) -> Iterator[_Text]:
    if is_dump(path):
        yield from _pages(path, name)
        return
    for one in read_records(path, name, CorpusSettings()):
        if not one.skip:
            yield _Text(one.doc_id, one.title, one.text, path.name)


def _rows(path: Path, name: str) -> Iterator[_Text]:
    for row, place in rows_of(path):
        yield _record(row, f"{name}#{place.rpartition(' ')[2]}", f"{path}, {place}", path.name)


def _record(record: Mapping[str, Any], name: str, where: str, source: str) -> _Text:
    key = next((one for one in TEXT_FIELDS if isinstance(record.get(one), str)), None)
    if key is None:
        raise FormatError(
            "record without a text",
            where=where,
            got=", ".join(map(str, record)),
            expected="a field " + ", ".join(TEXT_FIELDS),
        )
    ids = (record[one] for one in ID_FIELDS if record.get(one) is not None)
    titles = (record[one] for one in TITLE_FIELDS if isinstance(record.get(one), str))
    return _Text(str(next(ids, name)), next(titles, ""), record[key], source)


_READERS: dict[str, Callable[[Path, str], Iterator[_Text]]] = {
    ".txt": _plain,
    ".md": _plain,
    ".xml": _xml,
    **dict.fromkeys(PAGE_SUFFIXES, _pages),
    **dict.fromkeys(ROW_SUFFIXES, _rows),
}
