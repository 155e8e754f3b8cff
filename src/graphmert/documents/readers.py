"""Read documents of many formats into one table."""

from __future__ import annotations

import bz2
import csv
import fnmatch
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import pyarrow as pa

from graphmert.documents.html import html_to_text
from graphmert.documents.table import make_documents
from graphmert.documents.wikitext import read_dump, wikitext_to_text
from graphmert.errors import DataError, FormatError
from graphmert.shards import Ledger, read_table

TEXT_FIELDS = ("text", "abstract", "content", "body")
ID_FIELDS = ("doc_id", "id", "pmid", "_id")
TITLE_FIELDS = ("title", "name")
_PAGES = (".html", ".htm")
_AR_MAGIC = b"!<arch>\n"


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
    names = path.name.lower().removesuffix(".gz").split(".")
    return _READERS.get("." + names[-1]) if len(names) > 1 else None


# --- one reader for each kind ---------------------------------------------------------------


def _plain(path: Path, name: str) -> Iterator[_Text]:
    text = _decode(_bytes_of(path), str(path))
    yield _Text(name, PurePosixPath(name).stem, text, str(path.name))


def _page(path: Path, name: str) -> Iterator[_Text]:
    title, text = html_to_text(_decode(_bytes_of(path), str(path)))
    yield _Text(name, title or PurePosixPath(name).stem, text, path.name)


def _json_lines(path: Path, name: str) -> Iterator[_Text]:
    for number, line in enumerate(_decode(_bytes_of(path), str(path)).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise FormatError("line is not JSON", where=where, got=error) from error
        if not isinstance(record, dict):
            raise FormatError(
                "line is no record", where=where, got=type(record).__name__, expected="an object"
            )
        yield _record(record, f"{name}#{number}", where, path.name)


def _csv(path: Path, name: str) -> Iterator[_Text]:
    text = _decode(_bytes_of(path), str(path))
    for number, record in enumerate(csv.DictReader(io.StringIO(text)), start=1):
        yield _record(record, f"{name}#{number}", f"{path}, record {number}", path.name)


def _parquet(path: Path, name: str) -> Iterator[_Text]:
    table = read_table(path)
    for number, record in enumerate(table.to_pylist(), start=1):
        yield _record(record, f"{name}#{number}", f"{path}, row {number}", path.name)


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


def _dump(path: Path, name: str) -> Iterator[_Text]:
    try:
        with _opened_dump(path) as stream:
            for page_id, title, markup in read_dump(stream, str(path)):
                yield _Text(f"{name}#{page_id}", title, wikitext_to_text(markup), path.name)
    except (OSError, EOFError) as error:
        raise FormatError("dump is not whole", where=str(path), got=error) from error


def _opened_dump(path: Path) -> IO[bytes]:
    return bz2.open(path) if path.suffix == ".bz2" else io.BytesIO(_bytes_of(path))


def _debian(path: Path, name: str) -> Iterator[_Text]:
    """Yield the HTML pages of a Debian package, in the order of their paths."""
    pages: dict[str, bytes] = {}
    prefix = path.name.split("_")[0].removesuffix(".deb")
    try:
        with tarfile.open(fileobj=io.BytesIO(_ar_member(path, "data.tar")), mode="r:*") as archive:
            for member in archive:
                bare = member.name.removesuffix(".gz")
                if not (member.isfile() and bare.lower().endswith(_PAGES)):
                    continue
                stream = archive.extractfile(member)
                data = stream.read() if stream is not None else b""
                pages[member.name] = gzip.decompress(data) if bare != member.name else data
    except (tarfile.TarError, lzma.LZMAError, OSError, EOFError) as error:
        raise FormatError("package is broken", where=str(path), got=error) from error
    if not pages:
        raise DataError("package holds no HTML page", where=str(path))
    for member_name in sorted(pages):
        inside = member_name.removeprefix("./").removeprefix("usr/share/doc/")
        inside = inside.partition("/")[2] if "/" in inside else inside
        title, text = html_to_text(_decode(pages[member_name], f"{path}: {member_name}"))
        yield _Text(f"{prefix}/{inside}", title, text, path.name)


def _ar_member(path: Path, start: str) -> bytes:
    """Return the member of an `ar` archive whose name starts so."""
    data = path.read_bytes()
    if data[:8] != _AR_MAGIC:
        raise FormatError("not a Debian package", where=str(path), expected="an ar archive")
    place = len(_AR_MAGIC)
    while place + 60 <= len(data):
        header = data[place : place + 60]
        size = header[48:58].strip()
        if header[58:60] != b"`\n" or not size.isdigit():
            break
        if header[:16].decode("ascii", "replace").startswith(start):
            if len(data) < place + 60 + int(size):
                break
            return data[place + 60 : place + 60 + int(size)]
        place += 60 + int(size) + int(size) % 2
    raise FormatError("package is broken", where=str(path), expected=f"a whole member {start}")


def _bytes_of(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix.lower() != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError) as error:
        raise FormatError("gzip file is not whole", where=str(path), got=error) from error


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FormatError(
            "document is not UTF-8",
            where=f"{where}, line {line}",
            got=f"byte {data[error.start]:#04x} at offset {error.start}",
            expected="UTF-8 text",
            fix="Save the file as UTF-8, or leave it out.",
        ) from error


_READERS: dict[str, Callable[[Path, str], Iterator[_Text]]] = {
    ".txt": _plain,
    ".md": _plain,
    ".html": _page,
    ".htm": _page,
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
    ".xml": _dump,
    ".bz2": _dump,
    ".deb": _debian,
}
