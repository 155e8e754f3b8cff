"""Leaves are learned, and measured beside what is known without a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import toy_vectors
from graphmert.domains.vectors.data import VectorData
from graphmert.domains.vectors.training import load_model, train_vectors
from graphmert.evaluate.vector_leaves import (
    SYSTEMS,
    Seen,
    _no_candidates,
    _realistic,
    evaluate_leaves,
)
from graphmert.forecast import LeafForecaster, LeafSettings
from toy_leaves import N_ENTITIES, toy_leaves

NETWORK = {
    "n_relations": 2, "width": 16, "n_layers": 2, "n_attn_heads": 2, "ffn_width": 24,
    "hgat_rank": 4, "n_negatives": 12, "dropout": 0.0, "leaf_weight": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> VectorData:
    folder = tmp_path_factory.mktemp("toy")
    return VectorData.load(toy_vectors.write_dataset(folder, n_documents=16, n_rows=14))


def test_trained_leaves_beat_what_is_known_without_a_model(
    tmp_path: Path, data: VectorData
) -> None:
    """Head vectors are made to tell the head entity, so head and relation tell the tail."""
    leaves = toy_leaves(data)
    # link each row to one entity, and turn its vector towards that entity
    entity = np.random.default_rng(4).integers(0, N_ENTITIES, len(data.vectors))
    vectors = (
        data.vectors + 3 * F.normalize(torch.from_numpy(leaves.entities), dim=-1).numpy()[entity]
    )
    path = toy_vectors.write_dataset(
        tmp_path, n_documents=16, n_rows=14, vectors=vectors.astype(np.float32)
    )
    data = VectorData.load(path)
    row_of_leaf = np.repeat(np.arange(len(vectors)), np.diff(leaves.offsets))
    head = entity[row_of_leaf].astype(np.int32)
    tail = ((head * 5 + leaves.relation * 3 + 1) % N_ENTITIES).astype(np.int32)
    leaves = type(leaves)(
        leaves.entities, leaves.entity_ids, leaves.relations, leaves.offsets, head,
        leaves.relation, tail, leaves.score, leaves.usable,
    )  # fmt: skip
    config = toy_vectors.small_training(
        "lvm-leaves", network=NETWORK, epochs=25.0, learning_rate=0.01, batch_size=16
    )
    run = train_vectors(data, config, out=tmp_path / "run", leaves=leaves, name="lvm-leaves")
    assert run.history[-1]["val_leaf"] < run.history[0]["val_leaf"]
    assert "links" in run.manifest["data"]["fingerprints"]
    model = load_model(tmp_path / "run" / "last")
    assert isinstance(model, LeafForecaster)
    found = evaluate_leaves(model, data, leaves, without=load_model(tmp_path / "run" / "model"))
    assert found["leaf"]["model"]["all"]["r@1"]["value"] > 0.6
    # The test part has nine windows of one document; the other systems need more to be told apart.
    many = evaluate_leaves(model, data, leaves, part="train")["leaf"]
    value = {name: many[name]["all"]["r@1"]["value"] for name in SYSTEMS}
    assert value["model"] > 0.6 > max(value[name] for name in SYSTEMS[1:])
    assert found["n_entities"] == N_ENTITIES
    # the head entity is no candidate, unless it is the tail
    assert N_ENTITIES - 1 <= found["n_candidates"] <= N_ENTITIES
    assert 1 / N_ENTITIES <= found["chance"]["r@1"] <= 1 / (N_ENTITIES - 1)
    assert 0 < found["n_windows_with_leaves"] <= found["n_windows"] == 9
    given = found["next_vector"]
    difference = given["with_leaves"]["value"] - given["leaves_taken_away"]["value"]
    assert given["change"]["value"] == pytest.approx(difference, abs=2e-6)


def test_head_entity_and_unusable_entities_are_not_ranked(tmp_path: Path, data: VectorData) -> None:
    """Rows lie on their head entity, entities 9 to 11 on the rows, and the tail comes next."""
    n_rows = len(data.vectors)
    rng = np.random.default_rng(6)
    entities = rng.normal(size=(N_ENTITIES, data.dim)).astype(np.float32)
    entities[4] = entities[3] + 0.3 * entities[4]  # near its head
    entities[9:] = entities[3] + 0.001 * entities[9:]  # vectors of the corpus, all but
    rows = entities[3] + 0.1 * rng.normal(size=(n_rows, data.dim))
    path = toy_vectors.write_dataset(
        tmp_path, n_documents=16, n_rows=14, vectors=rows.astype(np.float32)
    )
    leaves = replace(
        toy_leaves(data),
        entities=entities,
        offsets=np.arange(n_rows + 1, dtype=np.int64),
        head=np.full(n_rows, 3, np.int32),
        relation=np.zeros(n_rows, np.int32),
        tail=np.full(n_rows, 4, np.int32),
        score=np.ones(n_rows, np.float32),
        usable=np.arange(N_ENTITIES) < 9,
    )
    model = LeafForecaster(LeafSettings(dim=data.dim, **NETWORK))
    found = evaluate_leaves(model, VectorData.load(path), leaves)
    assert found["n_candidates"] == N_ENTITIES - 3 - 1
    assert found["chance"]["r@1"] == pytest.approx(1 / 8, abs=1e-6)
    for system in ("nearest entity to the row", "nearest entity to the head"):
        assert found["leaf"][system]["all"]["r@1"]["value"] == 1.0


def test_a_tail_that_is_its_own_head_is_ranked() -> None:
    known = {(1, 0): frozenset({1, 2})}
    usable = np.array([True, True, True, False, True])
    found = _no_candidates([(1, 0, 1), (1, 0, 2)], known, usable)
    assert np.flatnonzero(~found[0]).tolist() == [0, 1, 4]
    assert np.flatnonzero(~found[1]).tolist() == [0, 2, 4]


def test_seen_counts_training_rows(data: VectorData) -> None:
    leaves = toy_leaves(data)
    seen = Seen(leaves, np.arange(20))
    stop = leaves.of_row(19).stop
    assert seen.count_E.sum() == seen.count_RE.sum() == stop
    for leaf in range(stop):
        triple = (int(leaves.head[leaf]), int(leaves.relation[leaf]), int(leaves.tail[leaf]))
        assert triple in seen.triples
        assert seen.count_RE[triple[1], triple[2]] >= 1


def test_ranks_count_ties_half_and_leave_out_true_ones() -> None:
    score = np.array([[3.0, 2.0, 2.0, 5.0, 2.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
    hidden = np.zeros((2, 5), bool)
    hidden[0, 3] = hidden[0, 1] = True
    found = _realistic(score, np.array([2, 0]), hidden)
    assert found.tolist() == [2.5, 3.0]
