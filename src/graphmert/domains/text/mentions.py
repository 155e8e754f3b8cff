"""Find entity names in text: exact offsets, whole words, the longest name first."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import ahocorasick_rs
import numpy as np
import pyarrow as pa

from graphmert.domains.text.views import View, view_of
from graphmert.errors import DataError
from graphmert.shards import Ledger
from graphmert.store import check_table, make_table

CASED_LENGTH = 3

_BATCH_CHARS = 2_000_000
_BORDER = "\0"
_N_CODES = 0x110000


def fold(text: str) -> str:
    """Fold case character by character, so that offsets in the result are those of the text.

    A character whose folded form has another length ("ß", "İ") takes its lower-case form if
    that is one character, and else stays.
    """
    return _decode(_fold_table()[_codes(text)])


def is_cased(name: str) -> bool:
    """Return whether a name matches in its own case only: short, or all capitals."""
    return len(name) <= CASED_LENGTH or name.isupper()


@dataclass(frozen=True, slots=True)
class _Name:
    """One name of one entity. Names sort by preference: own names first, then by id."""

    rank: int
    entity_id: str
    text: str
    cased: bool


class NameIndex:
    """All names and EXACT synonyms of a table of entities, ready to be searched for.

    Args:
        entities: columns entity_id, name, synonyms.
        normalise: compare views of texts (`graphmert.domains.text.views`), not the texts.
    """

    def __init__(self, entities: pa.Table, *, normalise: bool = False) -> None:
        self.normalise = normalise
        names: dict[str, list[_Name]] = {}
        columns = (entities[one].to_pylist() for one in ("entity_id", "name", "synonyms"))
        for entity_id, name, synonyms in zip(*columns, strict=True):
            for rank, text in enumerate([name, *(synonyms or ())]):
                text = (view_of(text).text if normalise else text).strip()
                if text and _BORDER not in text:
                    found = _Name(min(rank, 1), entity_id, text, is_cased(text))
                    names.setdefault(fold(text), []).append(found)
        self.patterns = sorted(names)
        self.names = [
            sorted(names[pattern], key=lambda one: (one.rank, one.entity_id, one.text))
            for pattern in self.patterns
        ]
        self._search = ahocorasick_rs.AhoCorasick(self.patterns, store_patterns=False)

    def matches(self, folded: str) -> np.ndarray:
        """Return all matches, overlapping ones too: int64 (n, 3) of pattern, start, end."""
        found = self._search.find_matches_as_indexes(folded, overlapping=True)
        return np.array(found, dtype=np.int64).reshape(-1, 3)


def find_mentions(
    sequences: pa.Table, documents: pa.Table, entities: pa.Table | NameIndex
) -> tuple[pa.Table, Ledger]:
    """Find where entities are named in sequences.

    A name matches as whole words: no letter, digit, combining mark or "_" may stand beside it.
    Case is folded, but for names of up to three characters and names in capitals. Of matches
    that overlap the leftmost is taken, then the longest. Of entities with the same name the
    one whose preferred name it is comes first, then the smallest id. The name at the start of
    a document that defines an entity is always its mention, marked `is_title`, and nothing
    overlaps it.

    Args:
        sequences: only documents with a sequence here are searched.
        documents: texts, titles, and `entity_id` in meta where a document defines an entity.
        entities: columns entity_id, name, synonyms; or the index made of them. An index that
            normalises finds names whatever the composition of characters, the blanks (a line end
            is one) and the kind of hyphen; offsets are those of the text as it is.

    Returns:
        The mentions table (character offsets into the document's text), by sequence and place,
        and the ledger, which counts names found as whole words.

    Raises:
        DataError: a sequence of a document that is not there.
    """
    check_table("corpus/documents", documents)
    check_table("corpus/sequences", sequences)
    index = entities if isinstance(entities, NameIndex) else NameIndex(entities)
    ledger = Ledger("mentions")
    rows: list[tuple[object, ...]] = []
    for batch in _batches(sequences, documents):
        rows.extend(_mentions_of(batch, index, ledger))
    names = ("seq_id", "doc_id", "entity_id", "start", "end", "surface", "is_title")
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    table = make_table("corpus/mentions", dict(zip(names, columns, strict=True)))
    return table, ledger.check()


@dataclass(frozen=True)
class _Document:
    doc_id: str
    text: str
    entity_id: str | None
    title_end: int
    sequences: tuple[tuple[int, int, str], ...]


def _batches(sequences: pa.Table, documents: pa.Table) -> Iterator[list[_Document]]:
    """Yield documents, in their order, in groups of a fixed size."""
    spans: dict[str, list[tuple[int, int, str]]] = {}
    columns = (sequences[one].to_pylist() for one in ("doc_id", "start", "end", "seq_id"))
    for doc_id, start, end, seq_id in zip(*columns, strict=True):
        spans.setdefault(doc_id, []).append((start, end, seq_id))
    batch: list[_Document] = []
    size = 0
    for part in documents.select(["doc_id", "title", "text", "meta"]).to_batches(4_096):
        for doc_id, title, text, meta in zip(*(one.to_pylist() for one in part), strict=True):
            own = spans.pop(doc_id, None)
            if own is None:
                continue
            entity_id = json.loads(meta).get("entity_id") if '"entity_id"' in meta else None
            titled = entity_id is not None and bool(title) and text.startswith(title)
            title_end = len(title) if titled else 0
            batch.append(_Document(doc_id, text, entity_id, title_end, tuple(sorted(own))))
            size += len(text)
            if size >= _BATCH_CHARS:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch
    if spans:
        raise DataError(
            "sequences of documents that are not there",
            got=", ".join(sorted(spans)[:5]),
            expected="every doc_id of the sequences in the documents",
            fix="Make the sequences from these documents.",
        )


def _mentions_of(
    batch: list[_Document], index: NameIndex, ledger: Ledger
) -> Iterator[tuple[object, ...]]:
    views = [view_of(one.text) if index.normalise else View(one.text) for one in batch]
    text = _BORDER + _BORDER.join(one.text for one in views) + _BORDER
    codes = _codes(text)
    starts = np.cumsum([1, *(len(one.text) + 1 for one in views)])[:-1]
    matches = index.matches(_decode(_fold_table()[codes]))
    is_word = _word_table()[codes]
    whole = ~is_word[matches[:, 1] - 1] & ~is_word[matches[:, 2]]
    matches = matches[whole]
    # Leftmost first, then longest.
    matches = matches[np.lexsort((-matches[:, 2], matches[:, 1]))]
    row_of = np.searchsorted(starts, matches[:, 1], side="right") - 1
    matches[:, 1:] -= starts[row_of, None]
    borders = np.searchsorted(row_of, np.arange(len(batch) + 1))
    found = matches.tolist()
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}

    def leave_out(reason: str, document: _Document, start: int, end: int) -> None:
        counts[reason] += 1
        if counts[reason] <= 5:
            surface = document.text[start:end]
            examples.setdefault(reason, []).append(f"{document.doc_id} [{start}, {end}) {surface}")

    for row, document in enumerate(batch):
        own = found[borders[row] : borders[row + 1]]
        yield from _choose(document, views[row], own, index, ledger, leave_out)
    for reason in sorted(counts):
        shown = examples[reason]
        for example in shown:
            ledger.leave_out(reason, example=example)
        ledger.leave_out(reason, counts[reason] - len(shown))


def _choose(
    document: _Document,
    view: View,
    matches: list[list[int]],
    index: NameIndex,
    ledger: Ledger,
    leave_out: Callable[[str, _Document, int, int], None],
) -> Iterator[tuple[object, ...]]:
    """Yield the mentions of one document from its whole-word matches, which are in order."""
    text, last_end = document.text, document.title_end
    chosen: list[tuple[int, int, str, bool]] = []
    if document.entity_id is not None and last_end:
        ledger.offered()
        chosen.append((0, last_end, document.entity_id, True))
    for pattern, view_start, view_end in matches:
        names = index.names[pattern]
        ledger.offered(len(names))
        surface = view.text[view_start:view_end]
        start, end = view.original(view_start, view_end)
        fitting = [one for one in names if not one.cased or one.text == surface]
        for _ in range(len(names) - len(fitting)):
            leave_out("other case", document, start, end)
        if start < last_end:
            reason = "within the title" if start < document.title_end else "within a longer name"
            for _ in fitting:
                leave_out(reason, document, start, end)
            continue
        if not fitting:
            continue
        for _ in fitting[1:]:
            leave_out("same name as another entity", document, start, end)
        chosen.append((start, end, fitting[0].entity_id, False))
        last_end = end
    place = 0
    for start, end, entity_id, is_title in chosen:
        while place < len(document.sequences) and document.sequences[place][1] <= start:
            place += 1
        if place == len(document.sequences) or not (
            document.sequences[place][0] <= start and end <= document.sequences[place][1]
        ):
            leave_out("not within one sequence", document, start, end)
            continue
        ledger.keep()
        seq_id = document.sequences[place][2]
        yield seq_id, document.doc_id, entity_id, start, end, text[start:end], is_title


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _decode(codes: np.ndarray) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


@cache
def _fold_table() -> np.ndarray:
    table = np.arange(_N_CODES, dtype=np.uint32)
    for code in range(_N_CODES):
        character = chr(code)
        folded = character.casefold()
        if len(folded) != 1:
            folded = character.lower()
        if len(folded) == 1 and folded != character:
            table[code] = ord(folded)
    return table


@cache
def _word_table() -> np.ndarray:
    """Return which characters belong to words; a variation selector belongs to its emoji."""
    table = np.zeros(_N_CODES, dtype=bool)
    for code in range(_N_CODES):
        character = chr(code)
        table[code] = character.isalnum() or unicodedata.category(character)[0] == "M"
    table[ord("_")] = True
    table[0xFE00:0xFE10] = False
    return table
