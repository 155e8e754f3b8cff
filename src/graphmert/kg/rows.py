"""Knowledge graphs as plain rows: CSV, TSV and JSONL, read and written.

An entity row has `id` and, as wanted, `name`, `type`, `synonyms`, `definition`; a triple row has
`head`, `relation`, `tail` and, as wanted, `head_name`, `head_type`, `tail_name`, `tail_type`. The
header of a CSV or TSV file decides which it holds; a JSONL file may hold both. `synonyms` is a
list in JSONL and a text with "|" between names elsewhere. The columns that an exported graph adds
for provenance are accepted and not read; rows of evidence are left out and counted. Examples:
docs/your-documents.md.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphmert.errors import DataError, FormatError
from graphmert.kg.document import DEFAULT_TYPE, KGDocument, read_text
from graphmert.kg.schema import Schema, read_schema, write_schema
from graphmert.kg.types import KG, Entity, Triple
from graphmert.shards import Ledger, atomic_write_json, atomic_write_text

ENTITY_COLUMNS = ("id", "name", "type", "synonyms", "definition")
TRIPLE_COLUMNS = (
    "head", "relation", "tail", "head_name", "head_type", "tail_name", "tail_type",
)  # fmt: skip
PROVENANCE_COLUMNS = {
    "entity": ("merged_from",),
    "triple": ("triple_id", "score", "novel", "n_evidence", "evidence"),
}
"""Columns of exported graphs, which say where a row comes from and are no part of a graph."""
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
SCHEMA_FILE = "schema.toml"

_NEEDED = {
    "entity": ("id",),
    "triple": ("head", "relation", "tail"),
    "evidence": ("triple_id", "doc_id", "sentence"),
}
_Row = tuple[str, dict[str, Any], str]


@dataclass
class _Found:
    entities: dict[str, Entity] = field(default_factory=dict)
    definitions: dict[str, str] = field(default_factory=dict)
    triples: dict[Triple, None] = field(default_factory=dict)
    ends: dict[str, tuple[str, str]] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)


def read_rows(path: Path | str) -> KGDocument:
    """Read entities and triples from a CSV, TSV or JSONL file, or from all such in a folder.

    Ends of triples that no entity row names become entities of their own where there are no
    entity rows at all; else they stay dangling, which `validate` reports. Repeated rows are
    left out and counted.

    Raises:
        FormatError: wrong columns, a bad line, an empty id; names file and line.
        DataError: no row at all, or one id with two names or types.
    """
    path = Path(path)
    files = _files(path) if path.is_dir() else [path]
    ledger = Ledger("read_rows")
    found = _Found()
    for file in files:
        for kind, row, where in _rows(file):
            ledger.offered()
            if kind == "evidence":
                ledger.leave_out("row of evidence", example=where)
                continue
            (_take_entity if kind == "entity" else _take_triple)(row, where, found, ledger)
    if not found.entities and not found.triples:
        raise DataError(
            "the knowledge graph is empty",
            where=str(path),
            expected=f"rows with the columns {', '.join(TRIPLE_COLUMNS[:3])}",
            fix="Check the path; docs/your-documents.md shows the columns.",
        )
    entities = list(found.entities.values())
    if not entities:
        entities = [Entity(one, *found.ends[one]) for one in sorted(found.ends)]
    return KGDocument(
        kg=KG.build(entities, found.triples),
        definitions=dict(sorted(found.definitions.items())),
        ledger=ledger.check(),
        source=path.name,
    )


def _files(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if _suffix(one) in SUFFIXES)


def _suffix(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    return Path(name).suffix.lower()


def _rows(path: Path) -> Iterator[_Row]:
    """Yield (kind, row, place) of every row of a file."""
    text = read_text(path)
    if _suffix(path) in (".jsonl", ".ndjson"):
        yield from _json_rows(text, path)
        return
    delimiter = "\t" if _suffix(path) == ".tsv" else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        kind = _kind(header, f"{path}, line 1")
        _refuse_unknown(header, kind, f"{path}, line 1")
        for values in reader:
            if not values:
                continue
            where = f"{path}, line {reader.line_num}"
            if len(values) != len(header):
                raise FormatError(
                    "a row has another number of fields than the header",
                    where=where,
                    got=len(values),
                    expected=len(header),
                    fix="Quote fields that hold the delimiter.",
                )
            yield kind, dict(zip(header, values, strict=True)), where
    except csv.Error as error:
        raise FormatError(
            "a row cannot be read", where=f"{path}, line {reader.line_num}", got=error
        ) from error


def _json_rows(text: str, path: Path) -> Iterator[_Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise FormatError(
                "a line is not JSON", where=where, got=error, expected="one object a line"
            ) from error
        if not isinstance(row, dict):
            raise FormatError(
                "a line is no JSON object", where=where, got=type(row).__name__, expected="{…}"
            )
        kind = _kind(row, where)
        _refuse_unknown(row, kind, where)
        yield kind, row, where


def _kind(names: Any, where: str) -> str:
    for kind, needed in _NEEDED.items():
        if all(name in names for name in needed):
            return kind
    raise FormatError(
        "the columns are neither those of triples nor of entities",
        where=where,
        got=", ".join(map(str, names)) or "nothing",
        expected="head, relation, tail, or id",
        fix="Name the columns so; docs/your-documents.md has an example.",
    )


def _refuse_unknown(names: Any, kind: str, where: str) -> None:
    if kind == "evidence":
        return
    known = ENTITY_COLUMNS if kind == "entity" else TRIPLE_COLUMNS
    known = (*known, *PROVENANCE_COLUMNS[kind])
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) != len(list(names)):
        raise FormatError(
            f"unknown or repeated column of {kind} rows",
            where=where,
            got=", ".join(map(str, unknown or names)),
            expected=f"some of {', '.join(known)}",
            fix="Remove or rename it.",
        )


def _text_of(row: Mapping[str, Any], name: str, where: str, *, needed: bool = False) -> str:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        if isinstance(value, bool) or not isinstance(value, int):
            raise FormatError(
                "a value has the wrong type", where=f"{where}, {name}", got=repr(value),
                expected="a text",
            )  # fmt: skip
        value = str(value)
    value = (value or "").strip()
    if needed and not value:
        raise FormatError("a value is empty", where=f"{where}, {name}", expected="a text")
    return value


def _synonyms(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    value = row.get("synonyms")
    if value is None or isinstance(value, str):
        return tuple(one.strip() for one in (value or "").split("|") if one.strip())
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(one.strip() for one in value if one.strip())
    raise FormatError(
        "a value has the wrong type", where=f"{where}, synonyms", got=repr(value),
        expected="a list of texts",
    )  # fmt: skip


def _take_entity(row: Mapping[str, Any], where: str, found: _Found, ledger: Ledger) -> None:
    entity_id = _text_of(row, "id", where, needed=True)
    name = _text_of(row, "name", where) or entity_id
    kind = _text_of(row, "type", where) or DEFAULT_TYPE
    entity = Entity(entity_id, name, kind, _synonyms(row, where))
    definition = _text_of(row, "definition", where)
    earlier = found.entities.get(entity_id)
    if earlier is None:
        found.entities[entity_id] = entity
        found.places[entity_id] = where
        if definition:
            found.definitions[entity_id] = definition
        ledger.keep()
        return
    same = earlier == entity and definition in ("", found.definitions.get(entity_id, ""))
    if not same:
        raise DataError(
            "one entity id has two different rows",
            where=where,
            got=f"{entity_id} again",
            expected=f"one row for it (first at {found.places[entity_id]})",
            fix="Merge the two rows, or give one of them another id.",
        )
    ledger.leave_out("entity repeated", example=entity_id)


def _take_triple(row: Mapping[str, Any], where: str, found: _Found, ledger: Ledger) -> None:
    head, relation, tail = (_text_of(row, one, where, needed=True) for one in TRIPLE_COLUMNS[:3])
    for end, key in (("head", head), ("tail", tail)):
        name, kind = (_text_of(row, f"{end}_{part}", where) for part in ("name", "type"))
        old_name, old_kind = found.ends.get(key, (key, DEFAULT_TYPE))
        is_new = not name or old_name in (key, name)
        if not is_new or (kind and old_kind not in (DEFAULT_TYPE, kind)):
            raise DataError(
                "one entity id has two names or types",
                where=where,
                got=f"{key}: {name or old_name!r} ({kind or old_kind})",
                expected=f"{old_name!r} ({old_kind}), as in an earlier row",
                fix="Make name and type agree in all rows.",
            )
        found.ends[key] = (name or old_name, kind or old_kind)
    triple = Triple(head, relation, tail)
    if triple in found.triples:
        ledger.leave_out("triple repeated", example=" ".join(triple))
        return
    found.triples[triple] = None
    ledger.keep()


def write_rows(folder: Path | str, document: KGDocument, schema: Schema) -> list[Path]:
    """Write a graph as entities.jsonl, triples.jsonl, schema.toml and ledger.json.

    `read_rows` of the folder gives the same entities, triples and definitions.
    """
    folder = Path(folder)
    entities = []
    for entity in document.kg.entities.values():
        row: dict[str, Any] = {"id": entity.entity_id, "name": entity.name, "type": entity.type}
        if entity.synonyms:
            row["synonyms"] = list(entity.synonyms)
        if definition := document.definitions.get(entity.entity_id):
            row["definition"] = definition
        entities.append(row)
    triples: list[dict[str, Any]] = [
        {"head": head, "relation": relation, "tail": tail}
        for head, relation, tail in document.kg.triples
    ]
    files = []
    for name, rows in (("entities", entities), ("triples", triples)):
        path = folder / f"{name}.jsonl"
        atomic_write_text(path, "".join(f"{_line(row)}\n" for row in rows))
        files.append(path)
    write_schema(folder / SCHEMA_FILE, schema)
    atomic_write_json(folder / "ledger.json", {"stages": [document.ledger.to_dict()]})
    return [*files, folder / SCHEMA_FILE, folder / "ledger.json"]


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def schema_beside(path: Path) -> Schema | None:
    """Return the schema that lies in a graph's folder, if there is one."""
    file = path / SCHEMA_FILE
    return read_schema(file) if path.is_dir() and file.is_file() else None
