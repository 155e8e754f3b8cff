"""Graph embeddings: scores by the formulas, and each form learns a graph it can express."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphmert.errors import DataError
from graphmert.evaluate.baselines import Query
from graphmert.evaluate.kge import KGE, KGEBaseline, choose_kge

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
        form, triples, n_entities=12, n_relations=2, width=16, epochs=250, seed=0,  # type: ignore[arg-type]
        learning_rate=0.1, batch_size=24, n_negatives=12,
    )  # fmt: skip
    assert len(made.losses) == 250
    assert np.mean(made.losses[-10:]) < 0.5 * np.mean(made.losses[:10])
    queries = [Query(int(h), "", int(r), "") for h, r, _ in triples]
    scores = made.score(queries)
    assert scores.shape == (22, 12)
    assert (scores.argmax(1) == triples[:, 2]).mean() > 0.9


def made(**options: object) -> KGEBaseline:
    triples = np.stack([np.arange(20), np.zeros(20, np.int64), np.arange(20) + 1], axis=1)
    values = {"width": 4, "learning_rate": 0.1, "epochs": 9, "seed": 0, "batch_size": 8} | options
    return KGEBaseline("complex", triples, n_entities=21, n_relations=1, n_negatives=4, **values)  # type: ignore[arg-type]


def test_an_epoch_is_every_triple_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    forward = KGE.forward
    monkeypatch.setattr(
        KGE, "forward", lambda self, h, r, t: (seen.extend(h.tolist()), forward(self, h, r, t))[1]
    )
    made(epochs=2)
    assert sorted(seen[:20]) == sorted(seen[20:]) == list(range(20))
    assert seen[:20] != seen[20:]


def test_training_stops_when_validation_no_longer_rises() -> None:
    values = iter([0.1, 0.4, 0.3, 0.2, 0.9])
    weights = []

    def validate(baseline: KGEBaseline) -> float:
        weights.append(baseline.model.entity.detach().clone())
        return next(values)

    stopped = made(validate=validate, patience=2)
    assert stopped.to_dict() == {
        "width": 4, "learning_rate": 0.1, "best_epoch": 2, "epochs": 4, "valid_mrr": 0.4,
    }  # fmt: skip
    assert torch.equal(stopped.model.entity, weights[1])  # not those of the last epoch


def test_width_and_rate_are_chosen_on_validation() -> None:
    worth = {(4, 0.1): 0.2, (4, 0.5): 0.3, (8, 0.1): 0.7, (8, 0.5): 0.1}
    triples = np.array([[0, 0, 1], [1, 0, 2]])
    options = {"n_entities": 3, "n_relations": 1, "epochs": 2, "seed": 0}
    grid = {"widths": (4, 8), "learning_rates": (0.1, 0.5)}
    kept, record = choose_kge(
        "transe", triples, validate=lambda one: worth[one.width, one.learning_rate], **grid,
        **options,
    )  # fmt: skip
    assert (kept.width, kept.learning_rate) == (8, 0.1)
    assert (record["width"], record["learning_rate"]) == (8, 0.1)
    assert [one["valid_mrr"] for one in record["tried"]] == [0.2, 0.3, 0.7, 0.1]
    kept, record = choose_kge("transe", triples, validate=None, **grid, **options)
    assert (kept.width, record["valid_mrr"], len(record["tried"])) == (4, None, 1)


def test_scores_of_some_are_those_among_all() -> None:
    queries, rows = [Query(1, "", 0, ""), Query(5, "", 0, "")], np.array([7, 2])
    baseline = made()
    np.testing.assert_allclose(
        baseline.score(queries, rows), baseline.score(queries)[:, rows], rtol=1e-5
    )


def test_the_seed_fixes_everything() -> None:
    triples = np.array([[0, 0, 1], [1, 0, 2]])
    options = {"n_entities": 3, "n_relations": 1, "width": 4, "epochs": 5, "learning_rate": 0.1}
    one, two = (KGEBaseline("transe", triples, seed=3, **options) for _ in range(2))
    assert torch.equal(one.model.entity, two.model.entity)


def test_no_triples_is_refused() -> None:
    with pytest.raises(DataError, match="needs triples"):
        KGEBaseline(
            "transe", np.zeros((0, 3), np.int64), n_entities=1, n_relations=1, width=2, epochs=1,
            seed=0, learning_rate=0.1,
        )  # fmt: skip
