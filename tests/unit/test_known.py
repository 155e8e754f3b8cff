"""Known triples read from both ends, what they say of candidates, and the logits made of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphmert.batch import KnownBatch
from graphmert.errors import DataError
from graphmert.known import (
    KnownGraph,
    choose_shown,
    features,
    mirrored,
    n_features,
    turned,
)
from graphmert.objectives import KnownTerms

N_ENTITIES, N_RELATIONS = 6, 2
rows = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 1), st.integers(0, 5)), min_size=1, max_size=20
)


def build(triples: list[tuple[int, int, int]]) -> KnownGraph:
    return KnownGraph.build(
        np.array(triples).reshape(-1, 3), n_entities=N_ENTITIES, n_relations=N_RELATIONS
    )


@given(rows)
def test_every_triple_stands_once_from_each_end(triples: list[tuple[int, int, int]]) -> None:
    graph = build(triples)
    found = list(
        zip(graph.head_T.tolist(), graph.relation_T.tolist(), graph.tail_T.tolist(), strict=True)
    )
    expected = {(h, r, t) for h, r, t in triples} | {(t, r + N_RELATIONS, h) for h, r, t in triples}
    assert found == sorted(expected)
    for place, (head, relation, tail) in enumerate(found):
        partner = int(graph.partner_T[place])
        other = (relation + N_RELATIONS) % (2 * N_RELATIONS)
        assert found[partner] == (tail, other, head)
        assert int(graph.partner_T[partner]) == place
    counts = np.zeros((N_ENTITIES, 2 * N_RELATIONS), dtype=int)
    for head, relation, _ in found:
        counts[head, relation] += 1
    assert (graph.counts == counts).all()
    for entity in range(N_ENTITIES):
        assert {found[place] for place in graph.of(entity)} == {
            one for one in found if one[0] == entity
        }
        assert graph.tails(entity, 0).tolist() == sorted(
            tail for head, relation, tail in found if (head, relation) == (entity, 0)
        )


@given(rows, rows)
def test_triples_are_found_or_not(
    triples: list[tuple[int, int, int]], asked: list[tuple[int, int, int]]
) -> None:
    graph = build(triples)
    places = graph.find(np.array(asked))
    for (head, relation, tail), place in zip(asked, places.tolist(), strict=True):
        if (head, relation, tail) in triples:
            assert (graph.head_T[place], graph.relation_T[place], graph.tail_T[place]) == (
                head, relation, tail,
            )  # fmt: skip
        else:
            assert place == -1


def test_turning_twice_changes_nothing_and_mirrors_use_the_inverse() -> None:
    triples = np.array([[0, 1, 2], [3, 0, 4]])
    assert turned(triples, N_RELATIONS).tolist() == [[2, 3, 0], [4, 2, 3]]
    assert (turned(turned(triples, N_RELATIONS), N_RELATIONS) == triples).all()
    assert mirrored(triples, np.array([1, 1])).tolist() == [[2, 1, 0], [4, 1, 3]]


def test_an_empty_graph_and_a_bad_index() -> None:
    graph = build([])
    assert len(graph) == 0
    assert graph.find(np.array([[0, 0, 1]])).tolist() == [-1]
    assert graph.counts.sum() == 0
    with pytest.raises(DataError, match="not there"):
        build([(0, 2, 1)])


def test_what_is_told_of_an_entity() -> None:
    counts = np.array([[0, 3], [1, 0]])
    told = features(counts, np.array([True, False]))
    assert told.shape == (2, n_features(2))
    assert told[0] == pytest.approx([1, 0, 1, 0, np.log(4) / 4])
    assert (told[1] == 0).all()


def test_shown_triples_take_relations_in_turn() -> None:
    graph = build([(0, 0, t) for t in range(1, 6)] + [(0, 1, 5), (4, 1, 0)])
    for seed in range(8):
        rng = np.random.default_rng(seed)
        shown = choose_shown(graph, graph.of(0), 3, rng)
        assert sorted(graph.relation_T[shown].tolist()) == [0, 1, 3]
        assert (graph.head_T[shown] == 0).all()
    few = choose_shown(graph, graph.of(4), 3, rng)
    assert few.tolist() == graph.of(4).tolist()
    assert len(choose_shown(graph, graph.of(0), 0, rng)) == 0
    firsts = {
        int(graph.relation_T[choose_shown(graph, graph.of(0), 1, np.random.default_rng(k))][0])
        for k in range(20)
    }
    assert firsts == {0, 1, 3}


def test_terms_of_a_known_graph_by_loops() -> None:
    generator = np.random.default_rng(0)
    n_directed, n_queries, n_candidates = 4, 3, 5
    terms = KnownTerms(n_directed)
    torch.nn.init.normal_(terms.entity)
    torch.nn.init.normal_(terms.link)
    feature = generator.normal(size=(n_candidates, n_features(n_directed))).astype(np.float32)
    relation = [2, 0, 3]
    links = [(0, 1, 3), (0, 1, 2), (2, 4, 0)]
    query, column, by = (torch.tensor(one) for one in zip(*links, strict=True))
    known = KnownBatch(torch.from_numpy(feature), query, column, by, torch.zeros(n_candidates))
    bias = terms(torch.tensor(relation), known).detach().numpy()
    entity, link = (one.detach().numpy().astype(np.float64) for one in (terms.entity, terms.link))
    for q in range(n_queries):
        for c in range(n_candidates):
            expected = sum(entity[relation[q], f] * feature[c, f] for f in range(feature.shape[1]))
            expected += sum(link[relation[q], s] for k, d, s in links if (k, d) == (q, c))
            assert bias[q, c] == pytest.approx(10 * expected, abs=1e-4)
