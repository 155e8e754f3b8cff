"""Queries: each answered once, none changed by the others, scores as the formulas say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from golden.forms import MASK, NAMES, PAD, SEP, VOCAB_SIZE, make_model, names_of, random_chains
from graphmert import extract
from graphmert.batch import ChainBatch, collate
from graphmert.chain import LeafTriple, LeafyChain
from graphmert.errors import ConfigError
from graphmert.extract import (
    Answers,
    Asker,
    Query,
    TokenCandidates,
    encode_entities,
    form_tails,
    predict_tokens,
    score_queries,
    score_relations,
)
from graphmert.feed import NameTable
from graphmert.model import GraphMERT

CLOSE = {"rtol": 0.0, "atol": 1e-5}
CHAINS = random_chains(3, n_chains=4)
ENTITIES = ((7,), (9, 11), (8, 30, 12), (6, 5), (40,), (5, 6, 7, 8), tuple(range(5, 14)))
MAX_TAIL = 4
VARIANTS: dict[str, tuple[str, dict[str, Any], int]] = {
    "default": ("default", {}, 1),
    "three slots": ("default", {"hgat": "full"}, 3),
    "no slots named": ("default", {"relation_names": False}, 0),
    "no decay": ("no-decay", {}, 1),
    "rotary": ("rotary", {}, 2),
}


def make(variant: str = "default") -> tuple[GraphMERT, Asker]:
    form, changes, slots = VARIANTS[variant]
    model = make_model(form, **changes).float()
    return model, Asker(mask_id=MASK, pad_id=PAD, relation_names=names_of(model), query_slots=slots)


def make_open() -> tuple[GraphMERT, Asker]:
    return make_model("default-open").float(), Asker(
        mask_id=MASK, pad_id=PAD, relation_names=NAMES, query_slots=1
    )


def make_queries() -> list[Query]:
    """Several heads and relations on every chain, out of order, one asked twice."""
    queries = [
        Query(chain, start, start + length, relation, 10 * chain + start)
        for chain in (2, 0, 3, 1)
        for start, length in ((1, 1), (1, 3), (3, 2))
        for relation in (3, 0, 2)
    ]
    return [*queries, queries[4]]


def table(model: GraphMERT) -> torch.Tensor:
    names = NameTable(tuple((2, *tokens, SEP) for tokens in ENTITIES))
    return encode_entities(model, names, pad_id=PAD)


def ask(model: GraphMERT, asker: Asker, queries: list[Query], **options: Any) -> list[Answers]:
    return list(
        score_queries(
            model,
            CHAINS,
            queries,
            asker=asker,
            entity_vectors=table(model),
            tokens=TokenCandidates.build(ENTITIES, max_tokens=MAX_TAIL),
            **options,
        )
    )


def join(blocks: list[Answers]) -> dict[str, np.ndarray]:
    """Scores in the order of the queries."""
    order = np.argsort(np.concatenate([block.index_Q for block in blocks]), kind="stable")
    columns = ("entity_QE", "token_QE", "relation_Q")
    return {name: np.concatenate([getattr(b, name) for b in blocks])[order] for name in columns}


def spread(scores: dict[str, np.ndarray]) -> float:
    """How much the scores differ from query to query: equal answers would prove nothing."""
    return min(float(values.std(axis=0).min()) for values in scores.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_forward_for_all_equals_one_for_each(variant: str) -> None:
    model, asker = make(variant)
    queries = make_queries()
    together = join(ask(model, asker, queries))
    alone = [join(ask(model, asker, [query])) for query in queries]
    apart = join(ask(model, asker, queries, together=False))
    for name, scores in together.items():
        each = np.concatenate([one[name] for one in alone])
        np.testing.assert_allclose(scores, each, **CLOSE)
        np.testing.assert_allclose(scores, apart[name], **CLOSE)
    kept = {
        name: scores[:, :6] if scores.ndim == 2 else scores for name, scores in together.items()
    }
    assert spread(kept) > 0.005


def test_open_visibility_asks_one_query_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asker = make_open()
    seen: list[LeafyChain] = []

    def spy(chains: list[LeafyChain], **options: Any) -> Any:
        seen.extend(chains)
        return collate(chains, **options)

    queries = make_queries()
    monkeypatch.setattr(extract, "collate", spy)
    answers = join(ask(model, asker, queries))
    rows = [row for row in seen if row.triples and row.triples[-1].tail[0] == MASK]
    for row in rows:
        own = next(one for one in CHAINS if one.roots == row.roots)
        assert row.triples[:-1] == own.triples
    n_heads = len({(q.chain, q.head_start, q.head_end) for q in queries})
    assert len(rows) == len(seen) == len(queries) * (1 + MAX_TAIL) + n_heads
    monkeypatch.undo()
    alone = [join(ask(model, asker, [query])) for query in queries]
    for name, scores in answers.items():
        np.testing.assert_allclose(scores, np.concatenate([one[name] for one in alone]), **CLOSE)


@pytest.mark.parametrize("max_nodes", [1, 200, 16_384])
def test_every_query_is_answered_once(max_nodes: int) -> None:
    model, asker = make()
    small = Asker(MASK, PAD, asker.relation_names, 1, max_nodes_per_forward=max_nodes)
    queries = make_queries()
    blocks = ask(model, small, queries)
    assert (len(blocks) > 1) == (max_nodes < 16_384)
    indices = np.concatenate([block.index_Q for block in blocks])
    assert sorted(indices.tolist()) == list(range(len(queries)))
    for block in blocks:
        assert block.index_Q.tolist() == sorted(block.index_Q.tolist())
    whole = join(ask(model, asker, queries))
    for name, scores in join(blocks).items():
        np.testing.assert_allclose(scores, whole[name], **CLOSE)


def test_no_query_no_answer() -> None:
    model, asker = make()
    assert ask(model, asker, []) == []


def lone_group(
    model: GraphMERT, asker: Asker, query: Query, relation: int, n_slots: int
) -> tuple[torch.Tensor, ChainBatch]:
    """States of the query's chain with nothing but one masked group."""
    group = LeafTriple(relation, query.head_start, query.head_end, (MASK,) * n_slots)
    chain = LeafyChain(CHAINS[query.chain].roots, (group,))
    batch = collate([chain], relation_names=asker.relation_names, pad_id=PAD)
    return model(batch), batch


@pytest.mark.parametrize("variant", ["default", "no slots named"])
@torch.no_grad()
def test_scores_are_the_formulas(variant: str) -> None:
    model, asker = make(variant)
    queries = make_queries()[:5]
    scores = join(ask(model, asker, queries))
    vectors_ED = table(model)
    slots = max(1, asker.query_slots)
    for row, query in enumerate(queries):
        x_BND, batch = lone_group(model, asker, query, query.relation, slots)
        cosine_E = vectors_ED @ model.entity_queries(x_BND, batch)[0]
        np.testing.assert_allclose(scores["entity_QE"][row], cosine_E.numpy(), **CLOSE)
        x_BND, batch = lone_group(model, asker, query, model.config.n_relations, slots)
        log_p = model.relation_logits(x_BND, batch)[0].log_softmax(-1)
        assert scores["relation_Q"][row] == pytest.approx(float(log_p[query.relation]), abs=1e-5)
        for entity, name in enumerate(ENTITIES):
            if len(name) > MAX_TAIL:
                assert scores["token_QE"][row, entity] < -1000
                continue
            x_BND, batch = lone_group(model, asker, query, query.relation, len(name))
            positions = batch.leaf_index_TL[batch.tail_mask_TL]
            log_p = model.token_logits(x_BND[0], positions).log_softmax(-1)
            total = sum(float(log_p[k, token]) for k, token in enumerate(name))
            wanted = total / len(name) ** 0.8
            assert scores["token_QE"][row, entity] == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("variant", [*VARIANTS, "open"])
@pytest.mark.parametrize("max_nodes", [1, 16_384])
def test_relations_alone_score_as_beside_tails(variant: str, max_nodes: int) -> None:
    model, asker = make_open() if variant == "open" else make(variant)
    asker = replace(asker, max_nodes_per_forward=max_nodes, max_leaves_per_row=6)
    queries = make_queries()
    every = [
        replace(query, relation=relation)
        for query in queries
        for relation in range(model.config.n_relations)
    ]
    wanted = join(ask(model, asker, every))["relation_Q"].reshape(len(queries), -1)
    found = score_relations(model, CHAINS, queries, asker=asker)
    np.testing.assert_allclose(found, wanted, **CLOSE)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1.0, atol=1e-5)
    assert found.std(axis=0).min() > 0.005
    assert score_relations(model, CHAINS, [], asker=asker).shape == (0, found.shape[1])


def test_a_later_relation_changes_nothing_among_those_of_training() -> None:
    model, asker = make()
    plain = score_relations(model, CHAINS, make_queries(), asker=asker)
    last = model.config.n_relations - 1
    later = frozenset({0, last})
    found = score_relations(model, CHAINS, make_queries(), asker=replace(asker, added=later))
    rest = np.exp(plain[:, 1:last]).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[:, 1:last], plain[:, 1:last] - np.log(rest), **CLOSE)
    for one in later:
        own = np.exp(plain[:, [one]])
        np.testing.assert_allclose(found[:, [one]], np.log(own / (own + rest)), **CLOSE)
    every = [
        replace(query, relation=relation) for query in make_queries() for relation in (0, 1, last)
    ]
    block = join(ask(model, replace(asker, added=later), every))["relation_Q"]
    np.testing.assert_allclose(block.reshape(-1, 3), found[:, [0, 1, last]], **CLOSE)


def test_relations_need_their_output() -> None:
    model, asker = make()
    model.relation_head = None
    with pytest.raises(ConfigError, match="MNM-relation"):
        score_relations(model, CHAINS, make_queries(), asker=asker)


@pytest.mark.parametrize("max_scores", [1, 40])
def test_few_scores_at_a_time_are_the_same(max_scores: int) -> None:
    model, asker = make()
    queries = make_queries()
    small = ask(model, replace(asker, max_scores_per_forward=max_scores), queries)
    assert len(small) > 1
    whole = join(ask(model, asker, queries))
    for name, scores in join(small).items():
        np.testing.assert_allclose(scores, whole[name], **CLOSE)


def test_what_is_not_asked_is_not_scored() -> None:
    model, asker = make()
    (block,) = score_queries(
        model, CHAINS, make_queries(), asker=asker, entity_vectors=table(model), relations=False
    )
    assert block.token_QE is None
    assert block.relation_Q is None


def test_names_are_encoded_alike_in_any_batch() -> None:
    model, _ = make()
    rng = np.random.default_rng(0)
    names = NameTable(
        tuple((2, *rng.integers(5, 41, size=rng.integers(1, 9)).tolist(), 3) for _ in range(50))
    )
    together = encode_entities(model, names, pad_id=PAD)
    small = encode_entities(model, names, pad_id=PAD, max_nodes_per_forward=20)
    torch.testing.assert_close(together, small, **CLOSE)
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(50))
    with torch.no_grad():
        one = model.encode_names(names.batch([17], pad_id=PAD))[0]
    torch.testing.assert_close(together[17], one, **CLOSE)


# --- tails from tokens ----------------------------------------------------------------------

BANNED = frozenset({0, 1, 2, 3, 4, 17, 23})


@pytest.mark.parametrize("is_open", [False, True], ids=["isolated", "open"])
@pytest.mark.parametrize("n_best", [1, 4])
def test_formed_tails_are_sorted_distinct_and_allowed(is_open: bool, n_best: int) -> None:
    model, asker = make_open() if is_open else make()
    for query in make_queries()[::5]:
        chain = CHAINS[query.chain]
        tails = form_tails(
            model, chain, query, asker=asker, max_tokens=3, n_best=n_best, banned=BANNED
        )
        assert len(tails) == n_best
        assert len({tail.tokens for tail in tails}) == n_best
        scores = [tail.score for tail in tails]
        assert scores == sorted(scores, reverse=True)
        assert all(np.isfinite(scores))
        for tail in tails:
            assert 1 <= len(tail.tokens) <= 3
            assert not BANNED & set(tail.tokens)


@pytest.mark.parametrize("is_open", [False, True], ids=["isolated", "open"])
def test_tails_of_one_token_are_the_likeliest_tokens(is_open: bool) -> None:
    model, asker = make_open() if is_open else make()
    for query in (Query(0, 1, 3, 2), Query(1, 2, 3, 0)):
        chain = CHAINS[query.chain]
        group = asker.group(query, n_slots=1)
        own = chain.triples if is_open else ()
        batch = collate([LeafyChain(chain.roots, (*own, group))], relation_names=NAMES, pad_id=PAD)
        with torch.no_grad():
            place = batch.leaf_index_TL[-1][batch.tail_mask_TL[-1]]
            log_p = model.token_logits(model(batch)[0], place)[0]
        log_p[[*BANNED]] = -torch.inf
        log_p = log_p.log_softmax(-1)
        best = log_p.argsort(descending=True)[:5].tolist()
        tails = form_tails(model, chain, query, asker=asker, max_tokens=1, banned=BANNED)
        assert [tail.tokens for tail in tails] == [(token,) for token in best]
        assert [t.score for t in tails] == pytest.approx([float(log_p[b]) for b in best], abs=1e-5)


def test_the_mask_token_is_never_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where it is not banned and the model likes it best, the search ends."""
    model, asker = make()
    logits = model.token_logits

    def liking_masks(flat_ND: torch.Tensor, position_P: torch.Tensor) -> torch.Tensor:
        found = logits(flat_ND, position_P)
        found[:, MASK] = 100.0
        return found

    monkeypatch.setattr(model, "token_logits", liking_masks)
    tails = form_tails(model, CHAINS[0], Query(0, 1, 2, 0), asker=asker, max_tokens=2)
    assert not any(MASK in tail.tokens for tail in tails)


def test_more_tails_than_words() -> None:
    model, asker = make()
    banned = frozenset(range(VOCAB_SIZE)) - {9, 10}
    tails = form_tails(
        model, CHAINS[0], Query(0, 1, 2, 0), asker=asker, max_tokens=2, n_best=30, banned=banned
    )
    assert {tail.tokens for tail in tails} == {(9,), (10,), (9, 9), (9, 10), (10, 9), (10, 10)}


@pytest.mark.parametrize("is_open", [False, True], ids=["isolated", "open"])
def test_predicted_tokens_are_the_best_over_lengths_and_slots(is_open: bool) -> None:
    model, asker = make_open() if is_open else make()
    query = Query(1, 2, 3, 0)
    chain = CHAINS[query.chain]
    expected = torch.full((VOCAB_SIZE,), -torch.inf)
    for n in (1, 2, 3):
        group = asker.group(query, n_slots=n)
        own = chain.triples if is_open else ()
        batch = collate([LeafyChain(chain.roots, (*own, group))], relation_names=NAMES, pad_id=PAD)
        with torch.no_grad():
            places = batch.leaf_index_TL[-1][batch.tail_mask_TL[-1]]
            logits = model.token_logits(model(batch)[0], places)
        logits[:, [*BANNED, MASK]] = -torch.inf
        expected = torch.maximum(expected, logits.log_softmax(-1).max(dim=0).values)
    found = predict_tokens(model, chain, query, asker=asker, max_tokens=3, top_k=7, banned=BANNED)
    assert list(found) == expected.argsort(descending=True)[:7].tolist()
    assert list(found.values()) == pytest.approx([float(expected[t]) for t in found], abs=1e-5)
    everything = predict_tokens(
        model, chain, query, asker=asker, max_tokens=3, top_k=10 * VOCAB_SIZE, banned=BANNED
    )
    assert set(everything) == set(range(VOCAB_SIZE)) - BANNED - {MASK}
