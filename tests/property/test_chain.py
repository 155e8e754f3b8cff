"""What must hold for every chain: distances, layouts, masking, padding, order, gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from golden import reference_distance
from golden.forms import (
    CLS,
    FIRST_WORD,
    FORMS,
    MASK,
    N_RELATIONS,
    PAD,
    SEP,
    VOCAB_SIZE,
    make_model,
    make_vocabulary,
    names_of,
    random_chains,
)
from graphmert.batch import ChainBatch, collate, collate_masked
from graphmert.chain import (
    DenseChain,
    LeafTriple,
    LeafyChain,
    distance_matrix,
    from_dense,
    nodes,
    to_dense,
)
from graphmert.errors import FormatError
from graphmert.masking import IGNORE, MaskedChain, MaskingConfig, draw_spans, mask_chain
from graphmert.model import GraphMERT

VOCABULARY = make_vocabulary()
WORDS = st.integers(FIRST_WORD, VOCAB_SIZE - 1)


@st.composite
def chains(
    draw: st.DrawFn, *, max_tail: int = 4, one_per_root: bool = False, copies: bool = False
) -> LeafyChain:
    """Chains with special tokens at the ends and inside, and any triples."""
    words = draw(st.lists(st.one_of(WORDS, WORDS, WORDS, st.just(SEP)), min_size=1, max_size=12))
    roots = (CLS, *words, SEP)
    starts = draw(
        st.lists(st.integers(0, len(roots) - 1), max_size=5, unique=one_per_root).map(sorted)
    )
    triples = []
    for start in starts:
        tail = draw(st.lists(WORDS, min_size=1, max_size=max_tail))
        triples.append(
            LeafTriple(
                relation=draw(st.integers(0, N_RELATIONS - 1)),
                head_start=start,
                head_end=draw(st.integers(start + 1, min(start + 3, len(roots)))),
                tail=tuple(tail),
                tail_entity=draw(st.integers(-1, 5)),
                head_entity=draw(st.integers(-1, 5)),
            )
        )
    if copies and triples:
        triples += [replace(t, head_start=0, head_end=1, head_entity=7) for t in triples[:1]] * 2
    return LeafyChain(roots, tuple(triples), "drawn")


# --- distance and layouts -------------------------------------------------------------------


@given(chain=chains(), rule=st.sampled_from(["shortest", "reference"]))
def test_distance_is_a_metric_of_the_graph(chain: LeafyChain, rule: str) -> None:
    found = distance_matrix(chain, rule=rule)  # type: ignore[arg-type]
    assert (found == found.T).all()
    assert (np.diag(found) == 0).all()
    assert (found + np.eye(len(found), dtype=int) > 0).all()
    graph = [(t.head_start, len(t.tail)) for t in chain.triples]
    wanted = reference_distance.distance_by_search(len(chain.roots), graph, rule=rule)
    np.testing.assert_array_equal(found, wanted)


@given(chain=chains())
def test_nodes_are_roots_then_tails(chain: LeafyChain) -> None:
    node = nodes(chain)
    assert len(node.token) == chain.n_nodes
    tails = [token for triple in chain.triples for token in triple.tail]
    assert node.token.tolist() == [*chain.roots, *tails]
    batch = collate([chain])
    assert batch.token_BN[0].tolist() == node.token.tolist()
    for column, name in (
        (node.root, "root_BN"),
        (node.triple, "triple_BN"),
        (node.slot, "slot_BN"),
    ):
        assert getattr(batch, name)[0].tolist() == column.tolist()


@given(chain=chains(one_per_root=True))
def test_paper_layout_round_trips(chain: LeafyChain) -> None:
    dense = to_dense(chain, "paper", pad_id=PAD, n_root_slots=16, n_leaf_slots=4)
    assert from_dense(dense) == chain
    assert dense.token.shape == (16 * 5,)
    for triple in chain.triples:
        start = 16 + 4 * triple.head_start
        assert tuple(dense.token[start : start + len(triple.tail)]) == triple.tail
    assert int((dense.token != PAD).sum()) == chain.n_nodes


@given(chain=chains(max_tail=1))
def test_codebert_layout_round_trips(chain: LeafyChain) -> None:
    dense = to_dense(chain, "codebert", pad_id=PAD, n_root_slots=16, n_leaf_slots=7)
    assert from_dense(dense) == chain
    live = dense.graph_structure >= 0
    assert int(live.sum()) == len(chain.triples)
    np.testing.assert_array_equal(
        dense.token[dense.graph_structure[live]], [t.tail[0] for t in chain.triples]
    )
    assert (dense.relation[~live] == -1).all()


ROOTS = (5, 6, 7, 8)
FIT = LeafTriple(0, 1, 2, (9,))
MISFITS = {
    "second triple on a root, paper": ("paper", LeafyChain(ROOTS, (FIT, FIT), "c"), "triple 1"),
    "long tail, paper": (
        "paper", LeafyChain(ROOTS, (FIT, LeafTriple(0, 2, 3, (5,) * 4)), "c"), "triple 1"
    ),
    "two leaf tokens, codebert": (
        "codebert", LeafyChain(ROOTS, (FIT, FIT, LeafTriple(0, 2, 3, (5, 6))), "c"), "triple 2"
    ),
    "fourth triple on a root, codebert": (
        "codebert", LeafyChain(ROOTS, (FIT,) * 4, "c"), "triple 3"
    ),
    "too many roots": ("paper", LeafyChain(ROOTS * 3, (), "c"), "roots"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_a_misfit_is_named(name: str) -> None:
    layout, chain, where = MISFITS[name]
    with pytest.raises(FormatError, match=where) as caught:
        to_dense(chain, layout, pad_id=PAD, n_root_slots=6, n_leaf_slots=3)  # type: ignore[arg-type]
    assert "chain c" in str(caught.value)
    assert caught.value.expected is not None


def test_dense_leaf_without_relation_is_refused() -> None:
    dense = to_dense(LeafyChain(ROOTS, (FIT,)), "paper", pad_id=PAD, n_root_slots=6, n_leaf_slots=3)
    broken: DenseChain = replace(dense, relation=np.full_like(dense.relation, -1))
    with pytest.raises(FormatError, match="relation"):
        from_dense(broken)


@pytest.mark.parametrize(
    "triple",
    [LeafTriple(0, 2, 2, (5,)), LeafTriple(0, 3, 5, (5,)), LeafTriple(0, -1, 1, (5,)),
     LeafTriple(0, 1, 2, ())],
    ids=["empty-head", "head-past-the-end", "negative", "no-tail"],
)  # fmt: skip
def test_bad_triples_are_refused(triple: LeafTriple) -> None:
    with pytest.raises(FormatError, match="triple 1"):
        LeafyChain(ROOTS, (FIT, triple))


# --- masking --------------------------------------------------------------------------------

MASKINGS = {
    "defaults": MaskingConfig(),
    "whole-tails": MaskingConfig(
        mlm_rate=0.3, tail_rate=0.4, relation_rate=0.3, both_rate=0.2, query_slots=0
    ),
    "single-tokens": MaskingConfig(tail_rate=0.8, relation_rate=0, both_rate=0, partial_share=0.7),
    "single-tokens-in-place": MaskingConfig(
        tail_rate=0.8, relation_rate=0, both_rate=0, partial_share=0.7, query_slots=0
    ),
}


def mask(chain: LeafyChain, name: str, seed: int, *, isolated: bool = True) -> MaskedChain:
    rng = np.random.default_rng(seed)
    return mask_chain(chain, MASKINGS[name], VOCABULARY, rng, isolated=isolated)


@given(
    chain=chains(),
    name=st.sampled_from(sorted(MASKINGS)),
    seed=st.integers(0, 99),
    isolated=st.booleans(),
)
def test_special_tokens_are_neither_masked_nor_drawn(
    chain: LeafyChain, name: str, seed: int, isolated: bool
) -> None:
    masked = mask(chain, name, seed, isolated=isolated)
    labels = [
        *masked.root_labels.tolist(),
        *(x for row in masked.leaf_labels for x in row.tolist()),
    ]
    assert VOCABULARY.special_ids.isdisjoint(labels)
    for before, after in zip(chain.roots, masked.chain.roots, strict=True):
        assert before == after or (before >= FIRST_WORD and (after >= FIRST_WORD or after == MASK))
    for triple in masked.chain.triples:
        assert all(token >= FIRST_WORD or token == MASK for token in triple.tail)


@given(
    chain=chains(copies=True),
    name=st.sampled_from(["whole-tails", "single-tokens"]),
    seed=st.integers(0, 99),
)
def test_restoring_the_labels_recovers_the_input(chain: LeafyChain, name: str, seed: int) -> None:
    masked = mask(chain, name, seed)
    roots = np.where(masked.root_labels == IGNORE, masked.chain.roots, masked.root_labels)
    assert tuple(roots.tolist()) == chain.roots
    for index, triple in enumerate(chain.triples):
        shown = masked.chain.triples[index]
        labels = masked.leaf_labels[index]
        assert tuple(np.where(labels == IGNORE, shown.tail, labels).tolist()) == triple.tail
        label = int(masked.relation_labels[index])
        assert (shown.relation if label == IGNORE else label) == triple.relation
        unchanged = replace(shown, relation=triple.relation, tail=triple.tail)
        assert unchanged == triple


@given(chain=chains(copies=True), seed=st.integers(0, 99), isolated=st.booleans())
def test_tails_are_masked_whole_or_not_at_all(chain: LeafyChain, seed: int, isolated: bool) -> None:
    masked = mask(chain, "whole-tails", seed, isolated=isolated)
    assert len(masked.leaf_labels) == len(masked.chain.triples) >= len(chain.triples)
    for triple, shown, labels in zip(
        chain.triples, masked.chain.triples, masked.leaf_labels, strict=False
    ):
        if (labels == IGNORE).any():
            assert (labels == IGNORE).all()
            assert shown.tail == triple.tail
        else:
            assert tuple(labels) == triple.tail
            assert set(shown.tail) == {MASK}


@given(chain=chains(copies=True), name=st.sampled_from(sorted(MASKINGS)), seed=st.integers(0, 99))
def test_copies_of_a_masked_triple_are_masked_too(chain: LeafyChain, name: str, seed: int) -> None:
    """What is hidden in one copy of a fact is shown in none: tokens, and the relation."""
    masked = mask(chain, name, seed)
    groups: dict[object, list[int]] = {}
    for index, triple in enumerate(chain.triples):
        head = triple.head_entity
        key = head if head >= 0 else chain.roots[triple.head_start : triple.head_end]
        groups.setdefault((head >= 0, key, triple.relation, triple.tail), []).append(index)
    for members in groups.values():
        shown = {masked.chain.triples[i].tail for i in members}
        assert len(shown) == 1
        assert len({tuple(masked.leaf_labels[i]) for i in members}) == 1
        assert len({masked.chain.triples[i].relation for i in members}) == 1
        assert len({int(masked.relation_labels[i]) for i in members}) == 1


LEAKY = LeafyChain((CLS, 5, 6, SEP), (LeafTriple(1, 1, 2, (7, 8, 9, 10), 3, 2),) * 2)


@given(
    chain=st.one_of(chains(copies=True), st.just(LEAKY)),
    seed=st.integers(0, 99),
    isolated=st.booleans(),
)
def test_entity_queries_show_nothing_of_their_tail(
    chain: LeafyChain, seed: int, isolated: bool
) -> None:
    for name in MASKINGS:
        masked = mask(chain, name, seed, isolated=isolated)
        asked = np.flatnonzero(masked.entity_labels >= 0)
        for index in asked:
            query = masked.chain.triples[index]
            assert set(query.tail) == {MASK}
            assert query.tail_entity == masked.entity_labels[index]
            assert query.relation < N_RELATIONS
            if isolated:
                continue
            # everybody sees everybody: no copy of the fact may show the tail
            source = replace(query, tail=())
            for before, after in zip(chain.triples, masked.chain.triples, strict=False):
                if replace(before, tail=()) == source:
                    assert set(after.tail) == {MASK}


@given(
    maskable=st.lists(st.booleans(), min_size=1, max_size=60),
    rate=st.floats(0, 1),
    longest=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_spans_stay_within_budget(
    maskable: list[bool], rate: float, longest: int, seed: int
) -> None:
    allowed = np.array(maskable)
    config = MaskingConfig(mlm_rate=rate, max_span=longest)
    spans = draw_spans(allowed, config, np.random.default_rng(seed))
    covered = np.zeros(len(allowed), dtype=int)
    for start, end in spans:
        assert 0 < end - start <= longest
        covered[start:end] += 1
    assert covered.max() <= 1
    assert not covered[~allowed].any()
    assert covered.sum() == round(rate * int(allowed.sum()))


@given(chain=chains(), seed=st.integers(0, 99))
def test_masking_is_a_function_of_the_seed(chain: LeafyChain, seed: int) -> None:
    first, second = mask(chain, "defaults", seed), mask(chain, "defaults", seed)
    assert first.chain == second.chain
    np.testing.assert_array_equal(first.root_labels, second.root_labels)


def test_seed_about_15_percent_of_relations_are_masked() -> None:
    """80 % of the masked are hidden, 10 % random, 10 % kept; tails stay visible."""
    config = MaskingConfig(mlm_rate=0, tail_rate=0, relation_rate=0.15, both_rate=0, entity_rate=0)
    rng = np.random.default_rng(0)
    n, n_asked, hidden, kept = 0, 0, 0, 0
    for index in range(300):
        chain = LeafyChain(
            tuple(range(5, 15)),
            tuple(LeafTriple(k % N_RELATIONS, k, k + 1, (5 + k, 6), -1, k) for k in range(10)),
            str(index),
        )
        masked = mask_chain(chain, config, VOCABULARY, rng, isolated=True)
        for before, after, label in zip(
            chain.triples, masked.chain.triples, masked.relation_labels, strict=True
        ):
            n += 1
            assert after.tail == before.tail
            if label == IGNORE:
                assert after.relation == before.relation
                continue
            assert label == before.relation
            n_asked += 1
            hidden += after.relation == VOCABULARY.mask_relation
            kept += after.relation == before.relation
    assert n_asked / n == pytest.approx(0.15, abs=0.02)
    assert hidden / n_asked == pytest.approx(0.8, abs=0.06)
    # kept on purpose, or drawn at random and equal
    assert kept / n_asked == pytest.approx(0.1 + 0.1 / N_RELATIONS, abs=0.06)


def test_about_15_percent_of_roots_are_masked() -> None:
    rng = np.random.default_rng(1)
    config = MaskingConfig(tail_rate=0, relation_rate=0, both_rate=0)
    chain = LeafyChain((CLS, *([5, 6, 7, 8] * 25), SEP))
    hidden = n_asked = 0
    for _ in range(100):
        masked = mask_chain(chain, config, VOCABULARY, rng, isolated=True)
        asked = masked.root_labels != IGNORE
        assert asked.sum() == 15
        n_asked += int(asked.sum())
        hidden += int((np.array(masked.chain.roots)[asked] == MASK).sum())
    assert hidden / n_asked == pytest.approx(0.8, abs=0.06)


# --- the model ------------------------------------------------------------------------------


def model_chains(form: str, seed: int = 2, n_chains: int = 4) -> list[LeafyChain]:
    options = {"one_per_root": True} if form in ("paper", "reference") else {}
    return random_chains(seed, n_chains=n_chains, **options)


def run(model: GraphMERT, given: Sequence[LeafyChain]) -> list[torch.Tensor]:
    """States of the real nodes of every chain."""
    batch = collate(given, relation_names=names_of(model))
    with torch.no_grad():
        states = model(batch)
    return [states[row, batch.padding_mask_BN[row]] for row in range(len(given))]


@pytest.fixture(params=sorted(FORMS))
def model(request: pytest.FixtureRequest) -> GraphMERT:
    made = make_model(request.param)
    made.form = request.param
    return made


def test_padding_never_changes_real_positions(model: GraphMERT) -> None:
    given = model_chains(model.form)
    together = run(model, given)
    for chain, states in zip(given, together, strict=True):
        alone = run(model, [chain])[0]
        torch.testing.assert_close(states, alone, rtol=1e-9, atol=1e-11)


def test_batch_permutation_commutes(model: GraphMERT) -> None:
    given = model_chains(model.form)
    order = [2, 0, 3, 1]
    straight = run(model, given)
    for found, index in zip(run(model, [given[i] for i in order]), order, strict=True):
        torch.testing.assert_close(found, straight[index], rtol=1e-9, atol=1e-11)


@settings(max_examples=10)
@given(drawn=st.lists(chains(max_tail=3), min_size=1, max_size=4))
def test_any_chains_give_the_same_states_alone_and_together(drawn: list[LeafyChain]) -> None:
    model = make_model("default")
    for chain, states in zip(drawn, run(model, drawn), strict=True):
        assert len(states) >= chain.n_nodes
        torch.testing.assert_close(run(model, [chain])[0], states, rtol=1e-9, atol=1e-11)


def test_isolated_leaves_answer_independently() -> None:
    """Roots are the same with and without leaves; a query's leaves ignore other queries."""
    model = make_model("default")
    chain = random_chains(4)[0]
    names = names_of(model)
    whole = run(model, [chain])[0]
    n_roots = len(chain.roots)
    bare = run(model, [replace(chain, triples=())])[0]
    torch.testing.assert_close(whole[:n_roots], bare, rtol=1e-9, atol=1e-11)
    first = n_roots
    for triple in chain.triples:
        size = len(names.of(triple.relation)) + len(triple.tail)
        alone = run(model, [replace(chain, triples=(triple,))])[0]
        torch.testing.assert_close(
            whole[first : first + size], alone[n_roots:], rtol=1e-9, atol=1e-11
        )
        first += size


def training_batch(model: GraphMERT) -> ChainBatch:
    """A batch in which every objective asks, all relations occur and one is hidden."""
    given = model_chains(model.form, seed=1, n_chains=6)
    triples = [t for c in given for t in c.triples]
    # over a single head token the softmax is constant, and a_r has no gradient
    several = {t.relation for t in triples if t.head_end - t.head_start > 1}
    assert several == set(range(N_RELATIONS))
    masking = MaskingConfig(
        mlm_rate=0.4, tail_rate=0.5, relation_rate=0.3, both_rate=0.2, max_span=4
    )
    rng = np.random.default_rng(8)
    isolated = model.config.leaf_visibility == "isolated"
    masked = [mask_chain(c, masking, VOCABULARY, rng, isolated=isolated) for c in given]
    return collate_masked(
        masked,
        relation_names=names_of(model),
        names=collate([LeafyChain((CLS, 9 + i, 6, SEP)) for i in range(6)]),
        name_entities=np.arange(6),
    )


def total_loss(model: GraphMERT, batch: ChainBatch) -> torch.Tensor:
    parts = model.loss(batch)
    assert all(float(count) > 0 for _, count in parts.values())
    return sum(value / count for value, count in parts.values())  # type: ignore[return-value]


# The graph token sees every node and is seen by none, and no loss reads its own state.
NOT_READ = {"encoder.graph_token", "encoder.graph_distance"}


def test_every_parameter_receives_a_gradient(model: GraphMERT) -> None:
    total_loss(model, training_batch(model)).backward()
    for name, parameter in model.named_parameters():
        if name in NOT_READ:
            assert model.form == "reference"
            continue
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 1e-9, name
    for name, table in model.embed.named_parameters():
        if name.startswith(("relation.", "hgat.score", "hgat.matrix", "hgat.left", "hgat.right")):
            per_relation = table.grad.flatten(1).abs().sum(1)
            hidden_too = "relation" in model.config.objectives
            assert (per_relation[: N_RELATIONS + hidden_too] > 1e-9).all(), name
    if model.encoder.p is not None:
        assert (model.encoder.p.grad != 0).all()


def test_graph_token_of_the_reference_form_is_only_an_output() -> None:
    """It may change at will: no node and no loss notices."""
    model = make_model("reference")
    given = model_chains("reference")
    before = run(model, given)
    with torch.no_grad():
        model.encoder.graph_token.add_(3.0)
        model.encoder.graph_distance.mul_(-2.0)
    for a, b in zip(before, run(model, given), strict=True):
        assert torch.equal(a, b)


def test_gradients_equal_finite_differences(model: GraphMERT) -> None:
    """Along a random direction of each part, so a wrong backward rule cannot hide."""
    batch = training_batch(model)
    total_loss(model, batch).backward()
    generator = torch.Generator().manual_seed(0)
    step = 1e-5
    for part, module in model.named_children():
        ways = {}
        for name, parameter in module.named_parameters():
            if f"{part}.{name}" not in NOT_READ:
                ways[parameter] = torch.randn(
                    parameter.shape, generator=generator, dtype=torch.float64
                )
        if part == "embed":
            ways[model.embed.token.weight][PAD] = 0  # the padding row is frozen
        values = []
        with torch.no_grad():
            for sign in (1, -2):
                for parameter, way in ways.items():
                    parameter.add_(sign * step * way)
                values.append(float(total_loss(model, batch)))
            for parameter, way in ways.items():
                parameter.add_(step * way)
        slope = (values[0] - values[1]) / (2 * step)
        wanted = sum(float((parameter.grad * way).sum()) for parameter, way in ways.items())
        assert wanted == pytest.approx(slope, rel=1e-6, abs=1e-7), part
