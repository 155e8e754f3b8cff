"""An MCP server over a code index: read-only tools, one for each question."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphmert.domains.code.queries import CodeStore
from graphmert.domains.code.search import count_matches, search
from graphmert.errors import CapabilityError, ConfigError, GraphMERTError

if TYPE_CHECKING:
    from mcp.server import MCPServer

Rows = list[dict[str, Any]]
Answer = dict[str, Any]
_MAX_ROWS = 200
_MAX_DEPTH = 50


class CodeTools:
    """The questions, as functions with plain arguments and results.

    Lists hold at most 200 rows; `left_out` says how many more there are.

    Args:
        store: the index.
    """

    def __init__(self, store: CodeStore) -> None:
        self.store = store

    def search_code(self, text: str, limit: int = 10) -> Answer:
        """Search definitions by the words of their names and docstrings; limit is 1 to 200."""
        rows = search(self.store, text, limit=_checked("limit", limit, _MAX_ROWS))
        return {"result": rows, "left_out": count_matches(self.store, text) - len(rows)}

    def callers(self, symbol: str, depth: int = 1) -> Answer:
        """List what calls a symbol (a name, an id or PATH:LINE), up to `depth` calls away."""
        return _cut(self.store.callers(symbol, depth=_checked("depth", depth, _MAX_DEPTH)))

    def callees(self, symbol: str, depth: int = 1) -> Answer:
        """List what a symbol calls, up to `depth` calls away (1 to 50)."""
        return _cut(self.store.callees(symbol, depth=_checked("depth", depth, _MAX_DEPTH)))

    def impact(self, symbol: str, depth: int = 3) -> Answer:
        """List what a change of a symbol may affect, up to `depth` steps away (1 to 50)."""
        return _cut(self.store.impact(symbol, depth=_checked("depth", depth, _MAX_DEPTH)))

    def call_path(self, start: str, end: str) -> Answer:
        """Find a shortest chain of calls from one symbol to another."""
        steps = self.store.path(start, end)
        return {"result": steps or [], "found": steps is not None}

    def explain(self, symbol: str) -> Answer:
        """Show a symbol with its source and relations, or the evidence of a triple by its id."""
        return {"result": self.store.explain(symbol)}


def _checked(name: str, value: int, most: int) -> int:
    if not 1 <= value <= most:
        raise ConfigError(f"{name} is out of bounds", got=value, expected=f"1 to {most}")
    return value


def _cut(rows: Rows) -> Answer:
    return {"result": rows[:_MAX_ROWS], "left_out": max(len(rows) - _MAX_ROWS, 0)}


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
            return function(*args, **kwargs)
        except GraphMERTError as error:
            return {"error": error.to_dict()}

    # The server reads both, and they must not be texts that it looks up elsewhere.
    answer.__signature__ = inspect.signature(function).replace(  # type: ignore[attr-defined]
        return_annotation=dict[str, Any]
    )
    answer.__annotations__ = {**function.__annotations__, "return": dict[str, Any]}
    return answer


def serve(index: Path | str) -> None:
    """Serve an index over standard input and output until the client ends."""
    make_server(index).run("stdio")
