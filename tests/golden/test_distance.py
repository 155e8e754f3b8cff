"""Closed-form distances against breadth-first search over explicit edges."""

from __future__ import annotations

import numpy as np
import pytest

from golden import reference_distance as reference
from golden.forms import CLS, NAMES, NO_NAMES, random_chain, random_chains
from graphmert.attention import node_distance
from graphmert.batch import collate
from graphmert.chain import LeafTriple, LeafyChain, distance_matrix

CHAINS = {
    "one-root": LeafyChain((CLS,)),
    "no-triples": LeafyChain((5, 6, 7, 8)),
    "one-triple": LeafyChain((5, 6, 7), (LeafTriple(0, 1, 3, (8, 9, 10)),)),
    "triples-on-one-root": LeafyChain(
        (5, 6, 7, 8),
        (
            LeafTriple(0, 2, 3, (8, 9, 10, 11)),
            LeafTriple(1, 2, 4, (9,)),
            LeafTriple(2, 2, 3, (5, 6)),
        ),
    ),
    "leaves-at-both-ends": LeafyChain(
        tuple(range(5, 14)), (LeafTriple(3, 8, 9, (5, 6)), LeafTriple(3, 0, 2, (7,) * 5))
    ),
    "random": random_chain(np.random.default_rng(0), n_roots=11, n_triples=6),
}


def expected(chain: LeafyChain, rule: str, lengths: list[int] | None = None) -> np.ndarray:
    sizes = lengths or [len(triple.tail) for triple in chain.triples]
    heads = [triple.head_start for triple in chain.triples]
    return reference.distance_by_search(
        len(chain.roots), list(zip(heads, sizes, strict=True)), rule=rule
    )


@pytest.mark.parametrize("rule", ["shortest", "reference"])
@pytest.mark.parametrize("name", CHAINS)
def test_distance_matrix_equals_search(name: str, rule: str) -> None:
    found = distance_matrix(CHAINS[name], rule=rule)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, expected(CHAINS[name], rule))


@pytest.mark.parametrize("rule", ["shortest", "reference"])
@pytest.mark.parametrize("seed", range(3))
def test_batched_distance_equals_search(seed: int, rule: str) -> None:
    chains = random_chains(seed, n_chains=4)
    batch = collate(chains, relation_names=NO_NAMES)
    found = node_distance(batch.kind_BN, batch.root_BN, batch.triple_BN, batch.slot_BN, rule=rule)  # type: ignore[arg-type]
    for row, chain in enumerate(chains):
        n = chain.n_nodes
        assert int(batch.padding_mask_BN[row].sum()) == n
        np.testing.assert_array_equal(found[row, :n, :n].numpy(), expected(chain, rule))


def test_relation_name_tokens_belong_to_the_leaf_group() -> None:
    chains = random_chains(5)
    batch = collate(chains, relation_names=NAMES)
    found = node_distance(
        batch.kind_BN, batch.root_BN, batch.triple_BN, batch.slot_BN, rule="shortest"
    )
    for row, chain in enumerate(chains):
        sizes = [len(NAMES.of(t.relation)) + len(t.tail) for t in chain.triples]
        wanted = expected(chain, "shortest", sizes)
        n = len(wanted)
        np.testing.assert_array_equal(found[row, :n, :n].numpy(), wanted)
