"""Parts of a run: what is proposed and refused, what a stage depends on, what can be read."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_run
from graphmert import run
from graphmert.config import build
from graphmert.errors import CapabilityError, CheckpointError, ConfigError, FormatError
from graphmert.extract import Answers, Query
from graphmert.kg import KG, Triple, validate
from graphmert.kg.types import Entity
from graphmert.masking import MaskingConfig
from graphmert.progress import Silent
from graphmert.run import RunConfig
from graphmert.run import manifest as manifest_module
from graphmert.run.answers import asked_heads, draw_evenly, head_queries
from graphmert.run.extraction import Candidate, _GraphBuilder, average_precision, propose
from graphmert.run.manifest import Manifest, StageOutput, fingerprint
from graphmert.run.prepared import Prepared
from graphmert.run.relation_choice import relation_choice
from graphmert.run.settings import body_path, kg_path
from graphmert.run.stages import load_model
from graphmert.run.training import build_feeds, build_model, drop_stale_training, relation_names
from graphmert.shards import Ledger


def load_prepared(folder: Path) -> Prepared:
    return Prepared.load(folder / "run", max_tail_tokens=tiny_run.MAX_TAIL_TOKENS)


@pytest.fixture(scope="module")
def prepared(finished: Path) -> Prepared:
    return load_prepared(finished)


@pytest.fixture(scope="module")
def config(finished: Path) -> RunConfig:
    return run.load(finished / "RUN.toml")


# --- queries --------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["valid", "test"])
def test_heads_asked_about_are_unseen(prepared: Prepared, part: str) -> None:
    asked, left_out = asked_heads(prepared, part)
    trained = set(prepared.triples["train"][:, 0].tolist())
    assert len(asked) == {"valid": 8, "test": 12}[part]
    assert not trained & set(asked)
    others = {head for heads in left_out.values() for head in heads}
    assert others | set(asked) == set(prepared.triples[part][:, 0].tolist())
    queries = head_queries(prepared, part, only_true=False)
    assert {query.head_entity for query in queries} == set(asked)
    for query in queries:
        relation = prepared.schema.relations[prepared.relations[query.relation]]
        assert prepared.types[query.head_entity] in relation.domain
    true = set(prepared.known_tails(part))
    only = head_queries(prepared, part, only_true=True)
    assert {(query.head_entity, query.relation) for query in only} == {
        pair for pair in true if pair[0] in asked
    }


def test_a_head_without_a_title_is_told(prepared: Prepared) -> None:
    lost = asked_heads(prepared, "test")[0][0]
    heads = tuple(one for one in prepared.heads if not (one.is_title and one.entity == lost))
    asked, left_out = asked_heads(replace(prepared, heads=heads), "test")
    assert lost not in asked
    assert left_out["title is not within one sequence"] == [lost]


def test_an_even_draw_takes_turns() -> None:
    queries = [
        Query(0, 0, 1, relation, i) for relation in (0, 1, 2) for i in range(2 + 4 * relation)
    ]
    drawn = draw_evenly(queries, 7)
    assert Counter(query.relation for query in drawn) == {0: 2, 1: 3, 2: 2}
    assert len(set(drawn)) == 7
    assert drawn == draw_evenly(queries, 7)
    assert set(draw_evenly(queries, 100)) == set(queries)


# --- candidates -----------------------------------------------------------------------------


def test_proposals_are_the_best_tails_in_order() -> None:
    scores_QE = np.array([[0.0, 2.0, 1.0, 2.0, -np.inf], [5.0, 0.0, 0.0, 0.0, 0.0]])
    block = Answers(np.array([7, 3]), scores_QE, None, np.array([-0.5, -1.5]))
    found = propose(scores_QE, block, 3)
    assert [(one.query, one.tail) for one in found] == [
        (7, 1), (7, 3), (7, 2), (3, 0), (3, 1), (3, 2),
    ]  # fmt: skip
    z = np.log(1 + 2 * np.exp(2.0) + np.exp(1.0))
    assert [one.fit for one in found[:3]] == pytest.approx([2 - z, 2 - z, 1 - z])
    assert found[0].score(2.0) == pytest.approx(2 - z - 1.0)
    assert len(propose(scores_QE, block, 99)) == 4 + 5


def test_average_precision_by_hand() -> None:
    # Best first: hit, miss, hit; a third true triple is never proposed.
    assert average_precision([0.1, 0.9, 0.5], [True, True, False], 3) == pytest.approx(
        (1 / 1 + 2 / 3) / 3
    )
    assert average_precision([], [], 0) == 0.0


def test_choice_of_relations_without_the_commonest() -> None:
    # Three heads, relations 0 (every head has it), 1 and 2; log p finds 0 always, 1 and 2 never.
    queries = [Query(0, 0, 1, relation, head) for head in (0, 1, 2) for relation in (0, 1, 2)]
    triples = {
        "train": np.array([[5, 0, 6], [5, 0, 7], [5, 1, 6], [5, 1, 7], [5, 2, 6], [5, 0, 8]]),
        "test": np.array([[0, 0, 6], [1, 0, 6], [2, 0, 6], [0, 2, 7], [1, 1, 7]]),
    }
    made: Any = SimpleNamespace(
        relations=("r0", "r1", "r2"),
        triples=triples,
        known_tails=lambda part: {(h, r): frozenset({t}) for h, r, t in triples[part].tolist()},
    )
    log_p = [-0.1, -1.0, -2.0, -0.1, -2.0, -1.0, -0.1, -3.0, -4.0]
    found = relation_choice(dict(enumerate(log_p)), queries, made)["relation_choice"]
    assert (found["n_heads"], found["top1_accuracy"]) == (3, 1.0)
    assert found["top1_accuracy_commonest_relation"] == 1.0
    rest = found["without_commonest"]
    assert (rest["n_heads"], rest["top1_accuracy"]) == (2, 0.0)
    # By frequency relation 1 is named for both: right for head 1.
    assert rest["top1_accuracy_relation_frequency"] == 0.5
    # Two wrong ones come first: precision 1/3 and 2/4.
    assert rest["average_precision"] == pytest.approx((1 / 3 + 2 / 4) / 2)
    by_relation = found["by_relation"]
    assert by_relation["r0"] == {
        "n_true": 3, "n_heads": 3, "share": 1.0, "average_precision": 1.0,
    }  # fmt: skip
    # Relation 1: heads 0, 1, 2 in this order, head 1 has it.
    assert by_relation["r1"]["average_precision"] == pytest.approx(1 / 2)
    assert by_relation["r2"]["average_precision"] == pytest.approx(1 / 2)
    assert relation_choice({}, queries, made) == {}


@pytest.fixture(scope="module")
def everything(prepared: Prepared) -> tuple[dict[str, Any], Ledger, int]:
    """The tables when every tail of every query is offered with a score above the threshold."""
    queries = head_queries(prepared, "test", only_true=False)
    builder = _GraphBuilder(prepared, queries, "hash", "mnm-entity")
    n_offered = 0
    for tail in np.random.default_rng(0).permutation(len(prepared.names)).tolist():
        for index, query in enumerate(queries):
            if tail != query.head_entity:
                builder.offer(Candidate(index, tail, 0.0, 0.0), 0.75, 0.5)
                n_offered += 1
    tables, ledger = builder.finish()
    return {name: table.to_pylist() for name, table in tables.items()}, ledger, n_offered


def test_whatever_is_offered_the_graph_keeps_its_schema(
    prepared: Prepared, everything: tuple[dict[str, Any], Ledger, int]
) -> None:
    tables, ledger, n_offered = everything
    accepted = [
        Triple(row["head_id"], row["relation"], row["tail_id"]) for row in tables["kg/triples"]
    ]
    assert ledger.n_offered == n_offered == len(accepted) + len(tables["kg/rejected"])
    assert {"schema, range", "schema, cycle"} <= set(ledger.reasons)
    assert ledger.reasons["schema, antisymmetric"] > 0
    ids, names = prepared.entity_ids, prepared.relations
    seed = [Triple(ids[h], names[r], ids[t]) for h, r, t in prepared.triples["train"].tolist()]
    entities = [Entity(*row) for row in zip(ids, prepared.names, prepared.types, strict=True)]
    assert validate(KG.build(entities, [*seed, *accepted]), prepared.schema) == []
    assert len(accepted) > 500


def test_evidence_of_whatever_is_offered_equals_the_text(
    prepared: Prepared, everything: tuple[dict[str, Any], Ledger, int]
) -> None:
    documents = prepared.run.read("corpus/documents")
    texts = dict(zip(documents["doc_id"].to_pylist(), documents["text"].to_pylist(), strict=True))
    triples = {row["triple_id"]: row for row in everything[0]["kg/triples"]}
    n_in_text = n_wide = 0
    for row in everything[0]["kg/evidence"]:
        text = texts[row["doc_id"]]
        assert text[row["sent_start"] : row["sent_end"]] == row["sentence"]
        assert text[row["head_start"] : row["head_end"]] == row["head_surface"]
        assert row["sent_start"] <= row["head_start"] < row["head_end"] <= row["sent_end"]
        if row["tail_start"] is None:
            # No mention of the tail: its name stands nowhere as a mention in this document.
            assert row["method"].endswith("inferred")
            continue
        n_in_text += 1
        n_wide += ". " in row["sentence"]
        assert text[row["tail_start"] : row["tail_end"]] == row["tail_surface"]
        assert row["sent_start"] <= row["tail_start"] < row["tail_end"] <= row["sent_end"]
        assert row["tail_surface"].casefold() == triples[row["triple_id"]]["tail"].casefold()
    assert n_in_text > 10
    assert n_wide > 0
    assert n_in_text < len(triples)


def test_what_follows_from_training_is_not_novel(
    prepared: Prepared, everything: tuple[dict[str, Any], Ledger, int]
) -> None:
    novel = [row["novel"] for row in everything[0]["kg/triples"]]
    known = {
        (row["head_id"], row["relation"], row["tail_id"])
        for row in everything[0]["kg/triples"]
        if not row["novel"]
    }
    assert 0 < len(known) < len(novel)
    # Heads are unseen, so only the other way round of a training triple can follow.
    assert {relation for _, relation, _ in known} <= {"part_of", "has_part"}


# --- training inputs ------------------------------------------------------------------------


def test_feeds_hold_training_and_validation_apart(prepared: Prepared, config: RunConfig) -> None:
    model = build_model(config, prepared)
    feeds = build_feeds(config, prepared, model.config)
    held = {
        (head, relation, tail)
        for part in ("valid", "test")
        for head, relation, tail in prepared.triples[part].tolist()
    }
    trained = {
        (one.head_entity, one.relation, one.tail_entity)
        for chain in feeds.train.chains
        for one in chain.triples
    }
    assert trained
    assert not trained & held
    assert not trained - {tuple(row) for row in prepared.triples["train"].tolist()}
    valid = {
        (one.head_entity, one.relation, one.tail_entity)
        for chain in feeds.valid.chains
        for one in chain.triples
    }
    assert valid <= {tuple(row) for row in prepared.triples["valid"].tolist()}
    assert len(feeds.train) == 40
    # A tail of a validation triple is a negative in training as any other name is.
    assert feeds.train.known_tails == prepared.known_tails("train")
    assert feeds.valid.known_tails == prepared.known_tails("train", "valid")
    assert feeds.valid.known_tails != feeds.train.known_tails
    batch = feeds.train.batch(0)[0]
    assert all(np.isfinite(total.item()) for total, _ in model.loss(batch).values())


def test_relation_words_are_asked_as_they_were_trained(
    prepared: Prepared, config: RunConfig
) -> None:
    changes = {"model": {"changes": config.model.changes | {"relation_names": False}}}
    model = build_model(
        build(tiny_run.settings() | {"model": {**tiny_run.settings()["model"], **changes["model"]}},
              RunConfig),
        prepared,
    )  # fmt: skip
    assert relation_names(prepared, model.config).tokens == ()
    assert len(relation_names(prepared, build_model(config, prepared).config).tokens) == 6


class Told(Silent):
    """Keep the lines told; what they announce has not happened yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        assert (self.folder / "checkpoints").is_dir()
        self.lines.append(text)


def test_only_checkpoints_of_other_inputs_are_dropped(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    drop_stale_training(folder, "one")
    (folder / "kept").touch()
    drop_stale_training(folder, "one")
    assert (folder / "kept").exists()
    (folder / "checkpoints" / "checkpoint-7").mkdir(parents=True)
    told = Told(folder)
    drop_stale_training(folder, "one", told)
    assert told.lines == []
    drop_stale_training(folder, "two", told)
    assert [path.name for path in folder.iterdir()] == ["fingerprint.txt"]
    (line,) = told.lines
    assert str(folder) in line
    assert "update 7" in line
    assert "settings" in line


# --- models ---------------------------------------------------------------------------------


def copy_model(finished: Path, target: Path) -> Path:
    target.mkdir()
    for name in ("config.json", "model.safetensors"):
        (target / name).write_bytes((finished / "run" / "model" / name).read_bytes())
    return target


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def lose_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["embed.token.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def reshape_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["embed.token.weight"] = torch.zeros(3, 4)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def lose_the_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def lose_the_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def break_the_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "graphmert-core", ', encoding="utf-8")


def scribble(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(b"\xff" * 40 + path.read_bytes()[40:])


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        lose_a_tensor,
        reshape_a_tensor,
        lose_the_weights,
        lose_the_config,
        break_the_config,
        scribble,
    ],
    ids=lambda function: function.__name__,
)
def test_a_damaged_model_is_refused(finished: Path, tmp_path: Path, damage: Any) -> None:
    folder = copy_model(finished, tmp_path / "model")
    assert load_model(folder).config.n_relations == 5
    damage(folder)
    with pytest.raises(CheckpointError, match="model"):
        load_model(folder)


# --- tables ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["seed/triples", "chains/chains", "chains/heads"])
def test_a_corrupt_table_is_refused(finished: Path, tmp_path: Path, name: str) -> None:
    folder = tiny_run.copy(finished, tmp_path / "copy")
    path = folder / "run" / f"{name}.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FormatError, match=path.name):
        load_prepared(folder)


# --- the manifest ---------------------------------------------------------------------------


def a_stage(path: Path, name: str) -> StageOutput:
    (path / f"{name}.txt").write_text(name, encoding="utf-8")
    ledger = Ledger(name)
    ledger.offered()
    ledger.keep()
    return StageOutput([path / f"{name}.txt"], {"n": 1}, (ledger,))


def test_ledgers_are_in_the_order_of_the_stages(tmp_path: Path) -> None:
    order = ("z", "m", "a")

    def again() -> Manifest:
        return Manifest(tmp_path, {"seed": 0}, order)

    for name in ("z", "m"):
        again().run(name, "f", lambda name=name: a_stage(tmp_path, name))
    again().run("a", "f", lambda: a_stage(tmp_path, "a"))
    again().run("z", "f", lambda: a_stage(tmp_path, "z"))
    ledger = json.loads((tmp_path / "ledger.json").read_text(encoding="utf-8"))
    assert [one["stage"] for one in ledger["stages"]] == list(order)
    manifest = again()
    assert manifest.is_done("z", "f")
    assert not manifest.is_done("z", "g")
    (tmp_path / "m.txt").write_text("other", encoding="utf-8")
    assert not manifest.is_done("m", "f")


def test_a_stage_that_fails_leaves_no_record(tmp_path: Path) -> None:
    def fail() -> StageOutput:
        raise FormatError("broken")

    with pytest.raises(FormatError):
        Manifest(tmp_path, {}, ("a",)).run("a", "f", fail)
    assert not Manifest(tmp_path, {}, ("a",)).is_done("a", "f")


def test_a_stage_whose_ledger_does_not_balance_fails(tmp_path: Path) -> None:
    ledger = Ledger("a")
    ledger.offered()
    with pytest.raises(Exception, match="does not balance"):
        Manifest(tmp_path, {}, ("a",)).run("a", "f", lambda: StageOutput([], {}, (ledger,)))
    assert not (tmp_path / "manifest.json").exists()


def test_a_stage_keeps_what_it_was_made_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = ("a", "b")
    Manifest(tmp_path, {"config_hash": "old"}, order).run("a", "f", lambda: a_stage(tmp_path, "a"))
    monkeypatch.setattr(manifest_module, "version", lambda name: "9.9")
    later = Manifest(tmp_path, {"config_hash": "new"}, order)
    later.run("b", "f", lambda: a_stage(tmp_path, "b"))
    written = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert written["config_hash"] == "new"
    assert {name: one["config_hash"] for name, one in written["stages"].items()} == {
        "a": "old", "b": "new",
    }  # fmt: skip
    assert written["stages"]["b"]["versions"]["graphmert"] == "9.9"
    assert written["stages"]["a"]["versions"]["graphmert"] == version("graphmert")
    assert later.made_by("a") == version("graphmert")


def test_another_version_does_every_stage_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.obo").write_text(tiny_run.ontology(), encoding="utf-8")
    with tiny_run.working_in(tmp_path):
        plan = run._Plan(build(tiny_run.settings(), RunConfig), Path("run"))
    plan.manifest.stages = {stage: {"outputs": {}} for stage in run.STAGES}
    before = {stage: plan.fingerprint(stage) for stage in run.STAGES}
    monkeypatch.setattr(run, "version", lambda name: "9.9")
    assert not {plan.fingerprint(stage) for stage in run.STAGES} & set(before.values())
    # What an older version made is still known to be of one piece.
    record = {"fingerprint": before["extract"], "versions": {"graphmert": version("graphmert")}}
    stages = plan.manifest.stages | {"extract": plan.manifest.stages["extract"] | record}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({"stages": stages}))
    assert run.is_current(tmp_path / "run", "extract", plan.config, plan.inputs)
    other = plan.config.model_copy(update={"masking": MaskingConfig(query_slots=99)})
    assert not run.is_current(tmp_path / "run", "extract", other, plan.inputs)


@pytest.mark.parametrize(
    ("section", "change", "first"),
    [
        ("data", {"kg": "other.obo"}, "prepare"),
        ("split", {"seed": 1}, "prepare"),
        ("reduce", {"share": 0.5}, "prepare"),
        ("text", {"max_tail_tokens": 12}, "prepare"),
        ("model", {"preset": "small"}, "train"),
        ("masking", {"mlm_rate": 0.2}, "train"),
        ("feed", {"n_negatives": 3}, "train"),
        ("train", {"learning_rate": 1e-3}, "train"),
        ("seed", 1, "train"),
        ("extract", {"top_k": 3}, "extract"),
        ("extract", {"sweep": True}, "extract"),
        ("extract", {"calibration": "temperature"}, "extract"),
        ("extract", {"corpus": {"enabled": True}}, "extract"),
        ("evaluate", {"n_resamples": 30}, "evaluate"),
    ],
    ids=str,
)
def test_what_a_setting_undoes(
    finished: Path, tmp_path: Path, section: str, change: Any, first: str
) -> None:
    """A stage depends on its own settings; later ones also on what it wrote."""
    folder = tiny_run.copy(finished, tmp_path / "copy")
    (folder / "other.obo").write_bytes((folder / "tiny.obo").read_bytes())
    with tiny_run.working_in(folder):
        plans = [
            run._Plan(build(tiny_run.settings(**changes), RunConfig), Path("run"))
            for changes in ({}, {section: change})
        ]
        same = [plans[0].fingerprint(one) == plans[1].fingerprint(one) for one in run.STAGES]
    assert same.index(False) == run.STAGES.index(first)


@pytest.mark.parametrize(
    "change",
    [
        {"micro_batch_size": 4},
        {"max_tokens_per_micro_batch": 512},
        {"prefetch": True},
        {"tracker": "tensorboard"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_helps_against_full_memory_keeps_the_checkpoints(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    (tmp_path / "tiny.obo").write_text(tiny_run.ontology(), encoding="utf-8")
    with tiny_run.working_in(tmp_path):
        plans = [
            run._Plan(build(tiny_run.settings(train=train), RunConfig), Path("run"))
            for train in ({}, change, {"n_threads": 2}, {"batch_size": 8})
        ]
    for plan in plans:
        plan.manifest.stages = {"prepare": {"outputs": {}}}
    first, same, *others = (plan.fingerprint("train") for plan in plans)
    assert same == first
    assert first not in others


def test_a_tail_limit_that_changes_no_table_trains_again(finished: Path, tmp_path: Path) -> None:
    """The limit is in the network, even where the prepared tables come out the same."""
    folder = tiny_run.copy(finished, tmp_path / "copy")
    with tiny_run.working_in(folder):
        plans = [
            run._Plan(build(tiny_run.settings(text={"max_tail_tokens": n}), RunConfig), Path("run"))
            for n in (10, 11)
        ]
    for plan in plans:
        plan.manifest = plans[0].manifest
    assert plans[0].fingerprint("train") != plans[1].fingerprint("train")
    assert plans[0].fingerprint("extract") != plans[1].fingerprint("extract")


def test_fingerprints_tell_values_apart() -> None:
    values = [{"a": 1}, {"a": 2}, {"b": 1}, [1, 2], [2, 1], "a", None]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


# --- settings -------------------------------------------------------------------------------


def test_places_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHMERT_DATA", str(tmp_path))
    data = build(tiny_run.settings(), RunConfig).data
    assert kg_path(data.model_copy(update={"kg": "sample:go"})).name == "go-sample.obo.gz"
    assert body_path("") is None
    assert body_path("some/folder") == "some/folder"
    with pytest.raises(CapabilityError, match="graphmert data fetch doid-2021-06"):
        kg_path(data.model_copy(update={"kg": "dataset:doid-2021-06"}))
    with pytest.raises(ConfigError, match=r"gone\.obo"):
        kg_path(data.model_copy(update={"kg": str(tmp_path / "gone.obo")}))


def test_init_for_documents_asks_the_corpus_and_says_what_to_fetch(tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    text = run.init_toml(tmp_path / "papers", "dataset:doid-2021-06")
    path = tmp_path / "RUN.toml"
    path.write_text(text, encoding="utf-8")
    config = run.load(path)
    assert config.extract.corpus.enabled
    assert config.extract.corpus.tails == "sequence"
    assert (config.extract.target_precision, config.inject.method) == (0.8, "scored")
    head = text.split("out =")[0].splitlines()
    assert "#   graphmert data fetch doid-2021-06" in head
    assert "#   graphmert data fetch minilm-l6-384" in head
    plain = run.init_toml(None, "my.obo")
    assert "fetch minilm-l6-384" in plain.split("out =")[0]
    path.write_text(plain, encoding="utf-8")
    assert not run.load(path).extract.corpus.enabled


def test_what_cannot_run_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    tiny_run.write_inputs(tmp_path)
    for setting, words in (
        ("extract.corpus.tails=sequence", "definitions have not"),
        ("evaluate.bi_encoder_steps=5", "no baseline of completing"),
    ):
        more = ["extract.corpus.enabled=true"]
        if "bi_encoder" in setting:
            more = ["complete.valid=tiny.obo", "complete.test=tiny.obo"]
        with pytest.raises(ConfigError, match=words):
            tiny_run.execute(tmp_path, setting, *more)
    assert not (tmp_path / "run").exists()


def test_init_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "RUN.toml"
    path.write_text(run.init_toml(None, "my.obo"), encoding="utf-8")
    config = run.load(path)
    assert config.data.kg == "my.obo"
    assert config == run.load(path, ["out=run-output"])
