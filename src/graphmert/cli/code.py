"""Commands on code: index repositories and ask the index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from graphmert.cli.code_model import search_with_model
from graphmert.cli.terminal import (
    AsJson,
    finish,
    group,
    print_result,
    progress_shown,
    reporting,
    say,
)

app = group("Index code and ask about it.")

Index = Annotated[Path, typer.Option("--index", help="Folder that `code index` wrote.")]
_HERE = Path("code-index")
Depth = Annotated[int, typer.Option(min=1, max=50, help="How many steps away.")]
Limit = Annotated[int, typer.Option(min=1, help="The most rows to show.")]


@app.command("index")
def code_index(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Folders and files.")],
    out: Annotated[Path, typer.Option(help="Folder of the index.")] = _HERE,
    workers: Annotated[int, typer.Option(min=1, help="Processes that parse.")] = 1,
    full: Annotated[bool, typer.Option("--full", help="Use nothing of an earlier index.")] = False,
    tests: Annotated[bool, typer.Option(help="Read tests too.")] = True,
    max_file_mb: Annotated[float, typer.Option(help="Skip larger files.")] = 2.0,
    ignore: Annotated[list[str] | None, typer.Option(help="Pattern to leave out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Index repositories in Python, Java, JavaScript and TypeScript; again to update."""
    with reporting(as_json):
        from graphmert.config import build
        from graphmert.domains.code.index import IndexSettings, build_index
        from graphmert.domains.code.report import index_report, report_text

        walk = {"tests": tests, "max_file_mb": max_file_mb, "ignore": list(ignore or ())}
        settings = build({"walk": walk}, IndexSettings, source="options")
        with progress_shown() as progress:
            result = build_index(
                paths, out, settings, n_workers=workers, full=full, progress=progress
            )
        if result.message:
            say(result.message)
        report = index_report(out)
        summary: dict[str, Any] = {"index": str(out), **report, "message": result.message}
        summary["text"] = report_text(report)
        n_read = sum(n for state, n in report["files"].items() if state != "skipped")
        below = not all(report["validation"]["passed"].values())
        finish(1 if not n_read or below else 0, summary, as_json)


@app.command("report")
def code_report(index: Index = _HERE, as_json: AsJson = False) -> None:
    """Show the report of an index again."""
    with reporting(as_json):
        from graphmert.domains.code.queries import CodeStore
        from graphmert.domains.code.report import index_report, report_text

        CodeStore(index)
        report = index_report(index)
        finish(0, {**report, "text": report_text(report)}, as_json)


@app.command("callers")
def code_callers(
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="Name, id or PATH:LINE.")],
    index: Index = _HERE,
    depth: Depth = 1,
    as_json: AsJson = False,
) -> None:
    """List what calls a symbol."""
    _walk("callers", symbol, index, depth, as_json)


@app.command("callees")
def code_callees(
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="Name, id or PATH:LINE.")],
    index: Index = _HERE,
    depth: Depth = 1,
    as_json: AsJson = False,
) -> None:
    """List what a symbol calls."""
    _walk("callees", symbol, index, depth, as_json)


@app.command("impact")
def code_impact(
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="Name, id or PATH:LINE.")],
    index: Index = _HERE,
    depth: Depth = 3,
    as_json: AsJson = False,
) -> None:
    """List what a change of a symbol may affect."""
    _walk("impact", symbol, index, depth, as_json)


def _walk(question: str, symbol: str, index: Path, depth: int, as_json: bool) -> None:
    with reporting(as_json):
        from graphmert.domains.code.queries import CodeStore

        store = CodeStore(index)
        rows = getattr(store, question)(symbol, depth=depth)
        if as_json:
            print_result({"symbol": store.find(symbol), question: rows}, True)
            return
        shown = [
            {key: one.get(key, "") for key in ("depth", "relation", "entity_id", "line")}
            for one in rows
        ]
        print_result({"symbol": store.find(symbol), question: shown}, False)


@app.command("path")
def code_path(
    start: Annotated[str, typer.Argument(metavar="FROM", help="Name, id or PATH:LINE.")],
    end: Annotated[str, typer.Argument(metavar="TO", help="Name, id or PATH:LINE.")],
    index: Index = _HERE,
    relation: Annotated[
        list[str] | None, typer.Option(help="Relation to follow; calls when none is given.")
    ] = None,
    depth: Depth = 12,
    as_json: AsJson = False,
) -> None:
    """Find a shortest chain of triples from one symbol to another."""
    with reporting(as_json):
        from graphmert.domains.code.queries import CodeStore

        steps = CodeStore(index).path(start, end, relations=relation or (), max_depth=depth)
        found = steps is not None
        finish(0 if found else 1, {"found": found, "steps": steps or []}, as_json)


@app.command("search")
def code_search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Words or identifiers.")],
    index: Index = _HERE,
    model: Annotated[
        Path | None, typer.Option(help="Run whose tuned encoder searches, in place of words.")
    ] = None,
    limit: Limit = 10,
    as_json: AsJson = False,
) -> None:
    """Search definitions by the words of their names and docstrings, or by a trained encoder."""
    if model is not None:
        search_with_model(model, text, limit=limit, as_json=as_json)
        return
    with reporting(as_json):
        from graphmert.domains.code.queries import CodeStore
        from graphmert.domains.code.search import search

        rows = search(CodeStore(index), text, limit=limit)
        if not as_json:
            rows = [
                {key: one[key] for key in ("score", "type", "entity_id", "line")} for one in rows
            ]
        finish(0 if rows else 1, {"found": rows}, as_json)


@app.command("explain")
def code_explain(
    symbol: Annotated[
        str, typer.Argument(metavar="SYMBOL", help="Name, id, PATH:LINE or id of a triple.")
    ],
    index: Index = _HERE,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Show a symbol with all that is known of it, or the evidence of a triple."""
    with reporting(as_json):
        from graphmert.domains.code.queries import CodeStore

        print_result(CodeStore(index).explain(symbol, limit=limit), as_json)


@app.command("export")
def code_export(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the JSONL files.")],
    index: Index = _HERE,
    profile: Annotated[str, typer.Option(help="graphmer-se, codebert or all.")] = "all",
    as_json: AsJson = False,
) -> None:
    """Write triples with qualifiers, entities and a manifest as JSONL."""
    with reporting(as_json):
        from graphmert.domains.code.jsonl import export_jsonl

        print_result(export_jsonl(index, out, profile=profile), as_json)


@app.command("mcp")
def code_mcp(
    index: Index = _HERE,
    as_json: Annotated[
        bool, typer.Option("--json", help="List the tools as JSON and end.")
    ] = False,
) -> None:
    """Serve the index to MCP clients over standard input and output, read-only."""
    with reporting(as_json):
        from graphmert.serve.mcp import describe_tools, serve

        if as_json:
            print_result({"tools": describe_tools()}, True)
        else:
            serve(index)
