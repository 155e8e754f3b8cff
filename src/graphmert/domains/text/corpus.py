"""Documents: the texts a run reads, one row each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from graphmert.documents import make_documents
from graphmert.documents.records import CorpusSettings, Record, corpus_files, read_records
from graphmert.errors import DataError
from graphmert.kg import KGDocument
from graphmert.shards import Ledger, write_groups
from graphmert.store import schema_of

TITLE_MARK = ": "
GROUP_DOCUMENTS = 1_024
GROUP_CHARS = 4_000_000


def documents_from_definitions(obo: KGDocument) -> pa.Table:
    """Return one document for each term that has a definition: "name: definition".

    The document's id is the term's; its meta names the entity, whose title mention is the name.

    Raises:
        DataError: no term has a definition.
    """
    entities = obo.kg.entities
    return make_documents(
        (
            entity_id,
            entities[entity_id].name,
            entities[entity_id].name + TITLE_MARK + obo.definitions[entity_id],
            obo.source,
            {"entity_id": entity_id},
        )
        for entity_id in sorted(obo.definitions)
    )


def import_documents(
    corpus: Path | str | Sequence[Path], settings: CorpusSettings, target: Path | str
) -> tuple[int, Ledger]:
    """Read every file of a corpus and write the documents table, a row group at a time.

    A row group holds at most 1,024 documents and about 4 million characters, whatever the
    files are, and is the unit of later work. Texts are stored as they are, so that offsets are
    those of the source. A document's id is the source's own (`pmid:…` for PubMed), the file's
    name for a text file, else the file's name and a hash of the text. Its meta says where it
    stood and keeps the other columns under "fields".

    Args:
        corpus: a file or a folder, or several; see `graphmert.documents.records`.
        settings: columns, languages, the shortest text.
        target: the Parquet file, whole or not at all.

    Returns:
        The number of documents, and the ledger, which counts records and files not read:
        empty, short and repeated texts are left out.

    Raises:
        FormatError: a file that cannot be read; names file and line.
        DataError: no document, or one id with two texts.
    """
    ledger = Ledger("documents")
    places = [Path(corpus)] if isinstance(corpus, str | Path) else list(corpus)
    groups = _groups(_kept(places, settings, ledger))
    n_documents = write_groups(target, schema_of("corpus/documents"), groups)
    if not n_documents:
        Path(target).unlink()
        reasons = ", ".join(f"{count} {reason}" for reason, count in ledger.reasons.items())
        raise DataError(
            "the corpus is empty",
            where=", ".join(map(str, places)),
            got=reasons or "no file of a known kind",
            expected="at least one document",
            fix="Check the path and the [corpus] settings.",
        )
    return n_documents, ledger.check()


def _kept(
    places: Sequence[Path], settings: CorpusSettings, ledger: Ledger
) -> Iterator[tuple[str, str, str, str, Mapping[str, Any]]]:
    """Yield rows for `make_documents`; count what is left out."""
    place_of: dict[str, tuple[str, bytes]] = {}
    id_of: dict[bytes, str] = {}
    files = [one for place in places for one in corpus_files(place, ledger)]
    for path, source in files:
        for record in read_records(path, source, settings):
            ledger.offered()
            reason = record.skip or _too_short(record, settings.min_chars)
            digest = hashlib.sha256(record.text.encode("utf-8")).digest()[:16]
            doc_id = record.doc_id or f"{source}#{digest.hex()[:16]}"
            if not reason and doc_id in place_of and place_of[doc_id][1] != digest:
                reason = _second_text(record, doc_id, place_of[doc_id][0])
            if not reason and digest in id_of:
                reason = "same text as an earlier document"
            if not reason:
                place_of[doc_id] = (record.where, digest)
                id_of[digest] = doc_id
                if (len(id_of) - 1) % settings.take_every:
                    reason = "not taken (corpus.take_every)"
            if reason:
                ledger.leave_out(reason, example=f"{doc_id} ({source})")
                continue
            ledger.keep()
            yield doc_id, record.title, record.text, source, record.meta


def _too_short(record: Record, min_chars: int) -> str:
    n_chars = len(record.text.strip())
    if not n_chars:
        return "empty text"
    return f"shorter than {min_chars} characters" if n_chars < min_chars else ""


def _second_text(record: Record, doc_id: str, first: str) -> str:
    # Files of PubMed updates hold several versions of a record.
    if "pmid" in record.meta:
        return "another version of a record already read"
    raise DataError(
        "one document id has two texts",
        where=record.where,
        got=f"{doc_id} again",
        expected=f"one text for it (first at {first})",
        fix="Give each document an id of its own, or name another id column in corpus.id_column.",
    )


def _groups(
    rows: Iterable[tuple[str, str, str, str, Mapping[str, Any]]],
) -> Iterator[pa.Table]:
    group: list[tuple[str, str, str, str, Mapping[str, Any]]] = []
    n_chars = 0
    for row in rows:
        group.append(row)
        n_chars += len(row[2])
        if len(group) == GROUP_DOCUMENTS or n_chars >= GROUP_CHARS:
            yield make_documents(group)
            group, n_chars = [], 0
    if group:
        yield make_documents(group)
