"""The MCP server: read-only tools that answer like the queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from graphmert.errors import ConfigError, FormatError
from graphmert.serve.mcp import CodeTools, describe_tools, make_server
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


def test_what_is_cut_is_counted_and_bounds_are_checked(tmp_path: Path) -> None:
    callers = "".join(f"def f{number}():\n    target()\n\n\n" for number in range(203))
    tools = CodeTools(index(tmp_path, {"a.py": f"def target(): ...\n\n\n{callers}"}))
    answer = tools.callers("target")
    assert (len(answer["result"]), answer["left_out"]) == (200, 3)
    assert tools.callees("f1") == {"result": tools.store.callees("f1"), "left_out": 0}
    found = tools.search_code("target", limit=1)
    assert (len(found["result"]), found["left_out"]) == (1, 0)
    assert tools.search_code("a", limit=4)["left_out"] == 200
    assert tools.explain("target")["result"]["left_out"]["incoming"] == {"calls (from)": 153}
    assert tools.call_path("f1", "f1") == {"result": [], "found": True}
    assert tools.call_path("target", "f1") == {"result": [], "found": False}
    for wrong in (0, -1, 201):
        with pytest.raises(ConfigError, match="limit is out of bounds"):
            tools.search_code("f", limit=wrong)
    for ask in (tools.callers, tools.callees, tools.impact):
        for wrong in (0, 51):
            with pytest.raises(ConfigError, match="depth is out of bounds"):
                ask("target", depth=wrong)


def test_no_index_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no index"):
        make_server(tmp_path)
