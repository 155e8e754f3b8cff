"""Choosers, F1, counts, search ranks and the table of targets."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from graphmert.chain import LeafTriple, LeafyChain
from graphmert.domains.code.tables import Reference
from graphmert.errors import FormatError
from graphmert.run.code import calls, compliance, masked, pages, search
from graphmert.run.code.asking import Asking, Question, even_sample, question_chain
from graphmert.run.code.sites import FEATURES, Site, read_truth


def site(
    features: list[list[float]], true: int | None, source: str = "f", names: str = "abcdef"
) -> Site:
    reference = Reference(
        doc_id="p/x.py", package="p", language="python", relation="calls", text="g", start=0, end=1,
        site_start=0, site_end=3, line=1, source_id=source, target_id=None, candidates=(),
        state="resolved", resolver="resolved", confidence=1.0,
    )  # fmt: skip
    candidates = tuple(names[: len(features)])
    return Site(
        Question(0, -1, 0, -1, 1, 2, ((3, 4),)), reference, candidates,
        None if true is None else candidates[true], np.array(features, dtype=np.float64),
    )  # fmt: skip


def row(**values: float) -> list[float]:
    return [values.get(name, 0.0) for name in FEATURES]


def test_ties_count_their_share() -> None:
    equal = site([row(same_file=1), row(same_file=1), row()], 0)
    assert calls.expected_accuracy([equal], calls.BASELINES["same_file"]) == 0.5
    missed = site([row(same_file=1), row()], 1)
    assert calls.expected_accuracy([missed], calls.BASELINES["same_file"]) == 0.0


def test_a_chooser_learns_what_tells_candidates_apart() -> None:
    rng = np.random.default_rng(0)
    sites = []
    for _ in range(60):
        true = int(rng.integers(3))
        noise = [row(model=float(rng.normal()), path=float(i == true)) for i in range(3)]
        sites.append(site(noise, true))
    chooser = calls.fit_chooser(sites, (calls.MODEL, *calls.RULES), none=False)
    weight = dict(zip(FEATURES, chooser.weight_K, strict=True))
    assert weight["path"] > 2 > abs(weight["model"])
    assert calls.expected_accuracy(sites, chooser.scores) == 1.0


def test_a_chooser_learns_when_to_call_none() -> None:
    inside = [site([row(path=1.0), row()], 0) for _ in range(20)]
    outside = [site([row(), row()], None, source="h") for _ in range(20)]
    chooser = calls.fit_chooser([*inside, *outside], calls.RULES, none=True)
    assert calls.predict_edges(inside, chooser) == {("f", "a")}
    assert calls.predict_edges(outside, chooser) == set()
    measured = calls.measure_call_graph([*inside, *outside], [*inside, *outside])
    assert measured["systems"]["rules_alone"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert measured["systems"]["every_same_name"]["precision"] == 0.25
    assert measured["n_edges"] == 1


def test_disambiguation_asks_only_where_there_is_a_choice() -> None:
    sites = [
        site([row(path=1.0), row()], 0), site([row()], 0), site([row(), row(path=1.0)], None),
    ]  # fmt: skip
    measured = calls.measure_disambiguation(sites, sites, truth="made")
    assert measured["n_sites"] == 1
    assert measured["systems"]["nearest_name"]["accuracy"] == 1.0
    assert calls.measure_disambiguation([], [], truth="made") == {"n_sites": 0, "systems": {}}


@pytest.mark.parametrize(
    ("predicted", "true", "wanted"),
    [({1, 2}, {2, 3}, 0.5), (set(), {1}, 0.0), ({1}, {1}, 1.0), ({1}, set(), 0.0)],
)
def test_f1(predicted: set, true: set, wanted: float) -> None:
    assert calls.f1(predicted, true)["f1"] == wanted


def test_counts_smooth_towards_the_prior() -> None:
    counts = masked.CountBaseline(4)
    for context, label in [("a", 0), ("a", 0), ("a", 1), ("b", 2)]:
        counts.see(context, label)
    for context in ("a", "b", "never"):
        assert np.exp(counts.log_p(context)).sum() == pytest.approx(1.0)
    assert np.exp(counts.log_p("never")) == pytest.approx(counts.prior())
    assert counts.log_p("a").argmax() == 0
    assert counts.log_p("b").argmax() == 2
    tally = masked.Tally()
    counts.score(["a", "b"], np.array([0, 0]), tally)
    assert (tally.n, tally.n_right) == (2, 1)
    assert tally.loss == pytest.approx(-counts.log_p("a")[0] - counts.log_p("b")[0])
    assert masked.Tally().to_dict()["accuracy"] is None


def test_reciprocal_ranks_share_ties() -> None:
    scores = np.array([[0.9, 0.1, 0.5], [0.2, 0.2, 0.2], [0.1, 0.9, 0.5]])
    found = search.reciprocal_ranks(scores, np.array([0, 1, 0]))
    assert found == pytest.approx([1.0, 0.5, 1 / 3])


@pytest.mark.parametrize(
    ("text", "words"),
    [("parseHTMLDoc", "parse HTML Doc"), ("read_all", "read all"), ("Plain", "Plain")],
)
def test_identifiers_become_words(text: str, words: str) -> None:
    assert search.split_words(text) == words


def test_a_shuffled_graph_hangs_foreign_leaves_at_the_own_name() -> None:
    chains = [
        LeafyChain((0, 5, 6, 7, 2), (LeafTriple(r, 1 + r, 2 + r, (20 + r,), r, r),), str(r))
        for r in range(3)
    ]
    mixed = search.shuffled_graph(chains, 1)
    assert sorted(c.triples[0].tail for c in mixed) == [(20,), (21,), (22,)]
    assert [c.triples[0].tail for c in mixed] != [c.triples[0].tail for c in chains]
    for old, new in zip(chains, mixed, strict=True):
        assert new.roots == old.roots
        assert new.triples[0].head_start == old.triples[0].head_start


# --- questions ------------------------------------------------------------------------------

CHAIN = LeafyChain(
    (0, 5, 6, 7, 8, 2),
    (
        LeafTriple(0, 1, 2, (20,), 9, 4, mentions=((3, 4),)),
        LeafTriple(1, 1, 2, (20,), 9, 4),  # the same pair by another relation
        LeafTriple(0, 1, 2, (21,), 8, 4),
        LeafTriple(2, 2, 3, (22,), 4, 9),  # the pair the other way round
    ),
)
QUESTION = Question(0, 4, 0, 9, 1, 2, ((3, 4),))


def test_a_question_shows_nothing_of_its_pair() -> None:
    shown = question_chain(CHAIN, QUESTION, frozenset({(4, 9)}), Asking(), mask_id=99)
    assert shown.roots == (0, 5, 6, 99, 8, 2)
    assert [t.tail for t in shown.triples] == [(21,)]
    bare = question_chain(CHAIN, QUESTION, frozenset(), Asking(leaves="none"), mask_id=99)
    assert bare.triples == ()
    named = question_chain(CHAIN, QUESTION, frozenset(), Asking(hide_mentions=False), mask_id=99)
    assert named.roots == CHAIN.roots
    fewer = question_chain(
        CHAIN, QUESTION, frozenset(), Asking(hide_relations=frozenset({0})), mask_id=99
    )
    assert [t.relation for t in fewer.triples] == [1, 2]


def test_an_even_sample_keeps_rare_relations() -> None:
    questions = [Question(0, i, int(i >= 50), 1, 1, 2, ()) for i in range(53)]
    chosen = even_sample(questions, per_relation=5, seed=0)
    assert sum(q.relation == 0 for q in chosen) == 5
    assert sum(q.relation == 1 for q in chosen) == 3
    assert chosen == even_sample(questions, per_relation=5, seed=0)


def test_truth_is_read_and_bad_lines_are_named(tmp_path: Path) -> None:
    file = tmp_path / "truth.jsonl"
    file.write_text('{"doc_id": "a", "start": 3, "target_id": "t"}\n\n'
                    '{"doc_id": "a", "start": 9, "target_id": null}\n')  # fmt: skip
    assert read_truth(str(file)) == {("a", 3): "t", ("a", 9): None}
    file.write_text('{"doc_id": "a"}\n')
    with pytest.raises(FormatError, match="line 1"):
        read_truth(str(file))


# --- targets and pages ----------------------------------------------------------------------


def test_a_target_is_met_or_missed_and_never_silently_absent() -> None:
    metrics = {
        "search": {"systems": {"graph": {"mrr@10": 0.44}, "bm25": {"mrr@10": 0.5}}},
        "call_graph": {"systems": {"graphmert": {"f1": 0.62}, "nearest_name": {"f1": 0.1}}},
    }
    rows = {row["measure"]: row for row in compliance.compliance_table(metrics)}
    assert len(rows) == 6
    assert rows["code search MRR@10"]["passes"]
    assert rows["code search MRR@10"]["other"] == "bm25"
    assert rows["code search MRR@10"]["best_other"] == 0.5
    assert rows["call graph F1"]["passes"] is False
    assert rows["link prediction MRR"]["value"] is None
    assert rows["link prediction MRR"]["passes"] is None
    text = pages.compliance({"compliance": list(rows.values())})
    assert "| code search MRR@10 | 0.440 | 0.440 | pass | bm25 | 0.500 |" in text
    assert "| call graph F1 | 0.630 | 0.620 | fail | nearest_name | 0.100 |" in text
    why = "the network was trained without the objective entity and ranks no entities"
    assert f"| link prediction MRR | 0.520 | not measured | {why} | none | not measured |" in text
    empty = compliance.compliance_table({"search": {"n_queries": 0, "systems": {}}})
    assert empty[3]["reason"] == "the packages measured hold nothing to ask"


def test_targets_are_those_of_the_source_system() -> None:
    targets = {measure: target for measure, (target, _) in compliance.TARGETS.items()}
    assert list(targets.values()) == [0.52, 0.78, 0.92, 0.44, 0.63, 0.70]


def test_the_ring_of_logs_is_finite() -> None:
    assert math.isfinite(masked.CountBaseline(3).log_p("x").sum())
