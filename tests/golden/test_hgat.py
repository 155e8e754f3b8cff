"""H-GAT over all triples of a batch at once against one triple and one token at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from golden import reference_hgat as reference
from golden.forms import NAMES, NO_NAMES, random_chains
from graphmert.batch import ChainBatch, collate
from graphmert.embed import HGAT, NodeEmbedding

WIDTH, N_RELATIONS, SLOPE = 6, 4, 0.01
TOLERANCE = {"rtol": 1e-10, "atol": 1e-11}


def make_hgat(form: str, *, seed: int = 0, slope: float = SLOPE) -> HGAT:
    module = HGAT(WIDTH, N_RELATIONS, form=form, rank=2, slope=slope).double()  # type: ignore[arg-type]
    module.reset_parameters(std=0.7, generator=torch.Generator().manual_seed(seed))
    return module


def matrices(module: HGAT) -> np.ndarray:
    if module.form == "full":
        return module.matrix.detach().numpy()
    return (module.shared + module.left @ module.right).detach().numpy()


def specs(batch: ChainBatch) -> list[reference.HeadTail]:
    """(relation, head nodes, leaf nodes) of every triple, as flat positions."""
    out: list[reference.HeadTail] = []
    n = batch.token_BN.shape[1]
    for t in range(batch.n_triples):
        row = int(batch.row_T[t])
        heads: Sequence[int] = range(
            row * n + int(batch.head_start_T[t]), row * n + int(batch.head_end_T[t])
        )
        leaves = torch.nonzero(batch.triple_BN.reshape(-1) == t).reshape(-1).tolist()
        out.append((int(batch.relation_T[t]), heads, leaves))
    return out


@pytest.mark.parametrize("slope", [0.01, 0.2])
@pytest.mark.parametrize("names", [NO_NAMES, NAMES], ids=["tails", "names-and-tails"])
@pytest.mark.parametrize("form", ["full", "low_rank"])
def test_messages_equal_the_loops(form: str, names: object, slope: float) -> None:
    module = make_hgat(form, slope=slope)
    batch = collate(random_chains(2, n_chains=4), relation_names=names)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch.token_BN.numel(), WIDTH))
    score = module.score.detach().numpy()
    wanted = reference.hgat(
        x,
        specs(batch),
        matrices_EDD=matrices(module),
        a_tail_ED=score[:, 0],
        a_head_ED=score[:, 1],
        slope=slope,
    )
    flat = torch.from_numpy(x)
    with torch.no_grad():
        added = module(
            flat[batch.leaf_index_TL],
            flat[batch.head_index_TM],
            batch.head_mask_TM,
            batch.relation_T,
        )
    found = x.copy()
    live = batch.leaf_mask_TL.numpy()
    found[batch.leaf_index_TL.numpy()[live]] += added.numpy()[live]
    np.testing.assert_allclose(found, wanted, **TOLERANCE)
    assert np.abs(found - x).max() > 0.1


@pytest.mark.parametrize("form", ["full", "low_rank"])
def test_node_embedding_adds_messages_to_leaves_only(form: str) -> None:
    embed = NodeEmbedding(
        width=WIDTH,
        vocab_size=41,
        pad_id=0,
        input_width=None,
        n_positions=0,
        position_offset=0,
        positions="none",
        n_types=0,
        n_slots=0,
        n_name_slots=0,
        n_relations=N_RELATIONS,
        relation_embedding=False,
        relation_dropout=0.3,
        hgat=form,  # type: ignore[arg-type]
        hgat_rank=2,
        hgat_slope=SLOPE,
        norm=False,
        norm_eps=1e-5,
        dropout=0.1,
    )
    embed = embed.double().eval()
    embed.hgat.reset_parameters(std=0.7, generator=torch.Generator().manual_seed(1))
    batch = collate(random_chains(8, n_chains=4))
    with torch.no_grad():
        found = embed(batch).reshape(-1, WIDTH).numpy()
    score = embed.hgat.score.detach().numpy()
    wanted = reference.hgat(
        embed.token.weight.detach().numpy()[batch.token_BN.reshape(-1).numpy()],
        specs(batch),
        matrices_EDD=matrices(embed.hgat),
        a_tail_ED=score[:, 0],
        a_head_ED=score[:, 1],
        slope=SLOPE,
    )
    np.testing.assert_allclose(found, wanted, **TOLERANCE)


def test_single_head_token_gets_weight_one() -> None:
    """Softmax over one key is 1: the leaf gets W_r h whatever a_r says."""
    module = make_hgat("full")
    x = torch.randn(1, 2, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    head = x[:, :1] + 1
    mask = torch.ones(1, 1, dtype=torch.bool)
    relation = torch.tensor([3])
    with torch.no_grad():
        added = module(x, head, mask, relation)
        torch.testing.assert_close(
            added, (head @ module.matrix[3].T).expand(1, 2, WIDTH), rtol=1e-12, atol=1e-12
        )


def test_no_triples_in_the_batch() -> None:
    batch = collate(random_chains(1, n_chains=1))
    assert batch.n_triples == 0
    assert batch.leaf_index_TL.shape[0] == 0
