"""Regularisers against float64 loops; each costs more where its constraint is violated."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from golden import reference_constraints as reference
from golden.forms import CLS, NO_NAMES, PAD, SEP, make_model, make_vocabulary, random_chains
from graphmert import constraints
from graphmert.batch import ConstraintBatch, collate_masked
from graphmert.chain import LeafyChain
from graphmert.constraints import MARGIN, REGULARISERS, STEP, ConstraintHead
from graphmert.facts import FactSource
from graphmert.feed import ChainFeed
from graphmert.kg.rules import FactRules
from graphmert.masking import MaskingConfig, mask_chain

INHERITS, DECLARES, CALLS = 0, 1, 2
CLASS, METHOD, FUNCTION = 0, 1, 2
# entities: 0-2 classes, 3-4 methods, 5 a function
TRIPLES = np.array(
    [[0, INHERITS, 1], [1, INHERITS, 2], [1, DECLARES, 3], [2, DECLARES, 4], [5, CALLS, 5],
     [1, DECLARES, 4]]
)  # fmt: skip


def flags(*rows: list[int]) -> np.ndarray:
    return np.array(rows, dtype=bool)


RULES = FactRules(
    domain_EY=flags([1, 0, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1]),
    range_EY=flags([1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 1, 1]),
    antisymmetric_E=np.array([True, True, False, False]),
    acyclic_E=np.array([True, False, False, False]),
    inherits=INHERITS,
    member_E=np.array([False, True, False, False]),
)
SOURCE = FactSource(
    triples=TRIPLES,
    name_roots=[(CLS, 10 + i, 20 + i, SEP) for i in range(6)],
    rules=RULES,
    n_triples=16,
    pad_id=PAD,
)


def whole() -> ConstraintBatch:
    """Every triple once, and what 0 and 1 inherit."""
    heirs = SOURCE.inherited
    return SOURCE.batch(np.arange(len(TRIPLES)), heirs=heirs[:, 0], members=heirs[:, 1])


def head(*asked: str) -> ConstraintHead:
    made = ConstraintHead(8, 4, 3, asked=frozenset(asked), rank=5).double()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return made


def vectors(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return constraints.unit(torch.randn(6, 8, generator=generator, dtype=torch.float64))


def test_inherited_members_come_from_the_parents() -> None:
    assert SOURCE.inherited.tolist() == [[0, 2], [0, 5], [1, 3]]


def test_each_loss_equals_the_loops() -> None:
    made, x, batch = head(*REGULARISERS), vectors(), whole()
    found = {name: (s.item(), int(n)) for name, (s, n) in made(x, batch).items()}
    assert made.scorer is not None
    assert made.entity_type is not None
    assert made.potential is not None
    assert made.log_scale is not None
    a, b, d, w = (
        t.detach().numpy()
        for t in (
            made.scorer.head.weight, made.scorer.tail.weight, made.scorer.relation, made.potential
        )
    )  # fmt: skip
    v = x.numpy()

    def score(h: int, r: int, t: int) -> float:
        return reference.score(v[h], r, v[t], a, b, d)

    triples = [tuple(row) for row in TRIPLES.tolist()]
    with torch.no_grad():
        logits = made.entity_type(torch.cat([x[TRIPLES[:, 0]], x[TRIPLES[:, 2]]])).numpy()
    allowed = np.concatenate([RULES.domain_EY[TRIPLES[:, 1]], RULES.range_EY[TRIPLES[:, 1]]])
    strict = [t for t in triples if RULES.antisymmetric_E[t[1]]]
    pairs = [(heir, triples[row]) for heir, row in SOURCE.inherited.tolist()]
    scale = np.exp(min(float(made.log_scale.detach()), np.log(100)))
    every = np.array([[scale * score(h, r, c) for c in range(6)] for h, r, _ in triples])
    excluded = np.zeros((6, 6), dtype=bool)
    excluded[2, 4] = excluded[5, 3] = True  # 1 declares 3 and 4
    wanted = {
        "type": (reference.type_sum(logits, allowed), 12),
        "antisymmetry": (
            reference.antisymmetry_sum(
                [score(*t) for t in strict], [score(t, r, h) for h, r, t in strict], MARGIN
            ),
            5,
        ),
        "acyclicity": (
            reference.acyclicity_sum(
                [float(w[INHERITS] @ v[i]) for i in range(6)], [(0, 1), (1, 2)], STEP
            ),
            2,
        ),
        "inheritance": (
            reference.inheritance_sum(
                [score(*t) for _, t in pairs], [score(heir, r, m) for heir, (_, r, m) in pairs]
            ),
            3,
        ),
        "contrastive": (reference.contrastive_sum(every, [t for _, _, t in triples], excluded), 6),
    }
    assert found.keys() == wanted.keys() == batch.counts().keys()
    assert {k: n for k, (_, n) in found.items()} == batch.counts()
    for name, (value, count) in wanted.items():
        assert found[name] == (pytest.approx(value, rel=1e-9), count), name
        assert value > 0


def test_a_forbidden_type_costs_more() -> None:
    """The same logits, with the ends where the schema allows them and where it does not."""
    logits = torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]])  # a class, a method
    declares = torch.from_numpy(np.stack([RULES.domain_EY[DECLARES], RULES.range_EY[DECLARES]]))
    good, _ = constraints.type_loss(logits, declares)
    bad, _ = constraints.type_loss(logits.flip(0), declares)  # the method declares the class
    assert bad > good + 3


def test_a_triple_and_its_reverse_cost_more() -> None:
    forward, backward = torch.tensor([0.8]), torch.tensor([0.1])
    held, _ = constraints.antisymmetry_loss(forward, backward)
    # both directions asserted: each is the other's reverse
    both, count = constraints.antisymmetry_loss(
        torch.cat([forward, backward]), torch.cat([backward, forward])
    )
    assert held == 0
    assert both / count > 0.3


def test_a_cycle_costs_a_step_for_each_triple_whatever_the_potentials() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        phi = 5 * torch.randn(3, generator=generator)
        cycle, _ = constraints.acyclicity_loss(phi[[1, 2, 0]] - phi[[0, 1, 2]])
        assert cycle >= 3 * STEP - 1e-4
    line = torch.tensor([0.0, 1.0, 2.0])
    climbing, _ = constraints.acyclicity_loss(line[[1, 2]] - line[[0, 1]])
    assert climbing == 0


def test_a_subclass_without_its_parents_members_costs_more() -> None:
    parent = torch.tensor([0.7])
    has, _ = constraints.inheritance_loss(parent, torch.tensor([0.75]))
    lacks, _ = constraints.inheritance_loss(parent, torch.tensor([0.2]))
    assert has == 0
    assert lacks == pytest.approx(0.5)
    leaf = torch.tensor([0.7], requires_grad=True)
    constraints.inheritance_loss(leaf, torch.tensor([0.2], requires_grad=True))[0].backward()
    assert leaf.grad is None  # the parent is not pulled down to its heir


def test_a_wrong_tail_nearer_than_the_true_one_costs_more() -> None:
    none = torch.zeros(1, 3, dtype=torch.bool)
    near, _ = constraints.contrastive_loss(torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([0]), none)
    far, _ = constraints.contrastive_loss(torch.tensor([[0.0, 4.0, 0.0]]), torch.tensor([0]), none)
    assert far > near + 3.9
    # another true tail does not count
    known = torch.tensor([[False, True, False]])
    fair, _ = constraints.contrastive_loss(
        torch.tensor([[0.0, 4.0, 0.0]]), torch.tensor([0]), known
    )
    assert fair == pytest.approx(np.log(2), rel=1e-6)


def test_the_losses_read_directions() -> None:
    """Turning every triple round changes each loss, so none is a function of the pairs alone."""
    made, x, batch = head(*REGULARISERS), vectors(), whole()
    turned = dataclasses.replace(batch, head_T=batch.tail_T, tail_T=batch.head_T)
    before, after = made(x, batch), made(x, turned)
    for name in REGULARISERS:
        assert abs(float(before[name][0] - after[name][0])) > 1e-3, name


@pytest.mark.parametrize("name", REGULARISERS)
def test_only_what_is_asked_has_parameters_and_a_loss(name: str) -> None:
    made = head(name)
    losses = made(vectors(), whole())
    assert losses.keys() == {name}
    losses[name][0].backward()
    for label, parameter in made.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.abs().max() > 0, label


def test_no_triple_costs_zero() -> None:
    made = head(*REGULARISERS)
    empty = SOURCE.batch(np.array([4]), heirs=np.zeros(0, np.int64), members=np.zeros(0, np.int64))
    losses = made(vectors()[:1], empty)
    for name in ("antisymmetry", "acyclicity", "inheritance"):
        assert losses[name] == (0.0, 0.0)
        assert losses[name][0].requires_grad


def test_draws_follow_the_generator_alone() -> None:
    one, two, other = (SOURCE.draw(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(one.head_T, two.head_T)
    assert not torch.equal(one.relation_T, other.relation_T)
    assert len(one.head_T) == 16
    assert one.counts()["inheritance"] == 4
    for heir, row in zip(one.heir_P.tolist(), one.member_P.tolist(), strict=True):
        assert one.relation_T[row] == DECLARES
        assert heir != one.head_T[row]


def test_a_model_trains_them_in_one_step_with_the_rest() -> None:
    model = make_model("code", objectives=("mlm", *REGULARISERS), n_entity_types=3)
    masking, vocabulary = MaskingConfig(mlm_rate=0.4), make_vocabulary()
    rng = np.random.default_rng(0)
    masked = [mask_chain(c, masking, vocabulary, rng, isolated=False) for c in random_chains(1)]
    batch = collate_masked(masked, constraints=whole())
    losses = model.loss(batch)
    assert losses.keys() == {"mlm", *REGULARISERS}
    counts = batch.counts()
    assert all(counts[name] == int(count) for name, (_, count) in losses.items())
    sum(s / n for s, n in losses.values()).backward()  # type: ignore[union-attr]
    assert model.constraint_head is not None
    for label, parameter in model.constraint_head.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.abs().max() > 0, label


def test_a_feed_gives_triples_with_every_micro_batch() -> None:
    chains = [LeafyChain((CLS, 5, 6, 7, SEP))] * 4
    feed = ChainFeed(
        chains, masking=MaskingConfig(), vocabulary=make_vocabulary(), relation_names=NO_NAMES,
        names=None, known_tails={}, n_negatives=0, isolated=True, pad_id=PAD, batch_size=4,
        n_steps=2, seed=0, facts=SOURCE,
    )  # fmt: skip
    (batch,) = feed.batch(0)
    assert batch.labels is not None
    assert batch.labels.constraints is not None
    assert batch.counts()["type"] == 32
    moved = batch.to("cpu")
    assert moved.labels is not None
    assert moved.labels.constraints is not None
