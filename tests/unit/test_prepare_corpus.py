"""Preparing a corpus as a whole: tables, ledgers, workers, and what does not change."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import tiny_run
from graphmert import run
from graphmert.config import build
from graphmert.domains.text import corpus as corpus_module
from graphmert.domains.text import passes
from graphmert.errors import CapabilityError, ConfigError, DataError, SchemaError
from graphmert.run import RunConfig
from graphmert.run.prepared import Prepared
from graphmert.store import RunDir

SAMPLE = Path(__file__).parents[2] / "docs" / "sample"


def config(**changes: Any) -> RunConfig:
    tree: dict[str, Any] = {
        "out": "run",
        "data": {"kg": "sample/ontology", "corpus": "sample/documents"},
        "split": {"n_valid_heads": 3, "n_test_heads": 3},
        "model": {"preset": "tiny", "vocab_size": 400},
        "text": {"max_tokens": 40},
        "candidates": {
            "phrases": {"min_count": 3, "min_documents": 1, "min_c_value": 2.0, "min_npmi": 0.0}
        },
        "embedding": {"model": "lexical"},
        "inject": {"method": "scored", "alpha": 0.1, "triples_per_head": 2},
        "train": {"total_steps": 3, "batch_size": 4, "warmup_steps": 1, "n_threads": 1},
    }
    for name, section in changes.items():
        tree[name] = tree.get(name, {}) | section if isinstance(section, dict) else section
    return build(tree, RunConfig)


def prepare(folder: Path, **changes: Any) -> dict[str, Any]:
    if not (folder / "sample").exists():
        shutil.copytree(SAMPLE, folder / "sample")
    with tiny_run.working_in(folder):
        result = run.execute(config(**changes), stage=changes.pop("stage", "prepare"))
    assert result.exit_code == 0
    return result.summary["prepare"]


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several row groups for the few documents of the sample."""
    monkeypatch.setattr(corpus_module, "GROUP_DOCUMENTS", 4)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    prepare(folder)
    return folder


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / "run" / f"{name}.parquet").to_pylist()


def texts(folder: Path) -> dict[str, str]:
    return {row["doc_id"]: row["text"] for row in rows(folder, "corpus/documents")}


def test_every_row_of_every_table_equals_the_text(prepared: Path) -> None:
    text_of = texts(prepared)
    span_of = {row["seq_id"]: row for row in rows(prepared, "corpus/sequences")}
    entities = {row["entity_id"] for row in rows(prepared, "seed/entities")}
    mentions = rows(prepared, "corpus/mentions")
    candidates = rows(prepared, "corpus/candidates")
    assert len(mentions) > 80
    assert len(candidates) >= 3
    for row in [*mentions, *candidates]:
        text, own = text_of[row["doc_id"]], span_of[row["seq_id"]]
        assert own["doc_id"] == row["doc_id"]
        assert text[row["start"] : row["end"]] == row["surface"]
        assert own["start"] <= row["start"] < row["end"] <= own["end"]
        assert row["entity_id"] is None or row["entity_id"] in entities
    taken: dict[str, list[tuple[int, int]]] = {}
    for row in mentions:
        taken.setdefault(row["seq_id"], []).append((row["start"], row["end"]))
    for spans in taken.values():
        assert spans == sorted(spans)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    for row in candidates:
        for a, b in taken.get(row["seq_id"], []):
            apart = b <= row["start"] or row["end"] <= a
            holds = row["start"] <= a and b <= row["end"]
            assert apart or holds


def test_heads_and_leaves_are_those_of_the_tables(prepared: Path) -> None:
    run_dir = RunDir(prepared / "run")
    split = {
        (row["head_id"], row["relation"], row["tail_id"]): row["split"]
        for row in rows(prepared, "seed/triples")
    }
    with tiny_run.working_in(prepared):
        loaded = Prepared.load(Path("run"), max_tail_tokens=16)
    mentions = {
        (row["seq_id"], row["entity_id"], row["start"], row["end"])
        for row in rows(prepared, "corpus/mentions")
    }
    heads = {
        (
            loaded.chains[head.chain].chain_id,
            loaded.entity_ids[head.entity],
            head.char_start,
            head.char_end,
        )
        for head in loaded.heads
    }
    assert heads == mentions
    n_leaves = 0
    for chain in loaded.chains:
        for triple in chain.triples:
            ids = (
                loaded.entity_ids[triple.head_entity],
                loaded.relations[triple.relation],
                loaded.entity_ids[triple.tail_entity],
            )
            assert split[ids] == "train"
            assert triple.tail == loaded.name_tokens[triple.tail_entity]
            n_leaves += 1
    assert n_leaves == run_dir.read("chains/injected").num_rows > 10


def test_held_out_heads_are_asked_in_documents_that_train_nothing(prepared: Path) -> None:
    with tiny_run.working_in(prepared):
        loaded = Prepared.load(Path("run"), max_tail_tokens=16)
    held = {entity for entity, part in loaded.part_of_head.items() if part != "train"}
    assert len(held) >= 6
    asked = {loaded.chain_documents[loaded.title_heads[one].chain] for one in held}
    training = {chain.chain_id.split("#")[0] for chain in loaded.training_chains()}
    assert training
    assert not {one.split("#")[0] for one in asked} & training
    for chain in loaded.answered_chains("valid"):
        assert all(loaded.part_of_head[triple.head_entity] == "valid" for triple in chain.triples)


def test_ledgers_balance_and_name_what_is_left_out(prepared: Path) -> None:
    stages = json.loads((prepared / "run" / "ledger.json").read_text(encoding="utf-8"))["stages"]
    found = {one["stage"]: one for one in stages}
    assert len(found) == len(stages)
    for one in stages:
        assert one["kept"] + sum(one["left_out"].values()) == one["offered"], one["stage"]
    assert found["documents"]["left_out"] == {"empty text": 1}
    low = found["low information"]["left_out"]
    assert low == {"low information: fewer than two words": 1}
    assert found["sequences"]["offered"] == sum(
        len(text.split()) for text in texts(prepared).values()
    )
    assert {
        "read_rows",
        "mentions",
        "phrases",
        "candidates",
        "linking",
        "select triples",
        "inject",
    } < set(found)
    assert found["head_spans"]["offered"] == len(rows(prepared, "corpus/mentions"))
    assert found["place triples"]["kept"] == len(rows(prepared, "chains/injected"))


def test_a_phrase_beyond_the_kg_is_a_candidate(prepared: Path) -> None:
    phrases = {row["phrase"] for row in rows(prepared, "corpus/phrases")}
    assert "long cold fermentation" in phrases or "cold fermentation" in phrases
    surfaces = {row["surface"] for row in rows(prepared, "corpus/candidates")}
    assert any("cold" in one for one in surfaces)


@pytest.mark.usefixtures("small_groups")
def test_one_or_two_workers_give_the_same_bytes(tmp_path: Path) -> None:
    one = prepare(tmp_path / "one")
    two = prepare(tmp_path / "two", n_workers=2)
    assert one == two
    assert one["sequences"] > 10
    contents = [tiny_run.contents(tmp_path / name / "run") for name in ("one", "two")]
    assert contents[0].keys() == contents[1].keys()
    assert [name for name in contents[0] if contents[0][name] != contents[1][name]] == []


@pytest.mark.usefixtures("small_groups")
def test_groups_change_no_mention_and_no_phrase(tmp_path: Path, prepared: Path) -> None:
    prepare(tmp_path)
    for name in ("corpus/documents", "corpus/sequences", "corpus/phrases", "seed/triples"):
        assert rows(tmp_path, name) == rows(prepared, name)


def test_a_run_without_scores_links_or_candidates(tmp_path: Path) -> None:
    found = prepare(
        tmp_path,
        embedding={"model": "no/such/model"},
        link={"enabled": False},
        candidates={"phrases": {"enabled": False}, "tagger": {"enabled": False}},
        inject={"method": "all"},
    )
    assert found["mentions"]["linked"] == found["candidates"]["surfaces"] == 0
    assert found["injected"]["rows"] > 40
    assert not (tmp_path / "run" / "corpus" / "tagger.safetensors").exists()


def test_a_single_file_counts_with_its_name(tmp_path: Path) -> None:
    """A text's id is its file's name; of a graph's file only the content counts."""
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("Rye bread.", encoding="utf-8")
    one, other = [tmp_path / "a.txt"], [tmp_path / "b.txt"]
    assert run.hash_of(one) == run.hash_of(other)
    assert run.hash_of(one, named=True) != run.hash_of(other, named=True)


def test_a_killed_preparation_goes_on(
    tmp_path: Path, small_groups: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing finished is done again, the bytes are those of a run not killed."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        shutil.copytree(SAMPLE, folder / "sample")
    calls: list[int] = []
    read_part, chain_part = passes.read_part, passes.chain_part

    def counted(group: int, **options: Any) -> Any:
        calls.append(group)
        return read_part(group, **options)

    def killed(shard: Any, **options: Any) -> Any:
        if shard[0] == 1:
            raise KeyboardInterrupt
        return chain_part(shard, **options)

    monkeypatch.setattr(passes, "read_part", counted)
    prepare(whole)
    n_groups = len(calls)
    assert n_groups > 2
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(passes, "chain_part", killed)
        prepare(cut)
    names = sorted(one.name for one in (cut / "run" / ".shards").iterdir())
    assert "chains-00000.kept" in names
    assert "chains-00001.kept" not in names
    prepare(cut)
    assert len(calls) == 2 * n_groups
    assert tiny_run.contents(cut) == tiny_run.contents(whole)
    assert not (cut / "run" / ".shards").exists()


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no corpus": ({"data": {"corpus": "gone"}}, ConfigError, "corpus does not exist"),
    "no model": ({"embedding": {"model": "no/such"}}, CapabilityError, "embedding model"),
    "no match": ({"data": {"corpus": "other.txt"}}, DataError, "held out"),
    "no schema": ({"kg": {"schema_file": "gone.toml"}}, ConfigError, "does not exist"),
    "narrow schema": ({"kg": {"schema_file": "narrow.toml"}}, SchemaError, "unknown_relation"),
    "all relations": (
        {"kg": {"leave_out_relations": ["is_a", "made_from", "has_part", "leads_to", "produces",
         "takes_part_in", "uses"]}},
        DataError,
        "no triple",
    ),
    "definitions": ({"data": {"corpus": "definitions"}}, ConfigError, "inject.method"),
    "no kg": ({"data": {"kg": []}}, ConfigError, "no seed KG"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_and_input(tmp_path: Path, case: str) -> None:
    changes, error, words = BAD[case]
    (tmp_path / "other.txt").write_text("Nothing of that kind.", encoding="utf-8")
    (tmp_path / "narrow.toml").write_text('types = ["food"]\n', encoding="utf-8")
    with pytest.raises(error, match=words):
        prepare(tmp_path, **changes)


def test_preparing_depends_on_corpus_schema_and_settings(prepared: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(prepared, tmp_path / "copy"))

    def state(**changes: Any) -> str:
        with tiny_run.working_in(folder):
            return run.execute(config(**changes), dry_run=True).summary["stages"]["prepare"]

    assert state() == state(n_workers=3) == "done"
    assert state(inject={"alpha": 0.2}) == state(link={"top_k": 3}) == "to do"
    documents = folder / "sample" / "documents"
    (documents / "more.txt").write_text("Salt and water.", encoding="utf-8")
    assert state() == "to do"
    (documents / "more.txt").unlink()
    assert state() == "done"


# --- what was there before ------------------------------------------------------------------


def test_preparing_definitions_is_unchanged(tmp_path: Path) -> None:
    """Tables of a definitions run, by hash of their rows, from before corpora were read."""
    tiny_run.write_inputs(tmp_path, data={"kg": "sample:go"})
    tiny_run.execute(tmp_path, stage="prepare")
    found = {}
    for name in ("corpus/documents", "corpus/sequences", "corpus/mentions", "seed/triples",
                 "chains/chains", "chains/heads", "chains/injected"):  # fmt: skip
        text = json.dumps(rows(tmp_path, name), sort_keys=True, ensure_ascii=False)
        found[name] = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert found == DEFINITION_HASHES


DEFINITION_HASHES = {
    "corpus/documents": "ecfd39551bb0c9dc",
    "corpus/sequences": "d97f03a3ed71ac70",
    "corpus/mentions": "5a65323d58a1e052",
    "seed/triples": "c1840a29c1a589c6",
    "chains/chains": "da27e423a06b035d",
    "chains/heads": "81b868d08341319c",
    "chains/injected": "7b4996a9579a7811",
}


@pytest.mark.slow
def test_the_committed_go_run_prepares_to_the_same_bytes(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    kept = json.loads((root / "results/go_definitions/manifest.json").read_text(encoding="utf-8"))
    from graphmert import datasets

    if not datasets.is_fetched(datasets.find_dataset("go-2021-12")):
        pytest.skip("needs: graphmert data fetch go-2021-12")
    if not datasets.is_fetched(datasets.find_dataset("minilm-l6-384")):
        pytest.skip("needs: graphmert data fetch minilm-l6-384")
    loaded = run.load(root / "runs/go_definitions.toml", [f"out={tmp_path}"])
    run.execute(loaded, stage="prepare")
    done = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    if done["versions"]["pyarrow"] != kept["versions"]["pyarrow"]:
        pytest.skip("another version of pyarrow writes other bytes")
    assert done["stages"]["prepare"]["outputs"] == kept["stages"]["prepare"]["outputs"]
    assert done["stages"]["prepare"]["fingerprint"] == kept["stages"]["prepare"]["fingerprint"]


@pytest.mark.slow
def test_a_corpus_goes_through_every_stage(tmp_path: Path) -> None:
    shutil.copytree(SAMPLE, tmp_path / "sample")
    changes = {"train": {"total_steps": 20}, "evaluate": {"n_resamples": 10}}
    with tiny_run.working_in(tmp_path):
        result = run.execute(config(**changes))
    assert result.summary["extract"]["n_queries"] > 5
    text_of = texts(tmp_path)
    evidence = rows(tmp_path, "kg/evidence")
    for row in evidence:
        text = text_of[row["doc_id"]]
        assert text[row["sent_start"] : row["sent_end"]] == row["sentence"]
        assert text[row["head_start"] : row["head_end"]] == row["head_surface"]
        if row["tail_start"] is not None:
            assert text[row["tail_start"] : row["tail_end"]] == row["tail_surface"]
    assert len(evidence) == result.summary["extract"]["n_accepted"]
