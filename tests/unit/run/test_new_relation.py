"""A new relation: everything else keeps its bits, and the relation answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tiny_run
from golden.forms import make_model
from graphmert.errors import ConfigError, DataError
from graphmert.kg import Relation, Triple, read_schema
from graphmert.progress import Silent
from graphmert.run.answers import Scorer, head_queries
from graphmert.run.new_relation import FitSettings, add_relation, fit_chains, nearest_weights
from graphmert.run.prepared import Prepared
from graphmert.run.relation_rows import initial_rows, insert_relation, relation_tables
from graphmert.run.stages import load_model

NAME = "hinders"  # between has_part and is_a
FIT = FitSettings(min_triples=5, steps=6, batch_size=8, learning_rate=0.05)
WITH_HIDDEN = ("embed.relation", "embed.hgat")


def load(folder: Path) -> Prepared:
    return Prepared.load(folder, max_tail_tokens=tiny_run.MAX_TAIL_TOKENS)


def regulations(run: Path) -> list[Triple]:
    """What the training part says regulates something, said of the new relation."""
    prepared = load(run)
    regulates = prepared.relations.index("regulates")
    ids = prepared.entity_ids
    return [
        Triple(ids[h], NAME, ids[t])
        for h, r, t in prepared.triples["train"].tolist()
        if r == regulates
    ]


def without_row(value: torch.Tensor, place: int) -> torch.Tensor:
    return torch.cat([value[:place], value[place + 1 :]])


def assert_only_the_row_is_new(before: Path, after: Path, place: int) -> None:
    old, new = (load_file(one / "model" / "model.safetensors") for one in (before, after))
    assert old.keys() == new.keys()
    n_tables = 0
    for name, value in old.items():
        if value.shape == new[name].shape:
            assert torch.equal(value, new[name]), name
        else:
            n_tables += 1
            assert torch.equal(value, without_row(new[name], place)), name
    assert n_tables == 6


@pytest.fixture(scope="module")
def named(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("named") / "out"
    with tiny_run.working_in(finished):
        add_relation("run", out, Relation(NAME, description="Makes something slower."))
    return out


@pytest.fixture(scope="module")
def fitted(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fitted") / "out"
    with tiny_run.working_in(finished):
        add_relation("run", out, Relation(NAME), triples=regulations(Path("run")), fit=FIT)
    return out


def test_a_named_relation_changes_no_other_bit(finished: Path, named: Path) -> None:
    place = load(named).relations.index(NAME)
    assert load(named).relations == tuple(sorted([*load(finished / "run").relations, NAME]))
    assert_only_the_row_is_new(finished / "run", named, place)
    saved = json.loads((named / "model" / "relations.json").read_text(encoding="utf-8"))
    assert saved[NAME] == {"index": place, "label": NAME}
    summary = json.loads((named / "relation.json").read_text(encoding="utf-8"))
    assert sum(summary["nearest"].values()) == pytest.approx(1.0)
    assert summary["n_triples"] == 0


def test_fitting_changes_the_row_alone(finished: Path, named: Path, fitted: Path) -> None:
    place = load(fitted).relations.index(NAME)
    assert_only_the_row_is_new(finished / "run", fitted, place)
    tables = [load_file(one / "model" / "model.safetensors") for one in (named, fitted)]
    for name in relation_tables(load_model(fitted / "model")):
        assert not torch.equal(tables[0][name][place], tables[1][name][place]), name
    log = [json.loads(line) for line in (fitted / "fit" / "training.jsonl").open()]
    assert log[-1]["step"] == FIT.steps
    assert {"entity", "leaf", "relation"} == set(log[-1]["losses"])


def test_fitting_twice_gives_the_same_bytes(finished: Path, fitted: Path, tmp_path: Path) -> None:
    with tiny_run.working_in(finished):
        triples = regulations(Path("run"))[::-1]
        add_relation("run", tmp_path / "again", Relation(NAME), triples=triples, fit=FIT)
    first, second = (tiny_run.contents(one) for one in (fitted, tmp_path / "again"))
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} == set()


class Stopped(Silent):
    """Die after some updates."""

    def update(self, n_done: int, *, total: int | None = None, note: str = "") -> None:
        if n_done == 4:
            raise KeyboardInterrupt


def test_a_killed_fit_goes_on(finished: Path, fitted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with tiny_run.working_in(finished):
        options: dict[str, Any] = {"triples": regulations(Path("run")), "fit": FIT}
        with pytest.raises(KeyboardInterrupt):
            add_relation("run", out, Relation(NAME), progress=Stopped(), **options)
        assert not (out / "model").exists()
        assert list((out / "fit" / "checkpoints").iterdir())
        add_relation("run", out, Relation(NAME), **options)
    first, second = tiny_run.contents(fitted), tiny_run.contents(out)
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} == set()


def test_known_relations_answer_as_before(finished: Path, fitted: Path) -> None:
    answers: list[np.ndarray] = []
    for folder in (finished / "run", fitted):
        prepared = load(folder)
        model = load_model(folder / "model")
        scorer = Scorer.build(model, prepared, query_slots=1, token_scores=False, precision="fp32")
        known = [
            query
            for query in head_queries(prepared, "test", only_true=False)
            if prepared.relations[query.relation] != NAME
        ]
        rows: dict[int, np.ndarray] = {}
        for block in scorer.answers(known, tokens=False):
            rows.update(zip(block.index_Q.tolist(), block.entity_QE, strict=True))
        answers.append(np.stack([rows[index] for index in sorted(rows)]))
    np.testing.assert_array_equal(answers[0], answers[1])


def test_chains_keep_their_triples(finished: Path, fitted: Path) -> None:
    old, new = load(finished / "run"), load(fitted)
    n_triples = 0
    for one, other in zip(old.chains, new.chains, strict=True):
        assert one.roots == other.roots
        for first, second in zip(one.triples, other.triples, strict=True):
            assert old.relations[first.relation] == new.relations[second.relation]
            assert replace(first, relation=0) == replace(second, relation=0)
            n_triples += 1
    assert n_triples > 50
    schema = read_schema(new.run.seed_schema)
    assert set(schema.relations) == {*old.schema.relations, NAME}


def test_fitting_shows_training_documents_and_as_many_others(fitted: Path) -> None:
    prepared = load(fitted)
    place = prepared.relations.index(NAME)
    chains, n_used = fit_chains(prepared, place, FIT)
    shown = [chain for chain in chains if any(one.relation == place for one in chain.triples)]
    assert len(chains) == 2 * len(shown)
    assert len({chain.chain_id for chain in chains}) == len(chains)
    training = {chain.chain_id for chain in prepared.training_chains()}
    assert {chain.chain_id for chain in chains} <= training
    facts = {
        (one.head_entity, one.tail_entity)
        for chain in shown
        for one in chain.triples
        if one.relation == place
    }
    assert len(facts) == n_used
    given = {(h, t) for h, r, t in prepared.triples["train"].tolist() if r == place}
    assert facts <= given


@pytest.mark.parametrize(
    ("relation", "changes", "error", "words"),
    [
        (Relation("regulates"), {}, ConfigError, "already"),
        (Relation(NAME, domain=frozenset({"moon"})), {}, ConfigError, "type"),
        (Relation(NAME), {"fit": FitSettings(min_triples=500)}, DataError, "too few"),
    ],
    ids=["known", "no such type", "few"],
)
def test_what_is_refused(
    finished: Path, tmp_path: Path, relation: Relation, changes: Any, error: Any, words: str
) -> None:
    with tiny_run.working_in(finished), pytest.raises(error, match=words):
        triples = regulations(Path("run"))
        add_relation("run", tmp_path / "out", relation, triples=triples, **changes)
    with tiny_run.working_in(finished), pytest.raises(ConfigError, match="the run itself"):
        add_relation("run", "run", Relation(NAME))


def test_triples_that_cannot_be_used_are_told(finished: Path, tmp_path: Path) -> None:
    with tiny_run.working_in(finished):
        own = regulations(Path("run"))
        given = [*own, own[0], Triple("T:none", NAME, "T:0001"), Triple("T:0001", "is_a", "T:0002")]
        added = add_relation("run", tmp_path / "out", Relation(NAME), triples=given, fit=FIT)
    assert added.ledger.reasons == {
        "another relation": 1,
        "an end is no entity of the run": 1,
        "given twice": 1,
    }
    assert 5 <= added.n_triples <= added.ledger.n_kept == len(own)


# --- rows -----------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"hgat": "full"}, {"relation_bias": True}], ids=str)
def test_rows_are_inserted_before_the_hidden_one(changes: dict[str, Any]) -> None:
    model = make_model("default", **changes).float()
    n = model.config.n_relations
    rows = {
        name: torch.full_like(table[0], 7.0).detach()
        for name, table in relation_tables(model).items()
    }
    wider = insert_relation(model, n, rows)
    assert wider.config.n_relations == n + 1
    assert model.config.n_relations == n
    for name, table in relation_tables(wider).items():
        old = relation_tables(model)[name]
        assert torch.equal(table[:n], old[:n])
        assert bool((table[n] == 7.0).all())
        assert torch.equal(table[n + 1 :], old[n:])
        assert (len(old) == n + 1) == name.startswith(WITH_HIDDEN)


def test_the_nearest_rows_are_mixed() -> None:
    model = make_model("default").float()
    n = model.config.n_relations
    weights = [0.0] * n
    weights[1], weights[2] = 0.25, 0.75
    rows = initial_rows(model, weights, "nearest")
    tables = {name: table.detach() for name, table in relation_tables(model).items()}
    assert rows.keys() == tables.keys()
    low = ("embed.hgat.left", "embed.hgat.right")
    for name, table in tables.items():
        if name not in low:
            torch.testing.assert_close(rows[name], 0.25 * table[1] + 0.75 * table[2])
    left, right = (tables[name] for name in low)
    wanted = sum(w * left[r] @ right[r] for r, w in enumerate(weights))
    rank = left.shape[-1]
    u, s, v = torch.linalg.svd(wanted)
    best = u[:, :rank] @ torch.diag(s[:rank]) @ v[:rank]
    torch.testing.assert_close(rows[low[0]] @ rows[low[1]], best, atol=1e-5, rtol=1e-4)
    alone = initial_rows(model, [1.0] + [0.0] * (n - 1), "nearest")
    torch.testing.assert_close(
        alone[low[0]] @ alone[low[1]], left[0] @ right[0], atol=1e-5, rtol=1e-4
    )


def test_the_hidden_row_is_taken_as_it_is() -> None:
    model = make_model("default").float()
    n = model.config.n_relations
    rows = initial_rows(model, [1 / n] * n, "hidden")
    for name, table in relation_tables(model).items():
        if name.startswith(WITH_HIDDEN):
            assert torch.equal(rows[name], table[n])
        else:
            torch.testing.assert_close(rows[name], table.mean(0))


def test_a_relation_of_the_same_words_is_the_nearest(finished: Path) -> None:
    prepared = load(finished / "run")
    model = load_model(finished / "run" / "model")
    labels = prepared.relation_labels
    for place, label in enumerate(labels):
        weights = nearest_weights(model, prepared.tokenizer, labels, label)
        assert int(np.argmax(weights)) == place
        assert sum(weights) == pytest.approx(1.0)
        assert sum(value > 0 for value in weights) == 3
