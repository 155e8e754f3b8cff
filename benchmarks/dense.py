"""A dense baseline: all slots as full tokens, all vocabulary logits, a GraphMERT's own weights.

The same mathematics and the same parameters as the compact model, laid out as the sources lay
it out: R roots with F leaf slots each, N = R + R * F nodes, filled or not. Empty slots are
computed as full tokens in every layer and hidden only as attention keys; the vocabulary network
runs on every node. H-GAT runs over all live triples at once, which is kind to the baseline.

Legend: B batch, R roots, F leaf slots, N nodes, D width, A attention heads, K width per head,
V vocabulary, T live triples, L leaves of a triple, M head tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphmert.attention import log_decay
from graphmert.chain import DenseChain, to_dense
from graphmert.embed import HGAT
from graphmert.encoder import Layer
from graphmert.masking import IGNORE, MaskedChain
from graphmert.model import GraphMERT, GraphMERTConfig

Kernel = Literal["eager", "fused"]


@dataclass(frozen=True)
class DenseBatch:
    """Dense layouts of B chains with their labels.

    Attributes:
        token_BN: int64, pads included.
        real_BN: bool, True at filled slots.
        mlm_label_BN, leaf_label_BN: int64, IGNORE where nothing is asked.
        relation_T, head_mask_TM, leaf_mask_TL: live triples.
        head_index_TM, leaf_index_TL: flat positions (row * N + slot).
    """

    token_BN: Tensor
    real_BN: Tensor
    mlm_label_BN: Tensor
    leaf_label_BN: Tensor
    relation_T: Tensor
    head_index_TM: Tensor
    head_mask_TM: Tensor
    leaf_index_TL: Tensor
    leaf_mask_TL: Tensor


def lay_out(masked: Sequence[MaskedChain], *, pad_id: int, config: GraphMERTConfig) -> DenseBatch:
    """Lay masked chains out in the fixed slots of layout "paper", labels beside them."""
    rows = [
        to_dense(
            item.chain,
            "paper",
            pad_id=pad_id,
            n_root_slots=config.n_root_slots,
            n_leaf_slots=config.n_leaf_slots,
        )
        for item in masked
    ]
    n_roots, n_slots = config.n_root_slots, config.n_leaf_slots
    n_nodes = n_roots * (1 + n_slots)
    mlm = np.full((len(rows), n_nodes), IGNORE, dtype=np.int64)
    leaf = mlm.copy()
    for row, item in enumerate(masked):
        mlm[row, : len(item.root_labels)] = item.root_labels
        for triple, labels in zip(item.chain.triples, item.leaf_labels, strict=True):
            start = n_roots + n_slots * triple.head_start
            leaf[row, start : start + len(labels)] = labels
    return _dense_batch(rows, torch.from_numpy(mlm), torch.from_numpy(leaf))


def _dense_batch(rows: Sequence[DenseChain], mlm_BN: Tensor, leaf_BN: Tensor) -> DenseBatch:
    """Columns of the dense rows, and an index of their live triples."""
    structure_BRF = np.stack([row.graph_structure for row in rows])
    n_rows, n_roots, n_slots = structure_BRF.shape
    n_nodes = n_roots * (1 + n_slots)
    root_BR = np.arange(n_roots) < np.array([[row.n_roots] for row in rows])
    real = np.concatenate([root_BR, (structure_BRF >= 0).reshape(n_rows, -1)], axis=1)
    row_T, root_T = np.nonzero((structure_BRF >= 0).any(-1))
    head_T = np.stack([row.head_length for row in rows])[row_T, root_T, 0]
    relation_T = np.stack([row.relation for row in rows])[row_T, root_T, 0]
    leaf_mask_TL = structure_BRF[row_T, root_T] >= 0
    head_mask_TM = np.arange(int(head_T.max(initial=0))) < head_T[:, None]
    head_TM = (row_T * n_nodes + root_T)[:, None] + np.arange(head_mask_TM.shape[1])
    leaf_TL = (row_T * n_nodes)[:, None] + np.maximum(structure_BRF[row_T, root_T], 0)
    tensor = torch.from_numpy
    return DenseBatch(
        token_BN=tensor(np.stack([row.token for row in rows])),
        real_BN=tensor(real),
        mlm_label_BN=mlm_BN,
        leaf_label_BN=leaf_BN,
        relation_T=tensor(relation_T),
        head_index_TM=tensor(np.where(head_mask_TM, head_TM, 0)),
        head_mask_TM=tensor(head_mask_TM),
        leaf_index_TL=tensor(leaf_TL),
        leaf_mask_TL=tensor(leaf_mask_TL),
    )


def slot_distance(n_roots: int, n_slots: int) -> Tensor:
    """Hops between all slots of layout "paper", float32 (N, N)."""
    root_N = torch.cat([torch.arange(n_roots), torch.arange(n_roots).repeat_interleave(n_slots)])
    leaf_N = torch.arange(len(root_N)) >= n_roots
    gap_NN = (root_N[:, None] - root_N[None, :]).abs()
    hops_NN = gap_NN + leaf_N[:, None].long() + leaf_N[None, :].long()
    hops_NN[(gap_NN == 0) & leaf_N[:, None] & leaf_N[None, :]] = 1
    return hops_NN.fill_diagonal_(0).float()


class DenseGraphMERT(nn.Module):
    """Run a GraphMERT's own modules over all slots.

    Kernels: "eager" materialises scores and weights and rebuilds distance and decay for every
    row of the batch in every step, once for all layers, as [B, 1, N, N] ([B, A, N, N] where p
    is per attention head). "fused" calls `scaled_dot_product_attention` with a bias made from
    stored distances; p then gets no gradient unless `train_p`, since the fused kernels of CPUs
    cannot differentiate the bias (asking for it falls back to unfused code).

    Covers: open visibility, decay none, log_bias or weights (eager), no positions and no types
    (form `paper`), objectives mlm and leaf.
    """

    def __init__(self, model: GraphMERT, *, kernel: Kernel, train_p: bool = False) -> None:
        super().__init__()
        config = model.config
        unsupported = {
            "positions": config.positions != "none",
            "n_types": config.n_types != 0,
            "relation_embedding": config.relation_embedding,
            "leaf_visibility": config.leaf_visibility != "open",
            "decay": config.decay not in ("none", "log_bias", "weights"),
            "decay and kernel": config.decay == "weights" and kernel == "fused",
            "graph_token": config.graph_token,
            "distance_rule": config.distance_rule != "shortest",
            "objectives": set(config.objectives) != {"mlm", "leaf"},
        }
        if any(unsupported.values()):
            names = ", ".join(name for name, bad in unsupported.items() if bad)
            raise ValueError(f"the dense baseline does not cover this setting of: {names}")
        self.model = model
        self.kernel = kernel
        self.train_p = train_p
        hops_NN = slot_distance(config.n_root_slots, config.n_leaf_slots)
        self.register_buffer("hops_NN", hops_NN if kernel == "fused" else None, persistent=False)

    def loss(self, batch: DenseBatch) -> dict[str, tuple[Tensor, Tensor]]:
        """MLM and MNM-leaf: name -> (sum, count), as `GraphMERT.loss`."""
        model = self.model
        x_BND = self.embed(batch)
        bias_BANN, factor_BANN = self._attention_terms(batch, x_BND)
        for layer in model.encoder.layers:
            assert isinstance(layer, Layer)
            x_BND = self._layer(layer, x_BND, bias_BANN, factor_BANN)
        assert model.vocab_head is not None
        states_BND = x_BND if model.transform is None else model.transform(x_BND)
        logits_BNV = model.vocab_head(states_BND, model.embed.token.weight)
        flat = logits_BNV.flatten(0, 1)
        if flat.dtype != torch.float64:
            flat = flat.float()
        losses = {}
        log_p = F.log_softmax(flat, dim=-1)
        for name, label_BN in (("mlm", batch.mlm_label_BN), ("leaf", batch.leaf_label_BN)):
            label = label_BN.flatten()
            total = F.nll_loss(log_p, label, ignore_index=IGNORE, reduction="sum")
            losses[name] = (total, (label != IGNORE).sum().float())
        return losses

    def embed(self, batch: DenseBatch) -> Tensor:
        """Input of the encoder, (B, N, D): tokens, H-GAT at the leaves, LayerNorm, dropout."""
        embed = self.model.embed
        token_BND = embed.token(batch.token_BN)
        flat = token_BND.flatten(0, 1)
        if embed.hgat is not None and len(batch.relation_T):
            assert isinstance(embed.hgat, HGAT)
            message_TLD = embed.hgat(
                flat[batch.leaf_index_TL],
                flat[batch.head_index_TM],
                batch.head_mask_TM,
                batch.relation_T,
            )
            live_TL = batch.leaf_mask_TL
            message = embed.relation_dropout(message_TLD)[live_TL].to(flat.dtype)
            flat = flat.index_add(0, batch.leaf_index_TL[live_TL], message)
        x_BND = flat.view_as(token_BND)
        return embed.dropout(x_BND if embed.norm is None else embed.norm(x_BND))

    def _attention_terms(self, batch: DenseBatch, x_BND: Tensor) -> tuple[Tensor, Tensor | None]:
        """Additive bias (-inf at empty keys) and, for decay "weights", the factor f."""
        encoder, config = self.model.encoder, self.model.config
        n_rows, n_nodes = batch.token_BN.shape
        key_B11N = batch.real_BN[:, None, None, :]
        empty_BANN = torch.zeros(n_rows, 1, n_nodes, n_nodes, dtype=x_BND.dtype)
        if encoder.p is None:
            return empty_BANN.masked_fill(~key_B11N, -math.inf), None
        p = encoder.p
        if self.kernel == "fused":
            hops = self.hops_NN[None, None]
            p = p if self.train_p else p.detach()
        else:
            hops_NN = slot_distance(config.n_root_slots, config.n_leaf_slots)
            hops = hops_NN.expand(n_rows, 1, n_nodes, n_nodes).contiguous()
        decay_BANN = log_decay(
            hops, p, decay_base=encoder.decay_base, offset=encoder.distance_offset
        )
        if config.decay == "weights":
            return empty_BANN.masked_fill(~key_B11N, -math.inf), decay_BANN.exp()
        return decay_BANN.masked_fill(~key_B11N, -math.inf), None

    def _layer(
        self, layer: Layer, x_BND: Tensor, bias_BANN: Tensor, factor_BANN: Tensor | None
    ) -> Tensor:
        """One post-LN layer over all nodes."""
        n_rows, n_nodes, width = x_BND.shape
        qkv = layer.qkv(x_BND).view(n_rows, n_nodes, 3, layer.n_attn_heads, -1)
        q_BANK, k_BANK, v_BANK = qkv.permute(2, 0, 3, 1, 4)
        dropout = layer.attn_dropout if self.training else 0.0
        if self.kernel == "fused":
            mixed_BANK = F.scaled_dot_product_attention(
                q_BANK, k_BANK, v_BANK, attn_mask=bias_BANN.to(q_BANK.dtype), dropout_p=dropout
            )
        else:
            scores_BANN = q_BANK @ k_BANK.transpose(-1, -2) * q_BANK.shape[-1] ** -0.5
            weights_BANN = (scores_BANN + bias_BANN).softmax(-1)
            if factor_BANN is not None:
                weights_BANN = weights_BANN * factor_BANN
            weights_BANN = F.dropout(weights_BANN, dropout)
            mixed_BANK = weights_BANN.to(v_BANK.dtype) @ v_BANK
        mixed_BND = mixed_BANK.transpose(1, 2).reshape(n_rows, n_nodes, width)
        x_BND = layer.attn_norm(x_BND + layer.dropout(layer.out(mixed_BND)))
        return layer.ffn_norm(x_BND + layer.dropout(layer.down(F.gelu(layer.up(x_BND)))))
