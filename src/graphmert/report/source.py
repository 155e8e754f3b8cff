"""Read what a report is made from; missing files are None, broken ones are errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from graphmert.errors import FormatError
from graphmert.shards import read_table

TRIPLE_COLUMNS = ("triple_id", "head_id", "head", "relation", "tail_id", "tail", "score", "novel")
EVIDENCE_COLUMNS = (
    "triple_id", "doc_id", "sent_start", "sent_end", "sentence", "head_start", "head_end",
    "head_surface", "tail_start", "tail_end", "tail_surface", "score",
)  # fmt: skip


@dataclass(frozen=True)
class RunFiles:
    """What a run directory holds of the things a report shows."""

    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]
    stages: Sequence[Mapping[str, Any]]
    training: Sequence[Mapping[str, Any]]
    triples: pa.Table | None
    evidence: pa.Table | None
    rejected: pa.Table | None
    held_out: frozenset[tuple[str, str, str]]
    n_documents: int | None


def read_run(run_dir: Path) -> RunFiles:
    """Read the files of a run directory that a report shows.

    Raises:
        FormatError: the folder is missing, or a file in it is broken.
    """
    if not run_dir.is_dir():
        raise FormatError("run directory not found", where=str(run_dir))
    ledger = _read_json(run_dir / "ledger.json")
    stages = ledger.get("stages", [])
    if not isinstance(stages, list):
        raise FormatError(
            "ledger is not a list of stages",
            where=str(run_dir / "ledger.json"),
            got=type(stages).__name__,
            expected='{"stages": [...]}',
        )
    documents = run_dir / "corpus" / "documents.parquet"
    return RunFiles(
        manifest=_read_json(run_dir / "manifest.json"),
        metrics=_read_json(run_dir / "metrics.json"),
        stages=stages,
        training=_read_lines(run_dir / "model" / "training.jsonl"),
        triples=_read_optional(run_dir / "kg" / "triples.parquet", (*TRIPLE_COLUMNS, "n_evidence")),
        evidence=_read_optional(run_dir / "kg" / "evidence.parquet", EVIDENCE_COLUMNS),
        rejected=_read_optional(run_dir / "kg" / "rejected.parquet", ("candidate", "reason")),
        held_out=_read_held_out(run_dir / "seed" / "triples.parquet"),
        n_documents=len(read_table(documents, ["doc_id"])) if documents.exists() else None,
    )


def read_checked(where: str, build: Callable[[], Any]) -> Any:
    """Build something from a file's values; a missing or ill-typed value is a FormatError."""
    try:
        return build()
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise FormatError(
            "a run file has another shape than the report reads",
            where=where,
            got=f"{type(error).__name__}: {error}",
            fix="Run the stage that writes it again.",
        ) from error


def _read_json(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError("not valid JSON", where=str(path), got=str(error)) from error
    if not isinstance(value, dict):
        raise FormatError("not a JSON object", where=str(path), got=type(value).__name__)
    return value


def _read_lines(path: Path) -> list[Mapping[str, Any]]:
    if not path.exists():
        return []
    lines = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            raise FormatError(
                "not valid JSON", where=f"{path}, line {number}", got=str(error)
            ) from error
    return lines


def _read_optional(path: Path, columns: Sequence[str]) -> pa.Table | None:
    return read_table(path, list(columns)) if path.exists() else None


def _read_held_out(path: Path) -> frozenset[tuple[str, str, str]]:
    if not path.exists():
        return frozenset()
    table = read_table(path, ["head_id", "relation", "tail_id", "split"])
    return frozenset(
        (row["head_id"], row["relation"], row["tail_id"])
        for row in table.to_pylist()
        if row["split"] != "train"
    )
