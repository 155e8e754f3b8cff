"""TransE, ComplEx and RotatE, small and plain, as baselines of link prediction.

Scores of a triple (h, r, t) with embeddings of width D:
    TransE   -|h + r - t|_1
    ComplEx  Re <h, r, conj(t)>, complex h, r, t of width D / 2
    RotatE   -|h * e^(i r) - t|, complex h, t of width D / 2, phases r
Trained with the softmax over all tails in the batch and random ones. Imported by name only.
Legend: T triples, N entities, E relations, D width, Q queries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graphmert.errors import DataError
from graphmert.evaluate.baselines import Query
from graphmert.objectives import cross_entropy

Form = Literal["transe", "complex", "rotate"]


class KGE(nn.Module):
    """Embeddings of entities and relations, and scores of every tail."""

    def __init__(self, form: Form, n_entities: int, n_relations: int, *, width: int) -> None:
        super().__init__()
        self.form = form
        self.entity = nn.Parameter(torch.randn(n_entities, width) * width**-0.5)
        n_parts = width // 2 if form == "rotate" else width
        self.relation = nn.Parameter(torch.randn(n_relations, n_parts) * width**-0.5)

    def forward(self, head_Q: Tensor, relation_Q: Tensor, tail_N: Tensor) -> Tensor:
        """Scores of heads and relations against tails, (Q, N)."""
        h_QD, r_Q, t_ND = self.entity[head_Q], self.relation[relation_Q], self.entity[tail_N]
        if self.form == "transe":
            return -torch.cdist(h_QD + r_Q, t_ND, p=1)
        h = torch.complex(*h_QD.chunk(2, -1))
        if self.form == "rotate":
            turned = h * torch.polar(torch.ones_like(r_Q), r_Q)
            return -torch.cdist(torch.view_as_real(turned).flatten(1), _interleave(t_ND))
        product = h * torch.complex(*r_Q.chunk(2, -1))
        return torch.view_as_real(product).flatten(1) @ _interleave(t_ND).T


def _interleave(t_ND: Tensor) -> Tensor:
    """(real, imaginary) halves as pairs, the order of `view_as_real`."""
    return torch.stack(t_ND.chunk(2, -1), dim=-1).flatten(1)


class KGEBaseline:
    """A trained form, as a baseline.

    An epoch gives every triple once, in batches drawn anew. With `validate`, training ends after
    `patience` epochs without a better value, and the weights are those of the best epoch.

    Args:
        triples: int64 (T, 3), head, relation, tail; all that may be known.
        epochs: at most so many.
        validate: what a state of training is worth, more is better; None trains all epochs.
    """

    def __init__(
        self,
        form: Form,
        triples: NDArray[np.int64],
        *,
        n_entities: int,
        n_relations: int,
        width: int,
        epochs: int,
        seed: int,
        learning_rate: float,
        validate: Callable[[KGEBaseline], float] | None = None,
        patience: int = 5,
        batch_size: int = 512,
        n_negatives: int = 512,
        device: torch.device | str = "cpu",
    ) -> None:
        if not len(triples):
            raise DataError("a graph embedding needs triples", got="none")
        self.name: str = form
        self.width, self.learning_rate = width, learning_rate
        torch.manual_seed(seed)
        self.model = KGE(form, n_entities, n_relations, width=width).to(device)
        self.losses: list[float] = []
        self.best_epoch, self.best_value = epochs, None if validate is None else -math.inf
        self._optimizer = torch.optim.Adagrad(self.model.parameters(), lr=learning_rate)
        self._rng = np.random.default_rng(seed)
        self._batch_size, self._n_negatives = batch_size, n_negatives
        rows_T3 = torch.from_numpy(np.ascontiguousarray(triples)).to(device)
        best: dict[str, Tensor] = {}
        for epoch in range(1, epochs + 1):
            self.losses.append(self._epoch(rows_T3))
            if validate is None or self.best_value is None:
                continue
            value = validate(self)
            if value > self.best_value:
                self.best_epoch, self.best_value = epoch, value
                best = {name: one.detach().clone() for name, one in self.model.named_parameters()}
            elif epoch - self.best_epoch >= patience:
                break
        if best:
            self.model.load_state_dict(best)

    def _epoch(self, rows_T3: Tensor) -> float:
        """Train on every triple once; the mean loss."""
        scale = 1.0 if self.model.form == "complex" else 4.0
        device, n_entities = rows_T3.device, len(self.model.entity)
        order = torch.from_numpy(self._rng.permutation(len(rows_T3))).to(device)
        summed = 0.0
        for rows in order.split(self._batch_size):
            chosen = rows_T3[rows]
            drawn = self._rng.integers(n_entities, size=self._n_negatives)
            others = torch.from_numpy(drawn).to(device)
            pool, column = torch.unique(torch.cat([chosen[:, 2], others]), return_inverse=True)
            logits = scale * self.model(chosen[:, 0], chosen[:, 1], pool)
            total, count = cross_entropy(logits, column[: len(chosen)])
            self._optimizer.zero_grad()
            (total / count).backward()
            self._optimizer.step()
            summed += total.item()
        return summed / len(rows_T3)

    @torch.no_grad()
    def score(
        self, queries: Sequence[Query], rows: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Scores as the tail, (Q, N), of every entity or of those in `rows`."""
        device = self.model.entity.device
        head = torch.tensor([query.head for query in queries], device=device)
        relation = torch.tensor([query.relation for query in queries], device=device)
        every = np.arange(len(self.model.entity)) if rows is None else rows
        tails = torch.from_numpy(every).to(device)
        return self.model(head, relation, tails).cpu().numpy()

    def to_dict(self) -> dict[str, Any]:
        """How it was trained, and what that was worth on validation."""
        return {
            "width": self.width,
            "learning_rate": self.learning_rate,
            "best_epoch": self.best_epoch,
            "epochs": len(self.losses),
            "valid_mrr": None if self.best_value is None else round(self.best_value, 4),
        }


def choose_kge(
    form: Form,
    triples: NDArray[np.int64],
    *,
    widths: Sequence[int],
    learning_rates: Sequence[float],
    validate: Callable[[KGEBaseline], float] | None,
    **options: Any,
) -> tuple[KGEBaseline, dict[str, Any]]:
    """Train a form at every width and learning rate; keep what is worth most on validation.

    Without `validate` nothing can be chosen: only the first of each is trained, for all epochs.

    Args:
        options: of `KGEBaseline`.

    Returns: the best, and how it was trained with all that was tried.
    """
    grid = [(width, rate) for width in widths for rate in learning_rates]
    kept: KGEBaseline | None = None
    tried = []
    for width, rate in grid if validate is not None else grid[:1]:
        made = KGEBaseline(
            form, triples, width=width, learning_rate=rate, validate=validate, **options
        )
        tried.append(made.to_dict())
        if kept is None or (made.best_value or 0.0) > (kept.best_value or 0.0):
            kept = made
    if kept is None:
        raise DataError("nothing to choose from", got="no width or no learning rate")
    return kept, kept.to_dict() | {"tried": tried}
