"""Run the float64 references with the parameters of a model: states of a whole batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from golden import reference_decay as decay
from golden import reference_distance as distance
from golden import reference_encoder as encoder
from golden import reference_graph as graph
from golden import reference_losses as losses
from graphmert.batch import RelationNames
from graphmert.chain import LeafyChain
from graphmert.model import GraphMERT


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def affine(module: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """(weight, bias) of a Linear or LayerNorm."""
    return array(module.weight), array(module.bias)  # type: ignore[arg-type]


def columns_of(chain: LeafyChain, names: RelationNames) -> encoder.NodeColumns:
    token, root = list(chain.roots), list(range(len(chain.roots)))
    triple, slot = [-1] * len(token), [0] * len(token)
    is_name = [False] * len(token)
    for t, item in enumerate(chain.triples):
        for name, words in ((True, names.of(item.relation)), (False, item.tail)):
            for k, word in enumerate(words):
                token.append(word)
                root.append(item.head_start)
                triple.append(t)
                slot.append(k)
                is_name.append(name)
    return encoder.NodeColumns(token, root, triple, slot, is_name)


def tables_of(model: GraphMERT) -> encoder.EmbeddingTables:
    e = model.embed

    def table(module: nn.Embedding | None) -> np.ndarray | None:
        return None if module is None else array(module.weight)

    matrices = a_tail = a_head = None
    if e.hgat is not None:
        a_tail, a_head = array(e.hgat.score[:, 0]), array(e.hgat.score[:, 1])
        if e.hgat.form == "full":
            matrices = array(e.hgat.matrix)
        else:
            matrices = np.array(
                [
                    array(e.hgat.shared) + array(u) @ array(v)
                    for u, v in zip(e.hgat.left, e.hgat.right, strict=True)
                ]
            )
    position = table(e.position)
    return encoder.EmbeddingTables(
        token_VD=array(e.token.weight),
        position_RD=None if position is None else position[model.config.position_offset :],
        node_type_2D=table(e.node_type),
        slot_KD=table(e.slot),
        name_slot_KD=table(e.name_slot),
        relation_ED=table(e.relation),
        norm=None if e.norm is None else affine(e.norm),
        matrices_EDD=matrices,
        a_tail_ED=a_tail,
        a_head_ED=a_head,
        slope=model.config.hgat_slope,
    )


def layers_of(model: GraphMERT) -> list[encoder.Layer]:
    out = []
    for layer in model.encoder.layers:
        weight, bias = affine(layer.qkv)  # type: ignore[arg-type]
        query, key, value = zip(np.split(weight, 3), np.split(bias, 3), strict=True)
        parts = [affine(getattr(layer, n)) for n in ("out", "attn_norm", "up", "down", "ffn_norm")]
        out.append(encoder.Layer(query, key, value, *parts))
    return out


def graph_positions_of(
    model: GraphMERT,
    columns: encoder.NodeColumns,
    triples: Sequence[tuple[int, int, int]],
    sp: np.ndarray,
) -> np.ndarray | None:
    g = model.embed.graph
    if g is None:
        return None
    isolated = model.config.leaf_visibility == "isolated"
    depth = graph.depths(columns, triples, sp, isolated=isolated, max_depth=g.max_depth)
    role = graph.roles(columns, triples, isolated=isolated)
    return array(g.depth.weight)[depth] + array(g.role.weight)[role]


def biases_of(
    model: GraphMERT,
    columns: encoder.NodeColumns,
    triples: Sequence[tuple[int, int, int]],
    sp: np.ndarray,
) -> list[np.ndarray] | None:
    if model.encoder.hop_gate is None:
        return None
    return [
        graph.hop_bias(sp, array(gate))
        + graph.relation_bias(columns, triples, array(layer.relation_bias))[None]  # type: ignore[arg-type]
        for gate, layer in zip(model.encoder.hop_gate, model.encoder.layers, strict=True)
    ]


def states(
    model: GraphMERT, chains: Sequence[LeafyChain], names: RelationNames
) -> list[np.ndarray]:
    """Node states of every chain, each computed alone and without padding."""
    c = model.config
    tables, layers = tables_of(model), layers_of(model)
    out = []
    for chain in chains:
        columns = columns_of(chain, names)
        sizes = [sum(t == i for t in columns.triple) for i in range(len(chain.triples))]
        sp = distance.distance_by_search(
            len(chain.roots),
            [(t.head_start, n) for t, n in zip(chain.triples, sizes, strict=True)],
            rule=c.distance_rule,
        )
        padding = np.ones(len(sp), dtype=bool)
        allowed = decay.allowed_keys(padding)
        if c.leaf_visibility == "isolated":
            allowed = decay.allowed_isolated(np.array(columns.triple), padding)
        triples = [(t.relation, t.head_start, t.head_end) for t in chain.triples]
        p = np.zeros(1) if model.encoder.p is None else array(model.encoder.p).reshape(-1)
        x = encoder.encode(
            encoder.embed_nodes(
                tables,
                columns,
                triples,
                eps=c.norm_eps,
                graph_ND=graph_positions_of(model, columns, triples, sp),
            ),
            layers,
            sp,
            form="log_bias" if c.decay == "none" else c.decay,
            lam=1.0 if c.decay == "none" else c.decay_base,
            p_A=np.broadcast_to(p, c.n_attn_heads),
            allowed_NN=allowed,
            offset=float(c.distance_offset),
            eps=c.norm_eps,
            bias_of_layers=biases_of(model, columns, triples, sp),
        )
        if model.transform is not None:
            x = losses.layer_norm(
                decay.gelu_array(losses.linear(x, *affine(model.transform.dense))),
                *affine(model.transform.norm),
                eps=c.norm_eps,
            )
        out.append(x)
    return out
