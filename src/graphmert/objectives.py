"""Output networks and losses: MLM, SBO, and masked node modelling of leaf, relation, entity.

Legend: N flat node states, P labelled positions, T triples, L leaves, M head roots, D width,
V vocabulary, E relations, Q queries, C candidate names. Every loss returns (sum, count); an
objective that asks nothing returns a zero that is connected to the graph, never NaN.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphmert.batch import ChainBatch

INITIAL_LOG_SCALE = math.log(20.0)


def cross_entropy(logits_PV: Tensor, label_P: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of -log softmax(logits)[label] over labels that are not -100, and their number.

    Returns: float32 (or wider) scalars; (0, 0) where every label is ignored.
    Checked by: tests/golden/test_losses.py
    """
    kept = (label_P != -100).sum().to(torch.float32)
    wide = logits_PV if logits_PV.dtype == torch.float64 else logits_PV.float()
    if label_P.numel() == 0:
        return wide.sum(), kept
    return F.cross_entropy(wide, label_P, ignore_index=-100, reduction="sum"), kept


class Transform(nn.Module):
    """LN(GELU(W x))."""

    def __init__(self, in_width: int, width: int, *, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(in_width, width)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.gelu(self.dense(x)))


class VocabHead(nn.Module):
    """Token logits: Linear, GELU, LN, then the token embedding as decoder, plus a bias."""

    def __init__(self, width: int, vocab_size: int, *, eps: float) -> None:
        super().__init__()
        self.transform = Transform(width, width, eps=eps)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, x_PD: Tensor, decoder_VD: Tensor) -> Tensor:
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
    query_QD: Tensor, name_CD: Tensor, log_scale: Tensor, positive_Q: Tensor, excluded_QC: Tensor
) -> tuple[Tensor, Tensor]:
    """InfoNCE over the batch's names: other true tails of a query are no negatives.

    Returns: (sum over queries of -log softmax_c(q . e_c * exp(t))[positive], Q).
    Checked by: tests/golden/test_losses.py
    """
    with torch.autocast(query_QD.device.type, enabled=False):  # bf16 cosines would tie
        logits_QC = query_QD @ name_CD.T * log_scale.clamp(max=math.log(100.0)).exp()
    return cross_entropy(logits_QC.masked_fill(excluded_QC, float("-inf")), positive_Q)


def root_mean(states_BND: Tensor, batch: ChainBatch) -> Tensor:
    """Mean state of each chain's roots, special tokens included: (B, D)."""
    root_BN = ((batch.kind_BN == 0) & batch.padding_mask_BN).to(states_BND.dtype)
    total_BD = torch.einsum("bnd,bn->bd", states_BND, root_BN)
    return total_BD / root_BN.sum(-1, keepdim=True).clamp(min=1)
