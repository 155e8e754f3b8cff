"""The decay factor and the three attention forms against float64 loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from golden import reference_decay as reference
from golden.forms import make_model, random_chains
from graphmert import encoder
from graphmert.attention import attend, log_decay, node_distance, visible
from graphmert.batch import ChainBatch, collate

TOLERANCE = {"rtol": 1e-11, "atol": 1e-12}
N_HEADS, WIDTH = 3, 5


def make_batch(seed: int) -> ChainBatch:
    return collate(random_chains(seed))


def test_log_decay_equals_the_formula() -> None:
    distance = torch.arange(12).reshape(3, 4)
    for p, offset, lam in [(1.0, 0, 0.6), (-0.4, 1, 0.9), (2.3, 0, 0.25)]:
        found = log_decay(
            distance, torch.tensor(p, dtype=torch.float64), decay_base=lam, offset=offset
        )
        wanted = [math.log(reference.factor(float(d) + offset, lam=lam, p=p)) for d in range(12)]
        np.testing.assert_allclose(found.reshape(-1).numpy(), wanted, **TOLERANCE)


def test_decay_base_one_is_plain_attention() -> None:
    found = log_decay(torch.arange(5), torch.tensor(0.7, dtype=torch.float64), decay_base=1.0)
    assert found.abs().max() == 0.0


@pytest.mark.parametrize("visibility", ["open", "isolated"])
@pytest.mark.parametrize("per_head", [False, True], ids=["shared-p", "p-per-head"])
@pytest.mark.parametrize("form", ["log_bias", "weights", "logits"])
def test_attention_equals_the_loops(form: str, per_head: bool, visibility: str) -> None:
    batch = make_batch(3)
    rng = np.random.default_rng(1)
    n_rows, n = batch.token_BN.shape
    q, k, v = (rng.standard_normal((n_rows, N_HEADS, n, WIDTH)) for _ in range(3))
    p = rng.standard_normal(N_HEADS if per_head else 1)
    offset = 1 if form == "logits" else 0
    sp = node_distance(
        batch.kind_BN, batch.root_BN, batch.triple_BN, batch.slot_BN, rule="shortest"
    )
    seen = visible(batch.kind_BN, batch.triple_BN, batch.padding_mask_BN, visibility=visibility)  # type: ignore[arg-type]
    log_f = log_decay(
        sp[:, None], torch.from_numpy(p)[:, None, None], decay_base=0.6, offset=offset
    )
    found = attend(
        torch.from_numpy(q),
        torch.from_numpy(k),
        torch.from_numpy(v),
        visible_B1NN=seen[:, None],
        log_decay_BANN=log_f,
        form=form,  # type: ignore[arg-type]
    ).numpy()
    for row in range(n_rows):
        padding = batch.padding_mask_BN[row].numpy()
        allowed = reference.allowed_keys(padding)
        if visibility == "isolated":
            allowed = reference.allowed_isolated(batch.triple_BN[row].numpy(), padding)
        wanted = reference.attention(
            q[row],
            k[row],
            v[row],
            sp[row].numpy(),
            form=form,
            lam=0.6,
            p_A=np.broadcast_to(p, N_HEADS),
            allowed_NN=allowed,
            offset=float(offset),
        )
        np.testing.assert_allclose(found[row][:, padding], wanted[:, padding], **TOLERANCE)
        assert np.isfinite(found[row]).all()


def test_no_decay_is_softmax_of_scores() -> None:
    batch = make_batch(4)
    rng = np.random.default_rng(2)
    n_rows, n = batch.token_BN.shape
    q, k, v = (torch.from_numpy(rng.standard_normal((n_rows, 2, n, 4))) for _ in range(3))
    seen = visible(batch.kind_BN, batch.triple_BN, batch.padding_mask_BN, visibility="open")
    options = {"visible_B1NN": seen[:, None]}
    plain = attend(q, k, v, log_decay_BANN=None, form="none", **options)
    ones = torch.zeros(n_rows, 2, n, n, dtype=torch.float64)
    for form in ("log_bias", "weights", "logits"):
        same = attend(q, k, v, log_decay_BANN=ones, form=form, **options)  # type: ignore[arg-type]
        torch.testing.assert_close(plain, same, rtol=1e-12, atol=1e-12)


def test_graph_token_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its distances are softplus of the table, 0 to itself; nobody else sees it."""
    model = make_model("reference")
    table = model.encoder.graph_distance.detach().numpy()
    p = model.encoder.p.detach().numpy().reshape(-1)
    assert table.min() < 1.0 < table.max()  # both branches of softplus
    c = model.config
    seen: list[dict[str, torch.Tensor]] = []

    def record(*args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        seen.append(kwargs)
        return attend(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(encoder, "attend", record)
    for chain in random_chains(6, one_per_root=True):
        batch = collate([chain])
        seen.clear()
        with torch.no_grad():
            model(batch)
        assert len(seen) == c.n_layers
        visible_NN = seen[-1]["visible_B1NN"][0, 0].numpy()
        log_f = seen[-1]["log_decay_BANN"][0].numpy()
        assert not visible_NN[1:, 0].any()
        assert visible_NN[0].all()
        places = list(range(len(chain.roots)))
        for triple in chain.triples:
            first = c.n_root_slots + c.n_leaf_slots * triple.head_start
            places.extend(first + k for k in range(len(triple.tail)))
        for a, threshold in enumerate(p):
            hops = [0.0] + [reference.softplus(float(table[i])) for i in places]
            wanted = [math.log(reference.factor(h, lam=c.decay_base, p=threshold)) for h in hops]
            np.testing.assert_allclose(log_f[a, 0], wanted, **TOLERANCE)
