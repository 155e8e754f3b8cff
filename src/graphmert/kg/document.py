"""What every reader of knowledge graphs returns, and reading its text."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from graphmert.errors import FormatError
from graphmert.kg.types import KG
from graphmert.shards import Ledger

DEFAULT_TYPE = "entity"


@dataclass(frozen=True)
class Typedef:
    """What a source declares of a relation; `description` is what it means, or ""."""

    relation: str
    label: str
    sub_relation_of: tuple[str, ...] = ()
    inverse: str | None = None
    transitive: bool = False
    symmetric: bool = False
    antisymmetric: bool = False
    description: str = ""


@dataclass(frozen=True)
class KGDocument:
    """What was read from a file or folder that holds a knowledge graph.

    Attributes:
        kg: entities and the triples among them.
        definitions: text of the definition by entity id, where there is one.
        typedefs: relations by id, as the source declares them.
        ledger: counts entities, synonyms and triples, kept and left out.
        source: file name.
        version: the source's own version, or "".
        other_ids: ids under which other sources name the entities -> the entities.
    """

    kg: KG
    definitions: dict[str, str]
    ledger: Ledger
    typedefs: dict[str, Typedef] = field(default_factory=dict)
    source: str = ""
    version: str = ""
    other_ids: dict[str, tuple[str, ...]] = field(default_factory=dict)


def join_documents(documents: Sequence[KGDocument]) -> KGDocument:
    """Return the union of several sources; of two definitions or declarations the first stays.

    Raises:
        DataError: one entity id with two names or two types.
    """
    if len(documents) == 1:
        return documents[0]
    ledger = Ledger("read_kg")
    definitions: dict[str, str] = {}
    typedefs: dict[str, Typedef] = {}
    other_ids: dict[str, tuple[str, ...]] = {}
    for one in documents:
        other_ids = one.other_ids | other_ids
        ledger.merge(one.ledger)
        definitions = one.definitions | definitions
        typedefs = one.typedefs | typedefs
    return KGDocument(
        kg=KG.build(
            (entity for one in documents for entity in one.kg.entities.values()),
            (triple for one in documents for triple in one.kg.triples),
        ),
        definitions=dict(sorted(definitions.items())),
        ledger=ledger.check(),
        typedefs=dict(sorted(typedefs.items())),
        source=" + ".join(one.source for one in documents),
        version=" + ".join(one.version for one in documents if one.version),
        other_ids=other_ids,
    )


def without_relations(document: KGDocument, relations: Iterable[str]) -> KGDocument:
    """Return a document without the triples of some relations; the ledger says how many."""
    unwanted = frozenset(relations)
    ledger = Ledger.from_dict(document.ledger.to_dict())
    kept = []
    for triple in document.kg.triples:
        if triple.relation in unwanted:
            ledger.keep(-1)
            reason = f"relation {triple.relation} is not wanted"
            ledger.leave_out(reason, example=" ".join(triple))
        else:
            kept.append(triple)
    kg = KG.build(document.kg.entities.values(), kept)
    return replace(document, kg=kg, ledger=ledger.check())


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file, those inside if it is gzipped.

    Raises:
        FormatError: there is no such file, or a gzip file is not whole.
    """
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except FileNotFoundError as error:
        raise FormatError(
            "ontology file not found", where=str(path), fix="Check the path."
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FormatError(
            "gzip file is not whole",
            where=str(path),
            got=error,
            fix="Fetch or copy the file again.",
        ) from error


def read_text(path: Path) -> str:
    """Return the text of a file, plain or gzipped, without a byte order mark.

    Raises:
        FormatError: no such file, a broken gzip file, or not UTF-8; names the line.
    """
    data = read_bytes(path)
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FormatError(
            "ontology file is not UTF-8",
            where=f"{path}, line {line}",
            got=f"byte {data[error.start]:#04x} at offset {error.start}",
            expected="UTF-8 text",
            fix="Save the file as UTF-8.",
        ) from error
