"""Write a small random checkpoint folder in the published reference format, and an input for it.

Built from the table of the format alone: names, shapes, meanings. Uses nothing of the importer.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from golden.reference_encoder import ReferenceInput

MASK_ID = 4
FIRST_WORD = 5  # ids below are pad, unk, cls, sep, mask


def make_config(
    *,
    vocab_size: int = 37,
    root_nodes: int = 12,
    n_leaves: int = 3,
    num_hidden_layers: int = 2,
    hidden_size: int = 16,
    intermediate_size: int = 24,
    num_attention_heads: int = 4,
    num_relationships: int = 5,
    exp_mask_base: float = 0.6,
    span_upper_length: int = 4,
) -> dict[str, object]:
    """Return config.json of the format."""
    return {
        "model_type": "graphmert",
        "vocab_size": vocab_size,
        "root_nodes": root_nodes,
        "max_nodes": root_nodes * (n_leaves + 1),
        "num_hidden_layers": num_hidden_layers,
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_attention_heads": num_attention_heads,
        "num_relationships": num_relationships,
        "_exp_mask_base": exp_mask_base,
        "span_upper_length": span_upper_length,
        "mlm_sbo": True,
        "pad_token_id": 0,
        "relation_emb_dropout": 0.3,
        "dropout": 0.1,
    }


def linear_shapes(name: str, n_out: int, n_in: int) -> dict[str, tuple[int, ...]]:
    """Weight and bias of one linear map."""
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


def norm_shapes(name: str, d: int) -> dict[str, tuple[int, ...]]:
    """Weight and bias of one LayerNorm."""
    return {f"{name}.weight": (d,), f"{name}.bias": (d,)}


def tensor_shapes(config: dict[str, object]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every stored tensor; the tied decoder is not stored twice."""
    get = {k: v for k, v in config.items() if isinstance(v, int)}
    v, d, f = get["vocab_size"], get["hidden_size"], get["intermediate_size"]
    e, heads = get["num_relationships"], get["num_attention_heads"]
    graph = "graphmert.graph_encoder"
    shapes: dict[str, tuple[int, ...]] = {
        f"{graph}.graph_node_feature.atom_encoder.weight": (v, d),
        f"{graph}.graph_node_feature.relation_matrix_encoder.weight": (e + 1, d * d),
        f"{graph}.graph_node_feature.relation_encoder.weight": (e + 1, 2 * d),
        f"{graph}.graph_node_feature.graph_token.weight": (1, d),
        f"{graph}.graph_token_virtual_distance": (1, get["max_nodes"]),
        f"{graph}.sp": (heads, 1, 1),
    }
    for i in range(get["num_hidden_layers"]):
        at = f"{graph}.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear_shapes(f"{at}.self_attn.{part}", d, d)
        shapes |= norm_shapes(f"{at}.self_attn_layer_norm", d)
        shapes |= linear_shapes(f"{at}.fc1", f, d)
        shapes |= linear_shapes(f"{at}.fc2", d, f)
        shapes |= norm_shapes(f"{at}.final_layer_norm", d)
    shapes |= linear_shapes("graphmert.lm_head_transform_weight", d, d)
    shapes |= norm_shapes("graphmert.layer_norm", d)
    shapes |= linear_shapes("lm_head.dense", d, d)
    shapes |= norm_shapes("lm_head.layer_norm", d)
    shapes["lm_head.bias"] = (v,)
    shapes["lm_pair_head.position_embeddings.weight"] = (get["span_upper_length"], d)
    mlp = "lm_pair_head.mlp_layer_norm.mlp_layer_norm"
    shapes |= linear_shapes(f"{mlp}.0", d, 3 * d)
    shapes |= norm_shapes(f"{mlp}.2", d)
    shapes |= linear_shapes(f"{mlp}.3", d, d)
    shapes |= norm_shapes(f"{mlp}.5", d)
    shapes |= linear_shapes("lm_pair_head.decoder", v, d)
    return shapes


def make_arrays(config: dict[str, object], *, seed: int) -> dict[str, np.ndarray]:
    """Draw every tensor so that no term of the forward pass is negligible."""
    rng = np.random.default_rng(seed)
    out: dict[str, np.ndarray] = {}
    for name, shape in tensor_shapes(config).items():
        value = rng.standard_normal(shape)
        if "norm" in name and len(shape) == 1:
            value = 0.2 * value + (1.0 if name.endswith("weight") else 0.0)
        elif name.endswith("bias"):
            value = 0.1 * value
        elif name.endswith("relation_matrix_encoder.weight"):
            value = value / math.sqrt(math.sqrt(shape[1]))
        elif name.endswith("proj.weight") or ".fc" in name or "dense" in name:
            value = 1.2 * value / math.sqrt(shape[1])
        elif "mlp_layer_norm" in name or "transform" in name or "decoder" in name:
            value = value / math.sqrt(shape[1])
        elif name.endswith(".sp"):
            value = 1.5 + 0.5 * value
        elif name.endswith("relation_encoder.weight"):
            value = 0.5 * value
        out[name] = np.ascontiguousarray(value, dtype=np.float32)
    out["graphmert.graph_encoder.graph_node_feature.atom_encoder.weight"][0] = 0.0
    return out


def relation_map(config: dict[str, object]) -> dict[str, int]:
    """Relation names to ids 1 .. E; id 0 is "no relation"."""
    n = config["num_relationships"]
    assert isinstance(n, int)
    return {f"relation_{i}": i for i in range(1, n + 1)}


def write_reference_checkpoint(
    folder: Path, *, seed: int = 0, config: dict[str, object] | None = None
) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """Write config.json, model.safetensors and relation_map.json; return config and arrays."""
    config = make_config() if config is None else config
    arrays = make_arrays(config, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / "relation_map.json").write_text(
        json.dumps(relation_map(config), indent=2), encoding="utf-8"
    )
    save_file(arrays, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return config, arrays


def make_inputs(config: dict[str, object], *, seed: int = 0) -> list[ReferenceInput]:
    """Return chains with heads and tails of one and of several tokens, and one without triples.

    Masked: a span of three roots, a span of one, one whole tail, one token of another tail.
    """
    rng = np.random.default_rng(seed)
    n_max, vocab = config["root_nodes"], config["vocab_size"]
    assert isinstance(n_max, int)
    assert isinstance(vocab, int)
    f = int(str(config["max_nodes"])) // n_max - 1

    def words(n: int) -> list[int]:
        return [int(i) for i in rng.integers(FIRST_WORD, vocab, size=n)]

    full = words(n_max)
    tails = [words(f), words(2), words(1)]
    labels = {i: full[i] for i in (4, 5, 6, 9)}
    for k in range(f):  # the whole tail of the triple at root 1
        labels[n_max + f * 1 + k] = tails[0][k]
    labels[n_max + f * 7 + 1] = tails[1][1]  # second token of the tail at root 7
    masked_roots = tuple(MASK_ID if i in labels else token for i, token in enumerate(full))
    first = ReferenceInput(
        roots=masked_roots,
        triples=(
            (2, 1, 4, (MASK_ID,) * f),
            (5, 7, 9, (tails[1][0], MASK_ID)),
            (1, 2, 3, (tails[2][0],)),
        ),
        labels=labels,
        spans=((4, 7), (9, 10)),
    )
    short = words(n_max - 5)
    second = ReferenceInput(
        roots=tuple(MASK_ID if i == 2 else token for i, token in enumerate(short)),
        triples=((3, 0, 2, tuple(words(f))), (3, 5, 7, tuple(words(2)))),
        labels={2: short[2]},
        spans=((2, 3),),
    )
    bare = words(n_max - 2)
    third = ReferenceInput(
        roots=tuple(MASK_ID if i in (3, 4) else token for i, token in enumerate(bare)),
        triples=(),
        labels={3: bare[3], 4: bare[4]},
        spans=((3, 5),),
    )
    return [first, second, third]
