"""Put rows of files together into the tables of an index, reusing those of an earlier run."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from graphmert.domains.code.columns import distinct, rows_in
from graphmert.domains.code.entities import is_shared, repository_id, shared_entity
from graphmert.domains.code.ontology import ONTOLOGY_PATH
from graphmert.domains.code.rows import TABLES, FileRows, make_rows
from graphmert.domains.code.validate import validate_index
from graphmert.domains.code.walk import Walk, is_test_path
from graphmert.kg.types import triple_id
from graphmert.shards import (
    Ledger,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    sha256_file,
)
from graphmert.store import RunDir, empty_table, schema_of

LEFT_OUT = "code/left_out.json"
"""What was left out of triples, file by file, under the run directory."""

_COUNTS = {
    "kg/entities": "n_entities",
    "kg/triples": "n_triples",
    "kg/evidence": "n_evidence",
    "code/symbols": "n_symbols",
    "code/references": "n_references",
}


@dataclass
class Assembled:
    """What was written.

    Attributes:
        counts: of files, entities, triples, references.
        validation: shares that the ontology's thresholds speak of.
        hashes: SHA-256 of each table.
    """

    counts: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, Any] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)


def assemble(
    run: RunDir,
    walk: Walk,
    texts: dict[str, Any],
    rows: dict[int, FileRows],
    duplicates: dict[str, list[int]],
) -> Assembled:
    """Write all tables of an index.

    Args:
        run: the run directory; rows of files not in `rows` are taken from the tables there.
        walk: the files, in order.
        texts: decoded files that were read anew.
        rows: rows of the files that were linked anew.
        duplicates: module names of several files.
    """
    old = _OldTables(run)
    files = _files_table(walk, texts, rows, old)
    tables = {name: _join(name, walk, rows, old) for name in TABLES}
    tables["corpus/documents"] = _documents(walk, texts, rows, old)
    _add_shared(tables, files, walk)
    tables["code/files"] = files
    ledger = _ledger(run, walk, rows, files, duplicates, tables)
    result = Assembled()
    result.validation = validate_index(tables, ledger)
    result.counts = _count(tables, files)
    for name in sorted(tables):
        path = run.write(name, tables[name])
        result.hashes[name] = sha256_file(path)
    atomic_write_bytes(run.seed_schema, ONTOLOGY_PATH.read_bytes())
    atomic_write_json(run.ledger, ledger)
    return result


class _OldTables:
    """Tables of an earlier run, read when a piece is asked for."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._tables: dict[str, pa.Table] = {}
        self._starts: dict[str, dict[str, tuple[int, int]]] = {}
        self.files: dict[str, dict[str, Any]] = {}

    def load(self) -> None:
        """Read which rows belong to which file."""
        if self.files:
            return
        table = self._run.read("code/files").to_pylist()
        self.files = {one["doc_id"]: one for one in table}
        for name, column in _COUNTS.items():
            starts, at = {}, 0
            for one in table:
                starts[one["doc_id"]] = (at, one[column])
                at += one[column]
            self._starts[name] = starts
        self._starts["corpus/documents"] = {}
        at = 0
        for one in table:
            if one["state"] != "skipped":
                self._starts["corpus/documents"][one["doc_id"]] = (at, 1)
                at += 1

    def span(self, name: str, doc_id: str) -> tuple[int, int]:
        """Return (first row, number of rows) of a file."""
        self.load()
        return self._starts[name].get(doc_id, (0, 0))

    def piece(self, name: str, start: int, n: int) -> pa.Table:
        """Return rows of a table."""
        if name not in self._tables:
            self._tables[name] = self._run.read(name)
        return self._tables[name].slice(start, n)


def _join(name: str, walk: Walk, rows: dict[int, FileRows], old: _OldTables) -> pa.Table:
    """Return a table: rows of files linked anew, and those of the earlier run for the rest."""
    pieces: list[pa.Table] = []
    fresh: list[tuple[Any, ...]] = []
    run_start, run_end = -1, -1

    def flush_fresh() -> None:
        if fresh:
            pieces.append(make_rows(name, fresh))
            fresh.clear()

    def flush_old() -> None:
        nonlocal run_start, run_end
        if run_end > run_start >= 0:
            pieces.append(old.piece(name, run_start, run_end - run_start))
        run_start = run_end = -1

    for number, source in enumerate(walk.files):
        if number in rows:
            flush_old()
            fresh.extend(rows[number].rows(name))
            continue
        flush_fresh()
        start, n = old.span(name, source.doc_id)
        if start != run_end:
            flush_old()
            run_start = start
        run_end = start + n
    flush_fresh()
    flush_old()
    return pa.concat_tables([empty_table(name), *pieces])


def _documents(
    walk: Walk, texts: dict[str, Any], rows: dict[int, FileRows], old: _OldTables
) -> pa.Table:
    pieces = []
    run_start = run_end = -1
    for source in [*walk.files, None]:
        decoded = None if source is None else texts.get(source.doc_id)
        if source is not None and decoded is None:
            start, n = old.span("corpus/documents", source.doc_id)
            if start == run_end:
                run_end += n
                continue
        else:
            start, n = -1, 0
        if run_end > run_start >= 0:
            pieces.append(old.piece("corpus/documents", run_start, run_end - run_start))
        run_start, run_end = start, start + n
        if source is None or decoded is None or decoded.state == "skipped":
            continue
        meta = {
            "language": source.language,
            "package": source.package,
            "version": source.version,
            "licence": source.licence,
            "is_test": is_test_path(source.path),
        }
        values = [source.doc_id, decoded.sha256, source.path, decoded.text, source.location]
        row = (*values, json.dumps(meta, ensure_ascii=False))
        pieces.append(make_rows("corpus/documents", [row]))
    table = pa.concat_tables([empty_table("corpus/documents"), *pieces])
    # The files may lie elsewhere than when their rows were made.
    locations = {one.doc_id: one.location for one in walk.files}
    sources = [locations[one] for one in table["doc_id"].to_pylist()]
    place = table.schema.get_field_index("source")
    field_of = table.schema.field(place)
    return table.set_column(place, field_of, pa.array(sources, field_of.type))


def _files_table(
    walk: Walk, texts: dict[str, Any], rows: dict[int, FileRows], old: _OldTables
) -> pa.Table:
    found: list[tuple[Any, ...]] = []
    names = schema_of("code/files").names
    for number, source in enumerate(walk.files):
        decoded = texts.get(source.doc_id)
        if number not in rows:
            old.load()
            found.append(tuple(old.files[source.doc_id][name] for name in names))
            continue
        if decoded is None:
            old.load()
            one = old.files[source.doc_id]
            n_bytes, n_lines, state, reason = (
                one["n_bytes"],
                one["n_lines"],
                one["state"],
                one["reason"],
            )
        else:
            n_lines = decoded.text.count("\n") + 1 if decoded.text else 0
            n_bytes, state, reason = decoded.n_bytes, decoded.state, decoded.reason
        made = rows[number]
        counts = {column: len(made.rows(name)) for name, column in _COUNTS.items()}
        found.append(
            (
                source.doc_id,
                source.package,
                source.version,
                source.path,
                source.language,
                made.document.sha256,
                n_bytes,
                n_lines,
                state,
                reason,
                source.is_test,
                counts["n_symbols"],
                counts["n_references"],
                counts["n_triples"],
                counts["n_evidence"],
                counts["n_entities"],
                sorted(made.depends_on),
            )
        )
    return make_rows("code/files", found)


def _add_shared(tables: dict[str, pa.Table], files: pa.Table, walk: Walk) -> None:
    """Add rows of what belongs to no single file: repositories, packages, names outside."""
    depends: dict[tuple[str, str], int] = Counter()
    for package, tails in zip(
        files.column("package").to_pylist(), files.column("depends_on").to_pylist(), strict=True
    ):
        for tail in tails:
            depends[repository_id(package), tail] += 1
    triples = []
    for (head, tail), n in sorted(depends.items()):
        key = (head, "depends_on", tail)
        names = shared_entity(head, ())[0], shared_entity(tail, ())[0]
        triples.append((triple_id(*key), head, names[0], key[1], tail, names[1], 1.0, False, n))
    tables["kg/triples"] = pa.concat_tables(
        [tables["kg/triples"], make_rows("kg/triples", triples)]
    )
    table = tables["kg/triples"]
    shared: dict[str, set[str]] = defaultdict(set)
    for column in ("head_id", "tail_id"):
        for one in distinct(table, column):
            if is_shared(one):
                shared[one]
    for one in distinct(rows_in(table, "relation", ("raises", "catches")), "tail_id"):
        if one in shared:
            shared[one].add("raises")
    rows = []
    for entity_id in sorted(shared):
        name, kind = shared_entity(entity_id, shared[entity_id])
        rows.append((entity_id, name, kind, [], []))
    tables["kg/entities"] = pa.concat_tables(
        [tables["kg/entities"], make_rows("kg/entities", rows)]
    )


def _ledger(
    run: RunDir,
    walk: Walk,
    rows: dict[int, FileRows],
    files: pa.Table,
    duplicates: dict[str, list[int]],
    tables: dict[str, pa.Table],
) -> dict[str, Any]:
    """Return ledgers of files, of calls and of triples; they speak of the whole index."""
    read = Ledger("files")
    for one in files.select(["doc_id", "state", "reason"]).to_pylist():
        read.offered()
        if one["state"] == "skipped":
            read.leave_out(one["reason"], example=one["doc_id"])
        else:
            read.keep()
    for location, reason in walk.skipped:
        read.offered()
        read.leave_out(reason, example=location)
    partial = {
        one["doc_id"]: one["reason"]
        for one in files.select(["doc_id", "state", "reason"]).to_pylist()
        if one["state"] == "partial"
    }
    names = {
        name: [walk.files[number].doc_id for number in numbers]
        for name, numbers in sorted(duplicates.items())
    }
    return {
        "files": read.check().to_dict(),
        "partial": partial,
        "duplicate_modules": names,
        "triples": _triples_ledger(run, rows, walk, tables),
    }


def _triples_ledger(
    run: RunDir, rows: dict[int, FileRows], walk: Walk, tables: dict[str, pa.Table]
) -> dict[str, Any]:
    """Count evidence offered, kept and left out, file by file, so that updates add up."""
    previous: dict[str, Any] = {}
    path = run.path / LEFT_OUT
    if len(rows) < len(walk.files) and path.is_file():
        previous = json.loads(path.read_text(encoding="utf-8"))
    by_file: dict[str, Any] = {}
    for number, source in enumerate(walk.files):
        if number in rows:
            made = rows[number]
            counts = {reason: len(texts) for reason, texts in sorted(made.left_out.items())}
            examples = {reason: texts[:2] for reason, texts in sorted(made.left_out.items())}
            by_file[source.doc_id] = [made.n_offered, counts, examples]
        else:
            by_file[source.doc_id] = previous[source.doc_id]
    atomic_write_text(path, json.dumps(by_file, separators=(",", ":"), ensure_ascii=False))
    total = Ledger("triples")
    for n_offered, counts, examples in by_file.values():
        total.offered(n_offered)
        for reason, n in counts.items():
            shown = examples.get(reason, [""])
            total.leave_out(reason, n, example=shown[0] if shown else None)
    total.keep(tables["kg/evidence"].num_rows)
    return total.check().to_dict()


def _count(tables: dict[str, pa.Table], files: pa.Table) -> dict[str, Any]:
    states = Counter(files.column("state").to_pylist())
    languages = Counter(files.column("language").to_pylist())
    return {
        "files": dict(sorted(states.items())),
        "languages": dict(sorted(languages.items())),
        "entities": tables["kg/entities"].num_rows,
        "triples": tables["kg/triples"].num_rows,
        "evidence": tables["kg/evidence"].num_rows,
        "symbols": tables["code/symbols"].num_rows,
        "references": tables["code/references"].num_rows,
    }
