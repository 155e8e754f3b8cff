"""JSON lines, CSV, and the CSV of Neo4j's bulk import."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from graphmert.export.tables import GraphTables, rows_of, short_float
from graphmert.shards import atomic_path

NEO4J_ARRAY_MARK = "\x1f"
"""Stands between the items of a list in Neo4j's files: `--array-delimiter=U+001F`."""


def write_jsonl(tables: GraphTables, folder: Path) -> list[Path]:
    """Write entities.jsonl and triples.jsonl; a triple holds the list of its evidence."""
    entities, triples = folder / "entities.jsonl", folder / "triples.jsonl"
    _write_lines(entities, rows_of(tables.entities))
    _write_lines(
        triples,
        (
            {
                **row,
                "score": short_float(row["score"]),
                "evidence": [
                    {key: value for key, value in _plain(one).items() if key != "triple_id"}
                    for one in tables.evidence_of(row["triple_id"])
                ],
            }
            for row in rows_of(tables.triples)
        ),
    )
    return [entities, triples]


def write_csv(tables: GraphTables, folder: Path) -> list[Path]:
    """Write entities.csv, triples.csv and evidence.csv; lists are JSON, nulls are empty cells."""
    paths = []
    for name in ("entities", "triples", "evidence"):
        table = getattr(tables, name)
        path = folder / f"{name}.csv"
        rows = (map(_cell, _plain(row).values()) for row in rows_of(table))
        _write_csv(path, table.column_names, rows)
        paths.append(path)
    return paths


def write_neo4j(tables: GraphTables, folder: Path) -> list[Path]:
    """Write nodes.csv and relationships.csv for `neo4j-admin database import`.

    Relationship types are the relations, node labels the entity types. The evidence of a triple
    is one JSON text on its relationship. A separator inside a name becomes a blank.
    """
    nodes, links = folder / "nodes.csv", folder / "relationships.csv"

    def joined(values: Sequence[str]) -> str:
        return NEO4J_ARRAY_MARK.join(one.replace(NEO4J_ARRAY_MARK, " ") for one in values)

    _write_csv(
        nodes,
        ["entity_id:ID", "name", "synonyms:string[]", "merged_from:string[]", ":LABEL"],
        (
            [row["entity_id"], row["name"], joined(row["synonyms"]), joined(row["merged_from"]),
             row["type"]]
            for row in rows_of(tables.entities)
        ),
    )  # fmt: skip
    _write_csv(
        links,
        [":START_ID", ":END_ID", ":TYPE", "triple_id", "score:double", "novel:boolean",
         "n_evidence:int", "evidence"],
        (
            [row["head_id"], row["tail_id"], row["relation"], row["triple_id"],
             repr(short_float(row["score"])), _cell(row["novel"]), str(row["n_evidence"]),
             evidence_json(tables, row["triple_id"])]
            for row in rows_of(tables.triples)
        ),
    )  # fmt: skip
    return [nodes, links]


def evidence_json(tables: GraphTables, triple_id: str) -> str:
    """Return all evidence of a triple as one line of JSON."""
    rows = [_plain(row) for row in tables.evidence_of(triple_id)]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "score": short_float(row["score"])} if "score" in row else row


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[str]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
