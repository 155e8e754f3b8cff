"""Samples of code: each function, class and module as one text, its docstrings kept apart."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from graphmert.domains.code.tables import CodeTables, Symbol
from graphmert.shards import Ledger

Kind = Literal["function", "class", "module"]
FUNCTIONS = frozenset({"Function", "Method", "Test"})
CLASSES = frozenset({"Class", "Interface", "ExceptionType", "Annotation"})
MODULES = frozenset({"Module", "File"})

_MARKS = re.compile(
    r"^[rRuUbBfF]{0,2}(\"\"\"|'''|\"|')|(\"\"\"|'''|\"|')$|^\s*/\*+|\*+/\s*$|^\s*(//+|\#+)"
)
_LINE_MARK = re.compile(r"^\s*(\*+(?!/)|//+|\#+)\s?")
_TAG = re.compile(r"^\s*(@\w+|:\w+|Args:|Parameters\b|Returns\b|Raises\b|>>>|\.\. )")


@dataclass(frozen=True, slots=True)
class CodeSample:
    """One text for one chain.

    Attributes:
        entity_id: what the sample is the code of.
        kind: "function", "class" or "module".
        doc_id, package, language: where it stands.
        prefix: text before the code: a module's path, else empty.
        pieces: half-open document spans that follow the prefix, in order.
        text: the prefix and the pieces.
        docstring: the description, marks removed; never part of `text`.
        is_test: whether it tests something.
    """

    entity_id: str
    kind: Kind
    doc_id: str
    package: str
    language: str
    prefix: str
    pieces: tuple[tuple[int, int], ...]
    text: str
    docstring: str
    is_test: bool

    def place(self, start: int, end: int) -> tuple[int, int] | None:
        """Where a document span stands in `text`; None where it is not wholly in one piece."""
        index = bisect.bisect_right(self.pieces, (start, 1 << 60)) - 1
        if index < 0:
            return None
        first, last = self.pieces[index]
        if not first <= start < end <= last:
            return None
        before = len(self.prefix) + sum(e - s for s, e in self.pieces[:index])
        return before + start - first, before + end - first


def clean_docstring(raw: str) -> str:
    """The first paragraph of a docstring or doc comment as plain words, without its marks."""
    lines = []
    for line in _MARKS.sub("", _MARKS.sub("", raw.strip())).splitlines():
        plain = _LINE_MARK.sub("", line).strip()
        plain = re.sub(r"</?\w+[^>]*>|\{@\w+\s+([^}]*)\}", r"\1", plain).strip()
        if _TAG.match(plain):
            break
        if not plain and lines:
            break
        if plain:
            lines.append(plain)
    return " ".join(lines).rstrip("*/ ").strip()


def make_samples(tables: CodeTables) -> tuple[list[CodeSample], Ledger]:
    """Cut every document into samples, in the order of the index.

    A function is its definition; a class its definition without the bodies of its members; a
    module its path and its text without the bodies of what it defines. No docstring is in any.

    Returns: samples and the ledger of definitions: a definition without text is left out.
    """
    ledger = Ledger("samples")
    samples: list[CodeSample] = []
    for doc_id, symbols in tables.symbols_in.items():
        text = tables.texts.get(doc_id, "")
        cuts = _docstrings(symbols)
        for symbol in symbols:
            kind = _kind(symbol)
            if kind is None:
                continue
            ledger.offered()
            sample = _sample(symbol, kind, text, symbols, cuts)
            if sample is None:
                ledger.leave_out("nothing but a docstring", example=symbol.entity_id)
                continue
            samples.append(sample)
            ledger.keep()
    return samples, ledger.check()


def _kind(symbol: Symbol) -> Kind | None:
    if symbol.kind in MODULES:
        return "module"
    if symbol.kind in CLASSES:
        return "class"
    if symbol.kind in FUNCTIONS:
        # A test may be a class that holds test methods: it has no parameters to hang on, and its
        # name begins like a class's.
        return "class" if symbol.kind == "Test" and symbol.name[:1].isupper() else "function"
    return None


def _sample(
    symbol: Symbol,
    kind: Kind,
    text: str,
    symbols: Sequence[Symbol],
    cuts: Sequence[tuple[int, int]],
) -> CodeSample | None:
    prefix = ""
    start, end = symbol.start, symbol.end
    out = list(cuts)
    if kind == "module":
        prefix, start, end = f"{symbol.path}\n", 0, len(text)
    if kind != "function":
        out += [
            (inner.body_start, inner.body_end)
            for inner in symbols
            if inner.entity_id != symbol.entity_id
            and (inner.kind in FUNCTIONS or (inner.kind in CLASSES and kind == "module"))
            and start <= inner.body_start < inner.body_end <= end
        ]
    pieces = subtract((start, end), out)
    code = "".join(text[a:b] for a, b in pieces)
    if not code.strip():
        return None
    docstring = ""
    if symbol.docstring_start is not None and symbol.docstring_end is not None:
        docstring = clean_docstring(text[symbol.docstring_start : symbol.docstring_end])
    return CodeSample(
        entity_id=symbol.entity_id,
        kind=kind,
        doc_id=symbol.doc_id,
        package=symbol.package,
        language=symbol.language,
        prefix=prefix,
        pieces=pieces,
        text=prefix + code,
        docstring=docstring,
        is_test=symbol.is_test,
    )


def _docstrings(symbols: Iterable[Symbol]) -> list[tuple[int, int]]:
    """Spans of all docstrings of a document."""
    return [
        (symbol.docstring_start, symbol.docstring_end)
        for symbol in symbols
        if symbol.docstring_start is not None and symbol.docstring_end is not None
    ]


def subtract(span: tuple[int, int], cuts: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """What is left of a span when the cuts are taken out, as disjoint spans in order."""
    place, end = span
    left: list[tuple[int, int]] = []
    for start, stop in sorted(cuts):
        if stop <= place or start >= end:
            continue
        if start > place:
            left.append((place, start))
        place = max(place, stop)
    if place < end:
        left.append((place, end))
    return tuple(left)
