"""An MCP server over a code index: read-only tools, one for each question."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphmert.domains.code.queries import CodeStore
from graphmert.domains.code.search import search
from graphmert.errors import CapabilityError, GraphMERTError

if TYPE_CHECKING:
    from mcp.server import MCPServer

Rows = list[dict[str, Any]]
_MAX_ROWS = 200


class CodeTools:
    """The questions, as functions with plain arguments and results.

    Args:
        store: the index.
    """

    def __init__(self, store: CodeStore) -> None:
        self.store = store

    def search_code(self, text: str, limit: int = 10) -> Rows:
        """Search definitions by the words of their names and docstrings."""
        return search(self.store, text, limit=min(limit, _MAX_ROWS))

    def callers(self, symbol: str, depth: int = 1) -> Rows:
        """List what calls a symbol (a name, an id or PATH:LINE), up to `depth` calls away."""
        return self.store.callers(symbol, depth=depth)[:_MAX_ROWS]

    def callees(self, symbol: str, depth: int = 1) -> Rows:
        """List what a symbol calls, up to `depth` calls away."""
        return self.store.callees(symbol, depth=depth)[:_MAX_ROWS]

    def impact(self, symbol: str, depth: int = 3) -> Rows:
        """List what a change of a symbol may affect."""
        return self.store.impact(symbol, depth=depth)[:_MAX_ROWS]

    def call_path(self, start: str, end: str) -> Rows:
        """Find a shortest chain of calls from one symbol to another."""
        return self.store.path(start, end)

    def explain(self, symbol: str) -> dict[str, Any]:
        """Show a symbol with its source and relations, or the evidence of a triple by its id."""
        return self.store.explain(symbol)


_NAMES = ("search_code", "callers", "callees", "impact", "call_path", "explain")


def describe_tools() -> Rows:
    """Return name, purpose and arguments of each tool."""
    found = []
    for name in _NAMES:
        function = getattr(CodeTools, name)
        arguments = [one for one in inspect.signature(function).parameters if one != "self"]
        found.append({"name": name, "purpose": function.__doc__, "arguments": arguments})
    return found


def make_server(index: Path | str) -> MCPServer:
    """Return a server over an index; nothing it offers writes.

    Raises:
        FormatError: no index, or one of another version.
        CapabilityError: the package of the extra `mcp` is not installed.
    """
    try:
        from mcp.server import MCPServer
        from mcp.types import ToolAnnotations
    except ImportError as error:
        raise CapabilityError(
            "the MCP package is not installed",
            got=error,
            fix="Run `pip install 'graphmert[mcp]'`.",
        ) from error
    tools = CodeTools(CodeStore(index))
    server = MCPServer("graphmert-code", instructions="Ask a code index; it never changes.")
    for name in _NAMES:
        function = _explained(getattr(tools, name))
        read_only = ToolAnnotations(read_only_hint=True, idempotent_hint=True)
        server.tool(name=name, description=function.__doc__, annotations=read_only)(function)
    return server


def _explained(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with our errors as results: the client sees what to do."""
    import functools

    @functools.wraps(function)
    def answer(*args: Any, **kwargs: Any) -> Any:
        try:
            return {"result": function(*args, **kwargs)}
        except GraphMERTError as error:
            return {"error": error.to_dict()}

    # The result is wrapped, so that the annotation of the function does not hold for it.
    answer.__signature__ = inspect.signature(function).replace(  # type: ignore[attr-defined]
        return_annotation=dict[str, Any]
    )
    answer.__annotations__ = {**function.__annotations__, "return": dict[str, Any]}
    return answer


def serve(index: Path | str) -> None:
    """Serve an index over standard input and output until the client ends."""
    make_server(index).run("stdio")
