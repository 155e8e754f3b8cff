"""JSON lines, CSV, and the CSV of Neo4j's bulk import."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from graphmert.export.tables import GraphTables, rows_of, short_float
from graphmert.shards import Ledger, atomic_path

NAME_MARK = "|"
"""Stands between the names of a list in CSV."""
NEO4J_ARRAY_MARK = "\x1f"
"""Stands between the items of a list in Neo4j's files: `--array-delimiter=U+001F`."""


def write_jsonl(tables: GraphTables, folder: Path) -> tuple[list[Path], Ledger]:
    """Write entities.jsonl and triples.jsonl; a triple holds the list of its evidence."""
    entities, triples = folder / "entities.jsonl", folder / "triples.jsonl"
    _write_lines(entities, map(_entity, rows_of(tables.entities)))
    _write_lines(
        triples,
        (
            {**_triple(row), "evidence": evidence_of(tables, row["triple_id"])}
            for row in rows_of(tables.triples)
        ),
    )
    return [entities, triples], _whole(tables)


def write_csv(tables: GraphTables, folder: Path) -> tuple[list[Path], Ledger]:
    """Write entities.csv, triples.csv and evidence.csv; nulls are empty cells.

    Returns: the files, and a ledger of names in lists, which "|" parts: one that holds it itself
    is left out.
    """
    ledger = Ledger("export: names")

    def joined(names: Sequence[str]) -> str:
        ledger.offered(len(names))
        fitting = [one for one in names if NAME_MARK not in one]
        ledger.keep(len(fitting))
        for one in names:
            if NAME_MARK in one:
                ledger.leave_out("a name that holds the mark between names", example=one)
        return NAME_MARK.join(fitting)

    def entity_cells(row: dict[str, Any]) -> list[str]:
        return [joined(v) if isinstance(v, list) else v for v in _entity(row).values()]

    files: list[tuple[str, Sequence[str], Iterable[Iterable[str]]]] = [
        ("entities", list(_ENTITY_COLUMNS.values()), map(entity_cells, rows_of(tables.entities))),
        (
            "triples",
            list(_TRIPLE_COLUMNS.values()),
            (map(_cell, _triple(row).values()) for row in rows_of(tables.triples)),
        ),
        (
            "evidence",
            tables.evidence.column_names,
            (map(_cell, _rounded(row).values()) for row in rows_of(tables.evidence)),
        ),
    ]
    for name, header, rows in files:
        _write_csv(folder / f"{name}.csv", header, rows)
    return [folder / f"{name}.csv" for name, _, _ in files], ledger.check()


def write_neo4j(tables: GraphTables, folder: Path) -> tuple[list[Path], Ledger]:
    """Write nodes.csv and relationships.csv for `neo4j-admin database import`.

    Relationship types are the relations, node labels the entity types. The evidence of a triple
    is one JSON text on its relationship. A separator inside a name becomes a blank.
    """
    nodes, links = folder / "nodes.csv", folder / "relationships.csv"

    def joined(values: Sequence[str]) -> str:
        return NEO4J_ARRAY_MARK.join(one.replace(NEO4J_ARRAY_MARK, " ") for one in values)

    def node(row: dict[str, Any]) -> list[str]:
        names, merged = joined(row["synonyms"]), joined(row["merged_from"])
        return [row["entity_id"], row["name"], names, merged, row["type"]]

    def link(row: dict[str, Any]) -> list[str]:
        evidence = evidence_of(tables, row["triple_id"])
        return [
            row["head_id"],
            row["tail_id"],
            row["relation"],
            row["triple_id"],
            _cell(short_float(row["score"])),
            _cell(row["novel"]),
            _cell(row["n_evidence"]),
            json.dumps(evidence, ensure_ascii=False, separators=(",", ":")),
        ]

    node_header = ["entity_id:ID", "name", "synonyms:string[]", "merged_from:string[]", ":LABEL"]
    link_header = [
        ":START_ID", ":END_ID", ":TYPE", "triple_id", "score:double", "novel:boolean",
        "n_evidence:int", "evidence",
    ]  # fmt: skip
    _write_csv(nodes, node_header, map(node, rows_of(tables.entities)))
    _write_csv(links, link_header, map(link, rows_of(tables.triples)))
    return [nodes, links], _whole(tables)


def evidence_of(tables: GraphTables, triple_id: str) -> list[dict[str, Any]]:
    """Return all evidence of a triple, without the triple's own id."""
    rows = (_rounded(row) for row in tables.evidence_of(triple_id))
    return [{key: value for key, value in row.items() if key != "triple_id"} for row in rows]


_ENTITY_COLUMNS = {
    "entity_id": "id",
    "name": "name",
    "type": "type",
    "synonyms": "synonyms",
    "merged_from": "merged_from",
}
"""Columns of kg/entities -> names that importers know."""
_TRIPLE_COLUMNS = {
    "head_id": "head",
    "relation": "relation",
    "tail_id": "tail",
    "head": "head_name",
    "tail": "tail_name",
    "triple_id": "triple_id",
    "score": "score",
    "novel": "novel",
    "n_evidence": "n_evidence",
}


def _entity(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[column] for column, name in _ENTITY_COLUMNS.items()}


def _triple(row: dict[str, Any]) -> dict[str, Any]:
    rounded = _rounded(row)
    return {name: rounded[column] for column, name in _TRIPLE_COLUMNS.items()}


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "score": short_float(row["score"])}


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _whole(tables: GraphTables) -> Ledger:
    ledger = Ledger("export: evidence")
    ledger.offered(len(tables.evidence))
    ledger.keep(len(tables.evidence))
    return ledger.check()


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[str]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        # With both characters in the line end, fields that hold either are quoted.
        writer = csv.writer(out, lineterminator="\r\n")
        writer.writerow(header)
        writer.writerows(rows)
