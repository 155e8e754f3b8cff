"""Pages in containers and markup: HTML files, MediaWiki dumps, Debian packages of HTML pages."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from graphmert.documents.files import checked, decode, opened, read_text, suffix_of
from graphmert.documents.html import html_to_text
from graphmert.documents.wikitext import read_dump, wikitext_to_text
from graphmert.errors import DataError, FormatError

PAGE_SUFFIXES = (".html", ".htm", ".bz2", ".deb")
_PAGES = (".html", ".htm")
_AR_MAGIC = b"!<arch>\n"


class Page(NamedTuple):
    """One page: its id within the file ("" where the file is the page), title and text."""

    inner_id: str
    title: str
    text: str


def is_dump(path: Path) -> bool:
    """Return whether an XML file begins as a MediaWiki dump does."""
    with opened(path) as stream, checked(path):
        return b"<mediawiki" in stream.read(4_096)


def pages_of(path: Path) -> Iterator[Page]:
    """Yield the pages of an HTML file, a MediaWiki dump or a Debian package, markup removed.

    Raises:
        FormatError: the file is broken.
        DataError: a package without a page.
    """
    kind = suffix_of(path)
    if kind in _PAGES:
        title, text = html_to_text(read_text(path))
        yield Page("", title, text)
    elif kind == ".deb":
        yield from _debian(path)
    else:
        yield from _dump(path)


def _dump(path: Path) -> Iterator[Page]:
    try:
        with _opened_dump(path) as stream:
            for page_id, title, markup in read_dump(stream, str(path)):
                yield Page(page_id, title, wikitext_to_text(markup))
    except (OSError, EOFError) as error:
        raise FormatError("dump is not whole", where=str(path), got=error) from error


@contextlib.contextmanager
def _opened_dump(path: Path) -> Iterator[IO[bytes]]:
    if path.suffix.lower() == ".bz2":
        with bz2.open(path) as stream:
            yield stream
    else:
        with opened(path) as stream, checked(path):
            yield stream


def _debian(path: Path) -> Iterator[Page]:
    """Yield the HTML pages of a Debian package, in the order of their paths."""
    pages: dict[str, bytes] = {}
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
        title, text = html_to_text(
            decode(pages[member_name], f"{path}: {member_name}").removeprefix("\ufeff")
        )
        yield Page(inside, title, text)


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
