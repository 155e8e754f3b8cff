"""Graph attention: which nodes see which, how distance weakens attention, and the kernels.

Legend: B batch, N nodes, A attention heads, K width per head, D width.
Equation: f(i, j) = lambda ** GELU(sqrt(d(i, j)) - p).
"""

from __future__ import annotations

import math
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
    kind_BN: Tensor, triple_BN: Tensor, padding_mask_BN: Tensor, *, visibility: LeafVisibility
) -> Tensor:
    """Which node (row) may attend to which (column).

    "open": every real node. "isolated": roots see roots; a leaf sees roots and the leaves of
    its own triple. Padding rows see the first node, so that no softmax is empty.

    Returns: bool (B, N, N).
    """
    visible_BNN = padding_mask_BN[:, None, :].expand(-1, kind_BN.shape[1], -1).clone()
    if visibility == "isolated":
        root_BN = kind_BN == ROOT
        same_BNN = triple_BN[:, :, None] == triple_BN[:, None, :]
        visible_BNN &= root_BN[:, None, :] | same_BNN
    empty_BN = ~padding_mask_BN
    visible_BNN[empty_BN] = False
    visible_BNN[..., 0] |= empty_BN
    return visible_BNN


def attend(
    q_BANK: Tensor,
    k_BANK: Tensor,
    v_BANK: Tensor,
    *,
    visible_B1NN: Tensor,
    log_decay_BANN: Tensor | None,
    form: DecayForm,
    dropout: float = 0.0,
) -> Tensor:
    """Attention with one of the decay forms, scores s = q . k / sqrt(K).

    "log_bias": softmax(s + ln f) v; "weights": (softmax(s) * f) v, as the paper says, rows not
    renormalised; "logits": softmax(s * f) v, as its published code does; "none": softmax(s) v.

    Returns: (B, A, N, K).
    Source: GraphMERT, decay mask. Checked by: tests/golden/test_decay.py
    """
    if form in ("none", "log_bias") and not _plain_is_faster(q_BANK):
        bias = visible_B1NN
        if form == "log_bias":
            assert log_decay_BANN is not None
            bias = log_decay_BANN.masked_fill(~visible_B1NN, -math.inf).to(q_BANK.dtype)
        return F.scaled_dot_product_attention(
            q_BANK, k_BANK, v_BANK, attn_mask=bias, dropout_p=dropout
        )
    scale = q_BANK.shape[-1] ** -0.5
    scores = q_BANK.contiguous() @ k_BANK.transpose(-1, -2)
    if form == "logits":
        assert log_decay_BANN is not None
        scores = scores * (log_decay_BANN.exp() * scale).to(scores.dtype)
        weights = scores.masked_fill(~visible_B1NN, -math.inf).softmax(-1)
    else:
        # The bias is one attention head wide where p is shared, the scores are A: mask the bias.
        shown = log_decay_BANN if form == "log_bias" else scores.new_zeros(1)
        assert shown is not None
        bias = shown.masked_fill(~visible_B1NN, -math.inf).to(scores.dtype)
        weights = torch.add(bias, scores, alpha=scale).softmax(-1)
    if form == "weights":
        assert log_decay_BANN is not None
        weights = weights * log_decay_BANN.exp().to(weights.dtype)
    return F.dropout(weights.to(v_BANK.dtype), dropout) @ v_BANK.contiguous()


def _plain_is_faster(q_BANK: Tensor) -> bool:
    """On CPUs in bf16 plain batched products beat the fused kernel, above all its backward."""
    return q_BANK.device.type == "cpu" and q_BANK.dtype == torch.bfloat16
