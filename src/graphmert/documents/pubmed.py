"""Read PubMed XML record by record, safely: no entity is declared, nothing outside is fetched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from graphmert.errors import FormatError

_CHUNK = 1 << 18
_RECORD = "PubmedArticle"
_ROOTS = ("PubmedArticleSet", _RECORD)
_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True)
class Citation:
    """One record: its number, title, abstract (sections joined by line ends) and what is known."""

    pmid: str
    version: str
    title: str
    abstract: str
    journal: str
    year: str
    language: str
    mesh: tuple[str, ...]


def read_citations(stream: IO[bytes], path: Path) -> Iterator[Citation]:
    """Yield the records of a PubMed XML file; one record is in memory at a time.

    Markup within titles and abstracts is dropped, its text kept; runs of blanks become one.

    Raises:
        FormatError: bad XML, an entity declaration, another root element, or a record without
            a PMID; names the line.
    """
    for element, line in _records(stream, path):
        yield _citation(element, f"{path}, line {line}")


class _Handler:
    """Build the elements of one record after another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: list[tuple[Element, int]] = []
        self.builder: TreeBuilder | None = None
        self.depth = 0
        self.first_line = 0
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.data
        self.parser.EntityDeclHandler = self.refuse
        self.parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)

    def start(self, name: str, attributes: dict[str, str]) -> None:
        line = self.parser.CurrentLineNumber
        if self.depth == 0 and name not in _ROOTS:
            raise FormatError(
                "this XML is not PubMed's", where=f"{self.path}, line {line}", got=f"<{name}>",
                expected=f"<{_ROOTS[0]}>", fix="Only PubMed XML is read; convert other XML first.",
            )  # fmt: skip
        self.depth += 1
        if name == _RECORD and self.builder is None:
            self.builder = TreeBuilder()
            self.first_line = line
        if self.builder is not None:
            self.builder.start(name, attributes)

    def end(self, name: str) -> None:
        self.depth -= 1
        if self.builder is None:
            return
        self.builder.end(name)
        if name == _RECORD:
            self.done.append((self.builder.close(), self.first_line))
            self.builder = None

    def data(self, text: str) -> None:
        if self.builder is not None:
            self.builder.data(text)

    def refuse(self, name: str, *rest: object) -> None:
        raise FormatError(
            "the XML declares an entity, which is not read",
            where=f"{self.path}, line {self.parser.CurrentLineNumber}",
            got=f"<!ENTITY {name}",
            expected="PubMed XML, which declares none",
            fix="Remove the declaration, if you trust the file.",
        )


def _records(stream: IO[bytes], path: Path) -> Iterator[tuple[Element, int]]:
    handler = _Handler(path)
    try:
        while chunk := stream.read(_CHUNK):
            handler.parser.Parse(chunk, False)
            yield from handler.done
            handler.done.clear()
        handler.parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise FormatError(
            "XML cannot be read",
            where=f"{path}, line {error.lineno}",
            got=str(error),
            expected="whole PubMed XML",
            fix="Fetch or export the file again.",
        ) from error
    yield from handler.done


def _citation(record: Element, where: str) -> Citation:
    number = record.find("MedlineCitation/PMID")
    if number is None or not (number.text or "").strip():
        raise FormatError("a PubMed record has no PMID", where=where, expected="<PMID>")
    article = record.find("MedlineCitation/Article")
    if article is None:
        raise FormatError("a PubMed record has no article", where=where, expected="<Article>")
    sections = []
    for part in article.findall("Abstract/AbstractText"):
        text, label = _text(part), (part.get("Label") or "").strip()
        if text:
            sections.append(f"{label}: {text}" if label else text)
    date = article.find("Journal/JournalIssue/PubDate")
    year = "" if date is None else _text(date.find("Year")) or _text(date.find("MedlineDate"))[:4]
    return Citation(
        pmid=(number.text or "").strip(),
        version=number.get("Version", "1"),
        title=_text(article.find("ArticleTitle")),
        abstract="\n".join(sections),
        journal=_text(article.find("Journal/Title")),
        year=year,
        language=_text(article.find("Language")),
        mesh=tuple(
            _text(one) for one in record.iterfind(".//MeshHeadingList/MeshHeading/DescriptorName")
        ),
    )


def _text(element: Element | None) -> str:
    return "" if element is None else _BLANKS.sub(" ", "".join(element.itertext())).strip()
