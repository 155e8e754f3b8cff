from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graphmert.errors import JudgeError
from graphmert.evaluate.judged import MEASURES, form_of, in_sequences, judge, judge_prompts
from graphmert.evaluate.samples import draw_sample
from graphmert.llm import LLM
from stub_llm import Reply, answering, serving
from toy_graph import ACCEPTED, TEXTS, make_run, make_tables, table

ITEMS = draw_sample(make_tables(), n=3, seed=0)


def by_tail(request: dict[str, Any], number: int) -> Reply:
    text = request["messages"][1]["content"]
    tail = text.split("tail: ")[1].split("\n")[0]
    if request["response_format"]["json_schema"]["name"] == "ValidityVerdict":
        verdicts = {"cell growth": "yes", "cell membrane": "maybe", "cell": "no"}
        return answering({"verdict": verdicts[tail]})
    return answering(
        {"supported": "no" if tail == "cell" else "yes",
         "well_formed": "no" if tail == "cell membrane" else "yes"}
    )  # fmt: skip


def test_prompts_show_the_text_only_where_it_counts() -> None:
    for measure in MEASURES:
        prompts = judge_prompts(ITEMS, measure)
        assert len(prompts) == len(ITEMS)
        for prompt, item in zip(prompts, ITEMS, strict=True):
            assert f"head: {item.head}\nrelation: {item.relation}\ntail: {item.tail}" in prompt.user
            assert (item.sentence in prompt.user) == (measure != "validity")
            assert str(item.score) not in prompt.user
    texts = {judge_prompts(ITEMS, measure)[0].system for measure in MEASURES}
    assert len(texts) == 3


def test_scores_of_each_measure() -> None:
    with serving(by_tail) as server:
        llm = LLM(server.settings())
        support = judge(ITEMS, llm, "factscore")
        validity = judge(ITEMS, llm, "validity")
    assert support.scores["score"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert (support.scores["n_supported_yes"], support.scores["n_well_formed_no"]) == (2, 1)
    assert validity.scores["score"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert [validity.scores[f"n_{one}"] for one in ("yes", "maybe", "no")] == [1, 1, 1]
    assert support.scores["n_unjudged"] == 0
    assert [row["triple_id"] for row in support.rows] == [item.triple_id for item in ITEMS]
    assert (support.scores["judge"], support.scores["measure"]) == ("stub", "factscore")


def test_triples_without_a_verdict_are_counted_apart() -> None:
    def respond(request: dict[str, Any], number: int) -> Reply:
        if "tail: cell\n" in request["messages"][1]["content"]:
            return answering({"verdict": "certainly"})
        return answering({"verdict": "yes"})

    with serving(respond) as server:
        found = judge(ITEMS, LLM(server.settings(max_retries=1)), "validity")
    assert (found.scores["n"], found.scores["n_judged"], found.scores["n_unjudged"]) == (3, 2, 1)
    assert found.scores["score"]["value"] == 1.0
    assert found.scores["score_if_unjudged_fail"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert [row["verdict"] for row in found.rows].count(None) == 1


def test_a_judge_that_judges_nothing_is_an_error() -> None:
    with serving(lambda *_: answering({})) as server:
        llm = LLM(server.settings(max_retries=0))
        with pytest.raises(JudgeError, match="judged nothing"):
            judge(ITEMS, llm, "factscore")
        with pytest.raises(JudgeError, match="0 triples"):
            judge([], llm, "validity")


def test_forms_hold_closed_answers() -> None:
    assert form_of("validity").model_json_schema()["properties"]["verdict"]["enum"] == [
        "yes", "maybe", "no",
    ]  # fmt: skip
    assert set(form_of("factscore_truth").model_fields) == {"supported", "well_formed"}


def test_the_sequence_is_the_context_where_it_is_asked_for(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    cut = TEXTS["D2"].index("crosses")
    spans = [("D1", 10, 75), ("D2", 0, cut), ("D2", cut, len(TEXTS["D2"]))]
    rows = [
        {"seq_id": f"{doc}#{i}", "doc_id": doc, "start": a, "end": b}
        for i, (doc, a, b) in enumerate(spans)
    ]
    run.write("corpus/sequences", table("corpus/sequences", rows))
    by_id = {one.triple_id: one for one in in_sequences(ITEMS, run)}
    first = by_id[ACCEPTED[0][0].triple_id]
    assert first.sentence == TEXTS["D1"][10:75]
    # Its sentence lies in two sequences.
    assert by_id[ACCEPTED[1][0].triple_id].sentence == TEXTS["D2"]
    without = replace(ITEMS[0], sentence="", doc_id="")
    assert in_sequences([without], run) == [without]
