"""Node embeddings: tokens or vectors, positions, relations, and hierarchical graph attention.

Legend: B batch, N nodes, D width, T triples, M head tokens, L leaves of a triple, E relations,
Q rank. Row E of every relation table stands for a hidden relation.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphmert.batch import ChainBatch
from graphmert.chain import NAME_LEAF, ROOT

HGATForm = Literal["none", "full", "low_rank"]
Positions = Literal["absolute", "rotary", "none"]


class HGAT(nn.Module):
    """Fuse each triple's head and relation into its leaves.

    e_ij = LeakyReLU(a_r . [W_r t_i ; W_r h_j]);  alpha_ij = softmax_j(e_ij);
    t_i' = t_i + sum_j alpha_ij W_r h_j, for every leaf i and head token j of a triple.
    All triples of a batch at once. "full": one D x D matrix a relation; "low_rank":
    W_r = W + U_r V_r.

    Source: GraphMERT, H-GAT. Differs: low_rank shares W; none in form full.
    Checked by: tests/golden/test_hgat.py
    """

    def __init__(
        self, width: int, n_relations: int, *, form: HGATForm, rank: int, slope: float
    ) -> None:
        super().__init__()
        self.form = form
        self.slope = slope
        n_rows = n_relations + 1
        self.score = nn.Parameter(torch.empty(n_rows, 2, width))
        if form == "full":
            self.matrix = nn.Parameter(torch.empty(n_rows, width, width))
        else:
            self.shared = nn.Parameter(torch.empty(width, width))
            self.left = nn.Parameter(torch.empty(n_rows, width, rank))
            self.right = nn.Parameter(torch.empty(n_rows, rank, width))

    def reset_parameters(self, *, std: float, generator: torch.Generator | None = None) -> None:
        """Draw every parameter from N(0, std)."""
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=std, generator=generator)

    def project(self, x_TMD: Tensor, relation_T: Tensor) -> Tensor:
        """W_r x for every row of every triple: (T, M, D) -> (T, M, D)."""
        if self.form == "low_rank":
            low_TMQ = torch.einsum("tmd,tqd->tmq", x_TMD, self.right[relation_T])
            return x_TMD @ self.shared.T + torch.einsum(
                "tmq,tdq->tmd", low_TMQ, self.left[relation_T]
            )
        order_T = torch.argsort(relation_T, stable=True)
        relations, sizes = torch.unique_consecutive(relation_T[order_T], return_counts=True)
        # One gradient for the whole table; indexing it would make one as large per relation.
        matrices = self.matrix.unbind()
        parts = [
            block @ matrices[relation].T
            for relation, block in zip(
                relations.tolist(), torch.split(x_TMD[order_T], sizes.tolist()), strict=True
            )
        ]
        return torch.cat(parts)[torch.argsort(order_T)]

    def forward(
        self, leaf_TLD: Tensor, head_TMD: Tensor, head_mask_TM: Tensor, relation_T: Tensor
    ) -> Tensor:
        """Return what is added to each leaf, (T, L, D)."""
        n_leaves = leaf_TLD.shape[1]
        both = self.project(torch.cat([leaf_TLD, head_TMD], dim=1), relation_T)
        leaf_TLD, head_TMD = both[:, :n_leaves], both[:, n_leaves:]
        score_T2D = self.score[relation_T]
        from_leaf_TL = torch.einsum("tld,td->tl", leaf_TLD, score_T2D[:, 0])
        from_head_TM = torch.einsum("tmd,td->tm", head_TMD, score_T2D[:, 1])
        e_TLM = F.leaky_relu(from_leaf_TL[:, :, None] + from_head_TM[:, None, :], self.slope)
        if e_TLM.dtype != torch.float64:
            e_TLM = e_TLM.float()
        e_TLM = e_TLM.masked_fill(~head_mask_TM[:, None, :], float("-inf"))
        alpha_TLM = e_TLM.softmax(-1).to(head_TMD.dtype)
        return alpha_TLM @ head_TMD


PLAIN_ROOT, HEAD_ROOT, RELATION_LEAF, TAIL_ROLE = range(4)


def graph_roles(batch: ChainBatch, *, isolated: bool) -> Tensor:
    """Role of every node in its triple, int64 (B, N).

    PLAIN_ROOT, HEAD_ROOT (a root of some head span), RELATION_LEAF (a word of a relation's name)
    or TAIL_ROLE. Under isolated visibility every root is plain: roots know no triples there.
    """
    role_BN = torch.where(batch.kind_BN == NAME_LEAF, RELATION_LEAF, TAIL_ROLE)
    role_BN = torch.where(batch.kind_BN == ROOT, PLAIN_ROOT, role_BN)
    if isolated or not batch.n_triples:
        return role_BN
    flat = role_BN.reshape(-1).clone()
    flat[batch.head_index_TM[batch.head_mask_TM]] = HEAD_ROOT
    return flat.reshape(role_BN.shape)


def graph_depths(batch: ChainBatch, *, isolated: bool, max_depth: int) -> Tensor:
    """Hops from every node to the nearest root that a triple hangs on, int64 (B, N).

    0 for such a root, 1 for its leaves, and min over triples of |r - head_start| for other roots;
    at most `max_depth`, which is also the depth in chains without triples. Under isolated
    visibility every root has depth 0.
    """
    is_root_BN = batch.kind_BN == ROOT
    depth_BN = torch.where(is_root_BN, 0 if isolated else max_depth, 1)
    if isolated or not batch.n_triples:
        return depth_BN
    n_nodes = batch.kind_BN.shape[1]
    place_N = torch.arange(n_nodes, device=depth_BN.device)
    far = n_nodes + max_depth
    anchored_BN = torch.zeros_like(is_root_BN)
    anchored_BN[batch.row_T, batch.head_start_T] = True
    before_BN = torch.where(anchored_BN, place_N, -far).cummax(1).values
    after_BN = torch.where(anchored_BN, place_N, 2 * far).flip(1).cummin(1).values.flip(1)
    hops_BN = torch.minimum(place_N - before_BN, after_BN - place_N).clamp(max=max_depth)
    return torch.where(is_root_BN, hops_BN, depth_BN)


class GraphPositions(nn.Module):
    """Where a node stands in the graph: depth and role, added to its place in the chain.

    x_i = x_i + depth[hops to the nearest anchored root] + role[plain, head, relation, tail]; the
    place in the chain is the position (of a leaf, its root's) and slot that every node has.

    Source: GraphMER-SE, graph positional encoding. Differs: none.
    Checked by: tests/golden/test_code_forms.py
    """

    def __init__(self, width: int, *, max_depth: int, isolated: bool) -> None:
        super().__init__()
        self.isolated = isolated
        self.max_depth = max_depth
        self.depth = nn.Embedding(max_depth + 1, width)
        self.role = nn.Embedding(4, width)

    def forward(self, batch: ChainBatch) -> Tensor:
        """Return what is added to every node, (B, N, D)."""
        depth_BN = graph_depths(batch, isolated=self.isolated, max_depth=self.max_depth)
        return self.depth(depth_BN) + self.role(graph_roles(batch, isolated=self.isolated))


class NodeEmbedding(nn.Module):
    """Turn a `ChainBatch` into the encoder's input (B, N, D).

    A model of vectors alone has no token table (`vocab_size` 0); without a projection they enter
    as they are, and without a mask vector none can be hidden.

    Roots: token (or projected vector) + position + type row 0. Leaves: token + their root's
    position + slot + type row 1 + relation embedding + H-GAT + the entity types of both ends, if
    asked for. Graph positions, if any. Then LayerNorm and dropout.
    """

    def __init__(
        self,
        *,
        width: int,
        vocab_size: int,
        pad_id: int,
        input_width: int | None,
        input_projection: bool = True,
        input_mask: bool = True,
        n_positions: int,
        position_offset: int,
        positions: Positions,
        n_types: int,
        n_slots: int,
        n_name_slots: int,
        n_relations: int,
        relation_embedding: bool,
        relation_dropout: float,
        hgat: HGATForm,
        hgat_rank: int,
        hgat_slope: float,
        norm: bool,
        norm_eps: float,
        dropout: float,
        graph_depth: int = 0,
        isolated: bool = True,
        n_entity_types: int = 0,
    ) -> None:
        super().__init__()
        takes_vectors = input_width is not None
        self.token = nn.Embedding(vocab_size, width, padding_idx=pad_id) if vocab_size else None
        self.vector = None
        if input_width is not None and input_projection:
            self.vector = nn.Linear(input_width, width)
        self.mask_vector = None
        if takes_vectors and input_mask:
            self.mask_vector = nn.Parameter(torch.zeros(width))
        absolute = positions == "absolute"
        self.position = nn.Embedding(n_positions + position_offset, width) if absolute else None
        self.position_offset = position_offset
        self.node_type = nn.Embedding(n_types, width) if n_types else None
        self.slot = nn.Embedding(n_slots, width) if n_slots else None
        self.name_slot = nn.Embedding(n_name_slots, width) if n_name_slots else None
        self.relation = nn.Embedding(n_relations + 1, width) if relation_embedding else None
        self.relation_dropout = nn.Dropout(relation_dropout)
        self.hgat = None
        if hgat != "none":
            self.hgat = HGAT(width, n_relations, form=hgat, rank=hgat_rank, slope=hgat_slope)
        # Row 0 of both is a type that is unknown or hidden.
        self.head_type = nn.Embedding(n_entity_types + 1, width) if n_entity_types else None
        self.tail_type = nn.Embedding(n_entity_types + 1, width) if n_entity_types else None
        self.graph = None
        if graph_depth:
            self.graph = GraphPositions(width, max_depth=graph_depth, isolated=isolated)
        self.norm = nn.LayerNorm(width, eps=norm_eps) if norm else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: ChainBatch) -> Tensor:
        """Return the encoder's input, (B, N, D)."""
        token_BND = self._inputs(batch)
        x_BND = token_BND
        if batch.n_triples:
            x_BND = self._add_relations(token_BND, batch)
        leaf_BN = batch.kind_BN != ROOT
        if self.position is not None:
            x_BND = x_BND + self.position(batch.root_BN + self.position_offset)
        if self.node_type is not None:
            x_BND = x_BND + self.node_type(
                leaf_BN.long().clamp(max=self.node_type.num_embeddings - 1)
            )
        if batch.n_triples and self.slot is not None:
            named_BN = batch.kind_BN == NAME_LEAF
            slot_BND = self.slot(batch.slot_BN.clamp(max=self.slot.num_embeddings - 1))
            x_BND = x_BND + slot_BND * (leaf_BN & ~named_BN)[..., None]
            if self.name_slot is not None:
                last = self.name_slot.num_embeddings - 1
                name_BND = self.name_slot(batch.slot_BN.clamp(max=last))
                x_BND = x_BND + name_BND * named_BN[..., None]
        if self.graph is not None:
            x_BND = x_BND + self.graph(batch)
        if self.norm is not None:
            x_BND = self.norm(x_BND)
        return self.dropout(x_BND)

    def _inputs(self, batch: ChainBatch) -> Tensor:
        """Token embeddings, or the vectors given, with the mask vector where they are hidden."""
        if batch.vectors_BNC is None:
            assert self.token is not None
            return self.token(batch.token_BN)
        vector_BND = batch.vectors_BNC
        if self.vector is not None:
            vector_BND = self.vector(vector_BND)
        if self.mask_vector is None:
            return vector_BND
        masked_BN1 = (batch.token_BN < 0)[..., None]
        return torch.where(masked_BN1, self.mask_vector.to(vector_BND.dtype), vector_BND)

    def _add_relations(self, token_BND: Tensor, batch: ChainBatch) -> Tensor:
        """Add the relation embedding, the H-GAT message and entity types to the leaves."""
        if self.relation is None and self.hgat is None and self.head_type is None:
            return token_BND
        width = token_BND.shape[-1]
        flat = token_BND.reshape(-1, width)
        added_TLD = flat.new_zeros(*batch.leaf_index_TL.shape, width)
        if self.relation is not None:
            relation_TD = self.relation_dropout(self.relation(batch.relation_T))
            added_TLD = added_TLD + relation_TD[:, None, :]
        if self.hgat is not None:
            message_TLD = self.hgat(
                flat[batch.leaf_index_TL],
                flat[batch.head_index_TM],
                batch.head_mask_TM,
                batch.relation_T,
            )
            if self.relation is None:
                message_TLD = self.relation_dropout(message_TLD)
            added_TLD = added_TLD + message_TLD
        for table, type_T in (
            (self.head_type, batch.head_type_T),
            (self.tail_type, batch.tail_type_T),
        ):
            if table is not None:
                row_T = torch.zeros_like(batch.relation_T) if type_T is None else type_T + 1
                added_TLD = added_TLD + table(row_T)[:, None, :]
        live_TL = batch.leaf_mask_TL
        flat = flat.index_add(0, batch.leaf_index_TL[live_TL], added_TLD[live_TL].to(flat.dtype))
        return flat.reshape(token_BND.shape)
