"""The MCP server: read-only tools that answer like the queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from graphmert.errors import FormatError
from graphmert.serve.mcp import describe_tools, make_server
from toy_code import PYTHON, index


def test_tools_are_read_only_and_answer(tmp_path: Path) -> None:
    index(tmp_path, PYTHON)
    before = {path: path.read_bytes() for path in (tmp_path / "index").rglob("*.parquet")}
    server = make_server(tmp_path / "index")

    async def talk() -> tuple[list[Any], Any, Any]:
        tools = await server.list_tools()
        found = await server.call_tool("callers", {"symbol": "Item.price"})
        wrong = await server.call_tool("callers", {"symbol": "nobody"})
        return tools, found.structured_content, wrong.structured_content

    tools, found, wrong = anyio.run(talk)
    assert {one.name for one in tools} == {one["name"] for one in describe_tools()}
    assert all(one.annotations.read_only_hint for one in tools)
    assert [one["qualified_name"] for one in found["result"]] == ["Cart.total"]
    assert "no entity" in wrong["error"]["what"]
    after = {path: path.read_bytes() for path in (tmp_path / "index").rglob("*.parquet")}
    assert after == before


def test_no_index_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no index"):
        make_server(tmp_path)
