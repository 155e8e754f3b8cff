"""Graph embeddings: scores by the formulas, and each form learns a graph it can express."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphmert.errors import DataError
from graphmert.evaluate.baselines import Query
from graphmert.evaluate.kge import KGE, KGEBaseline

FORMS = ("transe", "complex", "rotate")


@pytest.mark.parametrize("form", FORMS)
def test_scores_follow_the_formula(form: str) -> None:
    torch.manual_seed(0)
    model = KGE(form, 5, 3, width=6).double()  # type: ignore[arg-type]
    found = model(torch.tensor([1, 4]), torch.tensor([0, 2]), torch.arange(5)).detach().numpy()
    e, r = model.entity.detach().numpy(), model.relation.detach().numpy()
    for row, (h, k) in enumerate([(1, 0), (4, 2)]):
        for t in range(5):
            if form == "transe":
                wanted = -np.abs(e[h] + r[k] - e[t]).sum()
            else:
                hc, tc = (e[i][:3] + 1j * e[i][3:] for i in (h, t))
                if form == "complex":
                    wanted = np.real((hc * (r[k][:3] + 1j * r[k][3:]) * tc.conj()).sum())
                else:
                    wanted = -np.sqrt((np.abs(hc * np.exp(1j * r[k]) - tc) ** 2).sum())
            assert found[row, t] == pytest.approx(wanted, rel=1e-9), (form, h, t)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_learns_a_line(form: str) -> None:
    """Relation 0 steps forward along a line of 12, relation 1 back: directions must be told.

    No ring: translations that add up to nothing round it would all be nothing.
    """
    line = np.arange(11)
    forward = np.stack([line, np.zeros(11, np.int64), line + 1], axis=1)
    back = np.stack([line + 1, np.ones(11, np.int64), line], axis=1)
    triples = np.concatenate([forward, back])
    made = KGEBaseline(
        form, triples, n_entities=12, n_relations=2, width=16, steps=250, seed=0,  # type: ignore[arg-type]
        learning_rate=0.1, batch_size=24, n_negatives=12,
    )  # fmt: skip
    assert np.mean(made.losses[-10:]) < 0.5 * np.mean(made.losses[:10])
    queries = [Query(int(h), "", int(r), "") for h, r, _ in triples]
    scores = made.score(queries)
    assert scores.shape == (22, 12)
    assert (scores.argmax(1) == triples[:, 2]).mean() > 0.9


def test_the_seed_fixes_everything() -> None:
    triples = np.array([[0, 0, 1], [1, 0, 2]])
    options = {"n_entities": 3, "n_relations": 1, "width": 4, "steps": 5}
    one, two = (KGEBaseline("transe", triples, seed=3, **options) for _ in range(2))
    assert torch.equal(one.model.entity, two.model.entity)


def test_no_triples_is_refused() -> None:
    with pytest.raises(DataError, match="needs triples"):
        KGEBaseline(
            "transe", np.zeros((0, 3), np.int64), n_entities=1, n_relations=1, width=2, steps=1,
            seed=0,
        )  # fmt: skip
