"""The command that adds a relation: what it writes, says and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tiny_run
from graphmert import cli
from graphmert.run.prepared import Prepared


def told(folder: Path, *words: object, exit_code: int = 0) -> dict[str, Any]:
    command = ["relation", "add", "--model", "run", *map(str, words), "--json"]
    with tiny_run.working_in(folder):
        result = CliRunner().invoke(cli.app, command)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == exit_code, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def triples(finished: Path, tmp_path: Path) -> Path:
    """What regulates what, as rows of another relation."""
    prepared = Prepared.load(finished / "run", max_tail_tokens=tiny_run.MAX_TAIL_TOKENS)
    regulates = prepared.relations.index("regulates")
    ids = prepared.entity_ids
    lines = ["head,relation,tail"]
    for head, relation, tail in prepared.triples["train"].tolist():
        if relation == regulates:
            lines.append(f"{ids[head]},slows down,{ids[tail]}")
    path = tmp_path / "slows.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_relation_from_its_name(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--name", "slows_down", "--description", "Makes it slower.", "--domain", "process"]
    found = told(finished, *words, "--out", out)
    assert found["n_triples"] == found["n_held_apart"] == 0
    assert "an order, no probability" in found["calibration"]
    assert sum(found["nearest"].values()) == pytest.approx(1.0)
    prepared = Prepared.load(out, max_tail_tokens=tiny_run.MAX_TAIL_TOKENS)
    assert prepared.relations[found["index"]] == "slows_down"
    own = prepared.schema.relations["slows_down"]
    assert (own.label, own.domain, own.range) == ("slows down", {"process"}, frozenset())
    again = told(finished, "--name", "is_a", "--out", tmp_path / "no", exit_code=2)
    assert "already" in again["error"]["what"]


def test_a_relation_from_a_file(finished: Path, tmp_path: Path, triples: Path) -> None:
    words = ["--name", "slows down", "--triples", triples, "--steps", 2]
    found = told(finished, *words, "--min-triples", 5, "--out", tmp_path / "out")
    assert found["n_triples"] >= 5
    assert "fewer than 30 triples" in found["calibration"]
    assert found["left_out"] == {}
    few = told(finished, *words, "--out", tmp_path / "few", exit_code=3)
    assert "too few" in few["error"]["what"]
