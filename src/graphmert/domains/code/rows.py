"""Rows of the index tables, collected file by file."""

from __future__ import annotations

import bisect
import json
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from graphmert.kg.types import triple_id
from graphmert.store import make_table, schema_of

TABLES = (
    "kg/entities",
    "kg/triples",
    "kg/evidence",
    "code/symbols",
    "code/references",
)
_MAX_SENTENCE = 300
_AROUND = 120


@dataclass(frozen=True)
class Document:
    """A decoded file.

    Attributes:
        doc_id, package, version, licence, path, source: see docs/code-index.md.
        language: the language.
        sha256: of the bytes.
        text: decoded.
        is_test: lies among tests.
    """

    doc_id: str
    package: str
    version: str
    licence: str
    path: str
    source: str
    language: str
    sha256: str
    text: str
    is_test: bool


@dataclass
class _Triple:
    head: str
    tail: str
    score: float
    n: int = 0


@dataclass
class FileRows:
    """Rows of one file, table by table, and counts of what was left out."""

    document: Document
    columns: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    triples: dict[tuple[str, str, str], _Triple] = field(default_factory=dict)
    depends_on: set[str] = field(default_factory=set)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    n_offered: int = 0

    def __post_init__(self) -> None:
        self.columns = {name: [] for name in TABLES if name != "kg/triples"}
        text = self.document.text
        self._lines = [0]
        found = text.find("\n")
        while found >= 0:
            self._lines.append(found + 1)
            found = text.find("\n", found + 1)

    def line_of(self, offset: int) -> int:
        """Return the line of an offset, from 1."""
        return bisect.bisect_right(self._lines, offset)

    def _sentence(self, start: int, end: int) -> tuple[int, int]:
        """Return the line of a span, or what is near it where lines are very long."""
        text = self.document.text
        first = self._lines[bisect.bisect_right(self._lines, start) - 1]
        last = text.find("\n", end)
        last = len(text) if last < 0 else last
        if last - first > _MAX_SENTENCE:
            first, last = max(first, start - _AROUND), min(last, end + _AROUND)
            last = min(last, first + _MAX_SENTENCE)
        return first, max(last, first)

    def add_triple(
        self,
        head: tuple[str, str],
        relation: str,
        tail: tuple[str, str],
        *,
        head_span: tuple[int, int],
        tail_span: tuple[int, int] | None,
        site: tuple[int, int],
        resolver: str,
        score: float,
    ) -> None:
        """Add a triple's evidence.

        Args:
            head, tail: (entity id, name).
            relation: the relation.
            head_span: the head's name where it is defined, in this document.
            tail_span: the tail as the text names it; None when it does not.
            site: the span that says so.
            resolver: how it was found.
            score: confidence.
        """
        key = (head[0], relation, tail[0])
        text = self.document.text
        first, last = self._sentence(*site)
        document = self.document
        locator = self._locator(site, resolver)
        known = self.triples.setdefault(key, _Triple(head[1], tail[1], score))
        known.score = max(known.score, score)
        known.n += 1
        tail_start, tail_end = tail_span or (None, None)
        self.columns["kg/evidence"].append(
            (
                triple_id(*key),
                "code",
                document.doc_id,
                document.sha256,
                first,
                last,
                text[first:last],
                head_span[0],
                head_span[1],
                text[head_span[0] : head_span[1]],
                tail_start,
                tail_end,
                None if tail_span is None else text[tail_span[0] : tail_span[1]],
                locator,
                "",
                resolver,
                score,
            )
        )

    def _locator(self, site: tuple[int, int], resolver: str) -> str:
        document = self.document
        values = {
            "file": document.path,
            "start_line": self.line_of(site[0]),
            "end_line": self.line_of(max(site[1] - 1, site[0])),
            "resolver": resolver,
            "package": document.package,
            "version": document.version,
            "licence": document.licence,
            "language": document.language,
        }
        return json.dumps(values, ensure_ascii=False)

    def leave_out(self, reason: str, example: str) -> None:
        """Count something that gave no row."""
        self.left_out.setdefault(reason, []).append(example)

    def rows(self, name: str) -> list[tuple[Any, ...]]:
        """Return the rows of a table; triples of `depends_on` are made for all files together."""
        if name != "kg/triples":
            return self.columns[name]
        return [
            (
                triple_id(*key),
                key[0],
                one.head,
                *key[1:],
                one.tail,
                one.score,
                False,
                one.n,
            )
            for key, one in self.triples.items()
            if key[1] != "depends_on"
        ]


def make_rows(name: str, rows: list[tuple[Any, ...]]) -> pa.Table:
    """Return rows as a table of that name."""
    names = schema_of(name).names
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    return make_table(name, dict(zip(names, (list(one) for one in columns), strict=True)))
