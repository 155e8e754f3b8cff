"""Graph attention: which nodes see which, how distance weakens attention, and the kernels.

Legend: B batch, N nodes, A attention heads, K width per head, D width, E relations, G hop rings.
Equation: f(i, j) = lambda ** GELU(sqrt(d(i, j)) - p).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from graphmert.chain import ROOT, DistanceRule

DecayForm = Literal["none", "log_bias", "weights", "logits"]
LeafVisibility = Literal["open", "isolated"]


def node_distance(
    kind_BN: Tensor, root_BN: Tensor, triple_BN: Tensor, slot_BN: Tensor, *, rule: DistanceRule
) -> Tensor:
    """Closed-form hops between all nodes of each chain.

    Args: four int64 tensors (B, N) of a `ChainBatch`.
    Returns: int64 (B, N, N), as `chain.distance_matrix`; values at padding are meaningless.
    Source: GraphMERT, leafy chain graph.
    Checked by: tests/golden/test_distance.py
    """
    leaf_BN = (kind_BN != ROOT).to(root_BN.dtype)
    distance_BNN = (root_BN[:, :, None] - root_BN[:, None, :]).abs()
    distance_BNN = distance_BNN + leaf_BN[:, :, None] + leaf_BN[:, None, :]
    same_BNN = (triple_BN[:, :, None] == triple_BN[:, None, :]) & (triple_BN[:, :, None] >= 0)
    within: Tensor | int = 1
    if rule == "reference":
        within = (slot_BN[:, :, None] - slot_BN[:, None, :]).abs().clamp(max=2)
        distance_BNN = torch.where(same_BNN, within, distance_BNN)
    else:
        distance_BNN = distance_BNN.masked_fill(same_BNN, within)
    diagonal = torch.arange(distance_BNN.shape[1], device=distance_BNN.device)
    distance_BNN[:, diagonal, diagonal] = 0
    return distance_BNN


def log_decay(distance: Tensor, p: Tensor, *, decay_base: float, offset: int = 0) -> Tensor:
    """ln f = ln(lambda) * GELU(sqrt(d + offset) - p), elementwise.

    Args:
        distance: hops, any shape.
        p: threshold, broadcast against it; receives a gradient.
        decay_base: lambda in (0, 1].
        offset: 1 in the form `reference`.
    Source: GraphMERT, decay mask. Differs: none.
    Checked by: tests/golden/test_decay.py
    """
    root = torch.sqrt(distance.to(p.dtype) + offset)
    return math.log(decay_base) * F.gelu(root - p)


def visible(
    kind_BN: Tensor,
    triple_BN: Tensor,
    padding_mask_BN: Tensor,
    *,
    visibility: LeafVisibility,
    shown_BN: Tensor | None = None,
) -> Tensor:
    """Which node (row) may attend to which (column).

    "open": every real node. "isolated": roots see roots; a leaf sees roots and the leaves of
    its own triple; leaves of shown triples are seen by all. Padding rows see the first node, so
    that no softmax is empty.

    Args:
        shown_BN: bool, leaves of shown triples; None where there are none.
    Returns: bool (B, N, N).
    """
    visible_BNN = padding_mask_BN[:, None, :].expand(-1, kind_BN.shape[1], -1).clone()
    if visibility == "isolated":
        seen_BN = kind_BN == ROOT
        if shown_BN is not None:
            seen_BN = seen_BN | shown_BN
        same_BNN = triple_BN[:, :, None] == triple_BN[:, None, :]
        visible_BNN &= seen_BN[:, None, :] | same_BNN
    empty_BN = ~padding_mask_BN
    visible_BNN[empty_BN] = False
    visible_BNN[..., 0] |= empty_BN
    return visible_BNN


@dataclass(frozen=True)
class RelationPairs:
    """Which pairs of nodes a relation biases, and by which relation.

    Attributes:
        relation_BN: int64, the relation a leaf hangs by; E for a hidden relation and for roots.
        leaf_inside_BNN: float, 1 where the row is a leaf and the column a leaf or head root of
            the same triple.
        leaf_across_BNN: float, 1 where the row is a leaf and the column another root.
        root_inside_BNN, root_across_BNN: the same pairs from root (row) to leaf (column), or None
            where roots do not see leaves.
    """

    relation_BN: Tensor
    leaf_inside_BNN: Tensor
    leaf_across_BNN: Tensor
    root_inside_BNN: Tensor | None
    root_across_BNN: Tensor | None


def relation_pairs(
    kind_BN: Tensor,
    root_BN: Tensor,
    triple_BN: Tensor,
    relation_T: Tensor,
    head_start_T: Tensor,
    head_end_T: Tensor,
    *,
    n_relations: int,
    visibility: LeafVisibility,
    dtype: torch.dtype,
) -> RelationPairs:
    """Find the pairs within one triple and the leaf-root pairs of each chain.

    Args: columns of a `ChainBatch` (some rows of it), its triples, the number of relations E.
    """
    leaf_BN = triple_BN >= 0
    if relation_T.numel():
        triple = triple_BN.clamp(min=0)
        relation_BN = torch.where(leaf_BN, relation_T[triple], n_relations)
        start_BN, end_BN = head_start_T[triple], head_end_T[triple]
    else:
        relation_BN = torch.full_like(triple_BN, n_relations)
        start_BN = end_BN = torch.zeros_like(triple_BN)
    is_root_BN = kind_BN == ROOT
    to_root_BNN = leaf_BN[:, :, None] & is_root_BN[:, None, :]
    in_head_BNN = (start_BN[:, :, None] <= root_BN[:, None, :]) & (
        root_BN[:, None, :] < end_BN[:, :, None]
    )
    same_BNN = leaf_BN[:, :, None] & (triple_BN[:, :, None] == triple_BN[:, None, :])
    head_BNN = to_root_BNN & in_head_BNN
    across_BNN = (to_root_BNN & ~in_head_BNN).to(dtype)
    opens = visibility == "open"
    return RelationPairs(
        relation_BN=relation_BN,
        leaf_inside_BNN=(same_BNN | head_BNN).to(dtype),
        leaf_across_BNN=across_BNN,
        root_inside_BNN=head_BNN.transpose(1, 2).to(dtype) if opens else None,
        root_across_BNN=across_BNN.transpose(1, 2) if opens else None,
    )


def relation_bias(pairs: RelationPairs, bias_E2: Tensor) -> Tensor:
    """What relations add to the attention logits of one layer, (B, N, N).

    b[r, 0] for every pair inside a triple of relation r (its leaves and head roots), b[r, 1] for
    every other pair of one of its leaves and a root, both ways; 0 elsewhere and where the
    relation is hidden.

    Source: GraphMER-SE, relation-aware attention bias. Differs: none.
    Checked by: tests/golden/test_code_forms.py
    """
    table = F.pad(bias_E2, (0, 0, 0, 1))  # a hidden relation adds nothing
    inside_BN, across_BN = table[pairs.relation_BN].unbind(-1)
    bias_BNN = pairs.leaf_inside_BNN * inside_BN[:, :, None]
    bias_BNN = bias_BNN + pairs.leaf_across_BNN * across_BN[:, :, None]
    if pairs.root_inside_BNN is not None and pairs.root_across_BNN is not None:
        bias_BNN = bias_BNN + pairs.root_inside_BNN * inside_BN[:, None, :]
        bias_BNN = bias_BNN + pairs.root_across_BNN * across_BN[:, None, :]
    return bias_BNN


def hop_rings(distance_BNN: Tensor, n_hops: int, *, dtype: torch.dtype) -> Tensor:
    """Which pairs are 0, 1, ..., n_hops hops apart, and which farther: (G, B, N, N) of 0 and 1."""
    ring_BNN = distance_BNN.clamp(max=n_hops + 1)
    hops_G = torch.arange(n_hops + 2, device=distance_BNN.device)
    return (ring_BNN[None] == hops_G[:, None, None, None]).to(dtype)


def hop_bias(ring_GBNN: Tensor, gate_AG: Tensor) -> Tensor:
    """What hop gates add to the attention logits of one layer, (B, A, N, N).

    Node i gives node j at k hops the weight softmax_j(s_ij + g_k), that is, each k-hop
    neighbourhood counts exp(g_k) times; g is learned per attention head.

    Source: GraphMER-SE, multi-hop attention. Differs: one softmax over all rings.
    Checked by: tests/golden/test_code_forms.py
    """
    return torch.einsum("ag,gbij->baij", gate_AG, ring_GBNN)


def attend(
    q_BANK: Tensor,
    k_BANK: Tensor,
    v_BANK: Tensor,
    *,
    visible_B1NN: Tensor,
    log_decay_BANN: Tensor | None,
    form: DecayForm,
    dropout: float = 0.0,
    bias_BANN: Tensor | None = None,
) -> Tensor:
    """Attention with one of the decay forms, scores s = q . k / sqrt(K).

    "log_bias": softmax(s + ln f) v; "weights": (softmax(s) * f) v, as the paper says, rows not
    renormalised; "logits": softmax(s * f) v, as its published code does; "none": softmax(s) v.
    `bias_BANN`, if given, is added to what the softmax takes.

    Returns: (B, A, N, K).
    Source: GraphMERT, decay mask. Checked by: tests/golden/test_decay.py
    """
    if form in ("none", "log_bias") and not _plain_is_faster(q_BANK):
        bias = visible_B1NN
        if form == "log_bias":
            assert log_decay_BANN is not None
            shown = log_decay_BANN if bias_BANN is None else log_decay_BANN + bias_BANN
            bias = shown.masked_fill(~visible_B1NN, -math.inf).to(q_BANK.dtype)
        elif bias_BANN is not None:
            bias = bias_BANN.masked_fill(~visible_B1NN, -math.inf).to(q_BANK.dtype)
        return F.scaled_dot_product_attention(
            q_BANK, k_BANK, v_BANK, attn_mask=bias, dropout_p=dropout
        )
    scale = q_BANK.shape[-1] ** -0.5
    scores = q_BANK.contiguous() @ k_BANK.transpose(-1, -2)
    if form == "logits":
        assert log_decay_BANN is not None
        scores = scores * (log_decay_BANN.exp() * scale).to(scores.dtype)
        scores = scores if bias_BANN is None else scores + bias_BANN.to(scores.dtype)
        weights = scores.masked_fill(~visible_B1NN, -math.inf).softmax(-1)
    else:
        # The bias is one attention head wide where p is shared, the scores are A: mask the bias.
        shown = log_decay_BANN if form == "log_bias" else scores.new_zeros(1)
        assert shown is not None
        shown = shown if bias_BANN is None else shown + bias_BANN
        bias = shown.masked_fill(~visible_B1NN, -math.inf).to(scores.dtype)
        weights = torch.add(bias, scores, alpha=scale).softmax(-1)
    if form == "weights":
        assert log_decay_BANN is not None
        weights = weights * log_decay_BANN.exp().to(weights.dtype)
    return F.dropout(weights.to(v_BANK.dtype), dropout) @ v_BANK.contiguous()


def _plain_is_faster(q_BANK: Tensor) -> bool:
    """On CPUs in bf16 plain batched products beat the fused kernel, above all its backward."""
    return q_BANK.device.type == "cpu" and q_BANK.dtype == torch.bfloat16
