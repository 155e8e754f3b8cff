"""Extraction from new documents: tables that equal the texts, ledgers, and the run's own scores."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import tiny_documents
from graphmert.errors import ConfigError, DataError, FormatError
from graphmert.kg import KG, Closure, Triple, read_schema, validate
from graphmert.kg.types import Entity
from graphmert.progress import Silent
from graphmert.query import open_store
from graphmert.run.answers import Scorer
from graphmert.run.extraction import extract_test
from graphmert.run.frozen import open_frozen
from graphmert.run.prepared import Prepared
from graphmert.run.results import TABLES, DocumentResult, ResultFile, file_of, key_of
from graphmert.run.rules import FrozenRule
from graphmert.run.stages import load_model, one_thread
from graphmert.run.updating import extract_documents
from graphmert.shards import Ledger

SAMPLE = tiny_documents.SAMPLE


@pytest.fixture(scope="module")
def out(frozen_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Triples of all texts and of the sample's own documents."""
    folder = tmp_path_factory.mktemp("new")
    docs = tiny_documents.write_texts(folder / "docs", tiny_documents.all_texts())
    result = extract_documents(frozen_run, [docs, SAMPLE / "documents"], folder / "out")
    assert result.exit_code == 0
    n_documents = len(rows(folder / "out", "corpus/documents"))
    assert result.summary["documents"] == {"computed": n_documents, "reused": 0}
    return folder / "out"


def rows(out: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(out / f"{name}.parquet").to_pylist()


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_offset_is_exact(out: Path) -> None:
    documents = {row["doc_id"]: row for row in rows(out, "corpus/documents")}
    text_of = {doc_id: row["text"] for doc_id, row in documents.items()}
    spans = {row["seq_id"]: row for row in rows(out, "corpus/sequences")}
    mentions = rows(out, "corpus/mentions")
    assert len(mentions) > 100
    for row in [*mentions, *rows(out, "corpus/candidates")]:
        own = spans[row["seq_id"]]
        assert text_of[row["doc_id"]][row["start"] : row["end"]] == row["surface"]
        assert own["start"] <= row["start"] < row["end"] <= own["end"]
    evidence = rows(out, "kg/evidence")
    assert any("\r\n" in text_of[row["doc_id"]] for row in evidence)
    assert any("🥖" in text_of[row["doc_id"]][: row["head_start"]] for row in evidence)
    n_in_text = 0
    for row in evidence:
        text = text_of[row["doc_id"]]
        assert row["sha256"] == documents[row["doc_id"]]["sha256"]
        assert text[row["sent_start"] : row["sent_end"]] == row["sentence"]
        assert text[row["head_start"] : row["head_end"]] == row["head_surface"]
        if row["tail_start"] is not None:
            n_in_text += 1
            assert text[row["tail_start"] : row["tail_end"]] == row["tail_surface"]
    assert 0 < n_in_text < len(evidence)


def test_nothing_proposed_is_lost(out: Path) -> None:
    ledgers = {one["stage"]: one for one in read_json(out / "ledger.json")["stages"]}
    for one in ledgers.values():
        assert one["kept"] + sum(one["left_out"].values()) == one["offered"]
    evidence, rejected = rows(out, "kg/evidence"), rows(out, "kg/rejected")
    assert len(evidence) + len(rejected) == ledgers["extract: candidates"]["offered"]
    triples = ledgers["extract: triples"]
    assert triples["kept"] == len(rows(out, "kg/triples"))
    assert triples["left_out"].keys() & {"schema, antisymmetric", "schema, cycle"}
    assert ledgers["extract: places"]["offered"] == len(rows(out, "corpus/mentions"))
    assert ledgers["extract: places"]["left_out"]["entity mentioned again in the sequence"] > 0
    abstained = "abstained: the relation is not likely enough"
    assert ledgers["extract: relations"]["left_out"][abstained] > 0
    assert {"below threshold", "schema, range", "similarity below beta"} == set(
        ledgers["extract: candidates"]["left_out"]
    )
    counts = read_json(out / "manifest.json")["stages"]["extract"]["counts"]
    assert counts["n_evidence"] == len(evidence)
    assert counts["n_rejected"] == len(rejected)
    assert counts["mentions"] == len(rows(out, "corpus/mentions"))


def test_places_are_merged_and_none_is_lost(out: Path) -> None:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows(out, "kg/evidence"):
        found[row["triple_id"]].append(row)
    triples = rows(out, "kg/triples")
    assert len({row["triple_id"] for row in triples}) == len(triples)
    for row in triples:
        own = found.pop(row["triple_id"])
        assert len(own) == row["n_evidence"]
        scores = [one["score"] for one in own]
        assert scores == sorted(scores, reverse=True)
        assert row["score"] == scores[0] >= 0.5
        places = [(one["doc_id"], one["head_start"], one["tail_start"]) for one in own]
        assert len(set(places)) == len(places)
    assert not found
    several = [row for row in triples if row["n_evidence"] > 1]
    assert len(several) > 3
    assert [row["score"] for row in triples] == sorted(
        (row["score"] for row in triples), reverse=True
    )


def test_the_graph_keeps_the_schema_and_knows_what_is_novel(out: Path, frozen_run: Path) -> None:
    schema = read_schema(out / "seed" / "schema.toml")
    seed = [
        Triple(row["head_id"], row["relation"], row["tail_id"])
        for row in rows(out, "seed/triples")
        if row["split"] == "train"
    ]
    entities = [
        Entity(row["entity_id"], row["name"], row["type"]) for row in rows(out, "kg/entities")
    ]
    novel = {row["entity_id"]: row for row in rows(out, "kg/novel_entities")}
    assert len(entities) == len(rows(frozen_run, "seed/entities")) + len(novel)
    assert novel
    tails = {row["tail_id"] for row in rows(out, "kg/triples")}
    assert {one for one in tails if one.startswith("novel:")} == set(novel)
    assert any(row["n_documents"] > 0 for row in novel.values())
    noted = [row for row in rows(out, "kg/evidence") if row["method"].endswith("novel entity")]
    assert {row["triple_id"] for row in noted} == {
        row["triple_id"] for row in rows(out, "kg/triples") if row["tail_id"] in novel
    }
    triples = {
        Triple(row["head_id"], row["relation"], row["tail_id"]): row["novel"]
        for row in rows(out, "kg/triples")
    }
    broken = validate(KG.build(entities, {*seed, *triples}), schema)
    # A relation with an open range leaves the type of a novel entity unknown.
    assert {one.kind for one in broken} <= {"unknown_type"}
    assert all(one.triple is not None and one.triple.tail_id in novel for one in broken)
    closure = Closure(seed, schema)
    assert {one: one not in closure for one in triples} == triples
    # A known triple that a text speaks for is found as well, whatever the seed holds beside it.
    assert set(seed) & set(triples)


def test_the_folder_is_a_store(out: Path) -> None:
    store = open_store(out)
    row = next(row for row in rows(out, "kg/triples") if row["n_evidence"] > 1)
    explained = store.explain(row["triple_id"])
    assert explained.verified
    assert len(explained.evidence) == row["n_evidence"]


def test_scores_are_those_of_the_runs_own_stage(out: Path, frozen_run: Path) -> None:
    opened = open_frozen(frozen_run)
    prepared = Prepared.load(frozen_run, max_tail_tokens=opened.config.text.max_tail_tokens)
    with one_thread():
        scorer = Scorer.build(
            load_model(frozen_run / "model"),
            prepared,
            query_slots=opened.config.masking.query_slots,
            token_scores=True,
            precision="fp32",
        )
        result = extract_test(
            scorer,
            FrozenRule.from_dict({**tiny_documents.RULE, "tried": {}}).weights,
            opened.config.extract,
            model_hash=opened.model_hash,
            progress=Silent(),
        )
    key = ("triple_id", "doc_id", "head_start", "head_end", "tail_start", "tail_end")
    new = {tuple(row[name] for name in key): row for row in rows(out, "kg/evidence")}
    n_both = 0
    for row in result.tables["kg/evidence"].to_pylist():
        if (found := new.get(tuple(row[name] for name in key))) is None:
            continue
        n_both += 1
        assert found["score"] == pytest.approx(row["score"], abs=1e-4)
        assert {**found, "score": 0} == {**row, "score": 0}
    assert n_both > 5


def test_a_run_that_asked_held_out_heads_only(tmp_path: Path) -> None:
    off = {"enabled": False}
    run = tiny_documents.make_run(
        tmp_path / "plain",
        candidates={"phrases": off, "tagger": off},
        extract={**tiny_documents.SETTINGS["extract"], "corpus": off},
    )
    docs = tiny_documents.write_texts(tmp_path / "docs", tiny_documents.all_texts())
    found = extract_documents(run, [docs], tmp_path / "out").summary["extract"]
    assert found["n_accepted"] > 10
    assert found["candidates"] == found["n_novel_entities"] == 0
    ledgers = {one["stage"]: one for one in read_json(tmp_path / "out/ledger.json")["stages"]}
    assert set(ledgers["extract: relations"]["left_out"]) == {
        "schema: the relation does not begin at the head's type"
    }
    assert not (tmp_path / "out" / "kg" / "novel_entities.parquet").exists()


def test_a_second_time_does_nothing(out: Path, frozen_run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    places = [out.parent / "docs", SAMPLE / "documents"]
    assert extract_documents(frozen_run, places, out).summary["documents"] == {"computed": 0}
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert extract_documents(frozen_run, places, out, min_accepted=10**6).exit_code == 1


# --- bad input ------------------------------------------------------------------------------


def test_a_renamed_document_has_another_id(frozen_run: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text(tiny_documents.TEXTS[0], encoding="utf-8")
    extract_documents(frozen_run, [first], tmp_path / "out", min_accepted=0)
    assert [row["doc_id"] for row in rows(tmp_path / "out", "corpus/documents")] == ["a.txt"]
    first.rename(second)
    again = extract_documents(frozen_run, [second], tmp_path / "out", min_accepted=0)
    assert again.summary["documents"] == {"computed": 1, "reused": 0}
    assert [row["doc_id"] for row in rows(tmp_path / "out", "corpus/documents")] == ["b.txt"]


def test_bad_documents_leave_the_folder_as_it_was(frozen_run: Path, tmp_path: Path) -> None:
    docs = tiny_documents.write_texts(tmp_path / "docs", {"a.txt": "Salt and butter."})
    extract_documents(frozen_run, [docs], tmp_path / "out", min_accepted=0)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    (docs / "b.txt").write_bytes("naïve".encode("latin-1"))
    with pytest.raises(FormatError, match=r"b\.txt, line 1.*0xef"):
        extract_documents(frozen_run, [docs], tmp_path / "out")
    tiny_documents.write_texts(docs, {"a.txt": "  "})
    with pytest.raises(DataError, match="corpus is empty"):
        extract_documents(frozen_run, [docs], tmp_path / "out")
    for places, words in (([tmp_path / "gone"], "does not exist"), ([], "no document is named")):
        with pytest.raises(ConfigError, match=words):
            extract_documents(frozen_run, places, tmp_path / "out")
    after = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert after == before


# --- results by document --------------------------------------------------------------------


def result_of(key: str, n: int) -> DocumentResult:
    tables = {name: schema.empty_table() for name, schema in TABLES.items()}
    columns = {"seq_id": [f"{key}#{i}" for i in range(n)], "doc_id": [key] * n}
    columns |= {"start": list(range(n)), "end": [n] * n}
    tables["corpus/sequences"] = type(tables["proposals"]).from_pydict(
        columns, schema=TABLES["corpus/sequences"]
    )
    ledger = Ledger("sequences")
    ledger.offered(n)
    ledger.keep(n)
    return DocumentResult(key, tables, [ledger])


def test_a_result_file_forgets_how_it_was_made(tmp_path: Path) -> None:
    one, two = ResultFile(tmp_path / "1", "mark"), ResultFile(tmp_path / "2", "mark")
    one.replace({"c", "b"}, [result_of("c", 2), result_of("b", 0), result_of("x", 4)])
    one.replace({"a", "c"}, [result_of("a", 3)])
    two.replace(set(), [result_of("c", 2), result_of("a", 3)])
    assert one.keys() == two.keys() == {"a", "c"}
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert one.table("corpus/sequences")["seq_id"].to_pylist() == [
        "a#0",
        "a#1",
        "a#2",
        "c#0",
        "c#1",
    ]
    assert one.table("proposals").schema == TABLES["proposals"]
    assert [own[0].n_kept for own in one.ledgers()] == [3, 2]
    assert ResultFile(tmp_path / "1", "other").keys() == set()
    assert ResultFile(tmp_path / "3", "mark").table("kg/rejected").num_rows == 0


def test_keys_tell_ids_and_texts_apart() -> None:
    pairs = [("a", "b"), ("ab", ""), ("", "ab"), ("1:a", "b"), ("a", "c")]
    keys = {key_of(*pair) for pair in pairs}
    assert len(keys) == len(pairs)
    assert all(file_of(key) == f"{key[:3]}.parquet" for key in keys)
