"""Extraction from a corpus: what is asked, proposed, filtered, merged and measured."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import tiny_run
from graphmert import run
from graphmert.config import build
from graphmert.domains.text.embedding import LexicalEmbedder
from graphmert.domains.text.linking import normal_name
from graphmert.errors import DataError
from graphmert.evaluate.support import support_score
from graphmert.export import GraphTables
from graphmert.kg import KG, Closure, Entity, Triple, read_schema, validate
from graphmert.progress import Silent
from graphmert.report import render_report
from graphmert.run import RunConfig
from graphmert.run.answers import Scorer, allowed_relations, head_queries
from graphmert.run.corpus_extraction import UNTRUSTED, CorpusExtracted, extract_corpus
from graphmert.run.evaluation import _Texts, baselines, check_baselines
from graphmert.run.extraction import Rule, log_fit
from graphmert.run.holding import hold_out_documents
from graphmert.run.novel import find_phrases, novel_id, with_names
from graphmert.run.places import (
    RelationRule,
    choose_places,
    choose_queries,
    choose_relation_rule,
    relation_log_p,
)
from graphmert.run.prepared import HeadSpan, Prepared
from graphmert.run.settings import ExtractSettings
from graphmert.run.stages import load_model
from graphmert.run.updating import extract_documents
from graphmert.store import RunDir

SAMPLE = Path(__file__).parents[3] / "docs" / "sample"
CORPUS: dict[str, Any] = {
    "enabled": True,
    "places_per_head": 4,
    "tails": "sequence",
    "min_phrase_count": 1,
    "min_novel_examples": 1,
    "beta": 0.1,
}


def config(**corpus: Any) -> RunConfig:
    tree: dict[str, Any] = {
        "out": "run",
        "data": {"kg": "sample/ontology", "corpus": "sample/documents"},
        "split": {"n_valid_heads": 3, "n_test_heads": 3},
        "model": {
            "preset": "tiny",
            "vocab_size": 400,
            "changes": {
                "hidden_size": 16,
                "n_layers": 1,
                "n_attn_heads": 2,
                "ffn_size": 16,
                "dropout": 0.0,
            },
        },
        "text": {"max_tokens": 40},
        "candidates": {
            "phrases": {"min_count": 3, "min_documents": 1, "min_c_value": 2.0, "min_npmi": 0.0}
        },
        "embedding": {"model": "lexical"},
        "inject": {"method": "scored", "alpha": 0.1, "triples_per_head": 2},
        "train": {
            "total_steps": 40,
            "batch_size": 8,
            "warmup_steps": 4,
            "learning_rate": 5e-3,
            "n_threads": 1,
            "final_weights": "last",
        },
        "evaluate": {"n_resamples": 10},
        "extract": {"sweep": True, "top_k": 8, "token_scores": False, "corpus": CORPUS | corpus},
    }
    return build(tree, RunConfig)


@pytest.fixture(scope="module")
def finished_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    shutil.copytree(SAMPLE, folder / "sample")
    with tiny_run.working_in(folder):
        assert run.execute(config()).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def prepared(finished_corpus: Path) -> Prepared:
    return Prepared.load(finished_corpus / "run", max_tail_tokens=16)


@pytest.fixture(scope="module")
def scorer(finished_corpus: Path, prepared: Prepared) -> Scorer:
    model = load_model(finished_corpus / "run" / "model")
    return Scorer.build(model, prepared, query_slots=1, token_scores=False, precision="fp32")


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / "run" / f"{name}.parquet").to_pylist()


def measured(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "metrics.json").read_text(encoding="utf-8"))


# --- the tables -----------------------------------------------------------------------------


def test_ledgers_follow_one_another(finished_corpus: Path) -> None:
    stages = json.loads((finished_corpus / "run" / "ledger.json").read_text())["stages"]
    found = {one["stage"]: one for one in stages}
    for one in stages:
        assert one["kept"] + sum(one["left_out"].values()) == one["offered"], one["stage"]
    counts = measured(finished_corpus)["extraction"]
    schema = read_schema(finished_corpus / "run" / "seed" / "schema.toml")
    assert found["extract: places"]["offered"] == len(rows(finished_corpus, "chains/heads"))
    assert found["extract: places"]["kept"] == counts["n_places"]
    offered = counts["n_places"] * len(schema.relations)
    assert found["extract: relations"]["offered"] == offered
    assert found["extract: relations"]["kept"] == counts["n_queries"]
    assert found["extract: candidates"]["offered"] == counts["n_candidates"]
    assert found["extract: candidates"]["kept"] == counts["n_accepted"]
    assert found["extract: candidates"]["kept"] == len(rows(finished_corpus, "kg/triples"))
    assert found["extract: evidence"]["offered"] == counts["n_proposals"]
    assert found["extract: evidence"]["kept"] == len(rows(finished_corpus, "kg/evidence"))
    n_rejected = len(rows(finished_corpus, "kg/rejected"))
    assert n_rejected == counts["n_rejected"] == counts["n_candidates"] - counts["n_accepted"]
    assert found["extract: phrases"]["offered"] == len(rows(finished_corpus, "corpus/candidates"))


def test_every_row_of_evidence_equals_the_text(finished_corpus: Path) -> None:
    texts = {one["doc_id"]: one["text"] for one in rows(finished_corpus, "corpus/documents")}
    triples = {one["triple_id"]: one for one in rows(finished_corpus, "kg/triples")}
    places: dict[str, set[tuple[str, int]]] = defaultdict(set)
    best: dict[str, float] = defaultdict(float)
    n_in_text = 0
    for row in rows(finished_corpus, "kg/evidence"):
        text = texts[row["doc_id"]]
        assert text[row["sent_start"] : row["sent_end"]] == row["sentence"]
        assert text[row["head_start"] : row["head_end"]] == row["head_surface"]
        places[row["triple_id"]].add((row["doc_id"], row["head_start"]))
        best[row["triple_id"]] = max(best[row["triple_id"]], row["score"])
        is_novel = triples[row["triple_id"]]["tail_id"].startswith("novel:")
        assert row["method"].endswith("novel entity") == is_novel
        if row["tail_start"] is None:
            assert "inferred" in row["method"]
            continue
        n_in_text += 1
        assert "in text" in row["method"]
        assert text[row["tail_start"] : row["tail_end"]] == row["tail_surface"]
        assert row["sent_start"] <= row["tail_start"] < row["tail_end"] <= row["sent_end"]
        apart = row["tail_end"] <= row["head_start"] or row["head_end"] <= row["tail_start"]
        assert apart or not is_novel
    assert n_in_text > 5
    assert len({(one["head_id"], one["relation"], one["tail_id"]) for one in triples.values()}) == (
        len(triples)
    )
    for key, triple in triples.items():
        assert len(places[key]) == triple["n_evidence"]
        assert triple["score"] == pytest.approx(best[key])
    assert max(one["n_evidence"] for one in triples.values()) > 1


def test_a_weak_place_is_no_evidence(finished_corpus: Path, tmp_path: Path) -> None:
    rule = measured(finished_corpus)["rule"]
    known = {False: rule["threshold"], True: (rule["novel_tails"] or rule)["threshold"]}
    triples = {one["triple_id"]: one for one in rows(finished_corpus, "kg/triples")}
    evidence = rows(finished_corpus, "kg/evidence")
    for row in evidence:
        is_novel = triples[row["triple_id"]]["tail_id"].startswith("novel:")
        assert row["score"] >= known[is_novel]
    stages = json.loads((finished_corpus / "run" / "ledger.json").read_text())["stages"]
    ledger = next(one for one in stages if one["stage"] == "extract: evidence")
    assert ledger["left_out"]["below threshold"] > 0
    # The run's own documents, given as new ones, have the same evidence for what both accept.
    with tiny_run.working_in(finished_corpus):
        extract_documents(Path("run"), [Path("sample/documents")], tmp_path / "new")
    new = {
        (one["triple_id"], one["doc_id"], one["head_start"])
        for one in pq.read_table(tmp_path / "new" / "kg" / "evidence.parquet").to_pylist()
    }
    places = {(one["triple_id"], one["doc_id"], one["head_start"]) for one in evidence}
    both = {key for key, _, _ in places} & {key for key, _, _ in new}
    assert len(both) > 10
    # A run asks about an entity in some of its sequences, new documents in all of them.
    assert {one for one in places if one[0] in both} <= new


def test_the_graph_keeps_its_schema_with_novel_entities_in_it(finished_corpus: Path) -> None:
    entities = {one["entity_id"]: one for one in rows(finished_corpus, "kg/entities")}
    accepted = [
        Triple(one["head_id"], one["relation"], one["tail_id"])
        for one in rows(finished_corpus, "kg/triples")
    ]
    schema = read_schema(finished_corpus / "run" / "seed" / "schema.toml")
    seed = [
        Triple(one["head_id"], one["relation"], one["tail_id"])
        for one in rows(finished_corpus, "seed/triples")
        if one["split"] == "train"
    ]
    graph = KG.build(
        [Entity(key, one["name"], one["type"]) for key, one in entities.items()],
        [*seed, *accepted],
    )
    # The one thing a schema cannot say: the type of a phrase under a relation of open range.
    open_ended = {name for name, one in schema.relations.items() if not one.range}
    broken = [
        one
        for one in validate(graph, schema)
        if one.kind != "unknown_type" or one.triple.relation not in open_ended
    ]
    assert broken == []
    novel = {one["entity_id"]: one for one in rows(finished_corpus, "kg/novel_entities")}
    tails = {triple.tail_id for triple in accepted}
    assert novel
    assert set(novel) == {one for one in entities if one.startswith("novel:")} <= tails
    known = {normal_name(one["name"]) for one in rows(finished_corpus, "seed/entities")}
    for key, row in novel.items():
        assert key == novel_id(row["name"])
        assert normal_name(row["name"]) not in known
        assert (entities[key]["name"], entities[key]["type"]) == (row["name"], row["type"])
        assert row["n_occurrences"] >= row["n_documents"] >= 1
    closure = Closure(seed, schema)
    for triple, row in zip(accepted, rows(finished_corpus, "kg/triples"), strict=True):
        assert row["novel"] == (not closure.contains(*triple))
    tables = GraphTables.read(RunDir(finished_corpus / "run"))
    threshold = measured(finished_corpus)["rule"]["threshold"]
    support = support_score(tables, threshold=threshold)
    assert support["n"] == len(accepted)
    assert set(support["unsupported"]) <= {
        "no sentence holds both surfaces",
        "schema: unknown_type",
    }


def test_the_rule_and_the_sweep_are_those_of_validation_heads(finished_corpus: Path) -> None:
    metrics = measured(finished_corpus)
    rule = metrics["rule"]
    assert rule["relations"]["recall"] >= 0.95
    assert rule["novel_tails"]["threshold"] >= rule["threshold"]
    assert rule["beta"] == 0.1
    thresholds = [point["threshold"] for point in metrics["sweep"]]
    assert thresholds == sorted(thresholds, reverse=True)
    assert rule["threshold"] in thresholds
    n_accepted = [point["n_accepted"] for point in metrics["sweep"]]
    assert n_accepted == sorted(n_accepted)
    left = [row["n_candidates"] for row in metrics["beta_sweep"]]
    assert left == sorted(left, reverse=True)
    assert n_accepted[-1] == next(
        row["n_candidates"] for row in metrics["beta_sweep"] if row["beta"] == 0.1
    )
    page, markdown = render_report(finished_corpus / "run")
    assert "Precision and recall by threshold" in page.read_text(encoding="utf-8")
    assert "## Thresholds" in markdown.read_text(encoding="utf-8")


def test_a_setting_at_its_default_undoes_nothing(finished_corpus: Path) -> None:
    with tiny_run.working_in(finished_corpus):
        plans = [
            run._Plan(one, Path("run"))
            for one in (config(), config(beta=0.2), config(places_per_head=5))
        ]
        prints = [[plan.fingerprint(stage) for stage in run.STAGES[:3]] for plan in plans]
    assert prints[0][:2] == prints[1][:2] == prints[2][:2]
    assert len({one[2] for one in prints}) == 3


# --- places and relations -------------------------------------------------------------------


def test_places_are_one_a_sequence_and_at_most_so_many(prepared: Prepared) -> None:
    places, ledger = choose_places(prepared, per_head=2)
    every, _ = choose_places(prepared, per_head=0)
    assert ledger.n_offered == len(prepared.heads)
    keys = [(one.chain, one.entity) for one in every]
    assert len(set(keys)) == len(keys)
    by_head: dict[int, list[HeadSpan]] = defaultdict(list)
    for one in every:
        by_head[one.entity].append(one)
        in_chain = [s for s in prepared.heads if (s.chain, s.entity) == (one.chain, one.entity)]
        assert one.char_start == min(s.char_start for s in in_chain)
    assert max(map(len, by_head.values())) > 2
    for entity, spans in by_head.items():
        assert allowed_relations(prepared, entity)

        def draw(one: HeadSpan) -> tuple[bool, bytes]:
            words = f"{prepared.chains[one.chain].chain_id} {prepared.entity_ids[one.entity]}"
            is_held = prepared.part_of_head.get(one.entity, "train") != "train"
            trained = is_held and prepared.document_part(one.chain) == "train"
            return trained, hashlib.sha256(words.encode()).digest()

        wanted = sorted(spans, key=draw)[:2]
        assert {one.chain for one in wanted} == {
            one.chain for one in places if one.entity == entity
        }


def test_held_out_documents_are_taken_in_turns_up_to_the_share() -> None:
    documents = [f"d{number}" for number in range(20)]
    # Entity 0 is held out and named in d0 to d9, entity 1 in d5, d15, d16; 2 is no held-out head,
    # and 3 is held out as the mirror of another's triple only.
    mentions = [(chain, 0) for chain in range(10)]
    mentions += [(chain, 1) for chain in (5, 15, 16)]
    mentions += [(chain, 2) for chain in range(20)] + [(19, 3), (18, 3)]
    parts = {0: "valid", 1: "test", 3: "test"}
    given = {"measured": {0, 1}, "ids": ["a", "b", "c", "d"]}
    first = hold_out_documents(mentions, documents, parts)
    assert first == {"d0": "valid", "d5": "test", "d19": "test"}
    assert hold_out_documents(mentions, documents, parts, share=0.04, **given) == first
    four = hold_out_documents(mentions, documents, parts, share=0.2, **given)
    assert len(four) == 3 + 4
    more = {one: part for one, part in four.items() if one not in first}
    # In turns: the second and third documents of the one and all others of the other.
    assert sorted(one for one, part in more.items() if part == "test") == ["d15", "d16"]
    assert list(more.values()).count("valid") == 2
    every = hold_out_documents(mentions, documents, parts, share=1.0, **given)
    assert set(every) == {documents[chain] for chain, one in mentions if one in (0, 1)} | {"d19"}


def test_what_is_measured_is_measured_in_documents_that_trained_nothing(
    finished_corpus: Path, prepared: Prepared, scorer: Scorer
) -> None:
    trained = {chain.chain_id.split("#")[0] for chain in prepared.training_chains()}
    held = {row["doc_id"] for row in rows(finished_corpus, "corpus/held_out")}
    assert held
    assert not {one.chain_id for one in prepared.training_chains()} & {
        one.chain_id
        for one, document in zip(prepared.chains, prepared.chain_documents, strict=True)
        if document in held
    }
    assert trained
    counted = measured(finished_corpus)["extraction"]["measured_on"]
    for part, own in counted.items():
        assert own["n_heads"] > 0, part
        assert own["n_heads"] <= own["n_places"]
    # Were a document trained on after all, nothing of it would count.
    none = replace(scorer, prepared=replace(prepared, run=prepared.run))
    object.__setattr__(none.prepared, "_held_out_documents", {"no document": "test"})
    with pytest.raises(DataError, match="no proposal at a validation head"):
        again(none, config(tails="entities", beta=None).extract)


def test_the_bi_encoder_learns_from_the_sequences_that_hold_its_triples(
    finished_corpus: Path, prepared: Prepared, tmp_path: Path
) -> None:
    settings = config().model_copy(
        update={"evaluate": config().evaluate.model_copy(update={"bi_encoder_steps": 2})}
    )
    texts = _Texts.read(settings, prepared)
    triples, own = texts.examples()
    injected = {
        (leaf.head_entity, leaf.relation, leaf.tail_entity)
        for chain in prepared.training_chains()
        for leaf in chain.triples
    }
    assert set(triples) == injected
    documents = {one["doc_id"]: one["text"] for one in rows(finished_corpus, "corpus/documents")}
    held = {one["doc_id"] for one in rows(finished_corpus, "corpus/held_out")}
    kept = [text for doc, text in documents.items() if doc not in held]
    assert all(any(text in whole for whole in kept) for text in own)
    queries = head_queries(prepared, "test", only_true=True)
    asked = [texts.query(query) for query in queries]
    assert {one.text for one in asked} <= set(texts.sequences)
    check_baselines(settings, prepared)
    with pytest.raises(DataError, match="no training triple with a text"):
        check_baselines(settings, replace(prepared, chains=()))
    found, timings = baselines(settings, prepared, texts, asked, tmp_path, Silent())
    trained = next(one for one in found if one.name == "bi_encoder")
    assert np.isfinite(trained.score(asked)).any(axis=1).all()
    assert "bi_encoder" in timings


def spot(chain: int, entity: int) -> HeadSpan:
    return HeadSpan(chain, entity, 1, 2, 0, 1, False)


def test_abstention_is_chosen_by_recall_of_known_pairs_alone() -> None:
    places = [spot(0, 0), spot(1, 0), spot(0, 1), spot(0, 2)]
    log_p = np.log(np.array([[0.5, 0.1, 0.4], [0.2, 0.6, 0.2], [0.3, 0.3, 0.4], [0.9, 0.05, 0.05]]))
    known = {(0, 0), (0, 1), (1, 2), (7, 0)}
    # Of head 0 the better place counts: 0.5 and 0.6; head 1 has 0.4; head 7 has no place.
    rule = choose_relation_rule(places, log_p, known, {0, 1}, recall=1.0)
    assert rule.threshold == pytest.approx(np.log(0.4))
    assert (rule.n_pairs, rule.recall) == (3, 1.0)
    # (0, 2) is as likely as (1, 2), so four of six pairs are asked and three are known.
    assert rule.share_asked == pytest.approx(4 / 6)
    assert rule.share_known == pytest.approx(3 / 4)
    less = choose_relation_rule(places, log_p, known, {0, 1}, recall=2 / 3)
    assert less.threshold == pytest.approx(np.log(0.5))
    assert less.recall == pytest.approx(2 / 3)
    # What an unlabelled head scores changes nothing.
    log_p[3] = np.log([0.01, 0.01, 0.98])
    assert choose_relation_rule(places, log_p, known, {0, 1}, recall=1.0) == rule
    assert choose_relation_rule(places, None, known, {0, 1}, recall=1.0).threshold is None


def test_relations_below_the_threshold_are_abstained_from(
    scorer: Scorer, prepared: Prepared
) -> None:
    places, _ = choose_places(prepared, per_head=1)
    log_p = relation_log_p(scorer, places)
    assert log_p is not None
    admitted = [
        [r in allowed_relations(prepared, one.entity) for r in range(len(prepared.relations))]
        for one in places
    ]
    assert (np.isfinite(log_p) == np.array(admitted)).all()
    threshold = float(np.median(log_p[np.isfinite(log_p)]))
    rule = RelationRule(threshold, 1.0)
    queries, spans, ledger = choose_queries(prepared, places, log_p, rule, max_relations=0)
    assert len(queries) == len(spans) == ledger.n_kept == int((log_p >= threshold).sum())
    assert ledger.reasons["abstained: the relation is not likely enough"] > 0
    one, _, few = choose_queries(prepared, places, log_p, rule, max_relations=1)
    assert len({(query.chain, query.head_entity) for query in one}) == len(one)
    assert few.reasons["1 likelier relations of the place"] == len(queries) - len(one)
    every, _, _ = choose_queries(prepared, places, log_p, RelationRule(None, 1.0), max_relations=0)
    assert len(every) == int(np.isfinite(log_p).sum())


# --- tails beyond the seed ------------------------------------------------------------------


def test_phrases_are_the_unlinked_candidates(finished_corpus: Path, prepared: Prepared) -> None:
    phrases, ledger = find_phrases(prepared, min_count=1)
    free = [one for one in rows(finished_corpus, "corpus/candidates") if one["entity_id"] is None]
    assert len(phrases) == len({normal_name(one["surface"]) for one in free}) > 3
    assert ledger.n_kept == sum(phrases.n_occurrences) == sum(map(len, phrases.standing.values()))
    texts = {one["doc_id"]: one["text"] for one in rows(finished_corpus, "corpus/documents")}
    for chain, spans in phrases.standing.items():
        for row, start, end in spans:
            surface = texts[prepared.chain_documents[chain]][start:end]
            assert normal_name(surface) == normal_name(phrases.names[row])
    fewer, ledger = find_phrases(prepared, min_count=2)
    assert ledger.reasons["fewer than 2 occurrences"] == phrases.n_occurrences.count(1)
    assert fewer.ids == tuple(
        one for one, n in zip(phrases.ids, phrases.n_occurrences, strict=True) if n > 1
    )


def test_more_candidates_change_no_score_of_known_ones(scorer: Scorer, prepared: Prepared) -> None:
    places, _ = choose_places(prepared, per_head=1)
    queries, _, _ = choose_queries(
        prepared, places[:4], None, RelationRule(None, 1.0), max_relations=0
    )
    wider = with_names(scorer, find_phrases(prepared, min_count=1)[0].tokens)
    n = len(prepared.names)
    assert wider.entity_vectors.shape[0] > n
    for one, other in zip(
        scorer.answers(queries, tokens=False), wider.answers(queries, tokens=False), strict=True
    ):
        fit = log_fit(wider.combine(other, 0.0), n)
        np.testing.assert_allclose(fit[:, :n], log_fit(scorer.combine(one, 0.0)), atol=1e-4)
        finite = np.where(np.isfinite(fit[:, :n]), np.exp(fit[:, :n]), 0.0)
        np.testing.assert_allclose(finite.sum(axis=1), 1.0, atol=1e-4)


def extract(scorer: Scorer, **corpus: Any) -> CorpusExtracted:
    settings = config(**corpus).extract
    return again(scorer, settings)


def again(scorer: Scorer, settings: ExtractSettings, **options: Any) -> CorpusExtracted:
    from graphmert.evaluate import IsotonicCalibrator
    from graphmert.progress import Silent

    rule = Rule(0.0, 0.5, IsotonicCalibrator((0.0,), (0.5,)), 0.5, {})
    return extract_corpus(
        scorer,
        rule,
        settings,
        embedder=LexicalEmbedder,
        model_hash="hash",
        progress=Silent(),
        **options,
    )


def triples_of(found: CorpusExtracted) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {
        (one["head_id"], one["relation"], one["tail_id"]): one
        for one in found.tables["kg/triples"].to_pylist()
    }


def test_tails_of_the_whole_corpus_come_on_top(scorer: Scorer) -> None:
    entities, sequence, corpus = (
        extract(scorer, tails=tails, beta=None) for tails in ("entities", "sequence", "corpus")
    )
    assert "kg/novel_entities" not in entities.tables
    counts = [one.summary["n_candidates"] for one in (entities, sequence, corpus)]
    assert counts[0] < counts[1] < counts[2]
    # The schema may give a place to a novel tail instead, so offers are compared.
    offered = [
        {tuple(json.loads(row["candidate"])) for row in one.tables["kg/rejected"].to_pylist()}
        | set(triples_of(one))
        for one in (entities, sequence, corpus)
    ]
    assert offered[0] < offered[1] < offered[2]
    assert all(tail.startswith("novel:") for _, _, tail in offered[2] - offered[0])
    thresholds = {one.rule["threshold"] for one in (entities, sequence, corpus)}
    assert len(thresholds) == 1


def test_novel_tails_without_a_calibration_are_refused(scorer: Scorer) -> None:
    found = extract(scorer, min_novel_examples=10_000)
    assert found.rule["novel_tails"] is None
    assert found.tables["kg/novel_entities"].num_rows == 0
    refused = [row for row in found.tables["kg/rejected"].to_pylist() if row["reason"] == UNTRUSTED]
    assert refused
    assert all('"novel:' in row["candidate"] for row in refused)


def test_the_filter_keeps_what_is_near(scorer: Scorer, prepared: Prepared) -> None:
    beta = 0.3
    found = extract(scorer, beta=beta, tails="entities")
    embedder = LexicalEmbedder()
    sequences = prepared.run.read("corpus/sequences").to_pylist()
    texts = dict(
        zip(
            *(prepared.run.read("corpus/documents")[n].to_pylist() for n in ("doc_id", "text")),
            strict=True,
        )
    )
    label = dict(zip(prepared.relations, prepared.relation_labels, strict=True))
    triples = {one["triple_id"]: one for one in found.tables["kg/triples"].to_pylist()}
    evidence = found.tables["kg/evidence"].to_pylist()
    assert evidence
    for row in evidence:
        own = next(
            one
            for one in sequences
            if one["doc_id"] == row["doc_id"] and one["start"] <= row["head_start"] < one["end"]
        )
        one = triples[row["triple_id"]]
        words = f"{one['head']} {label[one['relation']]} {one['tail']}"
        text = texts[row["doc_id"]][own["start"] : own["end"]]
        first, second = embedder.embed([words, text])
        assert float(first @ second) >= beta - 1e-6
    reasons = {row["reason"] for row in found.tables["kg/rejected"].to_pylist()}
    assert "similarity below beta" in reasons


def test_a_temperature_may_calibrate(scorer: Scorer) -> None:
    settings = config(tails="entities", beta=None).extract
    found = again(scorer, settings.model_copy(update={"calibration": "temperature"}))
    assert found.rule["calibrator"]["kind"] == "temperature"
    assert found.summary["n_candidates"] > 0


def test_proposals_of_a_helper_are_scored_whatever_their_rank(scorer: Scorer) -> None:
    settings = config(tails="entities", beta=None).extract
    few = settings.model_copy(update={"top_k": 1})
    plain = again(scorer, few)
    prepared = scorer.prepared
    places, _ = choose_places(prepared, per_head=4)
    wanted = {
        (one.entity, relation): frozenset(range(len(prepared.names))) - {one.entity}
        for one in places[:3]
        for relation in range(len(prepared.relations))
    }
    helped = again(scorer, few, also=wanted)
    assert helped.summary["n_candidates"] > plain.summary["n_candidates"]


def test_the_same_bytes_again(finished_corpus: Path, tmp_path: Path) -> None:
    copy = tiny_run.copy(finished_corpus, tmp_path / "copy")
    tiny_run.rewind(copy, "extract")
    with tiny_run.working_in(copy):
        run.execute(config())
    first, second = (tiny_run.contents(one / "run" / "kg") for one in (finished_corpus, copy))
    assert first == second


def test_definitions_have_no_candidates_beyond_the_seed(prepared: Prepared, tmp_path: Path) -> None:
    from graphmert.errors import ConfigError

    with pytest.raises(ConfigError, match="definitions have not"):
        find_phrases(replace(prepared, run=RunDir(tmp_path)), min_count=1)
