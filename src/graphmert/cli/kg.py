"""Commands for knowledge graphs: import, validate, stats, split, diff, merge."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphmert.cli.terminal import AsJson, finish, group, print_result, reporting, say

if TYPE_CHECKING:
    from graphmert.kg import KGDocument, Schema

app = group("Read, check, compare and join knowledge graphs.")

BAD_DATA = 3

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="KG...",
        help="Files (.obo .ttl .nt .rdf .owl .csv .tsv .jsonl .json .txt, also .gz), WordNet's "
        "database, folders of rows, run directories, dataset:NAME or sample:go.",
    ),
]
One = Annotated[str, typer.Argument(metavar="KG", help="A file, folder, dataset:NAME or sample.")]
SchemaFile = Annotated[
    Path | None,
    typer.Option(help="Schema (TOML); else the one beside the graph, else inferred from it."),
]
Out = Annotated[Path, typer.Option(help="Folder to write.")]
Limit = Annotated[int, typer.Option(help="Most items printed of each list.", min=0)]


class Prefer(enum.StrEnum):
    """Whose name an entity keeps."""

    STOP = "stop"
    FIRST = "first"
    LAST = "last"


@app.command("import")
def kg_import(
    sources: Sources,
    out: Out,
    schema_file: SchemaFile = None,
    as_json: AsJson = False,
) -> None:
    """Read a graph and write it as rows with a schema to edit and a ledger."""
    with reporting(as_json):
        from graphmert.kg import require_triples, write_rows

        document, schema = _read(sources, schema_file)
        files = write_rows(out, require_triples(document), schema)
        _say_left_out(document)
        counts = {"entities": len(document.kg.entities), "triples": len(document.kg.triples)}
        print_result({**counts, "files": [str(one) for one in files]}, as_json)


@app.command("validate")
def kg_validate(
    sources: Sources,
    schema_file: SchemaFile = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Check a graph against its schema and explain every violation; exit code 3 if any."""
    with reporting(as_json):
        from collections import Counter

        from graphmert.kg import explain_violation, validate

        document, schema = _read(sources, schema_file)
        found = validate(document.kg, schema)
        counts = dict(sorted(Counter(one.kind for one in found).items()))
        # JSON is for programs and holds all of them.
        shown = found if as_json else found[:limit]
        explained = [vars(explain_violation(one, document.kg, schema)) for one in shown]
        if len(found) > len(shown):
            say(f"{len(found) - len(shown)} more; --limit shows more, --json all")
        result: dict[str, Any] = {"violations": len(found), "by_kind": counts}
        if as_json:
            result["explained"] = explained
        else:
            result |= {f"{place + 1}": one for place, one in enumerate(explained)}
        finish(BAD_DATA if found else 0, result, as_json)


@app.command("stats")
def kg_stats(sources: Sources, schema_file: SchemaFile = None, as_json: AsJson = False) -> None:
    """Count entities by type and triples by relation, and what reading left out."""
    with reporting(as_json):
        from graphmert.kg import describe_kg

        document, _ = _read(sources, schema_file)
        ledger = document.ledger.to_dict()
        result = describe_kg(document) | {"left_out": ledger["left_out"]}
        print_result(result, as_json)


@app.command("split")
def kg_split(
    sources: Sources,
    out: Out,
    n_valid: Annotated[int, typer.Option("--valid", help="Heads for choices.", min=1)],
    n_test: Annotated[int, typer.Option("--test", help="Heads for final scores.", min=1)],
    seed: Annotated[int, typer.Option(help="Another seed draws other heads.", min=0)] = 0,
    schema_file: SchemaFile = None,
    as_json: AsJson = False,
) -> None:
    """Hold out heads with all their triples; write one file for each part."""
    with reporting(as_json):
        from dataclasses import replace

        from graphmert.kg import KG, require_valid, split_by_head, write_rows

        document, schema = _read(sources, schema_file)
        require_valid(document.kg, schema, where=" ".join(sources))
        parts = split_by_head(
            document.kg, schema, n_valid_heads=n_valid, n_test_heads=n_test, seed=seed
        )
        counts: dict[str, int] = {}
        for part in ("train", "valid", "test"):
            own = [triple for triple, name in parts.items() if name == part]
            kg = KG.build(document.kg.entities.values(), own)
            write_rows(out / part, replace(document, kg=kg), schema)
            counts[part] = len(own)
        print_result({"triples": counts, "out": str(out)}, as_json)


@app.command("diff")
def kg_diff(
    old: One,
    new: Annotated[str, typer.Argument(metavar="NEW", help="What to compare it with.")],
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Say what NEW has more, less and otherwise than KG."""
    with reporting(as_json):
        from graphmert.kg import compare_kgs

        before, after = (_read([one], None)[0] for one in (old, new))
        difference = compare_kgs(before.kg, after.kg)
        lists: dict[str, list[str]] = {
            "added_entities": [_entity(one) for one in difference.added_entities],
            "removed_entities": [_entity(one) for one in difference.removed_entities],
            "changed_entities": [
                f"{_entity(one)} -> {_entity(two)}" for one, two in difference.changed_entities
            ],
            "added_triples": [" ".join(one) for one in difference.added_triples],
            "removed_triples": [" ".join(one) for one in difference.removed_triples],
        }
        counts = {name: len(found) for name, found in lists.items()}
        cut = {name: found if as_json else found[:limit] for name, found in lists.items()}
        shown = {name: found for name, found in cut.items() if found}
        result = {"equal": difference.is_empty, "counts": counts, **shown}
        print_result(result, as_json)


@app.command("merge")
def kg_merge(
    sources: Sources,
    out: Out,
    prefer: Annotated[
        Prefer, typer.Option(help="One id with two names: stop, or keep the first or last.")
    ] = Prefer.STOP,
    schema_file: SchemaFile = None,
    as_json: AsJson = False,
) -> None:
    """Join graphs by entity id and write them as one folder of rows."""
    with reporting(as_json):
        from graphmert.kg import infer_schema, merge_documents, read_kg, read_schema, write_rows

        given = read_schema(schema_file) if schema_file is not None else None
        documents = [read_kg(_path(one), schema=given) for one in sources]
        merged = merge_documents(documents, prefer=prefer.value)
        schema = given or infer_schema(merged.kg, typedefs=merged.typedefs)
        files = write_rows(out, merged, schema)
        _say_left_out(merged)
        counts = {"entities": len(merged.kg.entities), "triples": len(merged.kg.triples)}
        print_result({**counts, "files": [str(one) for one in files]}, as_json)


def _read(sources: list[str], schema_file: Path | None) -> tuple[KGDocument, Schema]:
    """Read sources; the schema is the given one, that beside a single folder, or inferred."""
    from graphmert.kg import infer_schema, read_kg, read_schema, schema_beside

    paths = [_path(one) for one in sources]
    given = read_schema(schema_file) if schema_file is not None else None
    if given is None and len(paths) == 1:
        given = schema_beside(paths[0])
    document = read_kg(paths, schema=given)
    return document, given or infer_schema(document.kg, typedefs=document.typedefs)


def _path(source: str) -> Path:
    from graphmert.run.settings import kg_source

    return kg_source(source)


def _entity(entity: Any) -> str:
    return f"{entity.entity_id} {entity.name!r} ({entity.type})"


def _say_left_out(document: KGDocument) -> None:
    for reason, count in document.ledger.to_dict()["left_out"].items():
        say(f"left out: {count} {reason}")
