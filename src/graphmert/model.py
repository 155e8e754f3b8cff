"""GraphMERT: the encoder with its output networks, as a Hugging Face model.

Legend: B batch, N nodes, D width, T triples, P labelled positions, C names.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from graphmert.attention import DecayForm, LeafVisibility
from graphmert.batch import ChainBatch, Labels
from graphmert.chain import DistanceRule
from graphmert.constraints import REGULARISERS, ConstraintHead, TripleScorer
from graphmert.embed import HGATForm, NodeEmbedding, Positions
from graphmert.encoder import Encoder, Layer
from graphmert.objectives import (
    INITIAL_LOG_SCALE,
    EntityHead,
    KnownTerms,
    RelationHead,
    SpanBoundaryHead,
    Transform,
    VocabHead,
    cross_entropy,
    entity_loss,
    mean_states,
    root_mean,
    unit,
)

LossForm = Literal["mean", "sum", "joint"]
OBJECTIVES = ("mlm", "sbo", "leaf", "relation", "entity")


class GraphMERTConfig(PretrainedConfig):
    """Everything that fixes the network. Field names are the arguments."""

    model_type = "graphmert-core"

    def __init__(
        self,
        *,
        vocab_size: int = 30_522,
        pad_token_id: int = 0,
        hidden_size: int = 384,
        n_layers: int = 6,
        n_attn_heads: int = 12,
        ffn_size: int = 1536,
        input_size: int | None = None,
        input_projection: bool = True,
        input_mask: bool = True,
        n_positions: int = 512,
        position_offset: int = 0,
        n_types: int = 2,
        n_root_slots: int = 128,
        n_leaf_slots: int = 7,
        max_tail_tokens: int = 16,
        max_name_tokens: int = 8,
        max_span: int = 7,
        n_ordinals: int = 8,
        n_relations: int = 1,
        relation_embedding: bool = True,
        relation_names: bool = True,
        relation_dropout: float = 0.1,
        hgat: HGATForm = "low_rank",
        hgat_rank: int = 16,
        hgat_slope: float = 0.2,
        decay: DecayForm = "log_bias",
        decay_base: float = 0.6,
        decay_per_attn_head: bool = False,
        distance_rule: DistanceRule = "shortest",
        distance_offset: int = 0,
        leaf_visibility: LeafVisibility = "isolated",
        root_band: int | None = None,
        positions: Positions = "absolute",
        graph_token: bool = False,
        relation_bias: bool = False,
        graph_depth: int = 0,
        n_hops: int = 0,
        n_entity_types: int = 0,
        entity_type_embedding: bool = False,
        embedding_norm: bool = True,
        output_transform: bool = False,
        sbo_tied: bool = True,
        entity_pooled: bool = True,
        known_terms: bool = False,
        objectives: tuple[str, ...] = OBJECTIVES,
        loss_form: LossForm = "mean",
        dropout: float = 0.1,
        attn_dropout: float = 0.0,
        ffn_dropout: float | None = None,
        embedding_dropout: float | None = None,
        norm_eps: float = 1e-12,
        initializer_std: float = 0.02,
        **hub_fields: Any,
    ) -> None:
        own = {k: v for k, v in locals().items() if k not in ("self", "hub_fields", "__class__")}
        self_fields = dict(own)
        self_fields["objectives"] = list(own["objectives"])
        super().__init__(**hub_fields)
        for name, value in self_fields.items():
            setattr(self, name, value)
        self.num_hidden_layers = n_layers
        self.num_attention_heads = n_attn_heads
        self.tie_word_embeddings = False


def _make_encoder(c: GraphMERTConfig) -> Encoder:
    """The encoder of a configuration."""
    return Encoder(
        width=c.hidden_size,
        n_layers=c.n_layers,
        n_attn_heads=c.n_attn_heads,
        ffn_width=c.ffn_size,
        dropout=c.dropout,
        attn_dropout=c.attn_dropout,
        ffn_dropout=c.dropout if c.ffn_dropout is None else c.ffn_dropout,
        eps=c.norm_eps,
        decay=c.decay,
        decay_base=c.decay_base,
        decay_per_attn_head=c.decay_per_attn_head,
        distance_rule=c.distance_rule,
        distance_offset=c.distance_offset,
        visibility=c.leaf_visibility,
        root_band=c.root_band,
        rotary=c.positions == "rotary",
        graph_token=c.graph_token,
        n_root_slots=c.n_root_slots,
        n_leaf_slots=c.n_leaf_slots,
        n_biased_relations=c.n_relations if c.relation_bias else 0,
        n_hops=c.n_hops,
    )


def _make_embedding(c: GraphMERTConfig) -> NodeEmbedding:
    """The node embedding of a configuration."""
    plain = c.positions == "none" and not c.n_types
    return NodeEmbedding(
        width=c.hidden_size,
        vocab_size=c.vocab_size,
        pad_id=c.pad_token_id,
        input_width=c.input_size,
        input_projection=c.input_projection,
        input_mask=c.input_mask,
        n_positions=c.n_positions,
        position_offset=c.position_offset,
        positions=c.positions,
        n_types=c.n_types,
        n_slots=0 if plain else c.max_tail_tokens,
        n_name_slots=c.max_name_tokens if c.relation_names and not plain else 0,
        n_relations=c.n_relations,
        relation_embedding=c.relation_embedding,
        relation_dropout=c.relation_dropout,
        hgat=c.hgat,
        hgat_rank=c.hgat_rank,
        hgat_slope=c.hgat_slope,
        norm=c.embedding_norm,
        norm_eps=c.norm_eps,
        dropout=c.dropout if c.embedding_dropout is None else c.embedding_dropout,
        graph_depth=c.graph_depth,
        isolated=c.leaf_visibility == "isolated",
        n_entity_types=c.n_entity_types if c.entity_type_embedding else 0,
    )


def _make_constraint_head(c: GraphMERTConfig) -> ConstraintHead | None:
    """The regularisers of a configuration, if it asks for any."""
    asked = frozenset(c.objectives) & frozenset(REGULARISERS)
    if not asked:
        return None
    return ConstraintHead(c.hidden_size, c.n_relations, c.n_entity_types, asked=asked)


class GraphMERT(PreTrainedModel):
    """Encode leafy chains and predict what is masked in them."""

    config: GraphMERTConfig
    config_class = GraphMERTConfig
    base_model_prefix = ""
    main_input_name = "batch"

    def __init__(self, config: GraphMERTConfig) -> None:
        super().__init__(config)
        c = config
        width, asked = c.hidden_size, set(c.objectives)
        self.embed = _make_embedding(c)
        self.encoder = _make_encoder(c)
        eps = c.norm_eps
        self.transform = Transform(width, width, eps=eps) if c.output_transform else None
        tokens = bool(asked & {"mlm", "leaf"})
        self.vocab_head = VocabHead(width, c.vocab_size, eps=eps) if tokens else None
        self.sbo_head = None
        if "sbo" in asked:
            self.sbo_head = SpanBoundaryHead(
                width, c.vocab_size, n_places=c.max_span, eps=eps, tied=c.sbo_tied
            )
        self.relation_head = None
        if "relation" in asked:
            self.relation_head = RelationHead(width, c.n_relations, n_ordinals=c.n_ordinals)
        self.entity_head = EntityHead(width, pooled=c.entity_pooled) if "entity" in asked else None
        self.known_terms = KnownTerms(c.n_relations) if c.known_terms else None
        self.constraint_head = _make_constraint_head(c)
        self._pretrained: frozenset[str] = frozenset()
        self.post_init()

    def pretrained_parameter_names(self) -> frozenset[str]:
        """Parameters copied from a pretrained body (they may get a learning rate of their own)."""
        return self._pretrained

    def set_pretrained_parameter_names(self, names: set[str]) -> None:
        """Record which parameters came from a pretrained body."""
        self._pretrained = frozenset(names)

    # Initialisation: every weight matrix, embedding and relation table N(0, std); biases 0;
    # LayerNorm 1 and 0; p = 1; the entity projection is the identity and its gates are 1, so a
    # pretrained body starts with its own mean-pooled similarity; relation bias, hop gates and
    # potentials 0, the scorer's relations 1. Every parameter must be set
    # here: loading a folder that lacks one starts from unset memory.
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_std
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                with torch.no_grad():
                    module.weight[module.padding_idx].zero_()
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif type(module).__name__ == "HGAT":
            module.reset_parameters(std=std)  # type: ignore[operator]
        elif isinstance(module, EntityHead):
            nn.init.eye_(module.leaf.weight)
            nn.init.constant_(module.log_scale, INITIAL_LOG_SCALE)
            if module.gates is not None:
                nn.init.constant_(module.gates, 1.0)
        elif isinstance(module, VocabHead | SpanBoundaryHead):
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, NodeEmbedding):
            if module.mask_vector is not None:
                nn.init.zeros_(module.mask_vector)
        elif isinstance(module, KnownTerms):
            nn.init.zeros_(module.entity)
            nn.init.zeros_(module.link)
        elif isinstance(module, TripleScorer):
            nn.init.ones_(module.relation)
        elif isinstance(module, ConstraintHead):
            if module.potential is not None:
                nn.init.zeros_(module.potential)
            if module.log_scale is not None:
                nn.init.constant_(module.log_scale, INITIAL_LOG_SCALE)
        elif isinstance(module, Layer):
            if module.relation_bias is not None:
                nn.init.zeros_(module.relation_bias)
        elif isinstance(module, Encoder):
            if module.hop_gate is not None:
                nn.init.zeros_(module.hop_gate)
            if module.p is not None:
                nn.init.ones_(module.p)
            if module.graph_token is not None:
                nn.init.normal_(module.graph_token, std=std)
            if module.graph_distance is not None:
                nn.init.ones_(module.graph_distance)

    def get_input_embeddings(self) -> nn.Module | None:  # type: ignore[override]
        """The token embedding; None for a model of vectors alone."""
        return self.embed.token

    def forward(self, batch: ChainBatch) -> Tensor:
        """Node states, (B, N, D)."""
        states_BND = self.encoder(self.embed(batch), batch)
        return states_BND if self.transform is None else self.transform(states_BND)

    def encode_names(self, names: ChainBatch) -> Tensor:
        """Unit vectors of names, float32 (C, D): mean root state of each chain."""
        mean_CD = root_mean(self(names), names)
        return unit(mean_CD)

    @property
    def _decoder(self) -> Tensor:
        """The token embedding, which is the decoder of the vocabulary networks."""
        assert self.embed.token is not None
        return self.embed.token.weight

    def token_logits(self, flat_ND: Tensor, position_P: Tensor) -> Tensor:
        """Vocabulary logits at the given flat positions only, (P, V)."""
        assert self.vocab_head is not None
        return self.vocab_head(flat_ND[position_P], self._decoder)

    def triple_states(self, states_BND: Tensor, batch: ChainBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Mean leaf state, mean root state of its chain and mean head state: three (T, D)."""
        flat_ND = states_BND.reshape(-1, states_BND.shape[-1])
        leaf_TD = mean_states(flat_ND, batch.leaf_index_TL, batch.leaf_mask_TL)
        head_TD = mean_states(flat_ND, batch.head_index_TM, batch.head_mask_TM)
        text_TD = root_mean(states_BND, batch)[batch.row_T]
        return leaf_TD, text_TD, head_TD

    def entity_queries(self, states_BND: Tensor, batch: ChainBatch) -> Tensor:
        """Unit query vectors of all triples, float32 (T, D)."""
        assert self.entity_head is not None
        return self.entity_head.query(*self.triple_states(states_BND, batch))

    def relation_logits(self, states_BND: Tensor, batch: ChainBatch) -> Tensor:
        """Relation logits of all triples, (T, E)."""
        assert self.relation_head is not None
        leaf_TD, _, head_TD = self.triple_states(states_BND, batch)
        return self.relation_head(head_TD, leaf_TD, batch.ordinal_T)

    def loss(self, batch: ChainBatch) -> dict[str, tuple[Tensor, Tensor]]:
        """All objectives from one forward pass: name -> (sum, count).

        Source: GraphMERT, L = L_MLM(+SBO) + mu L_MNM. Differs: mean per objective by default;
        `loss_form` "sum" divides the sums by the samples, "joint" pools MLM and leaves.
        Checked by: tests/golden/test_losses.py
        """
        assert batch.labels is not None
        labels = batch.labels
        states_BND = self(batch)
        flat_ND = states_BND.reshape(-1, states_BND.shape[-1])
        losses: dict[str, tuple[Tensor, Tensor]] = {}
        if self.vocab_head is not None:
            losses |= self._token_losses(flat_ND, labels)
        if self.sbo_head is not None:
            left, right = flat_ND[labels.sbo_left_P], flat_ND[labels.sbo_right_P]
            logits_PV = self.sbo_head(left, right, labels.sbo_offset_P, self._decoder)
            losses["sbo"] = cross_entropy(logits_PV, labels.sbo_label_P)
        if self.relation_head is not None:
            logits_PE = self.relation_logits(states_BND, batch)[labels.relation_triple_P]
            losses["relation"] = cross_entropy(logits_PE, labels.relation_label_P)
        if self.entity_head is not None and (
            labels.names is not None or labels.name_row_C is not None
        ):
            losses["entity"] = self._entity_loss(states_BND, batch, labels)
        if self.constraint_head is not None and labels.constraints is not None:
            vectors_CD = self.encode_names(labels.constraints.names)
            losses |= self.constraint_head(vectors_CD, labels.constraints)
        if self.config.loss_form == "sum":
            samples = torch.tensor(float(batch.n_samples))
            return {f"{name}_sum": (total, samples) for name, (total, _) in losses.items()}
        return losses

    def _entity_loss(
        self, states_BND: Tensor, batch: ChainBatch, labels: Labels
    ) -> tuple[Tensor, Tensor]:
        """MNM-entity against names encoded apart, or against the roots of the batch's chains."""
        assert self.entity_head is not None
        if labels.names is not None:
            name_CD = self.encode_names(labels.names)
        else:
            assert labels.name_row_C is not None
            name_CD = unit(root_mean(states_BND, batch))[labels.name_row_C]
        bias_QC = None
        if labels.known is not None:
            bias_QC = labels.known.offset_C[None]
            if self.known_terms is not None:
                relation_Q = batch.relation_T[labels.entity_triple_Q]
                bias_QC = bias_QC + self.known_terms(relation_Q, labels.known)
        return entity_loss(
            self.entity_queries(states_BND, batch)[labels.entity_triple_Q],
            name_CD,
            self.entity_head.log_scale,
            labels.entity_positive_Q,
            labels.entity_excluded_QC,
            bias_QC,
        )

    def _token_losses(self, flat_ND: Tensor, labels: Labels) -> dict[str, tuple[Tensor, Tensor]]:
        """MLM and MNM-leaf through one call of the vocabulary network."""
        asked = set(self.config.objectives)
        positions, targets, sizes = [], [], []
        if "mlm" in asked:
            positions.append(labels.mlm_position_P)
            targets.append(labels.mlm_label_P)
            sizes.append(("mlm", len(labels.mlm_label_P)))
        if "leaf" in asked:
            positions.append(labels.leaf_position_P)
            targets.append(labels.leaf_label_P)
            sizes.append(("leaf", len(labels.leaf_label_P)))
        logits_PV = self.token_logits(flat_ND, torch.cat(positions))
        label_P = torch.cat(targets)
        if self.config.loss_form == "joint":
            return {"nodes": cross_entropy(logits_PV, label_P)}
        losses, start = {}, 0
        for name, size in sizes:
            end = start + size
            losses[name] = cross_entropy(logits_PV[start:end], label_P[start:end])
            start = end
        return losses


AutoConfig.register(GraphMERTConfig.model_type, GraphMERTConfig)
AutoModel.register(GraphMERTConfig, GraphMERT)
