"""The commands on a finished graph: query, explain, export, and those of the group kg."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from graphmert import cli
from stub_llm import Reply, answering, serving
from toy_graph import TEST, identity, make_run

FIRST = TEST[0].triple_id


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run").path


def invoke(*words: object) -> Any:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def told(*words: object, exit_code: int = 0) -> Any:
    result = invoke(*words, "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def test_query_an_entity(store: Path) -> None:
    found = told("query", store, "naïve transport")
    assert found["entities"][0]["entity_id"] == "T:6"
    assert [row["tail"] for row in found["triples"]] == ["cell membrane", "cell"]
    assert told("query", store, "T:6", "--min-score", 0.5)["n_triples"] == 1
    assert told("query", store, "T:6", "--relation", "is_a")["triples"] == []
    plain = invoke("query", store, "naïve transport")
    assert "cell membrane" in plain.stdout


def test_query_an_unclear_name_lists_whom_it_may_mean(store: Path) -> None:
    found = told("query", store, "plasmalemma")
    assert [one["entity_id"] for one in found["entities"]] == ["T:5", "T:7"]
    found = told("query", store, "regulation")
    assert [one["found_by"] for one in found["entities"]] == ["words"]
    assert told("query", store, "xylophone", exit_code=1)["n_found"] == 0


def test_query_paths_and_patterns(store: Path) -> None:
    found = told("query", store, "cell membrane", "--to", "cell")
    assert found["paths"][0]["path"] == ("cell membrane <-part_of- naïve transport -part_of-> cell")
    assert len(found["paths"][0]["triple_ids"]) == 2
    found = told("query", store, "--relation", "part_of", "--limit", 1)
    assert [row["tail_id"] for row in found["triples"]] == ["T:5"]
    assert told("query", store, "--tail", "growth", exit_code=1)["triples"] == []
    assert told("query", store, "cell", "--to", "growth", exit_code=1)["paths"] == []


@pytest.mark.parametrize(
    "words",
    [("cell", "--head", "cell"), ("--to", "cell"), ("--relation", "cures"), ("--head", "nobody")],
    ids=" ".join,
)
def test_a_question_that_is_none(store: Path, words: tuple[str, ...]) -> None:
    assert invoke("query", store, *words).exit_code == 2


def test_explain(store: Path) -> None:
    by_id = told("explain", store, FIRST)
    by_words = told("explain", store, "regulation of cell growth", "regulates", "cell growth")
    assert by_id == by_words
    assert by_id["verified"] is True
    assert by_id["evidence"][0]["marked"].startswith("[head: Regulation of cell growth] changes")
    plain = invoke("explain", store, FIRST).stdout
    assert "evidence 1 of 2" in plain
    assert "[tail: cell growth]" in plain
    assert invoke("explain", store, "0" * 16).exit_code == 2
    assert invoke("explain", store, "a", "b").exit_code == 2


@pytest.mark.parametrize(
    ("form", "name"),
    [("turtle", "g.ttl"), ("ntriples", "g.nt"), ("graphml", "g.graphml"), ("obo", "g.obo"),
     ("jsonl", "folder"), ("csv", "folder"), ("neo4j", "folder")],
)  # fmt: skip
def test_export(store: Path, tmp_path: Path, form: str, name: str) -> None:
    found = told("export", store, "--format", form, "--out", tmp_path / name, "--min-score", 0.5)
    assert all(Path(path).stat().st_size > 0 for path in found["paths"])
    assert found["ledgers"][0]["left_out"] == {"below the score asked for": 1}


def test_export_options(store: Path, tmp_path: Path) -> None:
    words = ["export", store, "--format", "turtle", "--out", tmp_path / "g.ttl"]
    told(*words, "--annotation", "rdf12", "--base", "https://example.org/", "--linked-only")
    text = (tmp_path / "g.ttl").read_text()
    assert "<<( <https://example.org/entity/T:3>" in text
    assert "entity/T:2>" not in text
    assert invoke(*words, "--min-score", 2).exit_code == 1
    assert invoke(*words, "--base", "nonsense").exit_code == 2


def test_sample_and_labels(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.csv"
    found = told("kg", "sample", store, "--n", 3, "--seed", 2, "--blind", "--out", out)
    assert (found["n"], found["blind"]) == (3, True)
    again = invoke("kg", "sample", store, "--n", 3, "--out", out)
    assert (again.exit_code, "--force" in again.stderr) == (2, True)
    with out.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert "score" not in rows[0]
    assert invoke("kg", "score-sample", store, out).exit_code == 3
    for row in rows:
        row["label"] = "yes" if row["triple_id"] == FIRST else "no"
    with out.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    scores = told("kg", "score-sample", store, out, "--second", out)
    assert scores["precision"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert scores["agreement"]["kappa"] == 1.0
    short = invoke("kg", "sample", store, "--n", 9, "--out", tmp_path / "t.jsonl", "--open")
    assert short.exit_code == 1


def test_edit_undo_and_the_log(store: Path) -> None:
    after = told("kg", "edit", store, "--reject", FIRST, "--by", "ann", "--note", "no")
    assert (after["n_triples"], after["n_withdrawn"]) == (2, 1)
    assert after["edit"]["at"].endswith("+00:00")
    assert told("explain", store, FIRST)["withdrawn_by"] == 1
    after = told("kg", "edit", store, "--accept", "naïve transport", "is_a", "growth")
    assert after["edit"]["head_id"] == "T:6"
    told("kg", "edit", store, "--relabel", identity("T:6", "part_of", "T:4"), "is_a", exit_code=0)
    told("kg", "edit", store, "--merge", "T:5", "plasma membrane")
    log = told("kg", "edit", store)
    assert [one["kind"] for one in log["edits"]] == ["reject", "accept", "relabel", "merge"]
    assert all(one["in_force"] for one in log["edits"])
    for _ in range(4):
        after = told("kg", "undo", store)
    assert (after["n_triples"], after["n_entities"]) == (3, 7)
    assert invoke("kg", "undo", store).exit_code == 2
    told("kg", "undo", store, 8)
    assert told("explain", store, FIRST)["withdrawn_by"] == 1


@pytest.mark.parametrize(
    ("words", "exit_code"),
    [
        (("--reject", "0" * 16), 2),
        (("--reject", FIRST, "--merge", "T:1", "T:2"), 2),
        (("--relabel", FIRST, "cures"), 3),
        (("--accept", "T:1", "regulates", "nobody"), 2),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_wrong_edit_changes_nothing(store: Path, words: tuple[str, ...], exit_code: int) -> None:
    assert invoke("kg", "edit", store, *words).exit_code == exit_code
    assert not (store / "kg" / "edits.jsonl").exists()


def test_resolve_lists_and_merges(store: Path, tmp_path: Path) -> None:
    found = told("kg", "resolve", store)
    assert (found["n_found"], found["n_merged"]) == (1, 0)
    assert not (store / "kg" / "edits.jsonl").exists()
    assert told("kg", "resolve", store, "--threshold", 0.3)["n_found"] > 1
    assert told("kg", "resolve", store, "--apply")["n_merged"] == 1
    assert told("kg", "resolve", store)["n_found"] == 0
    told("export", store, "--format", "jsonl", "--out", tmp_path)
    assert '"merged_from": ["T:7"]' in (tmp_path / "entities.jsonl").read_text(encoding="utf-8")


def test_questions(store: Path) -> None:
    found = told("kg", "qa", store, "--n", 10)
    assert found["systems"]["seed"]["1"]["n_right"] == 0
    assert found["systems"]["both"]["1"]["n_right"] == 2


@pytest.fixture
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.usefixtures("_no_proxy")
def test_a_judge_and_its_estimate(store: Path, tmp_path: Path) -> None:
    def respond(request: dict[str, Any], number: int) -> Reply:
        forms = request["response_format"]["json_schema"]
        if forms["name"] == "ValidityVerdict":
            return answering({"verdict": "maybe"})
        return answering({"supported": "yes", "well_formed": "yes"})

    with serving(respond) as server:
        words = ["kg", "judge", store, "--url", server.url, "--model", "stub", "--n", 3]
        assert invoke(*words).exit_code == 3  # the toy run holds no sequences
        words += ["--context", "sentence", "--max-tokens", 99]
        estimate = told(*words, "--dry-run")
        assert server.requests == []
        assert {one["n_calls"] for one in estimate["estimates"].values()} == {3}
        found = told(*words, "--out", tmp_path / "verdicts.json")
        assert len(server.requests) == 9
        assert server.requests[0]["max_tokens"] == 99
        again = told(*words, "--measure", "validity")
        assert len(server.requests) == 9
        assert again["usage"]["n_cached"] == 3
    assert found["factscore"]["score"]["value"] == 1.0
    assert found["validity"]["n_maybe"] == 3
    kept = json.loads((tmp_path / "verdicts.json").read_text())
    assert [row["verdict"] for row in kept["verdicts"]["validity"]] == ["maybe"] * 3
    assert (store / "llm").is_dir()


@pytest.mark.usefixtures("_no_proxy")
def test_a_model_that_answers_questions(store: Path) -> None:
    with serving(lambda *_: answering({"answer": "Cell Growth"})) as server:
        words = ["kg", "qa", store, "--url", server.url, "--model", "stub"]
        estimate = told(*words, "--dry-run")
        assert server.requests == []
        assert set(estimate["estimates"]) == {"none", "seed", "both"}
        found = told(*words)
    assert found["model"]["systems"]["none"]["1"]["n_right"] == 1


def test_a_judge_without_address_or_key(store: Path) -> None:
    words = ["kg", "judge", store, "--model", "m"]
    assert invoke(*words, "--url", "ftp://x").exit_code == 2
    missing = invoke(*words, "--url", "http://127.0.0.1:1", "--key-env", "GRAPHMERT_NO_KEY")
    assert (missing.exit_code, "GRAPHMERT_NO_KEY" in missing.stderr) == (4, True)
