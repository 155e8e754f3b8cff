"""Output networks and losses: MLM, SBO, and masked node modelling of leaf, relation, entity.

Legend: N flat node states, P labelled positions, T triples, L leaves, M head roots, D width,
V vocabulary, E relations, Q queries, C candidate names. Every loss returns (sum, count); an
objective that asks nothing returns a zero that is connected to the graph, never NaN.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from graphmert.batch import ChainBatch, KnownBatch
from graphmert.known import n_features

INITIAL_LOG_SCALE = math.log(20.0)


def cross_entropy(logits_PV: Tensor, label_P: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of -log softmax(logits)[label] over labels that are not -100, and their number.

    Returns: float32 (or wider) scalars; (0, 0) where every label is ignored.
    Checked by: tests/golden/test_losses.py
    """
    kept = (label_P != -100).sum().to(torch.float32)
    if label_P.numel() == 0:
        return logits_PV.to(_wide(logits_PV)).sum(), kept
    return _CrossEntropy.apply(logits_PV, label_P), kept


class _CrossEntropy(torch.autograd.Function):
    """Keep the logits as they came, widening a few rows at a time, forward and backward.

    Vocabulary logits are the largest tensors of a step; a float32 copy, its logarithms and
    their gradient would be three more of them.
    """

    @staticmethod
    def forward(ctx: Any, logits_PV: Tensor, label_P: Tensor) -> Tensor:
        wide = _wide(logits_PV)
        n_rows = _rows_at_once(logits_PV)
        log_z_P = torch.cat([part.to(wide).logsumexp(-1) for part in logits_PV.split(n_rows)])
        ctx.save_for_backward(logits_PV, label_P, log_z_P)
        picked_P = logits_PV.gather(1, label_P.clamp(min=0)[:, None])[:, 0].to(wide)
        return (log_z_P - picked_P).masked_fill(label_P == -100, 0.0).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        logits_PV, label_P, log_z_P = ctx.saved_tensors
        n_rows = _rows_at_once(logits_PV)
        grad_PV = torch.empty_like(logits_PV)
        scale_P1 = (grads[0] * (label_P != -100))[:, None]
        columns = (logits_PV, label_P.clamp(min=0)[:, None], log_z_P[:, None], scale_P1, grad_PV)
        for logits, label, log_z, scale, grad in zip(
            *(column.split(n_rows) for column in columns), strict=True
        ):
            softmax = (logits.to(log_z.dtype) - log_z).exp_()
            softmax.scatter_add_(1, label, torch.full_like(log_z, -1.0))
            grad.copy_(softmax.mul_(scale))
        return grad_PV, None


def _wide(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _rows_at_once(logits_PV: Tensor) -> int:
    """As many rows as fit a CPU's cache; a device computes large parts."""
    n_elements = 1 << (18 if logits_PV.device.type == "cpu" else 26)
    return max(1, n_elements // logits_PV.shape[1])


class Transform(nn.Module):
    """LN(GELU(W x))."""

    def __init__(self, in_width: int, width: int, *, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(in_width, width)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(P, in_width) -> (P, width)."""
        return self.norm(F.gelu(self.dense(x)))


class VocabHead(nn.Module):
    """Token logits: Linear, GELU, LN, then the token embedding as decoder, plus a bias."""

    def __init__(self, width: int, vocab_size: int, *, eps: float) -> None:
        super().__init__()
        self.transform = Transform(width, width, eps=eps)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, x_PD: Tensor, decoder_VD: Tensor) -> Tensor:
        """States (P, D) and decoder (V, D) -> logits (P, V)."""
        return F.linear(self.transform(x_PD), decoder_VD, self.bias)


class SpanBoundaryHead(nn.Module):
    """Predict a masked root from the two roots beside its span and its place in the span.

    Input [h_left ; h_right ; position]: Linear, GELU, LN, Linear, GELU, LN, decoder.
    Source: GraphMERT, SBO. Differs: the decoder may be tied to the token embedding.
    Checked by: tests/golden/test_losses.py
    """

    def __init__(
        self, width: int, vocab_size: int, *, n_places: int, eps: float, tied: bool
    ) -> None:
        super().__init__()
        self.place = nn.Embedding(n_places, width)
        self.first = Transform(3 * width, width, eps=eps)
        self.second = Transform(width, width, eps=eps)
        self.decoder = None if tied else nn.Linear(width, vocab_size)
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if tied else None

    def forward(
        self, left_PD: Tensor, right_PD: Tensor, place_P: Tensor, decoder_VD: Tensor
    ) -> Tensor:
        """Three inputs for each masked root -> logits (P, V)."""
        place_PD = self.place(place_P.clamp(max=self.place.num_embeddings - 1))
        x_PD = self.second(self.first(torch.cat([left_PD, right_PD, place_PD], dim=-1)))
        if self.decoder is not None:
            return self.decoder(x_PD)
        return F.linear(x_PD, decoder_VD, self.bias)


def unit(x: Tensor) -> Tensor:
    """Rows at length one, in float32 or wider."""
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)


def mean_states(flat_ND: Tensor, index_TM: Tensor, mask_TM: Tensor) -> Tensor:
    """Mean of the states at the masked positions of each row: (T, D)."""
    weight_TM = mask_TM.to(flat_ND.dtype)
    total_TD = torch.einsum("tmd,tm->td", flat_ND[index_TM], weight_TM)
    return total_TD / weight_TM.sum(-1, keepdim=True).clamp(min=1)


class RelationHead(nn.Module):
    """Relation logits of a triple: Linear(mean head state + mean leaf state + slot vector).

    Source: GraphMERT-CodeBERT, relation head. Differs: each slot has its own input, so slots
    of one root do not share their logits.
    Checked by: tests/golden/test_losses.py
    """

    def __init__(self, width: int, n_relations: int, *, n_ordinals: int) -> None:
        super().__init__()
        self.slot = nn.Embedding(n_ordinals, width)
        self.linear = nn.Linear(width, n_relations)

    def forward(self, head_TD: Tensor, leaf_TD: Tensor, ordinal_T: Tensor) -> Tensor:
        """Head and leaf states and slots of T triples -> logits (T, E)."""
        slot_TD = self.slot(ordinal_T.clamp(max=self.slot.num_embeddings - 1))
        return self.linear(head_TD + leaf_TD + slot_TD)


class EntityHead(nn.Module):
    """Compare a masked leaf group with entity names in the encoder's own space.

    q = W mean(leaves) + g_text mean(roots) + g_head mean(head roots); e = mean(name roots);
    score = cos(q, e) * exp(t). W starts as the identity.

    Checked by: tests/golden/test_losses.py
    """

    def __init__(self, width: int, *, pooled: bool) -> None:
        super().__init__()
        self.leaf = nn.Linear(width, width, bias=False)
        self.gates = nn.Parameter(torch.zeros(2)) if pooled else None
        self.log_scale = nn.Parameter(torch.tensor(INITIAL_LOG_SCALE))

    def query(self, leaf_TD: Tensor, text_TD: Tensor, head_TD: Tensor) -> Tensor:
        """Unit query vectors, (T, D)."""
        q_TD = self.leaf(leaf_TD)
        if self.gates is not None:
            q_TD = q_TD + self.gates[0] * text_TD + self.gates[1] * head_TD
        return unit(q_TD)


def entity_loss(
    query_QD: Tensor,
    name_CD: Tensor,
    log_scale: Tensor,
    positive_Q: Tensor,
    excluded_QC: Tensor,
    bias_QC: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """InfoNCE over the batch's names: other true tails of a query are no negatives.

    Args:
        bias_QC: added to the logits, if given.
    Returns: (sum over queries of -log softmax_c(q . e_c * exp(t) + bias)[positive], Q).
    Checked by: tests/golden/test_losses.py
    """
    with torch.autocast(query_QD.device.type, enabled=False):  # bf16 cosines would tie
        logits_QC = query_QD @ name_CD.T * log_scale.clamp(max=math.log(100.0)).exp()
        if bias_QC is not None:
            logits_QC = logits_QC + bias_QC
    return cross_entropy(logits_QC.masked_fill(excluded_QC, float("-inf")), positive_Q)


class KnownTerms(nn.Module):
    """What a graph already says of a candidate, as logits.

    bias(q, c) = 10 (U[r_q] . x_c + sum over known triples (h_q, s, c) of V[r_q, s])

    x_c says which relations c has (`graphmert.known.features`): an entity that has its parent is
    no likely child of another. U and V start at zero; the factor lets a few thousand steps of a
    usual learning rate reach logits of some units.

    Checked by: tests/unit/test_known.py
    """

    gain = 10.0

    def __init__(self, n_relations: int) -> None:
        super().__init__()
        self.entity = nn.Parameter(torch.zeros(n_relations, n_features(n_relations)))
        self.link = nn.Parameter(torch.zeros(n_relations, n_relations))

    def forward(self, relation_Q: Tensor, known: KnownBatch) -> Tensor:
        """Relations of Q queries, and what is known of C candidates -> float32 (Q, C)."""
        with torch.autocast(relation_Q.device.type, enabled=False):
            bias_QC = self.entity[relation_Q] @ known.feature_CF.T
            value_L = self.link[relation_Q[known.link_query_L], known.link_relation_L]
            bias_QC = bias_QC.index_put(
                (known.link_query_L, known.link_column_L), value_L, accumulate=True
            )
            return self.gain * bias_QC


def root_mean(states_BND: Tensor, batch: ChainBatch) -> Tensor:
    """Mean state of each chain's roots, special tokens included: (B, D)."""
    root_BN = ((batch.kind_BN == 0) & batch.padding_mask_BN).to(states_BND.dtype)
    total_BD = torch.einsum("bnd,bn->bd", states_BND, root_BN)
    return total_BD / root_BN.sum(-1, keepdim=True).clamp(min=1)
