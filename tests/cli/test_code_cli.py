"""The commands on code, on a small project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from graphmert.cli import app
from toy_code import PYTHON, write


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    write(folder / "p", PYTHON)
    result = CliRunner().invoke(
        app, ["code", "index", str(folder / "p"), "--out", str(folder / "index")]
    )
    assert result.exit_code == 0, result.output
    assert "entities" in result.stdout
    return folder / "index"


def ask(index: Path, *words: str, exit_code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["code", *words, "--index", str(index), "--json"])
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def test_callers_and_callees_with_depth(indexed: Path) -> None:
    near = ask(indexed, "callers", "Item.price")["callers"]
    assert [one["qualified_name"] for one in near] == ["Cart.total"]
    far = ask(indexed, "callers", "Item.price", "--depth", "2")["callers"]
    assert {one["qualified_name"] for one in far} == {"Cart.total", "checkout", "test_total"}
    assert {one["depth"] for one in far} == {1, 2}
    callees = ask(indexed, "callees", "shop/cart.py:19")["callees"]
    assert {one["name"] for one in callees} == {"total", "price_of"}


def test_a_line_of_several_documents_is_no_answer(tmp_path: Path) -> None:
    for name in ("aa", "bb"):
        write(tmp_path / name, {"m.py": "class C:\n    def f(self):\n        return 1\n"})
    roots = [str(tmp_path / "aa"), str(tmp_path / "bb")]
    made = CliRunner().invoke(app, ["code", "index", *roots, "--out", str(tmp_path / "i")])
    assert made.exit_code == 0, made.output
    error = ask(tmp_path / "i", "callers", "m.py:3", exit_code=2)["error"]
    assert "means 2 entities" in error["what"]
    assert "aa/m.py#C.f; bb/m.py#C.f" in json.dumps(error)
    assert ask(tmp_path / "i", "callers", "bb/m.py:3")["symbol"] == "bb/m.py#C.f"


def test_path_impact_and_explain(indexed: Path) -> None:
    steps = ask(indexed, "path", "checkout", "Item.price")["steps"]
    assert [one["relation"] for one in steps] == ["invokes", "invokes"]
    assert steps[0]["line"] == 19
    none = ask(indexed, "path", "Item.price", "checkout", exit_code=1)
    assert (none["found"], none["steps"]) == (False, [])
    trivial = ask(indexed, "path", "checkout", "checkout")
    assert (trivial["found"], trivial["steps"]) == (True, [])
    impact = ask(indexed, "impact", "Item")["impact"]
    assert "Cart.add" in {one.get("qualified_name", "").rpartition(".item")[0] for one in impact}
    explained = ask(indexed, "explain", "Cart.total")
    assert explained["entity"]["path"] == "shop/cart.py"
    assert "sum(" in explained["source"]
    assert explained["incoming"]["tested_by"] == ["shop/tests/test_cart.py#test_total"]


def test_search_finds_words_of_names_and_docstrings(indexed: Path) -> None:
    found = ask(indexed, "search", "hold items")["found"]
    assert found[0]["qualified_name"] == "Cart"
    assert ask(indexed, "search", "zzz", exit_code=1)["found"] == []


def test_report_and_export(indexed: Path, tmp_path: Path) -> None:
    assert ask(indexed, "report")["validation"]["passed"]["provenance"] is True
    counts = ask(indexed, "export", str(tmp_path), "--profile", "graphmer-se")["counts"]
    assert counts["triples"] > 0
    assert (tmp_path / "triples.jsonl").is_file()


def test_errors_have_their_exit_codes(indexed: Path, tmp_path: Path) -> None:
    assert "no entity" in ask(indexed, "callers", "nobody", exit_code=2)["error"]["what"]
    assert "no index" in ask(tmp_path, "callers", "f", exit_code=3)["error"]["what"]
    assert ask(indexed, "export", str(tmp_path), "--profile", "x", exit_code=2)["error"]
    result = CliRunner().invoke(app, ["code", "index", str(tmp_path), "--out", str(tmp_path / "i")])
    assert result.exit_code == 1


def test_update_says_what_was_read_again(indexed: Path) -> None:
    project = indexed.parent / "p"
    words = ["code", "index", str(project), "--out", str(indexed), "--json"]
    result = CliRunner().invoke(app, words)
    assert json.loads(result.stdout)["n_files_read"] == 0


def test_mcp_tools_are_listed(indexed: Path) -> None:
    tools = ask(indexed, "mcp")["tools"]
    assert {one["name"] for one in tools} >= {"callers", "callees", "impact", "search_code"}
