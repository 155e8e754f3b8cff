"""Updates of walks: what is asked is hidden, candidates see no query, what is true counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from graphmert.batch import ChainBatch, collate
from graphmert.chain import LeafTriple, LeafyChain
from graphmert.errors import ConfigError
from graphmert.known import KnownGraph
from graphmert.model import GraphMERT, GraphMERTConfig
from graphmert.objectives import root_mean
from graphmert.walks import EntityTexts, WalkFeed, WalkSettings

N_ENTITIES, N_RELATIONS, N_DIRECTED = 40, 2, 4
MASK, PAD = 4, 0


def triples() -> np.ndarray:
    """A tree by relation 0, and relation 1 both ways between neighbours."""
    tree = [(child, 0, (child - 1) // 3) for child in range(1, N_ENTITIES)]
    pairs = [(a, 1, a + 1) for a in range(0, 30, 2)] + [(a + 1, 1, a) for a in range(0, 30, 2)]
    return np.array(tree + pairs)


def texts() -> EntityTexts:
    return EntityTexts(
        roots=[(1, 10 + one, 60, 2) for one in range(N_ENTITIES)],
        head_end=[2] * N_ENTITIES,
        leaves=[(10 + one,) for one in range(N_ENTITIES)],
        mask_id=MASK,
        pad_id=PAD,
    )


def graph() -> KnownGraph:
    return KnownGraph.build(triples(), n_entities=N_ENTITIES, n_relations=N_RELATIONS)


def feed(seeds: np.ndarray | None = None, **changes: float) -> WalkFeed:
    settings = WalkSettings(**({"walk_length": 3, "n_random": 4} | changes))
    return WalkFeed(
        texts(), graph(), triples() if seeds is None else seeds, settings=settings,
        batch_size=20, seed=0,
    )  # fmt: skip


def shown_and_asked(
    batch: ChainBatch,
) -> tuple[set[tuple[int, int, int]], set[tuple[int, int, int]]]:
    """Directed triples whose leaves are visible, and those asked for, by entity."""
    assert batch.labels is not None
    assert batch.labels.name_entity_C is not None
    entity = batch.labels.name_entity_C.tolist()
    flat_token = batch.token_BN.flatten()
    shown = set()
    for place in range(batch.n_triples):
        token = int(flat_token[batch.leaf_index_TL[place, 0]])
        if token != MASK:
            head = entity[int(batch.row_T[place])]
            shown.add((head, int(batch.relation_T[place]), token - 10))
    asked = {
        (
            entity[int(batch.row_T[place])],
            int(batch.relation_T[place]),
            entity[int(column)],
        )
        for place, column in zip(
            batch.labels.entity_triple_Q, batch.labels.entity_positive_Q, strict=True
        )
    }
    return shown, asked


def known() -> set[tuple[int, int, int]]:
    one = graph()
    return set(zip(one.head_T.tolist(), one.relation_T.tolist(), one.tail_T.tolist(), strict=True))


def test_what_is_asked_is_true_and_hidden_at_both_ends() -> None:
    one = feed()
    n_asked = 0
    for step in range(8):
        shown, asked = shown_and_asked(one.batch(step)[0])
        n_asked += len(asked)
        assert asked <= known()
        assert shown <= known()
        assert not shown & asked
        for head, relation, tail in asked:
            other = (tail, (relation + N_RELATIONS) % N_DIRECTED, head)
            assert other in asked
            assert other not in shown
    assert n_asked > 100


def test_a_pair_is_hidden_whole_or_its_other_triples_stay() -> None:
    """With pair_rate 1 nothing between two entities is seen once they are asked about."""
    for rate, remains in ((1.0, False), (0.0, True)):
        one = feed(pair_rate=rate, max_shown=20, ask_rate=0.0)
        seen = 0
        for step in range(12):
            shown, asked = shown_and_asked(one.batch(step)[0])
            pairs = {(head, tail) for head, _, tail in asked}
            seen += sum((head, tail) in pairs for head, _, tail in shown)
        assert (seen > 0) is remains


def test_every_true_tail_among_the_candidates_is_excluded_but_the_asked_one() -> None:
    batch = feed(ask_rate=0.3).batch(1)[0]
    labels = batch.labels
    assert labels is not None
    assert labels.name_entity_C is not None
    entity = labels.name_entity_C.tolist()
    facts = known()
    for query, place in enumerate(labels.entity_triple_Q.tolist()):
        head, relation = entity[int(batch.row_T[place])], int(batch.relation_T[place])
        for column, tail in enumerate(entity):
            is_other = (head, relation, tail) in facts
            is_other &= column != int(labels.entity_positive_Q[query])
            assert bool(labels.entity_excluded_QC[query, column]) is is_other


def test_what_is_told_leaves_out_what_is_asked() -> None:
    batch = feed().batch(2)[0]
    labels = batch.labels
    assert labels is not None
    assert labels.known is not None
    assert labels.name_entity_C is not None
    entity = labels.name_entity_C.tolist()
    _, asked = shown_and_asked(batch)
    counts = graph().counts
    for row, one in enumerate(entity):
        for relation in range(N_DIRECTED):
            hidden = sum(head == one and by == relation for head, by, _ in asked)
            left = int(counts[one, relation]) - hidden
            assert float(labels.known.feature_CF[row, 1 + relation]) == float(left > 0)
    links = zip(
        labels.known.link_query_L.tolist(),
        labels.known.link_column_L.tolist(),
        labels.known.link_relation_L.tolist(),
        strict=True,
    )
    for query, column, relation in links:
        head = entity[int(batch.row_T[labels.entity_triple_Q[query]])]
        assert (head, relation, entity[column]) in known() - asked


def test_blind_chains_show_and_tell_nothing() -> None:
    batch = feed(blind_share=1.0).batch(0)[0]
    assert batch.labels is not None
    assert batch.labels.known is not None
    assert batch.shown_BN is None
    assert not batch.labels.known.feature_CF.any()
    assert not len(batch.labels.known.link_query_L)
    assert len(batch.labels.entity_triple_Q)


def test_unlikely_candidates_stand_for_many() -> None:
    """Offset: minus the logarithm of the chance to be drawn, by degree; certain ones have none."""
    one = feed()
    batch = one.batch(0)[0]
    assert batch.labels is not None
    assert batch.labels.known is not None
    assert batch.labels.name_entity_C is not None
    degree = np.diff(graph().first_N)
    n_walked = one.n_walks * 4
    for row, entity in enumerate(batch.labels.name_entity_C.tolist()):
        chance = n_walked * degree[entity] / len(graph()) + (20 - n_walked) / N_ENTITIES
        offset = float(batch.labels.known.offset_C[row])
        assert offset == pytest.approx(max(0.0, -np.log(chance)), abs=1e-5)


def test_updates_are_repeatable_and_begin_with_every_seed() -> None:
    one, two = feed(), feed()
    for step in (0, 5):
        assert torch.equal(one.batch(step)[0].token_BN, two.batch(step)[0].token_BN)
    assert not torch.equal(one.batch(0)[0].token_BN, one.batch(1)[0].token_BN)
    single = feed(walk_length=1, ask_rate=0.0)
    found: set[tuple[int, int, int]] = set()
    for step in range(single.steps_per_epoch):
        batch = single.batch(step)[0]
        assert batch.n_samples <= 20
        found |= shown_and_asked(batch)[1]
    assert {tuple(row) for row in triples().tolist()} <= found


def test_held_out_seeds_are_asked_beside_a_whole_graph() -> None:
    held = np.array([[39, 1, 0], [38, 1, 1]])
    batch = feed(held, walk_length=1, ask_rate=0.0, max_shown=50).batch(0)[0]
    shown, asked = shown_and_asked(batch)
    assert asked == {(39, 1, 0), (0, 3, 39), (38, 1, 1), (1, 3, 38)}
    assert batch.labels is not None
    assert batch.labels.name_entity_C is not None
    rows = set(batch.labels.name_entity_C.tolist())
    assert shown == {one for one in known() if one[0] in rows}


def test_an_update_too_small_for_a_walk() -> None:
    with pytest.raises(ConfigError, match="no walk"):
        feed(walk_length=17)
    with pytest.raises(ConfigError, match="no walk"):
        feed(np.zeros((0, 3)))


# --- the network ----------------------------------------------------------------------------


def network(**changes: object) -> GraphMERT:
    torch.manual_seed(0)
    fields: dict[str, object] = {
        "vocab_size": 70, "hidden_size": 16, "n_layers": 2, "n_attn_heads": 2, "ffn_size": 16,
        "n_positions": 16, "n_relations": N_DIRECTED, "relation_names": False, "dropout": 0.0,
        "relation_dropout": 0.0, "decay": "none", "hgat": "none", "objectives": ("entity",),
        "known_terms": True,
    }  # fmt: skip
    return GraphMERT(GraphMERTConfig(**(fields | changes)))  # type: ignore[arg-type]


def test_queries_see_what_is_shown_and_nothing_sees_them() -> None:
    model = network().eval()
    other = LeafTriple(1, 1, 2, (30,), 20, 0, shown=True)
    query = LeafTriple(0, 1, 2, (MASK,), head_entity=0)
    plain = LeafyChain((1, 10, 60, 2))

    def states(*leaves: LeafTriple) -> tuple[torch.Tensor, torch.Tensor]:
        batch = collate([replace(plain, triples=leaves)])
        with torch.no_grad():
            found = model(batch)
        return root_mean(found, batch)[0], found[0]

    alone, _ = states()
    asked, one = states(query)
    assert torch.allclose(alone, asked, atol=1e-6)
    shown, _ = states(other)
    assert not torch.allclose(alone, shown, atol=1e-4)
    both, two = states(other, query)
    assert torch.allclose(shown, both, atol=1e-6)
    assert not torch.allclose(one[-1], two[-1], atol=1e-4)
    hidden, three = states(replace(other, shown=False), query)
    assert torch.allclose(alone, hidden, atol=1e-6)
    assert torch.allclose(one[-1], three[-1], atol=1e-6)


def test_a_few_updates_learn_the_triples_and_every_parameter_moves() -> None:
    model = network()
    one = feed(ask_rate=0.3, pair_rate=0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for step in range(25):
        total, count = model.loss(one.batch(step)[0])["entity"]
        losses.append(float(total.detach() / count))
        optimizer.zero_grad()
        (total / count).backward()
        missing = [n for n, p in model.named_parameters() if p.grad is None]
        assert missing == []
        optimizer.step()
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert model.known_terms is not None
    assert model.known_terms.entity.abs().max() > 0
    assert model.known_terms.link.abs().max() > 0


def test_without_terms_the_candidates_are_still_weighed() -> None:
    batch = feed().batch(0)[0]
    model = network(known_terms=False)
    assert batch.labels is not None
    assert batch.labels.known is not None
    flat = replace(batch.labels.known, offset_C=torch.zeros_like(batch.labels.known.offset_C))
    even = replace(batch, labels=replace(batch.labels, known=flat))
    one, two = (float(model.loss(each)["entity"][0].detach()) for each in (batch, even))
    assert one != two
