"""Entity types on leaves: added where known, hidden with the tail they belong to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from golden.forms import MASK, NAMES, PAD, make_model, make_vocabulary, random_chains
from graphmert.batch import ChainBatch, collate
from graphmert.chain import LeafTriple, LeafyChain
from graphmert.extract import Asker, Query, encode_entities, score_queries
from graphmert.feed import NameTable
from graphmert.masking import MaskingConfig, mask_chain
from graphmert.model import GraphMERT

CHAINS = random_chains(5, n_chains=3)
N_ENTITY_TYPES = 3


def typed(chains: list[LeafyChain], head: int, tail: int) -> list[LeafyChain]:
    return [
        replace(c, triples=tuple(replace(t, head_type=head, tail_type=tail) for t in c.triples))
        for c in chains
    ]


def make() -> GraphMERT:
    changes = {"n_entity_types": N_ENTITY_TYPES, "entity_type_embedding": True}
    return make_model("default", **changes).float()


def batch_of(chains: list[LeafyChain]) -> ChainBatch:
    return collate(chains, relation_names=NAMES, pad_id=PAD)


def test_types_enter_as_two_rows_added_to_each_leaf() -> None:
    embedding = make().embed
    embedding.norm = None
    embedding.eval()
    batch = batch_of(typed(CHAINS, 2, 0))
    unknown = batch_of(CHAINS)
    assert embedding.head_type is not None
    assert embedding.tail_type is not None
    added = embedding.head_type.weight[3] + embedding.tail_type.weight[1]
    added = added - embedding.head_type.weight[0] - embedding.tail_type.weight[0]
    difference = embedding(batch) - embedding(unknown)
    leaves = batch.kind_BN != 0
    torch.testing.assert_close(
        difference[leaves], added.expand(int(leaves.sum()), -1), atol=1e-6, rtol=0
    )
    assert (difference[~leaves] == 0).all()


def test_a_network_without_them_does_not_look_at_types() -> None:
    model = make_model("default").float()
    with torch.no_grad():
        assert torch.equal(model(batch_of(CHAINS)), model(batch_of(typed(CHAINS, 2, 0))))


def test_both_tables_get_a_gradient() -> None:
    model = make()
    batch = batch_of(typed(CHAINS, 1, 2))
    model.relation_logits(model(batch), batch)[:, 0].sum().backward()
    for table in (model.embed.head_type, model.embed.tail_type):
        assert table is not None
        assert table.weight.grad is not None
    assert model.embed.head_type.weight.grad[2].abs().sum() > 0  # type: ignore[union-attr]
    assert model.embed.tail_type.weight.grad[3].abs().sum() > 0  # type: ignore[union-attr]


TRIPLE = LeafTriple(0, 1, 2, (20, 21), 4, 3, head_type=1, tail_type=2)
RATES = {
    "tail": {"tail_rate": 1.0, "relation_rate": 0.0, "both_rate": 0.0},
    "relation": {"tail_rate": 0.0, "relation_rate": 1.0, "both_rate": 0.0},
    "both": {"tail_rate": 0.0, "relation_rate": 0.0, "both_rate": 1.0},
}


@pytest.mark.parametrize(("mode", "shown"), [("tail", -1), ("relation", 2), ("both", -1)])
def test_the_type_of_a_hidden_tail_is_hidden(mode: str, shown: int) -> None:
    config = MaskingConfig.model_validate({"mlm_rate": 0.0, "entity_rate": 1.0, **RATES[mode]})
    chain = LeafyChain((2, 6, 7, 8, 3), (TRIPLE,))
    rng = np.random.default_rng(0)
    masked = mask_chain(chain, config, make_vocabulary(), rng, isolated=True)
    first, *queries = masked.chain.triples
    assert (first.head_type, first.tail_type) == (1, shown)
    assert all((q.head_type, q.tail_type) == (1, -1) for q in queries)
    assert mode == "both" or queries


def test_a_query_tells_the_type_of_its_head() -> None:
    model = make()
    names = NameTable(((2, 7, 3), (2, 9, 11, 3)))
    asker = Asker(mask_id=MASK, pad_id=PAD, relation_names=NAMES, query_slots=1)
    vectors = encode_entities(model, names, pad_id=PAD)

    def scores(head_type: int) -> np.ndarray:
        query = Query(0, 1, 2, 1, head_type=head_type)
        bare = [replace(CHAINS[0], triples=())]
        answers = score_queries(model, bare, [query], asker=asker, entity_vectors=vectors)
        return next(iter(answers)).entity_QE

    assert np.array_equal(scores(-1), scores(-1))
    assert not np.allclose(scores(-1), scores(1))
    assert not np.allclose(scores(0), scores(1))
