"""Commands that ask a graph: query, explain, export."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any

import typer

from graphmert.cli.terminal import AsJson, finish, print_result, reporting, say
from graphmert.errors import ConfigError

StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="A run directory with a graph.")]
MinScore = Annotated[float, typer.Option(help="Leave out triples with a lower score.")]
NovelOnly = Annotated[bool, typer.Option("--novel", help="Only what the seed does not imply.")]


class Format(enum.StrEnum):
    """The forms of export."""

    JSONL = "jsonl"
    CSV = "csv"
    NEO4J = "neo4j"
    TURTLE = "turtle"
    NTRIPLES = "ntriples"
    GRAPHML = "graphml"
    OBO = "obo"


class Annotation(enum.StrEnum):
    """How RDF says where a triple comes from."""

    REIFIED = "reified"
    RDF12 = "rdf12"
    NONE = "none"


def query(
    store: StorePath,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="An entity by id, name or synonym.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Show paths from NAME to this entity.")] = None,
    head: Annotated[str | None, typer.Option(help="Triples with this head.")] = None,
    relation: Annotated[str | None, typer.Option(help="Triples with this relation.")] = None,
    tail: Annotated[str | None, typer.Option(help="Triples with this tail.")] = None,
    min_score: MinScore = 0.0,
    novel: NovelOnly = False,
    max_hops: Annotated[int, typer.Option(min=1, help="Longest path.")] = 4,
    limit: Annotated[int, typer.Option(min=1, help="Most rows shown.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Look up an entity and its triples, paths between two, or triples by their parts."""
    with reporting(as_json):
        from graphmert.query import open_store

        opened = open_store(store)
        if name is not None and (head or tail):
            raise ConfigError(
                "NAME and --head or --tail are two questions",
                fix="Give NAME alone, or --head, --relation and --tail.",
            )
        if name is None and to is not None:
            raise ConfigError("--to needs NAME, where paths start")
        if name is not None and to is not None:
            result = _paths(opened, name, to, max_hops=max_hops, limit=limit)
        elif name is not None:
            result = _entity(
                opened, name, relation, min_score=min_score, novel_only=novel, limit=limit
            )
        else:
            rows = opened.triples(
                head=head,
                relation=relation,
                tail=tail,
                min_score=min_score,
                novel_only=novel,
                limit=limit,
            )
            result = {"n_found": len(rows), "triples": rows}
        finish(0 if result["n_found"] else 1, result, as_json)


def _paths(opened: Any, name: str, to: str, *, max_hops: int, limit: int) -> dict[str, Any]:
    found = opened.paths(name, to, max_hops=max_hops, limit=limit)
    ids = [[step.link.triple_id for step in path] for path in found]
    texts = [_path_text(opened, path) for path in found]
    paths = [
        {"hops": len(path), "path": text, "triple_ids": own}
        for path, text, own in zip(found, texts, ids, strict=True)
    ]
    return {"n_found": len(found), "paths": paths}


def _path_text(opened: Any, path: Any) -> str:
    text = _name(opened, path[0].start_id)
    for step in path:
        arrow = f"-{step.link.relation}->" if step.forward else f"<-{step.link.relation}-"
        text += f" {arrow} {_name(opened, step.end_id)}"
    return text


def _entity(
    opened: Any,
    name: str,
    relation: str | None,
    *,
    min_score: float,
    novel_only: bool,
    limit: int,
) -> dict[str, Any]:
    found = opened.find(name, limit=limit)
    if not found:
        return {"n_found": 0, "entities": []}
    sure = [one for one in found if one.how in ("id", "name", "synonym")]
    listed = [
        {
            "entity_id": one.entity_id,
            "name": opened.entities[one.entity_id].name,
            "type": opened.entities[one.entity_id].type,
            "found_by": one.how,
            "matched": one.name,
        }
        for one in (sure or found)
    ]
    if len(listed) > 1:
        return {"n_found": len(listed), "entities": listed}
    entity = opened.entities[listed[0]["entity_id"]]
    steps = opened.neighbours(entity.entity_id, relation=relation)
    novel = set(
        opened.tables.triples.filter(opened.tables.triples["novel"])["triple_id"].to_pylist()
    )
    rows = [
        {
            "triple_id": step.link.triple_id,
            "head": _name(opened, step.link.head_id),
            "relation": step.link.relation,
            "tail": _name(opened, step.link.tail_id),
            "score": round(step.link.score, 6),
            "novel": step.link.triple_id in novel,
        }
        for step in steps
        if step.link.score >= min_score and (step.link.triple_id in novel or not novel_only)
    ]
    listed[0]["synonyms"] = "; ".join(entity.synonyms)
    return {
        "n_found": 1,
        "entities": listed,
        "n_triples": len(rows),
        "triples": rows[:limit],
    }


def _name(opened: Any, entity_id: str) -> str:
    entity = opened.entities.get(entity_id)
    return entity_id if entity is None else entity.name


def explain(
    store: StorePath,
    triple: Annotated[
        list[str],
        typer.Argument(metavar="TRIPLE", help="A triple's id, or its HEAD RELATION TAIL."),
    ],
    as_json: AsJson = False,
) -> None:
    """Show why a triple is in the graph: every sentence, with score, model and edits."""
    with reporting(as_json):
        from graphmert.kg import triple_id
        from graphmert.query import open_store

        opened = open_store(store)
        if len(triple) == 3:
            ends = [opened.entity(triple[place]).entity_id for place in (0, 2)]
            identity = triple_id(ends[0], triple[1], ends[1])
        elif len(triple) == 1:
            identity = triple[0]
        else:
            raise ConfigError(
                "a triple is an id, or three words", got=len(triple), expected="HEAD RELATION TAIL"
            )
        found = opened.explain(identity)
        if as_json:
            print_result(found.to_dict(), as_json)
            return
        plain = found.to_dict()
        places = [
            {
                "place": f"{one.doc_id} [{one.sent_start}, {one.sent_end})",
                "sentence": one.marked(),
                "score": round(one.score, 6),
                "method": one.method,
                "model": one.model_hash[:12],
                "document_sha256": one.sha256[:12],
            }
            for one in found.evidence
        ]
        for number, place in enumerate(places, start=1):
            plain[f"evidence {number} of {len(places)}"] = place
        for name in ("evidence", "head", "tail"):
            del plain[name]
        print_result(plain, as_json)


def export(
    store: StorePath,
    format: Annotated[Format, typer.Option(help="The form to write.")],
    out: Annotated[Path, typer.Option(help="File, or folder for jsonl, csv and neo4j.")],
    min_score: MinScore = 0.0,
    novel: NovelOnly = False,
    linked_only: Annotated[
        bool, typer.Option("--linked-only", help="Only entities that a triple names.")
    ] = False,
    base: Annotated[str, typer.Option(help="RDF: start of the IRIs.")] = "urn:graphmert:",
    purls: Annotated[
        bool, typer.Option("--purls/--no-purls", help="RDF: IRIs of the OBO library for its ids.")
    ] = True,
    annotation: Annotated[
        Annotation, typer.Option(help="RDF: how score and evidence are said.")
    ] = Annotation.REIFIED,
    as_json: AsJson = False,
) -> None:
    """Write the graph with its provenance for other programs."""
    with reporting(as_json):
        from graphmert.export import export_graph
        from graphmert.query import open_store

        tables, ledger = open_store(store).tables.select(
            min_score=min_score, novel_only=novel, linked_only=linked_only
        )
        written = export_graph(
            tables,
            out,
            format=format.value,
            base=base,
            purls=purls,
            annotation=annotation.value,
        )
        if not ledger.n_kept:
            say("no triple is left; the files hold entities at most")
        result = {
            "paths": [str(path) for path in written.paths],
            "ledgers": [ledger.to_dict(), *(one.to_dict() for one in written.ledgers)],
        }
        finish(0 if ledger.n_kept else 1, result, as_json)


def add_commands(app: typer.Typer) -> None:
    """Put the commands of this module into the root."""
    for command in (query, explain, export):
        app.command()(command)
