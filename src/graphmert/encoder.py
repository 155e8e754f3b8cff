"""The encoder: post-LayerNorm transformer layers over the live nodes of leafy chains.

Legend: B batch, N nodes (of a padded chain, or all live ones in flat tensors), D width,
A attention heads, K width per head. Layer: x = LN(x + attention(x)); x = LN(x + W2 GELU(W1 x)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphmert.attention import (
    DecayForm,
    LeafVisibility,
    RelationPairs,
    attend,
    hop_bias,
    hop_rings,
    log_decay,
    node_distance,
    relation_bias,
    relation_pairs,
    visible,
)
from graphmert.batch import ChainBatch
from graphmert.chain import ROOT, DistanceRule
from graphmert.errors import ConfigError


class Layer(nn.Module):
    """One post-LN layer: self-attention and a GELU feed-forward network."""

    def __init__(
        self,
        width: int,
        n_attn_heads: int,
        ffn_width: int,
        *,
        dropout: float,
        attn_dropout: float,
        ffn_dropout: float,
        eps: float,
        n_biased_relations: int = 0,
    ) -> None:
        super().__init__()
        self.n_attn_heads = n_attn_heads
        self.attn_dropout = attn_dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.attn_norm = nn.LayerNorm(width, eps=eps)
        self.up = nn.Linear(width, ffn_width)
        self.down = nn.Linear(ffn_width, width)
        self.ffn_norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.ffn_dropout = nn.Dropout(ffn_dropout)
        self.relation_bias = None
        if n_biased_relations:
            self.relation_bias = nn.Parameter(torch.zeros(n_biased_relations, 2))

    def forward(
        self, x_ND: Tensor, blocks: Sequence[Block], gate_AG: Tensor | None = None
    ) -> Tensor:
        """One layer over all live nodes, (N, D) -> (N, D); blocks attend apart."""
        qkv_NC = self.qkv(x_ND)
        parts = torch.split(qkv_NC, [block.n_live for block in blocks])
        mixed = [
            self._attend(part, block, self._bias(block, gate_AG))
            for part, block in zip(parts, blocks, strict=True)
        ]
        mixed_ND = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
        x_ND = self.attn_norm(x_ND + self.dropout(self.out(mixed_ND)))
        return self.ffn_norm(x_ND + self.ffn_dropout(self.down(F.gelu(self.up(x_ND)))))

    def _bias(self, block: Block, gate_AG: Tensor | None) -> Tensor | None:
        """What relations and hop gates add to this layer's logits."""
        bias = None
        if self.relation_bias is not None and block.pairs is not None:
            bias = relation_bias(block.pairs, self.relation_bias)[:, None]
        if gate_AG is not None and block.ring_GBNN is not None:
            hops_BANN = hop_bias(block.ring_GBNN, gate_AG)
            bias = hops_BANN if bias is None else bias + hops_BANN
        return bias

    def _attend(self, qkv_NC: Tensor, block: Block, bias_BANN: Tensor | None) -> Tensor:
        """Attention of one block: pad, attend, take the live nodes back."""
        n_rows, n_nodes = block.shape
        is_full = block.n_live == n_rows * n_nodes
        padded = qkv_NC if is_full else _Pad.apply(qkv_NC, block.live, n_rows * n_nodes)
        q, k, v = padded.view(n_rows, n_nodes, 3, self.n_attn_heads, -1).permute(2, 0, 3, 1, 4)
        if block.rotation_BNK is not None:
            q, k = _rotate(q, block.rotation_BNK), _rotate(k, block.rotation_BNK)
        mixed_BANK = attend(
            q,
            k,
            v,
            visible_B1NN=block.visible_BNN[:, None],
            log_decay_BANN=block.log_decay_BANN,
            form=block.form,
            dropout=self.attn_dropout if self.training else 0.0,
            **({} if bias_BANN is None else {"bias_BANN": bias_BANN}),
        )
        mixed = mixed_BANK.transpose(1, 2).reshape(n_rows * n_nodes, -1)
        return mixed if is_full else _Unpad.apply(mixed, block.live)


@dataclass(frozen=True)
class Block:
    """Chains of similar length that attend together; `live` are the flat places of real nodes."""

    shape: tuple[int, int]
    live: Tensor
    visible_BNN: Tensor
    log_decay_BANN: Tensor | None
    rotation_BNK: Tensor | None
    form: DecayForm
    pairs: RelationPairs | None = None
    ring_GBNN: Tensor | None = None

    @property
    def n_live(self) -> int:
        """Number of real nodes."""
        return int(self.live.shape[0])


class _Pad(torch.autograd.Function):
    """Spread live rows over a padded table; the gradient takes them back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, live: Tensor, n: int) -> Tensor:
        ctx.save_for_backward(live)
        return x.new_zeros(n, x.shape[1]).index_copy_(0, live, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0].index_select(0, ctx.saved_tensors[0]), None, None


class _Unpad(torch.autograd.Function):
    """Take live rows out of a padded table; the gradient spreads them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, live: Tensor) -> Tensor:
        ctx.save_for_backward(live)
        ctx.n = x.shape[0]
        return x.index_select(0, live)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0]
        spread = grad.new_zeros(ctx.n, grad.shape[1])
        return spread.index_copy_(0, ctx.saved_tensors[0], grad), None


def _rotate(x_BANK: Tensor, angle_BNK: Tensor) -> Tensor:
    """Rotary positions: pairs (c, c + K/2) turn by the node's angle."""
    angle = angle_BNK[:, None].to(x_BANK.dtype)
    first, second = x_BANK.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return x_BANK * angle.cos() + turned * angle.sin()


def _two_additions() -> ConfigError:
    return ConfigError(
        "relation bias and hop gates do not go with a graph token",
        where="graph_token",
        fix="Turn off graph_token, or relation_bias and n_hops.",
    )


class Encoder(nn.Module):
    """Layers, the shared decay threshold p, and the optional graph token of form `reference`.

    Source: GraphMERT, encoder and decay mask; the reference form follows the published code.
    Checked by: tests/golden/test_encoder.py
    """

    def __init__(
        self,
        *,
        width: int,
        n_layers: int,
        n_attn_heads: int,
        ffn_width: int,
        dropout: float,
        attn_dropout: float,
        ffn_dropout: float,
        eps: float,
        decay: DecayForm,
        decay_base: float,
        decay_per_attn_head: bool,
        distance_rule: DistanceRule,
        distance_offset: int,
        visibility: LeafVisibility,
        root_band: int | None,
        rotary: bool,
        graph_token: bool,
        n_root_slots: int,
        n_leaf_slots: int,
        n_biased_relations: int = 0,
        n_hops: int = 0,
    ) -> None:
        super().__init__()
        if graph_token and (n_biased_relations or n_hops):
            raise _two_additions()
        self.layers = nn.ModuleList(
            Layer(
                width,
                n_attn_heads,
                ffn_width,
                dropout=dropout,
                attn_dropout=attn_dropout,
                ffn_dropout=ffn_dropout,
                eps=eps,
                n_biased_relations=n_biased_relations,
            )
            for _ in range(n_layers)
        )
        self.n_biased_relations, self.n_hops = n_biased_relations, n_hops
        self.hop_gate = None
        if n_hops:
            self.hop_gate = nn.Parameter(torch.zeros(n_layers, n_attn_heads, n_hops + 2))
        self.decay: DecayForm = decay
        self.decay_base = decay_base
        self.distance_rule: DistanceRule = distance_rule
        self.distance_offset = distance_offset
        self.visibility: LeafVisibility = visibility
        self.root_band = root_band
        self.rotary_width = width // n_attn_heads if rotary else 0
        n_p = n_attn_heads if decay_per_attn_head else 1
        self.p = nn.Parameter(torch.ones(n_p, 1, 1)) if decay != "none" else None
        self.n_root_slots, self.n_leaf_slots = n_root_slots, n_leaf_slots
        self.graph_token = self.graph_distance = None
        if graph_token:
            self.graph_token = nn.Parameter(torch.zeros(1, width))
            self.graph_distance = nn.Parameter(torch.ones(n_root_slots * (1 + n_leaf_slots)))

    def forward(self, x_BND: Tensor, batch: ChainBatch) -> Tensor:
        """Encode embedded nodes (B, N, D) -> (B, N, D); padding comes back as zeros.

        Everything but attention runs on live nodes only. Attention runs in blocks of chains of
        similar length.
        """
        n_rows, n_nodes, width = x_BND.shape
        blocks, places = [], []
        for rows in _length_blocks(batch.padding_mask_BN):
            block, place = self._block(batch, rows)
            blocks.append(block)
            places.append(place)
        place = torch.cat(places)
        flat = x_BND.reshape(-1, width)
        if self.graph_token is not None:
            graph = self.graph_token.expand(n_rows, -1).to(flat.dtype)
            flat = torch.cat([flat, graph])
        x_ND = _Unpad.apply(flat, place)
        for index, layer in enumerate(self.layers):
            gate_AG = None if self.hop_gate is None else self.hop_gate[index]
            x_ND = layer(x_ND, blocks, gate_AG)
        states = _Pad.apply(x_ND, place, flat.shape[0])
        return states[: n_rows * n_nodes].view(n_rows, n_nodes, width)

    def _block(self, batch: ChainBatch, rows: Tensor) -> tuple[Block, Tensor]:
        """Attention inputs of some chains, and where their live nodes stand in the batch."""
        whole = int(batch.padding_mask_BN.shape[1])
        place_N = torch.arange(1, whole + 1, device=rows.device)
        longest = int((batch.padding_mask_BN[rows] * place_N).max())  # pads may stand anywhere
        part = _Part(
            *(
                column[rows, :longest]
                for column in (
                    batch.kind_BN,
                    batch.root_BN,
                    batch.triple_BN,
                    batch.slot_BN,
                    batch.padding_mask_BN,
                )
            )
        )
        visible_BNN = visible(
            part.kind_BN,
            part.triple_BN,
            part.padding_mask_BN,
            visibility=self.visibility,
            shown_BN=None if batch.shown_BN is None else batch.shown_BN[rows, :longest],
        )
        if self.root_band is not None:
            gap_BNN = (part.root_BN[:, :, None] - part.root_BN[:, None, :]).abs()
            visible_BNN &= gap_BNN <= self.root_band
        distance_BNN = None
        if self.p is not None or self.n_hops:
            distance_BNN = node_distance(
                part.kind_BN, part.root_BN, part.triple_BN, part.slot_BN, rule=self.distance_rule
            )
        decay_BANN = self._log_decay(distance_BNN)
        place_BN = rows[:, None] * whole + torch.arange(longest, device=rows.device)
        live_BN = part.padding_mask_BN
        if self.graph_token is not None:
            visible_BNN, decay_BANN = self._prepend(visible_BNN, decay_BANN, part)
            after = batch.padding_mask_BN.numel() + rows[:, None]
            place_BN = torch.cat([after, place_BN], dim=1)
            live_BN = F.pad(live_BN, (1, 0), value=True)
        block = Block(
            shape=(int(live_BN.shape[0]), int(live_BN.shape[1])),
            live=live_BN.reshape(-1).nonzero()[:, 0],
            visible_BNN=visible_BNN,
            log_decay_BANN=decay_BANN,
            rotation_BNK=self._rotation(part),
            form=self.decay,
            pairs=self._pairs(part, batch),
            ring_GBNN=self._rings(distance_BNN),
        )
        return block, place_BN[live_BN]

    def _pairs(self, part: _Part, batch: ChainBatch) -> RelationPairs | None:
        if not self.n_biased_relations:
            return None
        return relation_pairs(
            part.kind_BN,
            part.root_BN,
            part.triple_BN,
            batch.relation_T,
            batch.head_start_T,
            batch.head_end_T,
            n_relations=self.n_biased_relations,
            visibility=self.visibility,
            dtype=self.layers[0].qkv.weight.dtype,  # type: ignore[union-attr]
        )

    def _rings(self, distance_BNN: Tensor | None) -> Tensor | None:
        if not self.n_hops or distance_BNN is None or self.hop_gate is None:
            return None
        return hop_rings(distance_BNN, self.n_hops, dtype=self.hop_gate.dtype)

    def _log_decay(self, distance_BNN: Tensor | None) -> Tensor | None:
        if self.p is None or distance_BNN is None:
            return None
        return log_decay(
            distance_BNN[:, None], self.p, decay_base=self.decay_base, offset=self.distance_offset
        )

    def _rotation(self, part: _Part) -> Tensor | None:
        if not self.rotary_width:
            return None
        half = torch.arange(0, self.rotary_width, 2, device=part.root_BN.device)
        angle = part.root_BN[..., None] * 10_000.0 ** (-half / self.rotary_width)
        angle = F.pad(angle, (0, 0, 1, 0)) if self.graph_token is not None else angle
        return torch.cat([angle, angle], dim=-1)

    def _prepend(
        self, visible_BNN: Tensor, decay_BANN: Tensor | None, part: _Part
    ) -> tuple[Tensor, Tensor | None]:
        """Put the graph token at node 0: it sees all, nobody else sees it."""
        assert self.graph_distance is not None
        seen = F.pad(visible_BNN, (1, 0, 1, 0), value=False)
        seen[:, 0, 0] = True
        seen[:, 0, 1:] = part.padding_mask_BN
        if decay_BANN is None or self.p is None:
            return seen, decay_BANN
        leaf_BN = self.n_root_slots + self.n_leaf_slots * part.root_BN + part.slot_BN
        dense_BN = torch.where(part.kind_BN == ROOT, part.root_BN, leaf_BN)
        dense_BN = torch.where(part.padding_mask_BN, dense_BN, 0)
        hops_BN = F.softplus(self.graph_distance, threshold=1.0)[dense_BN]
        hops_B11N = F.pad(hops_BN, (1, 0))[:, None, None, :]
        row = log_decay(hops_B11N, self.p, decay_base=self.decay_base)
        rest = F.pad(decay_BANN, (1, 0))
        shape = (rest.shape[0], rest.shape[1], 1, rest.shape[-1])
        return seen, torch.cat([row.expand(shape), rest], dim=2)


@dataclass(frozen=True)
class _Part:
    """The columns of some rows of a batch, cut to the longest of them."""

    kind_BN: Tensor
    root_BN: Tensor
    triple_BN: Tensor
    slot_BN: Tensor
    padding_mask_BN: Tensor


def _length_blocks(padding_mask_BN: Tensor, *, n_blocks: int = 4) -> list[Tensor]:
    """Rows by length, in at most `n_blocks` groups of equal size.

    One group for few rows, and for rows without padding.
    """
    order = torch.argsort(padding_mask_BN.sum(1), stable=True)
    if len(order) < 4 * n_blocks or bool(padding_mask_BN.all()):
        return [order]
    return list(torch.tensor_split(order, n_blocks))
