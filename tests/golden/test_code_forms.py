"""Relation bias, hop gates and graph positions against float64 loops, piece by piece.

Whole forwards of forms `code`, `code-isolated` and `code-weights` are in test_encoder.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from golden import reference_distance
from golden import reference_graph as reference
from golden.encode_by_reference import columns_of
from golden.forms import N_RELATIONS, make_model, names_of, random_chains
from graphmert.attention import (
    hop_bias,
    hop_rings,
    node_distance,
    relation_bias,
    relation_pairs,
    visible,
)
from graphmert.batch import ChainBatch, collate
from graphmert.chain import LeafyChain
from graphmert.embed import graph_depths, graph_roles

MODEL = make_model("code")
NAMES = names_of(MODEL)


def batch_of(chains: list[LeafyChain]) -> ChainBatch:
    return collate(chains, relation_names=NAMES)


def triples_of(chain: LeafyChain) -> list[tuple[int, int, int]]:
    return [(t.relation, t.head_start, t.head_end) for t in chain.triples]


def distances(chain: LeafyChain) -> np.ndarray:
    sizes = [len(NAMES.of(t.relation)) + len(t.tail) for t in chain.triples]
    heads = [t.head_start for t in chain.triples]
    return reference_distance.distance_by_search(
        len(chain.roots), list(zip(heads, sizes, strict=True)), rule="shortest"
    )


@pytest.mark.parametrize("visibility", ["open", "isolated"])
def test_relation_bias_equals_the_loops(visibility: str) -> None:
    chains = random_chains(11)
    # a hidden relation among them
    first = chains[0].triples[0]
    hidden = (*chains[0].triples[1:], type(first)(N_RELATIONS, 1, 3, (7, 8)))
    chains[0] = LeafyChain(chains[0].roots, hidden)
    batch = batch_of(chains)
    table = torch.randn(N_RELATIONS, 2, dtype=torch.float64, generator=torch.Generator())
    pairs = relation_pairs(
        batch.kind_BN, batch.root_BN, batch.triple_BN, batch.relation_T, batch.head_start_T,
        batch.head_end_T, n_relations=N_RELATIONS, visibility=visibility,  # type: ignore[arg-type]
        dtype=torch.float64,
    )  # fmt: skip
    found = relation_bias(pairs, table).numpy()
    seen = visible(batch.kind_BN, batch.triple_BN, batch.padding_mask_BN, visibility=visibility)  # type: ignore[arg-type]
    for row, chain in enumerate(chains):
        wanted = reference.relation_bias(columns_of(chain, NAMES), triples_of(chain), table.numpy())
        n = len(wanted)
        shown = seen[row, :n, :n].numpy()
        np.testing.assert_allclose(found[row, :n, :n][shown], wanted[shown], rtol=0, atol=1e-15)
        assert (wanted != 0).any() == bool(chain.triples)


def test_hop_bias_equals_the_loops() -> None:
    chains = random_chains(12)
    batch = batch_of(chains)
    sp = node_distance(
        batch.kind_BN, batch.root_BN, batch.triple_BN, batch.slot_BN, rule="shortest"
    )
    gates = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator())
    found = hop_bias(hop_rings(sp, 2, dtype=torch.float64), gates).numpy()
    for row, chain in enumerate(chains):
        wanted = reference.hop_bias(distances(chain), gates.numpy())
        n = wanted.shape[1]
        np.testing.assert_allclose(found[row, :, :n, :n], wanted, rtol=0, atol=1e-15)


@pytest.mark.parametrize("isolated", [False, True], ids=["open", "isolated"])
def test_depth_and_role_equal_the_loops(isolated: bool) -> None:
    chains = random_chains(13, n_chains=5)
    batch = batch_of(chains)
    depth = graph_depths(batch, isolated=isolated, max_depth=4).numpy()
    role = graph_roles(batch, isolated=isolated).numpy()
    for row, chain in enumerate(chains):
        columns, triples = columns_of(chain, NAMES), triples_of(chain)
        n = len(columns.root)
        wanted = reference.depths(
            columns, triples, distances(chain), isolated=isolated, max_depth=4
        )
        np.testing.assert_array_equal(depth[row, :n], wanted)
        np.testing.assert_array_equal(
            role[row, :n], reference.roles(columns, triples, isolated=isolated)
        )


def test_depth_and_role_really_vary() -> None:
    batch = batch_of(random_chains(14, n_chains=5))
    real = batch.padding_mask_BN
    assert len(graph_depths(batch, isolated=False, max_depth=4)[real].unique()) == 5
    assert len(graph_roles(batch, isolated=False)[real].unique()) == 4
    assert len(graph_roles(batch, isolated=True)[real].unique()) == 3


def test_gates_at_zero_and_bias_at_zero_change_nothing() -> None:
    """So a pretrained body starts as itself."""
    plain = make_model("code", relation_bias=False, n_hops=0)
    model = make_model("code")
    with torch.no_grad():
        assert model.encoder.hop_gate is not None
        model.encoder.hop_gate.zero_()
        for layer in model.encoder.layers:
            layer.relation_bias.zero_()  # type: ignore[union-attr]
    missing = model.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys
    batch = batch_of(random_chains(15))
    with torch.no_grad():
        torch.testing.assert_close(model(batch), plain(batch), rtol=1e-12, atol=1e-12)


def test_a_gate_moves_attention_to_its_ring() -> None:
    model = make_model("code")
    batch = batch_of(random_chains(16))
    with torch.no_grad():
        before = model(batch)
        assert model.encoder.hop_gate is not None
        model.encoder.hop_gate[:, :, 1] += 2.0
        assert (model(batch) - before).abs().max() > 1e-3
