"""Regularisers that read triples and their directions: what a schema says, as losses.

They work on the vectors of entity names. Legend: C names, T triples, P inherited triples,
Y entity types, E relations, D width, K width of the scorer. Each loss returns (sum, count); no
term gives a zero that is connected to the graph.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphmert.batch import ConstraintBatch
from graphmert.objectives import INITIAL_LOG_SCALE, cross_entropy, unit

REGULARISERS = ("type", "antisymmetry", "acyclicity", "inheritance", "contrastive")

MARGIN = 0.1
"""How far the score of a triple stays above that of its reverse (scores are cosines)."""
STEP = 1.0
"""How far the potential of a tail stays above that of its head."""


class TripleScorer(nn.Module):
    """Score directed triples: s_r(h, t) = cos(d_r * (A h), B t).

    A and B differ, so s_r(h, t) and s_r(t, h) do.
    """

    def __init__(self, width: int, n_relations: int, *, rank: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, rank, bias=False)
        self.tail = nn.Linear(width, rank, bias=False)
        self.relation = nn.Parameter(torch.ones(n_relations, rank))

    def heads(self, entity_TD: Tensor, relation_T: Tensor) -> Tensor:
        """Unit vectors d_r * (A h), (T, K)."""
        return unit(self.head(entity_TD) * self.relation[relation_T])

    def tails(self, entity_TD: Tensor) -> Tensor:
        """Unit vectors B t, (T, K)."""
        return unit(self.tail(entity_TD))

    def forward(self, head_TD: Tensor, relation_T: Tensor, tail_TD: Tensor) -> Tensor:
        """Scores of triples, (T,)."""
        return (self.heads(head_TD, relation_T) * self.tails(tail_TD)).sum(-1)


class ConstraintHead(nn.Module):
    """The parameters of the regularisers that are asked for, and their losses.

    Source: GraphMER-SE, constraint regularisers. Differs: each reads triples and directions.
    Checked by: tests/golden/test_constraints.py
    """

    def __init__(
        self, width: int, n_relations: int, n_types: int, *, asked: frozenset[str], rank: int = 64
    ) -> None:
        super().__init__()
        self.asked = asked
        scored = asked & {"antisymmetry", "inheritance", "contrastive"}
        self.entity_type = nn.Linear(width, n_types) if "type" in asked else None
        self.scorer = TripleScorer(width, n_relations, rank=rank) if scored else None
        self.log_scale = None
        if "contrastive" in asked:
            self.log_scale = nn.Parameter(torch.tensor(INITIAL_LOG_SCALE))
        self.potential = None
        if "acyclicity" in asked:
            self.potential = nn.Parameter(torch.zeros(n_relations, width))

    def forward(self, name_CD: Tensor, batch: ConstraintBatch) -> dict[str, tuple[Tensor, Tensor]]:
        """(sum, count) of every regulariser asked for, from unit name vectors (C, D)."""
        head_TD, tail_TD = name_CD[batch.head_T], name_CD[batch.tail_T]
        losses: dict[str, tuple[Tensor, Tensor]] = {}
        if self.entity_type is not None:
            logits_2TY = torch.cat([self.entity_type(head_TD), self.entity_type(tail_TD)])
            losses["type"] = type_loss(
                logits_2TY, torch.cat([batch.head_types_TY, batch.tail_types_TY])
            )
        if self.potential is not None:
            rise_T = self.rises(head_TD, batch.relation_T, tail_TD)
            losses["acyclicity"] = acyclicity_loss(rise_T[batch.acyclic_T])
        if self.scorer is None:
            return losses
        forward_T = self.scorer(head_TD, batch.relation_T, tail_TD)
        if "antisymmetry" in self.asked:
            backward_T = self.scorer(tail_TD, batch.relation_T, head_TD)
            chosen = batch.antisymmetric_T
            losses["antisymmetry"] = antisymmetry_loss(forward_T[chosen], backward_T[chosen])
        if "inheritance" in self.asked:
            member = batch.member_P
            inherited_P = self.scorer(
                name_CD[batch.heir_P], batch.relation_T[member], tail_TD[member]
            )
            losses["inheritance"] = inheritance_loss(forward_T[member], inherited_P)
        if self.log_scale is not None:
            query_TK = self.scorer.heads(head_TD, batch.relation_T)
            logits_TC = query_TK @ self.scorer.tails(name_CD).T
            scale = self.log_scale.clamp(max=math.log(100.0)).exp()
            losses["contrastive"] = contrastive_loss(
                logits_TC * scale, batch.tail_T, batch.excluded_TC
            )
        return losses

    def rises(self, head_TD: Tensor, relation_T: Tensor, tail_TD: Tensor) -> Tensor:
        """phi_r(tail) - phi_r(head) of every triple, phi_r(x) = w_r . x, (T,)."""
        assert self.potential is not None
        return ((tail_TD - head_TD) * self.potential[relation_T].to(head_TD.dtype)).sum(-1)


def _count(values: Tensor) -> Tensor:
    return torch.tensor(float(values.shape[0]), device=values.device)


def type_loss(logits_NY: Tensor, allowed_NY: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over ends of -ln sum_{y allowed} softmax(logits)_y: an entity's type fits its triples.

    A head's types are its relation's domain, a tail's the range. An entity that stands where its
    type may not stand costs.
    """
    log_p_NY = logits_NY.log_softmax(-1)
    inside_N = log_p_NY.masked_fill(~allowed_NY, -math.inf).logsumexp(-1)
    return -inside_N.sum(), _count(inside_N)


def antisymmetry_loss(forward_P: Tensor, backward_P: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of max(0, MARGIN + s_r(t, h) - s_r(h, t)): the reverse of a triple scores lower."""
    return F.relu(MARGIN + backward_P - forward_P).sum(), _count(forward_P)


def acyclicity_loss(rise_P: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of max(0, STEP - (phi_r(t) - phi_r(h))): every triple climbs, which no cycle can.

    Around a cycle of n triples the rises add up to 0, so its loss is at least n STEP.
    """
    return F.relu(STEP - rise_P).sum(), _count(rise_P)


def inheritance_loss(member_P: Tensor, inherited_P: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of max(0, s_r(parent, m) - s_r(heir, m)), the parent's score held fixed."""
    return F.relu(member_P.detach() - inherited_P).sum(), _count(inherited_P)


def contrastive_loss(
    logits_TC: Tensor, positive_T: Tensor, excluded_TC: Tensor
) -> tuple[Tensor, Tensor]:
    """InfoNCE of each triple's tail among the batch's entities, other true tails left out."""
    return cross_entropy(logits_TC.masked_fill(excluded_TC, -math.inf), positive_T)
