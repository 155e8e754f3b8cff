"""Extraction with a helper: what it may change, and what it may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_run
from graphmert.store import RunDir
from stub_llm import Reply, answering, serving

LIMITS = ("extract.helper.n_sequences=4", "extract.helper.max_heads=3",
          "extract.helper.max_relations=2", "extract.helper.top_k=40")  # fmt: skip


def respond(request: dict[str, Any], number: int) -> Reply:
    form = request["response_format"]["json_schema"]["name"]
    user = request["messages"][1]["content"]
    if form == "Heads":
        words = user.split("\n")[1].split()
        return answering({"heads": [words[0].rstrip(":,."), "unheard-of"]})
    if form == "Relations":
        return answering({"relations": ["part_of", "is_a", "eats"]})
    pieces = user.split("word pieces: ")[1].split()
    whole = [one for one in pieces if not one.startswith("##")]
    return answering({"tails": [*whole[:4], "thing", "zzz yyy"]})


@pytest.fixture
def with_helper(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("no_proxy", "*")
    folder = tiny_run.rewind(tiny_run.copy(finished, tmp_path / "copy"), "extract")
    with serving(respond) as server:
        llm = (f"extract.helper.llm.url={server.url}", "extract.helper.llm.model=stub",
               "extract.helper.llm.max_retries=0")  # fmt: skip
        result = tiny_run.execute(folder, *llm, *LIMITS)
        assert result.exit_code == 0
        n_asked = len(server.requests)
        # The same run again asks nothing: stages are done.
        tiny_run.execute(folder, *llm, *LIMITS)
        assert len(server.requests) == n_asked
        # And extraction done again is answered by the cache, to the same bytes.
        before = tiny_run.contents(folder)
        tiny_run.rewind(folder, "extract")
        tiny_run.execute(folder, *llm, *LIMITS)
        assert len(server.requests) == n_asked
    assert tiny_run.contents(folder) == before
    return folder / "run"


def test_a_run_with_a_helper(finished: Path, with_helper: Path) -> None:
    run = RunDir(with_helper)
    rows = run.read("kg/helper").to_pylist()
    assert rows
    documents = run.read("corpus/documents").to_pylist()
    texts = {row["doc_id"]: row["text"] for row in documents}
    entities = {row["entity_id"]: row["name"] for row in run.read("seed/entities").to_pylist()}
    for row in rows:
        assert texts[row["doc_id"]][row["head_start"] : row["head_end"]] == row["head_surface"]
        assert row["relation"] in ("part_of", "is_a")
        assert row["token_score"] < 0
        if row["tail_id"] is not None:
            assert entities[row["tail_id"]].casefold() == row["tail"].casefold()
    ledgers = {one["stage"]: one for one in json.loads(run.ledger.read_text())["stages"]}
    assert ledgers["helper: heads"]["left_out"]["not in the text word for word"] == 4
    assert ledgers["helper: relations"]["left_out"]["not a relation of the seed graph"] > 0
    assert ledgers["helper: tails"]["left_out"]["a token that was not predicted"] > 0
    told = json.loads(run.metrics.read_text())["extraction"]["helper"]
    assert (told["n_sequences"], told["n_tails"]) == (4, len(rows))
    assert told["n_tails_known"] == sum(row["tail_id"] is not None for row in rows)
    bill = json.loads(run.timings.read_text())["extract"]["helper"]
    assert (bill["n_calls"], bill["n_cached"]) == (0, bill["n_prompts"])
    # The tails it named were scored by the model, beside the model's own best ones.
    plain = json.loads(RunDir(finished / "run").ledger.read_text())["stages"]
    former = {one["stage"]: one for one in plain}["extract: candidates"]["offered"]
    assert ledgers["extract: candidates"]["offered"] >= former
    assert not RunDir(finished / "run").has("kg/helper")


def test_tails_that_are_asked_for_are_proposed_whatever_their_rank() -> None:
    from graphmert.extract import Answers
    from graphmert.run.extraction import propose

    scores = np.array([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, -np.inf]], np.float32)
    block = Answers(np.array([7, 9]), scores, None, None)
    plain = propose(scores, block, 1)
    also = propose(scores, block, 1, also={7: frozenset({0, 3}), 9: frozenset({3})})
    assert [(one.query, one.tail) for one in plain] == [(7, 0), (9, 2)]
    # A tail that cannot be, such as the head itself, stays out.
    assert [(one.query, one.tail) for one in also] == [(7, 0), (7, 3), (9, 2)]
    assert plain[0] == also[0]


def test_a_run_with_a_judge(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")

    def judging(request: dict[str, Any], number: int) -> Reply:
        if request["response_format"]["json_schema"]["name"] == "ValidityVerdict":
            return answering({"verdict": "maybe"})
        return answering({"supported": "yes", "well_formed": "yes"})

    folder = tiny_run.rewind(tiny_run.copy(finished, tmp_path / "copy"), "evaluate")
    with serving(judging) as server:
        llm = (
            f"evaluate.judge.llm.url={server.url}",
            "evaluate.judge.llm.model=stub",
            "evaluate.judge.n=5",
            'evaluate.judge.measures=["validity", "factscore"]',
        )
        result = tiny_run.execute(folder, *llm)
        assert result.exit_code == 0
        before = tiny_run.contents(folder)
        tiny_run.execute(tiny_run.rewind(folder, "evaluate"), *llm)
        assert tiny_run.contents(folder) == before
        assert len(server.requests) == 10
    run = folder / "run"
    said = json.loads((run / "metrics.json").read_text())["judged"]
    assert said["factscore"]["score"]["value"] == 1.0
    assert said["validity"]["n_maybe"] == 5
    verdicts = json.loads((run / "kg" / "judged.json").read_text())["verdicts"]
    accepted = set(RunDir(run).read("kg/triples")["triple_id"].to_pylist())
    assert {row["triple_id"] for row in verdicts["validity"]} <= accepted
    assert "ValidityScore" in (run / "report.md").read_text(encoding="utf-8")


def test_an_estimate_of_a_run_bounds_the_calls(finished: Path, tmp_path: Path) -> None:
    from graphmert import run

    folder = tiny_run.copy(finished, tmp_path / "copy")
    with tiny_run.working_in(folder):
        config = run.load(
            "RUN.toml",
            [
                "extract.helper.llm.url=http://127.0.0.1:9/v1",
                "evaluate.judge.llm.url=http://127.0.0.1:9/v1",
                *LIMITS,
            ],
        )
        told = run.execute(config, dry_run=True).summary
    assert told["helper"]["calls"] == 4 + 12 + 24
    assert told["judge"]["calls"] == 3 * 200
