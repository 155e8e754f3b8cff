"""What is computed on live nodes equals the dense layouts, any batching, and either kernel.

Legend: B chains, N nodes, R root slots, F leaf slots per root, D width, A attention heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from golden.forms import (
    FORMS,
    MASK,
    PAD,
    SMALL,
    make_model,
    make_vocabulary,
    names_of,
    random_chain,
)
from graphmert import attention
from graphmert.batch import ChainBatch, collate, collate_masked
from graphmert.chain import TAIL_LEAF, DenseChain, Layout, LeafyChain, to_dense
from graphmert.encoder import Block, _length_blocks
from graphmert.masking import MaskingConfig, mask_chain
from graphmert.model import GraphMERT

N_ROOT_SLOTS, N_LEAF_SLOTS = SMALL["n_root_slots"], SMALL["n_leaf_slots"]
CLOSE = {"rtol": 1e-9, "atol": 1e-10}


def chains_of_many_lengths(n_chains: int, *, one_per_root: bool = False) -> list[LeafyChain]:
    """Lengths from a few nodes to many, in no order; some chains have no triples."""
    rng = np.random.default_rng(6)
    return [
        random_chain(
            rng,
            n_roots=int(rng.integers(7, 20)),
            n_triples=int(rng.integers(0, 4)),
            one_per_root=one_per_root,
        )
        for _ in range(n_chains)
    ]


# --- batches --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", sorted(FORMS))
def test_states_do_not_depend_on_the_batch(form: str) -> None:
    """Enough rows for several attention blocks of different lengths."""
    model = make_model(form)
    names = names_of(model)
    chains = chains_of_many_lengths(19, one_per_root=form in ("paper", "reference"))
    batch = collate(chains, relation_names=names)
    blocks = _length_blocks(batch.padding_mask_BN)
    assert sorted(torch.cat(blocks).tolist()) == list(range(19))
    longest = [int(batch.padding_mask_BN[rows].sum(1).max()) for rows in blocks]
    assert len(set(longest)) == 4
    with torch.no_grad():
        together_BND = model(batch)
        for row, chain in enumerate(chains):
            alone_ND = model(collate([chain], relation_names=names))[0]
            n_live = int(batch.padding_mask_BN[row].sum())
            torch.testing.assert_close(together_BND[row, :n_live], alone_ND, **CLOSE)


def test_gradients_do_not_depend_on_the_batch() -> None:
    model = make_model("default")
    names = names_of(model)
    config = MaskingConfig(mlm_rate=0.4, max_span=4, entity_rate=0.0)
    rng = np.random.default_rng(0)
    masked = [
        mask_chain(chain, config, make_vocabulary(), rng, isolated=True)
        for chain in chains_of_many_lengths(17)
    ]

    def gradients(groups: Sequence[list]) -> dict[str, Tensor]:
        model.zero_grad()
        for group in groups:
            batch = collate_masked(group, relation_names=names)
            torch.stack([total for total, _ in model.loss(batch).values()]).sum().backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    together, alone = gradients([masked]), gradients([[one] for one in masked])
    assert together.keys() == alone.keys()
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, alone[name], rtol=1e-8, atol=1e-9)
        assert (gradient != 0).any() or name.startswith("entity_head"), name


# --- dense layouts --------------------------------------------------------------------------


def dense_batch(layouts: Sequence[DenseChain]) -> tuple[ChainBatch, np.ndarray]:
    """Every slot as a node, empty ones as padding, read from the dense arrays alone.

    Returns the batch and bool (B, R + R F), the live slots.
    """
    n_slots = N_ROOT_SLOTS * (1 + N_LEAF_SLOTS)
    token_BN = np.stack([dense.token for dense in layouts])
    live_BN = np.zeros((len(layouts), n_slots), dtype=bool)
    triple_BN = np.full((len(layouts), n_slots), -1)
    slot_BN = np.zeros((len(layouts), n_slots), dtype=np.int64)
    triples: list[tuple[int, int, int, int, int]] = []
    heads, leaves = [], []
    for row, dense in enumerate(layouts):
        live_BN[row, : dense.n_roots] = True
        live_BN[row, dense.graph_structure[dense.graph_structure >= 0]] = True
        for root in range(N_ROOT_SLOTS):
            used = np.flatnonzero(dense.graph_structure[root] >= 0)
            groups = [used] if dense.layout == "paper" else list(used[:, None])
            for ordinal, group in enumerate(g for g in groups if len(g)):
                at = dense.graph_structure[root, group]
                triple_BN[row, at] = len(triples)
                slot_BN[row, at] = np.arange(len(group))
                relation = int(dense.relation[root, group[0]])
                end = root + int(dense.head_length[root, group[0]])
                triples.append((relation, row, root, end, ordinal))
                heads.append(row * n_slots + np.arange(root, end))
                leaves.append(row * n_slots + at)
    root_N = np.concatenate(
        [np.arange(N_ROOT_SLOTS), np.repeat(np.arange(N_ROOT_SLOTS), N_LEAF_SLOTS)]
    )
    kind_N = np.where(np.arange(n_slots) < N_ROOT_SLOTS, 0, TAIL_LEAF)
    columns = [
        np.array(column, dtype=np.int64) for column in zip(*triples, strict=True)
    ]  # relation, row, head start, head end, ordinal
    head_index, head_mask = padded(heads)
    leaf_index, leaf_mask = padded(leaves)
    arrays = [
        token_BN, live_BN, np.tile(kind_N, (len(layouts), 1)), np.tile(root_N, (len(layouts), 1)),
        triple_BN, slot_BN, *columns, head_index, head_mask, leaf_index, leaf_mask, leaf_mask,
    ]  # fmt: skip
    return ChainBatch(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays)), live_BN


def padded(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    index = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for i, row in enumerate(rows):
        index[i, : len(row)] = row
    return index, np.arange(index.shape[1]) < np.array([[len(row)] for row in rows])


def added_by_relations_and_hops(model: GraphMERT, batch: ChainBatch) -> dict[str, Any]:
    encoder = model.encoder
    if not encoder.n_hops:
        return {}
    distance_BNN = attention.node_distance(
        batch.kind_BN, batch.root_BN, batch.triple_BN, batch.slot_BN, rule=encoder.distance_rule
    )
    pairs = attention.relation_pairs(
        batch.kind_BN, batch.root_BN, batch.triple_BN, batch.relation_T, batch.head_start_T,
        batch.head_end_T, n_relations=encoder.n_biased_relations, visibility=encoder.visibility,
        dtype=torch.float64,
    )  # fmt: skip
    rings = attention.hop_rings(distance_BNN, encoder.n_hops, dtype=torch.float64)
    return {"pairs": pairs, "ring_GBNN": rings}


def dense_forward(model: GraphMERT, batch: ChainBatch) -> Tensor:
    """Layers over all slots, none taken out; the graph token, which no node sees, is left out."""
    encoder = model.encoder
    n_rows, n_slots = batch.token_BN.shape
    log_decay_BANN = None
    if encoder.p is not None:
        distance_BNN = attention.node_distance(
            batch.kind_BN, batch.root_BN, batch.triple_BN, batch.slot_BN, rule=encoder.distance_rule
        )
        log_decay_BANN = attention.log_decay(
            distance_BNN[:, None],
            encoder.p,
            decay_base=encoder.decay_base,
            offset=encoder.distance_offset,
        )
    block = Block(
        shape=(n_rows, n_slots),
        live=torch.arange(n_rows * n_slots),
        visible_BNN=attention.visible(
            batch.kind_BN, batch.triple_BN, batch.padding_mask_BN, visibility=encoder.visibility
        ),
        log_decay_BANN=log_decay_BANN,
        rotation_BNK=None,
        form=encoder.decay,
        **added_by_relations_and_hops(model, batch),
    )
    x_ND = model.embed(batch).reshape(n_rows * n_slots, -1)
    for index, layer in enumerate(encoder.layers):
        x_ND = layer(x_ND, [block], None if encoder.hop_gate is None else encoder.hop_gate[index])
    x_ND = x_ND if model.transform is None else model.transform(x_ND)
    return x_ND.reshape(n_rows, n_slots, -1)


@pytest.mark.parametrize("layout", ["paper", "codebert"])
@pytest.mark.parametrize("form", [form for form in sorted(FORMS) if form != "rotary"])
def test_dense_equals_compact(form: str, layout: Layout) -> None:
    model = make_model(form, relation_names=False)
    rng = np.random.default_rng(7)
    options = {"one_per_root": True} if layout == "paper" else {"max_tail": 1}
    chains = []
    for n_roots in (14, 9, 20):
        chain = random_chain(rng, n_roots=n_roots, **options)
        order = sorted(chain.triples, key=lambda triple: triple.head_start)  # that of the slots
        chains.append(replace(chain, triples=tuple(order)))
    assert max(len(t.tail) for c in chains for t in c.triples) == (5 if layout == "paper" else 1)
    batch, live_BN = dense_batch(
        [
            to_dense(
                chain, layout, pad_id=PAD, n_root_slots=N_ROOT_SLOTS, n_leaf_slots=N_LEAF_SLOTS
            )
            for chain in chains
        ]
    )
    with torch.no_grad():
        compact_BND = model(collate(chains))
        dense_BND = dense_forward(model, batch)
        mixed_BND = model(batch)  # dense in, live nodes inside
    for row, chain in enumerate(chains):
        wanted = compact_BND[row, : chain.n_nodes]
        assert live_BN[row].sum() == chain.n_nodes
        torch.testing.assert_close(dense_BND[row, live_BN[row]], wanted, **CLOSE)
        torch.testing.assert_close(mixed_BND[row, live_BN[row]], wanted, **CLOSE)


def test_pads_hold_what_they_like() -> None:
    """Tokens at padding reach no real node."""
    model = make_model("default")
    chains = chains_of_many_lengths(3)
    batch = collate(chains, relation_names=names_of(model))
    other = batch.token_BN.masked_fill(~batch.padding_mask_BN, MASK)
    assert not torch.equal(other, batch.token_BN)
    with torch.no_grad():
        before, after = model(batch), model(replace(batch, token_BN=other))
    torch.testing.assert_close(before, after, rtol=0, atol=0)


# --- kernels --------------------------------------------------------------------------------


def kernel_inputs(dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 9, 8, generator=generator).to(dtype) for _ in range(3))
    visible_BNN = torch.rand(2, 9, 9, generator=generator) > 0.3
    visible_BNN[..., 0] = True
    distance_BNN = torch.randint(0, 12, (2, 9, 9), generator=generator)
    return {
        "q_BANK": q.requires_grad_(),
        "k_BANK": k.requires_grad_(),
        "v_BANK": v.requires_grad_(),
        "visible_B1NN": visible_BNN[:, None],
        "log_decay_BANN": attention.log_decay(
            distance_BNN[:, None], torch.ones(4, 1, 1), decay_base=0.6
        ).requires_grad_(),
    }


def attend_by(
    kernel: str, form: attention.DecayForm, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> list[Tensor]:
    """Output and gradients of one kernel."""
    monkeypatch.setattr(attention, "_plain_is_faster", lambda _: kernel == "plain")
    given = kernel_inputs(dtype)
    out = attention.attend(**given, form=form)  # type: ignore[arg-type]
    (out.float() * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    grads = [given[n].grad for n in ("q_BANK", "k_BANK", "v_BANK", "log_decay_BANN")]
    return [out, *(grad for grad in grads if grad is not None)]


@pytest.mark.parametrize("form", ["none", "log_bias"])
def test_fused_kernel_equals_plain(
    form: attention.DecayForm, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = attend_by("fused", form, torch.float32, monkeypatch)
    plain = attend_by("plain", form, torch.float32, monkeypatch)
    assert len(fused) == len(plain) == (5 if form == "log_bias" else 4)
    for one, other in zip(fused, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kernel", ["fused", "plain"])
@pytest.mark.parametrize("form", ["none", "log_bias"])
def test_bfloat16_is_close(
    form: attention.DecayForm, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = attend_by("fused", form, torch.float32, monkeypatch)
    rough = attend_by(kernel, form, torch.bfloat16, monkeypatch)
    for one, other in zip(exact, rough, strict=True):
        error = (one - other.float()).norm() / one.norm()
        assert error < 0.02, error
