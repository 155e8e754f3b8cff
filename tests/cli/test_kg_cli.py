"""The kg commands on small real graphs: what they print, write and refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tiny_run
from graphmert import cli
from graphmert.kg import read_kg

SAMPLE = Path(__file__).parents[2] / "docs" / "sample" / "ontology"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(SAMPLE, tmp_path / "bread")
    (tmp_path / "tiny.obo").write_text(tiny_run.ontology(), encoding="utf-8")
    return tmp_path


def invoke(folder: Path, *words: object, exit_code: int = 0) -> Any:
    with tiny_run.working_in(folder):
        result = CliRunner().invoke(cli.app, ["kg", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == exit_code, result.stderr
    return result


def told(folder: Path, *words: object, exit_code: int = 0) -> dict[str, Any]:
    return json.loads(invoke(folder, *words, "--json", exit_code=exit_code).stdout)


def test_import_writes_rows_that_read_back(folder: Path) -> None:
    found = told(folder, "import", "tiny.obo", "--out", "rows")
    assert found["entities"] == 74
    with tiny_run.working_in(folder):
        assert read_kg("rows").kg == read_kg("tiny.obo").kg
    assert told(folder, "validate", "rows")["violations"] == 0
    ledger = json.loads((folder / "rows" / "ledger.json").read_text(encoding="utf-8"))
    assert ledger["stages"][0]["left_out"]["obsolete term"] == 1
    again = invoke(folder, "import", "rows", "--out", "again")
    assert "triples: " in again.stdout
    for name in ("entities.jsonl", "triples.jsonl", "schema.toml"):
        assert (folder / "rows" / name).read_bytes() == (folder / "again" / name).read_bytes()


def test_validate_explains_each_violation(folder: Path) -> None:
    with (folder / "bread" / "triples.csv").open("a", encoding="utf-8") as file:
        file.write("T:1,made from,I:1\nB:1,is_a,B:2\nB:1,eats,I:1\nB:1,is_a,B:99\n")
    found = told(folder, "validate", "bread", exit_code=3)
    kinds = {"domain": 1, "cycle": 1, "unknown_relation": 1, "dangling_id": 1}
    assert {kind: found["by_kind"][kind] for kind in kinds} == kinds
    assert found["violations"] == len(found["explained"])
    domain = next(one for one in found["explained"] if one["kind"] == "domain")
    assert domain["triple"] == "T:1 (oven) | made_from | I:1 (flour)"
    assert "domain = ['food', 'ingredient']" in domain["rule"]
    assert "add 'tool' to domain" in domain["fix"]
    plain = invoke(folder, "validate", "bread", "--limit", "1", exit_code=3)
    assert "fix: " in plain.stdout
    assert "more; --limit shows more" in plain.stderr


def test_stats_count_and_show_what_reading_left_out(folder: Path) -> None:
    found = told(folder, "stats", "bread")
    assert found["entities_by_type"]["food"] == 8
    assert found["triples_by_relation"]["made_from"] == 11
    assert told(folder, "stats", "tiny.obo")["left_out"]["obsolete term"] == 1
    assert told(folder, "stats", "tiny.obo", "bread")["entities"] == 74 + 39


def test_split_writes_parts_that_share_no_head(folder: Path) -> None:
    words = ("split", "bread", "--out", "parts", "--valid", "2", "--test", "3")
    counts = told(folder, *words)["triples"]
    with tiny_run.working_in(folder):
        whole = read_kg("bread")
        parts = {name: read_kg(f"parts/{name}").kg for name in ("train", "valid", "test")}
    assert {name: len(kg.triples) for name, kg in parts.items()} == counts
    assert sum(counts.values()) == len(whole.kg.triples)
    heads = {name: {triple.head_id for triple in kg.triples} for name, kg in parts.items()}
    assert len(heads["valid"]) == 2
    assert len(heads["test"]) == 3
    assert not heads["train"] & (heads["valid"] | heads["test"])


def test_diff_and_merge(folder: Path) -> None:
    shutil.copytree(folder / "bread", folder / "other")
    path = folder / "other" / "entities.csv"
    text = path.read_text(encoding="utf-8").replace("B:1,bread,food", "B:1,loaf,food")
    path.write_text(text + "B:9,bagel,food,,\n", encoding="utf-8")
    same = told(folder, "diff", "bread", "bread")
    assert same["equal"] is True
    found = told(folder, "diff", "bread", "other")
    assert found["counts"]["added_entities"] == found["counts"]["changed_entities"] == 1
    assert found["changed_entities"] == ["B:1 'bread' (food) -> B:1 'loaf' (food)"]
    refused = invoke(folder, "merge", "bread", "other", "--out", "both", exit_code=3)
    assert "B:1" in refused.stderr
    assert not (folder / "both").exists()
    merged = told(folder, "merge", "bread", "other", "--out", "both", "--prefer", "last")
    assert merged["entities"] == 40
    with tiny_run.working_in(folder):
        assert read_kg("both").kg.entities["B:1"].synonyms == ("bread",)


def test_the_graphs_of_a_run_can_be_read(folder: Path, finished: Path) -> None:
    seed = told(finished, "stats", "run/seed")
    assert seed["entities"] == told(folder, "stats", "tiny.obo")["entities"]
    assert told(finished, "diff", "run/seed", "tiny.obo")["counts"]["added_triples"] == 0
    assert told(finished, "stats", "run/kg")["triples"] > 0


@pytest.mark.parametrize(
    ("words", "exit_code", "message"),
    [
        (("stats", "gone.obo"), 2, "gone.obo"),
        (("stats", "bread/schema.toml"), 3, "no known form"),
        (("validate", "bread", "--schema-file", "gone.toml"), 3, "gone.toml"),
        (("split", "bread", "--out", "x", "--valid", "9", "--test", "99"), 3, "expected 99"),
        (("import", "empty", "--out", "x"), 3, "empty"),
    ],
)
def test_bad_input_is_told(
    folder: Path, words: tuple[str, ...], exit_code: int, message: str
) -> None:
    (folder / "empty").mkdir()
    result = invoke(folder, *words, exit_code=exit_code)
    assert message in result.stderr
    assert not (folder / "x").exists()
