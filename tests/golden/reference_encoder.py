"""A post-LN transformer with decay, and the whole forward of a reference checkpoint, in float64.

The checkpoint forward reads a plain dict of arrays under the names of the published format.
Written from the equations alone; imports nothing from the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from golden import reference_decay as decay
from golden import reference_distance as distance
from golden import reference_hgat as hgat
from golden import reference_losses as losses

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Layer:
    """One encoder layer; every linear map as (weight (out, in), bias), every norm likewise."""

    query: tuple[np.ndarray, np.ndarray]
    key: tuple[np.ndarray, np.ndarray]
    value: tuple[np.ndarray, np.ndarray]
    out: tuple[np.ndarray, np.ndarray]
    norm_1: tuple[np.ndarray, np.ndarray]
    up: tuple[np.ndarray, np.ndarray]
    down: tuple[np.ndarray, np.ndarray]
    norm_2: tuple[np.ndarray, np.ndarray]


def split_heads(x_ND: np.ndarray, n_heads: int) -> np.ndarray:
    """(N, D) to (A, N, K): attention head a owns channels a K .. (a + 1) K - 1."""
    n, d = x_ND.shape
    width = d // n_heads
    out = np.zeros((n_heads, n, width))
    for a in range(n_heads):
        for i in range(n):
            out[a, i] = x_ND[i, a * width : (a + 1) * width]
    return out


def encoder_layer(
    x_ND: np.ndarray,
    layer: Layer,
    distance_NN: np.ndarray,
    *,
    form: str,
    lam: float,
    p_A: np.ndarray,
    allowed_NN: np.ndarray | None = None,
    offset: float = 0.0,
    eps: float = 1e-5,
    bias_ANN: np.ndarray | None = None,
) -> np.ndarray:
    """x = LN(x + attention(x)); x = LN(x + W2 GELU(W1 x))."""
    n_heads = len(p_A)
    mixed_ANK = decay.attention(
        split_heads(losses.linear(x_ND, *layer.query), n_heads),
        split_heads(losses.linear(x_ND, *layer.key), n_heads),
        split_heads(losses.linear(x_ND, *layer.value), n_heads),
        distance_NN,
        form=form,
        lam=lam,
        p_A=p_A,
        allowed_NN=allowed_NN,
        offset=offset,
        bias_ANN=bias_ANN,
    )
    mixed_ND = np.concatenate(list(mixed_ANK), axis=1)
    x_ND = losses.layer_norm(x_ND + losses.linear(mixed_ND, *layer.out), *layer.norm_1, eps=eps)
    inner = decay.gelu_array(losses.linear(x_ND, *layer.up))
    return losses.layer_norm(x_ND + losses.linear(inner, *layer.down), *layer.norm_2, eps=eps)


def encode(
    x_ND: np.ndarray,
    layers: Sequence[Layer],
    distance_NN: np.ndarray,
    *,
    form: str,
    lam: float,
    p_A: np.ndarray,
    allowed_NN: np.ndarray | None = None,
    offset: float = 0.0,
    eps: float = 1e-5,
    bias_of_layers: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
    """Apply every layer; p and the distances are shared by all, biases (A, N, N) are not."""
    for index, layer in enumerate(layers):
        x_ND = encoder_layer(
            x_ND,
            layer,
            distance_NN,
            form=form,
            lam=lam,
            p_A=p_A,
            allowed_NN=allowed_NN,
            offset=offset,
            eps=eps,
            bias_ANN=None if bias_of_layers is None else bias_of_layers[index],
        )
    return x_ND


@dataclass(frozen=True)
class NodeColumns:
    """The nodes of one chain: token, root, triple (-1: root) and place in tail or name."""

    token: Sequence[int]
    root: Sequence[int]
    triple: Sequence[int]
    slot: Sequence[int]
    is_name: Sequence[bool]


@dataclass(frozen=True)
class EmbeddingTables:
    """What the default form adds up; None: that form has no such part."""

    token_VD: np.ndarray
    position_RD: np.ndarray | None
    node_type_2D: np.ndarray | None
    slot_KD: np.ndarray | None
    name_slot_KD: np.ndarray | None
    relation_ED: np.ndarray | None
    norm: tuple[np.ndarray, np.ndarray] | None
    matrices_EDD: np.ndarray | None
    a_tail_ED: np.ndarray | None
    a_head_ED: np.ndarray | None
    slope: float = 0.01


def embed_nodes(
    tables: EmbeddingTables,
    columns: NodeColumns,
    triples: Sequence[tuple[int, int, int]],
    *,
    eps: float = 1e-5,
    graph_ND: np.ndarray | None = None,
) -> np.ndarray:
    """Embed one chain; `triples` are (relation, head_start, head_end).

    Root: token + position + type 0. Leaf: token + its root's position + type 1 + slot
    + relation + H-GAT message from raw token embeddings. Then graph positions and LayerNorm.
    """
    raw_ND = tables.token_VD[list(columns.token)]
    x_ND = np.array(raw_ND, dtype=np.float64)
    if tables.matrices_EDD is not None:
        assert tables.a_tail_ED is not None
        assert tables.a_head_ED is not None
        leaves: list[list[int]] = [[] for _ in triples]
        for i, t in enumerate(columns.triple):
            if t >= 0:
                leaves[t].append(i)
        x_ND = hgat.hgat(
            raw_ND,
            [(r, range(start, end), leaves[t]) for t, (r, start, end) in enumerate(triples)],
            matrices_EDD=tables.matrices_EDD,
            a_tail_ED=tables.a_tail_ED,
            a_head_ED=tables.a_head_ED,
            slope=tables.slope,
        )
    for i, t in enumerate(columns.triple):
        if tables.position_RD is not None:
            x_ND[i] += tables.position_RD[columns.root[i]]
        if tables.node_type_2D is not None:
            x_ND[i] += tables.node_type_2D[int(t >= 0)]
        if t < 0:
            continue
        slots = tables.name_slot_KD if columns.is_name[i] else tables.slot_KD
        if slots is not None:
            x_ND[i] += slots[columns.slot[i]]
        if tables.relation_ED is not None:
            x_ND[i] += tables.relation_ED[triples[t][0]]
    if graph_ND is not None:
        x_ND = x_ND + graph_ND
    if tables.norm is not None:
        x_ND = losses.layer_norm(x_ND, *tables.norm, eps=eps)
    return x_ND


# --- the published checkpoint format -------------------------------------------------------


@dataclass(frozen=True)
class ReferenceInput:
    """One chain as that format sees it: at most one triple per root.

    `triples`: (relation 1 .. E, head_start, head_end, tail tokens).
    `labels`: dense index (root r: r; leaf k of root r: n_roots_max + F r + k) to true token.
    `spans`: half-open masked spans of roots, each with a root on either side.
    """

    roots: tuple[int, ...]
    triples: tuple[tuple[int, int, int, tuple[int, ...]], ...]
    labels: Mapping[int, int]
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ReferenceOutput:
    """States and logits of the live nodes in compact order, graph token left out."""

    states_ND: np.ndarray
    logits_NV: np.ndarray
    graph_state_D: np.ndarray
    pair_logits_MV: np.ndarray
    node_loss: float
    pair_loss: float

    @property
    def loss(self) -> float:
        """Mean cross-entropy of all masked nodes plus that of the span boundaries."""
        return self.node_loss + self.pair_loss


def pair(arrays: Arrays, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(weight, bias) in float64."""
    return (
        np.asarray(arrays[f"{name}.weight"], dtype=np.float64),
        np.asarray(arrays[f"{name}.bias"], dtype=np.float64),
    )


def checkpoint_layers(arrays: Arrays, n_layers: int) -> list[Layer]:
    """Collect the layers under `graphmert.graph_encoder.layers.i`."""
    out = []
    for i in range(n_layers):
        at = f"graphmert.graph_encoder.layers.{i}"
        out.append(
            Layer(
                query=pair(arrays, f"{at}.self_attn.q_proj"),
                key=pair(arrays, f"{at}.self_attn.k_proj"),
                value=pair(arrays, f"{at}.self_attn.v_proj"),
                out=pair(arrays, f"{at}.self_attn.out_proj"),
                norm_1=pair(arrays, f"{at}.self_attn_layer_norm"),
                up=pair(arrays, f"{at}.fc1"),
                down=pair(arrays, f"{at}.fc2"),
                norm_2=pair(arrays, f"{at}.final_layer_norm"),
            )
        )
    return out


def leaves_per_root(config: Mapping[str, Any]) -> int:
    """F = max_nodes // root_nodes - 1."""
    return int(config["max_nodes"]) // int(config["root_nodes"]) - 1


def dense_indices(config: Mapping[str, Any], chain: ReferenceInput) -> list[int]:
    """Dense index of every live node, roots first, then leaves in order of triples."""
    n_max, f = int(config["root_nodes"]), leaves_per_root(config)
    out = list(range(len(chain.roots)))
    for _, start, _, tail in chain.triples:
        out.extend(n_max + f * start + k for k in range(len(tail)))
    return out


def embed(arrays: Arrays, chain: ReferenceInput) -> np.ndarray:
    """Raw token embeddings of the live nodes, H-GAT messages added to the leaves."""
    prefix = "graphmert.graph_encoder.graph_node_feature"
    tokens_VD = np.asarray(arrays[f"{prefix}.atom_encoder.weight"], dtype=np.float64)
    d = tokens_VD.shape[1]
    ids = list(chain.roots)
    spec: list[hgat.HeadTail] = []
    for relation, start, end, tail in chain.triples:
        leaves = range(len(ids), len(ids) + len(tail))
        ids.extend(tail)
        spec.append((relation, range(start, end), leaves))
    flat = np.asarray(arrays[f"{prefix}.relation_matrix_encoder.weight"], dtype=np.float64)
    interleaved = np.asarray(arrays[f"{prefix}.relation_encoder.weight"], dtype=np.float64)
    split = [hgat.deinterleave(row) for row in interleaved]
    return hgat.hgat(
        tokens_VD[ids],
        spec,
        matrices_EDD=flat.reshape(len(flat), d, d),
        a_tail_ED=np.array([a for a, _ in split]),
        a_head_ED=np.array([a for _, a in split]),
        slope=0.01,
    )


def run_checkpoint(
    arrays: Arrays, config: Mapping[str, Any], chain: ReferenceInput, *, dense: bool = False
) -> ReferenceOutput:
    """Run the whole model on one chain, over live nodes or over every dense slot."""
    live = dense_indices(config, chain)
    x_ND = embed(arrays, chain)
    sp_NN = distance.distance_by_search(
        len(chain.roots),
        [(start, len(tail)) for _, start, _, tail in chain.triples],
        rule="reference",
    )
    virtual_N = np.asarray(
        arrays["graphmert.graph_encoder.graph_token_virtual_distance"], dtype=np.float64
    )[0]
    if dense:  # pads: zero states, never seen as keys; their own rows are thrown away
        n = int(config["max_nodes"])
        wide_x, wide_sp = np.zeros((n, x_ND.shape[1])), np.zeros((n, n))
        wide_x[live] = x_ND
        wide_sp[np.ix_(live, live)] = sp_NN
        padding = np.zeros(n, dtype=bool)
        padding[live] = True
        at = live
        x_ND, sp_NN = wide_x, wide_sp
    else:
        virtual_N = virtual_N[live]
        padding = np.ones(len(live), dtype=bool)
        at = list(range(len(live)))
    # path + 1, self included; the graph token's own distances are used as they are
    distances = decay.with_graph_token(sp_NN + 1.0, virtual_N)
    token_1D = np.asarray(
        arrays["graphmert.graph_encoder.graph_node_feature.graph_token.weight"], dtype=np.float64
    )
    states = encode(
        np.concatenate([token_1D, x_ND]),
        checkpoint_layers(arrays, int(config["num_hidden_layers"])),
        distances,
        form="logits",
        lam=float(config["_exp_mask_base"]),
        p_A=np.asarray(arrays["graphmert.graph_encoder.sp"], dtype=np.float64).reshape(-1),
        allowed_NN=decay.allowed_keys(np.concatenate([[True], padding]), graph_token=True),
        eps=1e-5,
    )
    shared = losses.layer_norm(
        decay.gelu_array(
            losses.linear(states, *pair(arrays, "graphmert.lm_head_transform_weight"))
        ),
        *pair(arrays, "graphmert.layer_norm"),
    )
    nodes_ND = shared[1:][at]
    return read_heads(arrays, chain, live, nodes_ND, shared[0])


def read_heads(
    arrays: Arrays,
    chain: ReferenceInput,
    live: Sequence[int],
    nodes_ND: np.ndarray,
    graph_state_D: np.ndarray,
) -> ReferenceOutput:
    """Apply the vocabulary head and the span-boundary head, and take the losses."""
    tokens_VD = np.asarray(
        arrays["graphmert.graph_encoder.graph_node_feature.atom_encoder.weight"], dtype=np.float64
    )
    logits_NV = losses.vocab_head(
        nodes_ND,
        dense=pair(arrays, "lm_head.dense"),
        norm=pair(arrays, "lm_head.layer_norm"),
        decoder=(tokens_VD, np.asarray(arrays["lm_head.bias"], dtype=np.float64)),
    )
    labels = [chain.labels.get(index, losses.IGNORED) for index in live]
    pair_logits, pair_loss = np.zeros((0, len(tokens_VD))), 0.0
    if chain.spans:
        mlp = "lm_pair_head.mlp_layer_norm.mlp_layer_norm"
        pair_logits = losses.span_boundary_logits(
            nodes_ND,
            chain.spans,
            positions_PD=np.asarray(
                arrays["lm_pair_head.position_embeddings.weight"], dtype=np.float64
            ),
            dense_0=pair(arrays, f"{mlp}.0"),
            norm_0=pair(arrays, f"{mlp}.2"),
            dense_1=pair(arrays, f"{mlp}.3"),
            norm_1=pair(arrays, f"{mlp}.5"),
            decoder=pair(arrays, "lm_pair_head.decoder"),
        )
        truth = [chain.labels[i] for start, end in chain.spans for i in range(start, end)]
        pair_loss = losses.mean_cross_entropy(pair_logits, truth)
    return ReferenceOutput(
        states_ND=nodes_ND,
        logits_NV=logits_NV,
        graph_state_D=graph_state_D,
        pair_logits_MV=pair_logits,
        node_loss=losses.mean_cross_entropy(logits_NV, labels),
        pair_loss=pair_loss,
    )
