"""TransE, ComplEx and RotatE, small and plain, as baselines of link prediction.

Scores of a triple (h, r, t) with embeddings of width D:
    TransE   -|h + r - t|_1
    ComplEx  Re <h, r, conj(t)>, complex h, r, t of width D / 2
    RotatE   -|h * e^(i r) - t|, complex h, t of width D / 2, phases r
Trained with the softmax over all tails in the batch and random ones. Imported by name only.
Legend: T triples, N entities, E relations, D width, Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

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

    Args:
        triples: int64 (T, 3), head, relation, tail; all that may be known.
    """

    def __init__(
        self,
        form: Form,
        triples: NDArray[np.int64],
        *,
        n_entities: int,
        n_relations: int,
        width: int,
        steps: int,
        seed: int,
        learning_rate: float = 0.05,
        batch_size: int = 512,
        n_negatives: int = 512,
    ) -> None:
        if not len(triples):
            raise DataError("a graph embedding needs triples", got="none")
        self.name: str = form
        torch.manual_seed(seed)
        self.model = KGE(form, n_entities, n_relations, width=width)
        optimizer = torch.optim.Adagrad(self.model.parameters(), lr=learning_rate)
        rng = np.random.default_rng(seed)
        rows_T3 = torch.from_numpy(np.ascontiguousarray(triples))
        scale = 1.0 if form == "complex" else 4.0
        self.losses: list[float] = []
        for _ in range(steps):
            chosen = rows_T3[torch.from_numpy(rng.integers(len(triples), size=batch_size))]
            others = torch.from_numpy(rng.integers(n_entities, size=n_negatives))
            pool, column = torch.unique(torch.cat([chosen[:, 2], others]), return_inverse=True)
            logits = scale * self.model(chosen[:, 0], chosen[:, 1], pool)
            total, count = cross_entropy(logits, column[: len(chosen)])
            optimizer.zero_grad()
            (total / count).backward()
            optimizer.step()
            self.losses.append((total / count).item())

    @torch.no_grad()
    def score(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Scores of every entity as the tail, (Q, N)."""
        head = torch.tensor([query.head for query in queries])
        relation = torch.tensor([query.relation for query in queries])
        every = torch.arange(len(self.model.entity))
        return self.model(head, relation, every).numpy()
