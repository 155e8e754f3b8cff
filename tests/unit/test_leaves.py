"""GraphMERT-LVM with leaves: what a masked leaf shows, who sees whom, feeds, folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import toy_vectors
from graphmert.domains.vectors.data import VectorData
from graphmert.domains.vectors.links import Leaves
from graphmert.errors import ConfigError
from graphmert.forecast import LeafBatch, LeafFeed, LeafForecaster, LeafSettings, known_tails
from toy_leaves import N_ENTITIES, RELATIONS, toy_leaves

SMALL: dict[str, Any] = {
    "dim": toy_vectors.DIM, "n_relations": 2, "width": 8, "n_layers": 2, "n_attn_heads": 2,
    "ffn_width": 12, "hgat_rank": 2, "n_negatives": 5, "leaves_per_root": 2, "dropout": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> VectorData:
    return VectorData.load(toy_vectors.write_dataset(tmp_path_factory.mktemp("toy")))


@pytest.fixture(scope="module")
def leaves(data: VectorData) -> Leaves:
    return toy_leaves(data)


def small(**changes: Any) -> LeafForecaster:
    torch.manual_seed(0)
    model = LeafForecaster(LeafSettings(**(SMALL | changes)))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.4 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def feed(data: VectorData, leaves: Leaves, **options: Any) -> LeafFeed:
    settings = LeafSettings(**(SMALL | options.pop("settings", {})))
    known = options.pop("known", known_tails(leaves))
    return LeafFeed(
        data.windows("train"), leaves, settings, known=known, batch_size=9,
        **({"seed": 3} | options),
    )  # fmt: skip


def test_leaves_are_those_of_the_context_rows(data: VectorData, leaves: Leaves) -> None:
    windows, made = data.windows("train"), feed(data, leaves)
    index = np.arange(len(windows))
    for rows, target in zip(windows.context_rows(index), windows.target_rows(index), strict=True):
        chain = made.chain(rows)
        assert chain.roots == tuple(rows)
        assert target not in rows
        wanted = []
        for place, row in enumerate(rows):
            span = leaves.of_row(int(row))
            for leaf in range(span.start, min(span.stop, span.start + 2)):
                wanted.append((place, leaves.head[leaf], leaves.relation[leaf], leaves.tail[leaf]))
        found = [(t.head_start, t.head_entity, t.relation, t.tail_entity) for t in chain.triples]
        assert found == wanted
        entity_rows = [t.tail[0] - len(data.vectors) for t in chain.triples]
        assert entity_rows == [t.tail_entity for t in chain.triples]
    assert all(not feed(data, leaves, settings={"use_leaves": False}).chain(rows).triples
               for rows in windows.context_rows(index))  # fmt: skip


def test_a_batch_holds_vectors_of_rows_and_entities(data: VectorData, leaves: Leaves) -> None:
    made = feed(data, leaves, masking="none")
    batch = made.take(np.array([4, 9]), key=(0,))
    assert not len(batch.query_Q)
    chains = [made.chain(rows) for rows in made.windows.context_rows(np.array([4, 9]))]
    assert batch.chains.vectors_BNC is not None
    for row, chain in enumerate(chains):
        wanted = [data.vectors[list(chain.roots)]]
        wanted += [leaves.entities[[t.tail_entity]] for t in chain.triples]
        found = batch.chains.vectors_BNC[row, : chain.n_nodes]
        np.testing.assert_array_equal(found.numpy(), np.concatenate(wanted))


def queried(batch: LeafBatch, model: LeafForecaster) -> torch.Tensor:
    with torch.no_grad():
        return model.leaf_queries(model.core(batch.chains), batch.chains, batch.query_Q)


@pytest.mark.parametrize("visibility", ["open", "isolated"])
def test_a_masked_leaf_shows_relation_and_head_but_not_its_vector(
    data: VectorData, leaves: Leaves, visibility: Any
) -> None:
    model = small(visibility=visibility)
    made = feed(data, leaves, masking="one")
    batch = made.take(np.arange(9), key=(0,))
    assert len(batch.query_Q) > 4
    before = queried(batch, model)
    assert batch.chains.vectors_BNC is not None
    masked = batch.chains.token_BN < 0
    assert int(masked.sum()) >= len(batch.query_Q)
    moved = batch.chains.vectors_BNC.clone()
    moved[masked] += 1.0
    other = replace(batch, chains=replace(batch.chains, vectors_BNC=moved))
    torch.testing.assert_close(queried(other, model), before, rtol=0, atol=0)
    flipped = replace(batch.chains, relation_T=1 - batch.chains.relation_T)
    assert (queried(replace(batch, chains=flipped), model) - before).abs().max() > 1e-3
    heads = batch.chains.vectors_BNC.clone()
    place = batch.chains.head_index_TM[batch.query_Q][:, 0]
    heads.reshape(-1, heads.shape[-1])[place] += 1.0
    shown = replace(batch, chains=replace(batch.chains, vectors_BNC=heads))
    assert (queried(shown, model) - before).abs().amin(0).max() > 1e-4


@pytest.mark.parametrize("visibility", ["open", "isolated"])
def test_roots_see_leaves_only_where_it_is_open(
    data: VectorData, leaves: Leaves, visibility: Any
) -> None:
    model = small(visibility=visibility)
    made = feed(data, leaves, masking="none")
    index = np.arange(9)
    batch = made.take(index, key=(0,))
    contexts = torch.from_numpy(data.windows("train").contexts(index))
    with torch.no_grad():
        change = (model.next_vectors(batch.chains) - model(contexts)).abs().amax(1)
    has_leaf = torch.tensor([bool(made.chain(r).triples) for r in made.windows.context_rows(index)])
    assert has_leaf.any()
    if visibility == "open":
        assert (change[has_leaf] > 1e-4).all()
    else:
        assert change.max() < 1e-5
    assert change[~has_leaf].sum() < 1e-5


@pytest.mark.parametrize("masking", ["one", "rate"])
def test_a_masked_leaf_is_hidden_on_every_row(
    data: VectorData, leaves: Leaves, masking: Any
) -> None:
    """Rows that are linked to one entity carry one leaf: no copy of it stays to be read."""
    n_rows = len(data.vectors)
    # On every row: (3, 0, 4), the same ends by another relation, and another tail of that head.
    same = replace(
        leaves,
        offsets=np.arange(n_rows + 1, dtype=np.int64) * 3,
        head=np.full(3 * n_rows, 3, np.int32),
        relation=np.tile([0, 1, 0], n_rows).astype(np.int32),
        tail=np.tile([4, 4, 7], n_rows).astype(np.int32),
        score=np.ones(3 * n_rows, np.float32),
    )
    made = feed(data, same, masking=masking, settings={"leaves_per_root": 3, "mask_rate": 0.5})
    index = np.arange(30)
    batch = made.take(index, key=(0,))
    chains = [made.chain(rows) for rows in made.windows.context_rows(index)]
    tails = np.array([t.tail_entity for chain in chains for t in chain.triples])
    row_of = batch.chains.row_T.numpy()
    token = batch.chains.token_BN.reshape(-1)[batch.chains.leaf_index_TL[:, 0]].numpy()
    asked = {(int(row_of[place]), int(tails[place])) for place in batch.query_Q.numpy()}
    assert {tail for _, tail in asked} == {4, 7}
    for row in range(len(index)):
        for tail, n_copies in ((4, 10), (7, 5)):
            shown = token[(row_of == row) & (tails == tail)] >= 0
            assert len(shown) == n_copies
            assert shown.any() == shown.all() == ((row, tail) not in asked)
    if masking == "one":
        assert len(batch.query_Q) == len(index)
        return
    n_windows = 200
    many = made.take(np.arange(n_windows) % len(made.windows), key=(1,))
    share = len(many.query_Q) / (15 * n_windows)
    assert share == pytest.approx(0.5, abs=0.1)  # of leaves, copies counted


def test_every_parameter_gets_a_gradient(data: VectorData, leaves: Leaves) -> None:
    model = small()
    batch = feed(data, leaves, settings={"mask_rate": 0.5}).batch(0)[0]
    losses = model.loss(batch)
    assert {name: int(count) for name, (_, count) in losses.items()} == batch.counts()
    (losses["mse"][0] + losses["leaf"][0]).backward()
    lacking = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # a head is one vector, so the attention of H-GAT over head tokens is always 1
    assert lacking == ["core.embed.hgat.score"]


def test_other_true_tails_are_no_negatives(data: VectorData, leaves: Leaves) -> None:
    known = {
        (head, relation): frozenset({0, 1, (head * 5 + relation * 3 + 1) % N_ENTITIES})
        for head in range(N_ENTITIES)
        for relation in range(len(RELATIONS))
    }
    made = feed(data, leaves, known=known, settings={"n_negatives": N_ENTITIES}, masking="one")
    batch = made.take(np.arange(9), key=(0,))
    every = [
        t for rows in made.windows.context_rows(np.arange(9)) for t in made.chain(rows).triples
    ]
    for row, place in enumerate(batch.query_Q.tolist()):
        own = every[place].tail_entity
        assert int(batch.positive_Q[row]) == own  # all entities are candidates, in order
        assert set(torch.nonzero(batch.excluded_QE[row])[:, 0].tolist()) == {0, 1} - {own}


def test_batches_are_a_function_of_the_step(data: VectorData, leaves: Leaves) -> None:
    one, two = (feed(data, leaves).batch(5) for _ in range(2))
    for left, right in zip(one, two, strict=True):
        assert torch.equal(left.chains.token_BN, right.chains.token_BN)
        assert torch.equal(left.candidates_EC, right.candidates_EC)
    assert not torch.equal(one[0].targets_BC, feed(data, leaves).batch(6)[0].targets_BC)


def test_known_tails_of_rows(leaves: Leaves) -> None:
    rows = np.arange(7)
    stop = leaves.of_row(6).stop
    found = known_tails(leaves, rows)
    wanted: dict[tuple[int, int], set[int]] = {}
    for leaf in range(stop):
        key = (int(leaves.head[leaf]), int(leaves.relation[leaf]))
        wanted.setdefault(key, set()).add(int(leaves.tail[leaf]))
    assert found == {key: frozenset(tails) for key, tails in wanted.items()}
    assert set(found) < set(known_tails(leaves))


def test_a_saved_model_predicts_the_same(tmp_path: Path, data: VectorData, leaves: Leaves) -> None:
    model = small()
    model.save(tmp_path)
    loaded = LeafForecaster.load(tmp_path)
    batch = feed(data, leaves, masking="one").take(np.arange(9), key=(0,))
    assert torch.equal(queried(batch, loaded), queried(batch, model))
    contexts = torch.from_numpy(data.windows("train").contexts(np.arange(3)))
    with torch.no_grad():
        assert torch.equal(loaded(contexts), model(contexts))


def test_links_and_network_must_fit(tmp_path: Path, data: VectorData, leaves: Leaves) -> None:
    from graphmert.domains.vectors.training import train_vectors

    network = SMALL | {"kind": "lvm-leaves", "n_relations": 3}
    config = toy_vectors.small_training("lvm-leaves", network=network)
    with pytest.raises(ConfigError, match="needs links"):
        train_vectors(data, config, out=tmp_path / "a")
    with pytest.raises(ConfigError, match=r"number of relations.*got 3, expected 2"):
        train_vectors(data, config, out=tmp_path / "a", leaves=leaves)
