"""Every objective against float64 loops, alone and through one forward of the model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from golden import reference_losses as reference
from golden.encode_by_reference import affine, array, states
from golden.forms import (
    N_RELATIONS,
    SMALL,
    VOCAB_SIZE,
    make_model,
    make_vocabulary,
    names_of,
    random_chains,
)
from graphmert.batch import ChainBatch, collate, collate_masked
from graphmert.chain import LeafyChain
from graphmert.masking import IGNORE, MaskedChain, MaskingConfig, mask_chain
from graphmert.model import GraphMERT
from graphmert.objectives import (
    EntityHead,
    RelationHead,
    SpanBoundaryHead,
    VocabHead,
    cross_entropy,
    entity_loss,
    mean_states,
)
from graphmert.train import TrainConfig, train

REL = 1e-10
WIDTH = 6


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.5 * noise + (1.0 if name.endswith("norm.weight") else 0.0))
    return module


def test_cross_entropy_with_ignored_labels() -> None:
    rng = np.random.default_rng(0)
    logits, labels = 3 * rng.standard_normal((7, 9)), [3, IGNORE, 0, 8, IGNORE, 3, 1]
    value, count = cross_entropy(torch.from_numpy(logits), torch.tensor(labels))
    wanted, n = reference.cross_entropy_sum(logits, labels)
    assert (float(value), float(count)) == (pytest.approx(wanted, rel=1e-12), n)


@pytest.mark.parametrize("labels", [[IGNORE, IGNORE], []], ids=["all-ignored", "nothing-asked"])
def test_all_ignored_labels_give_zero_and_no_gradient(labels: list[int]) -> None:
    logits = torch.ones(len(labels), 5, dtype=torch.float64, requires_grad=True)
    value, count = cross_entropy(logits, torch.tensor(labels, dtype=torch.int64))
    value.backward()
    assert (value.item(), float(count)) == (0.0, 0.0)
    assert not torch.isnan(logits.grad).any()
    assert (logits.grad == 0).all()


def test_ignored_labels_get_no_gradient() -> None:
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    cross_entropy(logits, torch.tensor([1, IGNORE, 2]))[0].backward()
    assert (logits.grad[1] == 0).all()
    assert (logits.grad[0] != 0).all()


def test_vocab_head() -> None:
    rng = np.random.default_rng(1)
    head = randomise(VocabHead(WIDTH, 11, eps=1e-5))
    x, tokens = rng.standard_normal((4, WIDTH)), rng.standard_normal((11, WIDTH))
    with torch.no_grad():
        found = head(torch.from_numpy(x), torch.from_numpy(tokens)).numpy()
    wanted = reference.vocab_head(
        x,
        dense=affine(head.transform.dense),
        norm=affine(head.transform.norm),
        decoder=(tokens, array(head.bias)),
    )
    np.testing.assert_allclose(found, wanted, rtol=REL, atol=1e-11)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_span_boundary_head(tied: bool) -> None:
    rng = np.random.default_rng(2)
    head = randomise(SpanBoundaryHead(WIDTH, 11, n_places=4, eps=1e-5, tied=tied))
    x, tokens = rng.standard_normal((12, WIDTH)), rng.standard_normal((11, WIDTH))
    spans = [(1, 4), (6, 7), (8, 11)]
    left = [s - 1 for s, e in spans for _ in range(s, e)]
    right = [e for s, e in spans for _ in range(s, e)]
    place = [i - s for s, e in spans for i in range(s, e)]
    flat = torch.from_numpy(x)
    with torch.no_grad():
        found = head(flat[left], flat[right], torch.tensor(place), torch.from_numpy(tokens))
    wanted = span_logits(head, x, spans, tokens, eps=1e-5)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=REL, atol=1e-11)


def span_logits(
    head: SpanBoundaryHead,
    x_ND: np.ndarray,
    spans: list[tuple[int, int]],
    tokens_VD: np.ndarray,
    *,
    eps: float,
) -> np.ndarray:
    decoder = (tokens_VD, array(head.bias)) if head.decoder is None else affine(head.decoder)
    return reference.span_boundary_logits(
        x_ND,
        spans,
        positions_PD=array(head.place.weight),
        dense_0=affine(head.first.dense),
        norm_0=affine(head.first.norm),
        dense_1=affine(head.second.dense),
        norm_1=affine(head.second.norm),
        decoder=decoder,
        eps=eps,
    )


def test_relation_head() -> None:
    rng = np.random.default_rng(3)
    head = randomise(RelationHead(WIDTH, N_RELATIONS, n_ordinals=3))
    x = rng.standard_normal((9, WIDTH))
    slots = [([0, 1], [5, 6, 7], 0), ([0, 1], [8], 1), ([2], [4, 3], 2)]
    wanted = reference.relation_logits(
        x,
        slots,
        slot_vectors_SD=array(head.slot.weight),
        weight_ED=array(head.linear.weight),
        bias_E=array(head.linear.bias),
    )
    flat = torch.from_numpy(x)

    def means(groups: list[list[int]]) -> torch.Tensor:
        longest = max(map(len, groups))
        index = torch.tensor([g + [0] * (longest - len(g)) for g in groups])
        mask = torch.tensor([[k < len(g) for k in range(longest)] for g in groups])
        return mean_states(flat, index, mask)

    with torch.no_grad():
        found = head(
            means([h for h, _, _ in slots]),
            means([t for _, t, _ in slots]),
            torch.tensor([0, 1, 2]),
        ).numpy()
    np.testing.assert_allclose(found, wanted, rtol=REL, atol=1e-12)
    # two triples on one root do not share their logits
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_entity_info_nce() -> None:
    rng = np.random.default_rng(4)
    queries, names = rng.standard_normal((4, WIDTH)), rng.standard_normal((6, WIDTH))
    positive, others = [2, 0, 0, 5], [[1, 3], [], [4], [0, 1, 2, 3, 4]]
    excluded = torch.zeros(4, 6, dtype=torch.bool)
    for row, columns in enumerate(others):
        excluded[row, columns] = True
    temperature = 0.3
    value, count = entity_loss(
        torch.from_numpy(reference.unit(queries)),
        torch.from_numpy(reference.unit(names)),
        torch.tensor(-math.log(temperature), dtype=torch.float64),
        torch.tensor(positive),
        excluded,
    )
    wanted = reference.info_nce(
        queries, names, positive, temperature=temperature, false_negatives=others
    )
    assert float(value / count) == pytest.approx(wanted, rel=REL)
    plain = reference.info_nce(queries, names, positive, temperature=temperature)
    assert plain > wanted


def test_entity_query_vectors() -> None:
    """q = W mean(leaves) + g_0 mean(roots) + g_1 mean(head roots), unit length."""
    rng = np.random.default_rng(5)
    leaf, text, head = (rng.standard_normal((3, WIDTH)) for _ in range(3))
    for pooled in (False, True):
        module = randomise(EntityHead(WIDTH, pooled=pooled), seed=2)
        wanted = reference.linear(leaf, array(module.leaf.weight))
        if pooled:
            gates = array(module.gates)
            wanted = wanted + gates[0] * text + gates[1] * head
        with torch.no_grad():
            found = module.query(*(torch.from_numpy(x) for x in (leaf, text, head))).numpy()
        np.testing.assert_allclose(found, reference.unit(wanted), rtol=REL, atol=1e-12)


# --- all objectives through one forward -----------------------------------------------------

MASKING = MaskingConfig(
    mlm_rate=0.4, max_span=3, tail_rate=0.4, relation_rate=0.3, both_rate=0.3, query_slots=1
)
NAME_CHAINS = [LeafyChain((2, 7 + i, 9, 3)[: 3 + i % 2]) for i in range(6)]


def masked_case(
    model: GraphMERT, *, one_per_root: bool = False, masking: MaskingConfig = MASKING
) -> tuple[list[MaskedChain], ChainBatch, list[list[int]]]:
    """Masked chains, their batch, and for each entity query the other true entities."""
    chains = random_chains(9, n_chains=4, one_per_root=one_per_root, n_triples=5)
    rng = np.random.default_rng(17)
    isolated = model.config.leaf_visibility == "isolated"
    masked = [mask_chain(c, masking, make_vocabulary(), rng, isolated=isolated) for c in chains]
    positives = [int(e) for m in masked for e in m.entity_labels if e >= 0]
    others = [[(e + 1) % 6] if i % 2 else [] for i, e in enumerate(positives)]
    names = names_of(model)
    batch = collate_masked(
        masked,
        relation_names=names,
        names=collate(NAME_CHAINS),
        name_entities=np.arange(6),
        excluded=[frozenset([*o, e]) for o, e in zip(others, positives, strict=True)],
    )
    return masked, batch, others


def expected_parts(
    model: GraphMERT, masked: list[MaskedChain], others: list[list[int]]
) -> dict[str, tuple[float, int]]:
    """(sum, count) of every objective, from reference states and reference losses."""
    names, eps = names_of(model), model.config.norm_eps
    tokens = array(model.embed.token.weight)
    vocab = {
        "dense": affine(model.vocab_head.transform.dense),
        "norm": affine(model.vocab_head.transform.norm),
        "decoder": (tokens, array(model.vocab_head.bias)),
        "eps": eps,
    }
    parts: dict[str, list[tuple[float, int]]] = {
        k: [] for k in ("mlm", "sbo", "leaf", "relation", "entity")
    }
    queries, positives = [], []
    for item, x in zip(masked, states(model, [m.chain for m in masked], names), strict=True):
        n_roots = len(item.chain.roots)
        parts["mlm"].append(
            reference.cross_entropy_sum(
                reference.vocab_head(x[:n_roots], **vocab), item.root_labels.tolist()
            )
        )
        spans = [(int(s), int(e)) for s, e in item.spans if s > 0 and e < n_roots]
        if spans:
            labels = [int(item.root_labels[i]) for s, e in spans for i in range(s, e)]
            logits = span_logits(model.sbo_head, x, spans, tokens, eps=eps)
            parts["sbo"].append(reference.cross_entropy_sum(logits, labels))
        ordinals: dict[int, int] = {}
        first = n_roots
        for t, triple in enumerate(item.chain.triples):
            n_name, n_tail = len(names.of(triple.relation)), len(triple.tail)
            leaves = list(range(first, first + n_name + n_tail))
            first += n_name + n_tail
            heads = list(range(triple.head_start, triple.head_end))
            parts["leaf"].append(
                reference.cross_entropy_sum(
                    reference.vocab_head(x[leaves[n_name:]], **vocab), item.leaf_labels[t].tolist()
                )
            )
            ordinal = ordinals.get(triple.head_start, 0)
            ordinals[triple.head_start] = ordinal + 1
            if model.relation_head is not None:
                logits = reference.relation_logits(
                    x,
                    [(heads, leaves, ordinal)],
                    slot_vectors_SD=array(model.relation_head.slot.weight),
                    weight_ED=array(model.relation_head.linear.weight),
                    bias_E=array(model.relation_head.linear.bias),
                )
                label = [int(item.relation_labels[t])]
                parts["relation"].append(reference.cross_entropy_sum(logits, label))
            if model.entity_head is not None and item.entity_labels[t] >= 0:
                gates = array(model.entity_head.gates)
                query = array(model.entity_head.leaf.weight) @ x[leaves].mean(0)
                query = query + gates[0] * x[:n_roots].mean(0) + gates[1] * x[heads].mean(0)
                queries.append(query)
                positives.append(int(item.entity_labels[t]))
    if queries:
        encoded = np.array([x.mean(0) for x in states(model, NAME_CHAINS, names)])
        scale = min(model.entity_head.log_scale.item(), math.log(100))
        mean = reference.info_nce(
            np.array(queries),
            encoded,
            positives,
            temperature=math.exp(-scale),
            false_negatives=others,
        )
        parts["entity"].append((mean * len(queries), len(queries)))
    return {k: (math.fsum(v for v, _ in p), sum(n for _, n in p)) for k, p in parts.items()}


def test_one_forward_serves_every_objective() -> None:
    # ordinals up to 4 triples on one root, and room for queries
    model = make_model("default", seed=3, n_ordinals=8)
    masked, batch, others = masked_case(model)
    with torch.no_grad():
        found = model.loss(batch)
    wanted = expected_parts(model, masked, others)
    assert found.keys() == wanted.keys()
    for name, (value, count) in wanted.items():
        assert count > 0, name
        assert float(found[name][1]) == count, name
        assert batch.counts()[name] == count, name
        assert float(found[name][0]) == pytest.approx(value, rel=1e-9), name


def test_joint_loss_is_one_mean_over_roots_and_leaves() -> None:
    model = make_model("reference", seed=4)
    masked, batch, others = masked_case(model, one_per_root=True)
    with torch.no_grad():
        found = model.loss(batch)
    wanted = expected_parts(model, masked, others)
    nodes = (wanted["mlm"][0] + wanted["leaf"][0], wanted["mlm"][1] + wanted["leaf"][1])
    for name, (value, count) in {"nodes": nodes, "sbo": wanted["sbo"]}.items():
        assert float(found[name][0]) == pytest.approx(value, rel=1e-9), name
        assert (float(found[name][1]), batch.counts()[name]) == (count, count)


def test_sums_are_divided_by_the_samples() -> None:
    model = make_model("paper", seed=5, objectives=("mlm", "sbo", "leaf", "relation"))
    masked, batch, others = masked_case(model, one_per_root=True)
    with torch.no_grad():
        found = model.loss(batch)
    wanted = expected_parts(model, masked, others)
    for name in ("mlm", "sbo", "leaf", "relation"):
        value, count = found[f"{name}_sum"]
        assert float(value) == pytest.approx(wanted[name][0], rel=1e-9)
        assert float(count) == batch.n_samples


def test_a_batch_that_asks_nothing_costs_nothing() -> None:
    model = make_model("default")
    off = MaskingConfig(mlm_rate=0, tail_rate=0, relation_rate=0, both_rate=0, entity_rate=0)
    _, batch, _ = masked_case(model, masking=off)
    losses = model.loss(batch)
    assert {name: value.item() for name, (value, _) in losses.items()} == dict.fromkeys(losses, 0.0)
    assert all(float(count) == 0 for _, count in losses.values())
    sum(value for value, _ in losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert (parameter.grad == 0).all(), name


class OneBatch:
    def __init__(self, batch: ChainBatch) -> None:
        self.only = batch

    def batch(self, step: int) -> list[ChainBatch]:
        return [self.only]


def test_training_weighs_the_means(tmp_path: Path) -> None:
    weights = {"mlm": 0.6, "sbo": 0.1, "leaf": 0.4, "relation": 2.0, "entity": 0.3}
    model = make_model("default", seed=6, n_ordinals=8, dropout=0.0, relation_dropout=0.0)
    masked, batch, others = masked_case(model)
    wanted = reference.weighted_total(expected_parts(model, masked, others), weights)
    config = TrainConfig(
        total_steps=1, batch_size=len(masked), warmup_steps=0, weights=weights, device="cpu"
    )
    train(model, OneBatch(batch), config=config, out_dir=tmp_path)
    lines = [json.loads(x) for x in (tmp_path / "training.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[0] == pytest.approx(wanted, rel=1e-5)


# --- named after the checks that came with the relation head --------------------------------


def test_seed_loss_function_is_ln_of_relations_for_flat_predictions() -> None:
    value, count = cross_entropy(torch.zeros(50, 12), torch.arange(50) % 12)
    assert float(value / count) == pytest.approx(math.log(12), rel=1e-6)


def test_seed_perfect_predictions_give_loss_below_one_thousandth() -> None:
    labels = torch.arange(60) % 12
    perfect = 10.0 * torch.nn.functional.one_hot(labels, 12).double()
    value, count = cross_entropy(perfect, labels)
    assert float(value / count) < 0.001
    noise = 0.1 * torch.randn(60, 12, generator=torch.Generator().manual_seed(0))
    value, count = cross_entropy(noise, labels)
    assert float(value / count) == pytest.approx(math.log(12), abs=0.1)


def test_seed_random_model_starts_near_ln_of_relations() -> None:
    """Fresh weights, relations hidden: the relation loss is about ln(#relations)."""
    fresh = GraphMERT(make_model("default").config).eval()
    masking = MaskingConfig(mlm_rate=0, tail_rate=0, relation_rate=1, both_rate=0, entity_rate=0)
    masked, batch, _ = masked_case(fresh, masking=masking)
    with torch.no_grad():
        value, count = fresh.loss(batch)["relation"]
    assert float(count) == sum(len(m.chain.triples) for m in masked) > 10
    assert float(value / count) == pytest.approx(math.log(N_RELATIONS), abs=0.15)


def test_seed_relation_head_has_the_stated_size() -> None:
    head = RelationHead(768, 12, n_ordinals=7)
    assert sum(p.numel() for p in head.linear.parameters()) == 9_228


def test_seed_forward_pass_gives_one_logit_row_per_triple() -> None:
    model = make_model("default")
    _, batch, _ = masked_case(model)
    with torch.no_grad():
        logits = model.relation_logits(model(batch), batch)
    assert logits.shape == (batch.n_triples, N_RELATIONS)
    assert SMALL["vocab_size"] == VOCAB_SIZE
