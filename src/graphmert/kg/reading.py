"""Read a knowledge graph of any known form, with the names of a user's schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from graphmert.errors import FormatError
from graphmert.kg.document import KGDocument, join_documents
from graphmert.kg.listed import read_listed
from graphmert.kg.obo import read_obo
from graphmert.kg.rdf import SUFFIXES as RDF_SUFFIXES
from graphmert.kg.rdf import read_rdf
from graphmert.kg.rows import SCHEMA_FILE, read_rows
from graphmert.kg.rows import SUFFIXES as ROW_SUFFIXES
from graphmert.kg.schema import Schema
from graphmert.kg.terms import read_terms
from graphmert.kg.types import KG, Entity, Triple
from graphmert.kg.wordnet import is_wordnet, read_wordnet
from graphmert.shards import Ledger, read_table

FORMATS = (
    ".obo",
    *RDF_SUFFIXES,
    *ROW_SUFFIXES,
    ".json",
    ".txt",
    ".tar.gz",
)


def read_kg(
    paths: Path | str | Sequence[Path | str], *, schema: Schema | None = None
) -> KGDocument:
    """Read one or more sources and return their union.

    Args:
        paths: files (`.obo`, `.ttl`, `.nt`, `.rdf`, `.owl`, `.csv`, `.tsv`, `.jsonl`, or `.json`
            with a list of terms, `.txt` with a triple a line; each may end in `.gz`), a WordNet
            database (`.tar.gz`), or folders: of rows, of a WordNet database, or with the tables
            of a run (`RUN/seed`, `RUN/kg`).
        schema: relation names that are aliases in it become the relation's own name.

    Raises:
        FormatError: an unknown ending, or a file that does not hold what it should.
        DataError: one entity id with two names or types.
        CapabilityError: a package that a format needs is missing.
    """
    listed = [paths] if isinstance(paths, str | Path) else list(paths)
    document = join_documents([_read_one(Path(one)) for one in listed])
    return document if schema is None else rename_aliases(document, schema)


def _read_one(path: Path) -> KGDocument:
    if is_wordnet(path):
        return read_wordnet(path)
    if path.is_dir():
        is_run = all((path / f"{name}.parquet").is_file() for name in ("entities", "triples"))
        return read_run_tables(path) if is_run else read_rows(path)
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix == ".obo":
        return read_obo(path)
    if suffix in RDF_SUFFIXES:
        return read_rdf(path)
    if suffix in ROW_SUFFIXES:
        return read_rows(path)
    if suffix == ".json":
        return read_terms(path)
    if suffix == ".txt":
        return read_listed(path)
    raise FormatError(
        "no known form of a knowledge graph",
        where=str(path),
        got=suffix or "no ending",
        expected=", ".join(FORMATS) + ", or a folder of rows",
        fix="Convert the file, or give it its usual ending.",
    )


def read_run_tables(folder: Path | str) -> KGDocument:
    """Read the graph in `RUN/seed` or `RUN/kg`: entities.parquet and triples.parquet.

    Raises:
        FormatError: a table is missing, damaged or lacks a column.
    """
    folder = Path(folder)
    names = ["entity_id", "name", "type", "synonyms"]
    rows = read_table(folder / "entities.parquet", names)
    ends = read_table(folder / "triples.parquet", ["head_id", "relation", "tail_id"])
    columns = [rows[name].to_pylist() for name in names]
    kg = KG.build(
        (
            Entity(one, name, kind, tuple(also))
            for one, name, kind, also in zip(*columns, strict=True)
        ),
        (
            Triple(*one)
            for one in zip(*(ends[name].to_pylist() for name in ends.column_names), strict=True)
        ),
    )
    ledger = Ledger("read_run_tables")
    ledger.offered(rows.num_rows + ends.num_rows)
    ledger.keep(rows.num_rows + ends.num_rows)
    return KGDocument(kg, {}, ledger.check(), source=folder.name)


def rename_aliases(document: KGDocument, schema: Schema) -> KGDocument:
    """Give relations the schema's own names where the document uses their aliases."""
    own = {alias: name for name, one in schema.relations.items() for alias in one.aliases}
    if not own:
        return document
    triples = [
        Triple(head, own.get(relation, relation), tail)
        for head, relation, tail in document.kg.triples
    ]
    kg = KG.build(document.kg.entities.values(), triples)
    merged = len(document.kg.triples) - len(kg.triples)
    ledger = document.ledger
    if merged:
        ledger = Ledger.from_dict(ledger.to_dict())
        ledger.keep(-merged)
        ledger.leave_out("triple repeated under an alias", merged)
    typedefs = {
        own.get(name, name): replace(one, relation=own.get(name, name))
        for name, one in document.typedefs.items()
    }
    return replace(document, kg=kg, typedefs=typedefs, ledger=ledger.check())


__all__ = ["FORMATS", "SCHEMA_FILE", "read_kg", "rename_aliases"]
