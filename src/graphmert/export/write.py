"""One function for every form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from graphmert.errors import ConfigError
from graphmert.export.markup import write_graphml, write_obo
from graphmert.export.plain import write_csv, write_jsonl, write_neo4j
from graphmert.export.rdf import (
    ANNOTATIONS,
    DEFAULT_BASE,
    Annotation,
    write_ntriples,
    write_turtle,
)
from graphmert.export.tables import GraphTables
from graphmert.shards import Ledger

Format = Literal["jsonl", "csv", "neo4j", "turtle", "ntriples", "graphml", "obo"]
FORMATS: tuple[Format, ...] = get_args(Format)

_FOLDERS = {"jsonl": write_jsonl, "csv": write_csv, "neo4j": write_neo4j}
_ENDINGS = {"turtle": ".ttl", "ntriples": ".nt", "graphml": ".graphml", "obo": ".obo"}


@dataclass(frozen=True)
class Exported:
    """The files written, and what a form could not hold."""

    paths: tuple[Path, ...]
    ledgers: tuple[Ledger, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "paths": [str(path) for path in self.paths],
            "ledgers": [ledger.to_dict() for ledger in self.ledgers],
        }


def export_graph(
    tables: GraphTables,
    out: Path | str,
    *,
    format: Format,
    base: str = DEFAULT_BASE,
    purls: bool = True,
    annotation: Annotation = "reified",
) -> Exported:
    """Write a graph in one form; files are whole or absent.

    Args:
        tables: the graph.
        out: a folder for jsonl, csv and neo4j; otherwise a file, or a folder to put
            `graph.ttl`, `graph.nt`, `graph.graphml` or `graph.obo` into.
        format: one of `FORMATS`.
        base: start of the IRIs in RDF.
        purls: ids such as GO:0008150 get their IRI of the OBO library, in RDF.
        annotation: how RDF says score and evidence of a triple: `reified` by rdf:Statement,
            which every reader knows; `rdf12` by triple terms of RDF 1.2; `none` not at all.

    Raises:
        ConfigError: unknown format or annotation, or a base that is no IRI.

    Checked by: tests/property/test_export.py
    """
    if format not in FORMATS or annotation not in ANNOTATIONS:
        raise ConfigError(
            "no such form of export",
            got=f"{format}, {annotation}",
            expected=f"one of {', '.join(FORMATS)}; one of {', '.join(ANNOTATIONS)}",
        )
    out = Path(out)
    if format in _FOLDERS:
        paths, ledger = _FOLDERS[format](tables, out)
        return Exported(tuple(paths), (ledger,))
    path = out / f"graph{_ENDINGS[format]}" if out.is_dir() or not out.suffix else out
    if format == "graphml":
        paths, ledger = write_graphml(tables, path)
    elif format == "obo":
        paths, ledger = write_obo(tables, path)
    else:
        write = write_turtle if format == "turtle" else write_ntriples
        paths = write(tables, path, base=base, purls=purls, annotation=annotation)
        ledger = _unannotated(tables, annotation)
    return Exported(tuple(paths), (ledger,))


def _unannotated(tables: GraphTables, annotation: Annotation) -> Ledger:
    ledger = Ledger("export: evidence")
    ledger.offered(len(tables.evidence))
    if annotation == "none":
        ledger.leave_out("annotation none", len(tables.evidence))
    else:
        ledger.keep(len(tables.evidence))
    return ledger.check()
