"""Named network shapes, and their parameter counts with the arithmetic."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch

from graphmert.constraints import REGULARISERS
from graphmert.errors import ConfigError
from graphmert.model import GraphMERT, GraphMERTConfig

_PAPER_SIZE: dict[str, Any] = {
    "vocab_size": 30_522,
    "hidden_size": 512,
    "n_layers": 12,
    "n_attn_heads": 8,
    "ffn_size": 2048,
    "n_root_slots": 128,
    "n_leaf_slots": 7,
    "max_tail_tokens": 7,
    "n_relations": 28,
}
_PAPER_FORM: dict[str, Any] = {
    "positions": "none",
    "n_types": 0,
    "relation_embedding": False,
    "relation_names": False,
    "relation_dropout": 0.3,
    "hgat": "full",
    "hgat_slope": 0.01,
    "decay": "weights",
    "leaf_visibility": "open",
    "objectives": ("mlm", "sbo", "leaf"),
    "loss_form": "sum",
    "norm_eps": 1e-5,
}
_REFERENCE_FORM: dict[str, Any] = _PAPER_FORM | {
    "decay": "logits",
    "decay_per_attn_head": True,
    "distance_rule": "reference",
    "distance_offset": 1,
    "graph_token": True,
    "embedding_norm": False,
    "output_transform": True,
    "sbo_tied": False,
    "loss_form": "joint",
}

# Every feature of GraphMER-SE on; the sizes are those of its base, 85,054,848 parameters in the
# layers: 12 x 7,087,872, and 12 x (16 x 2) of the relation bias.
_GRAPHMER_SE_FORM: dict[str, Any] = {
    "leaf_visibility": "open",
    "relation_bias": True,
    "graph_depth": 8,
    "n_hops": 3,
    "n_entity_types": 15,
    "objectives": ("mlm", "leaf", "relation", "entity", *REGULARISERS),
    "norm_eps": 1e-5,
}
_GRAPHMER_SE_SIZE: dict[str, Any] = {
    "vocab_size": 8_000,
    "pad_token_id": 1,
    "hidden_size": 768,
    "n_layers": 12,
    "n_attn_heads": 12,
    "ffn_size": 3072,
    "n_positions": 512,
    "n_relations": 16,
}
# A RoBERTa body in the layout 1,024 = 128 + 128 x 7; a table of 1,026 position rows, of which
# rows 0 and 1 are not positions.
_CODEBERT_FORM: dict[str, Any] = {
    "n_positions": 1024,
    "n_types": 2,
    "n_root_slots": 128,
    "n_leaf_slots": 7,
    "max_tail_tokens": 7,
    "n_ordinals": 7,
    "relation_names": False,
    "decay": "log_bias",
    "decay_base": 0.6,
    "leaf_visibility": "open",
    "objectives": ("mlm", "relation"),
    "dropout": 0.1,
    "attn_dropout": 0.1,
}
_CODEBERT_SIZE: dict[str, Any] = {
    "vocab_size": 50_265,
    "pad_token_id": 1,
    "position_offset": 2,
    "hidden_size": 768,
    "n_layers": 12,
    "n_attn_heads": 12,
    "ffn_size": 3072,
    "n_relations": 12,
    "norm_eps": 1e-5,
}

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": _PAPER_SIZE | _PAPER_FORM,
    "reference": _PAPER_SIZE | _REFERENCE_FORM,
    "graphmer-se": _GRAPHMER_SE_SIZE | _GRAPHMER_SE_FORM,
    "codebert": _CODEBERT_SIZE | _CODEBERT_FORM,
    "small": {"hidden_size": 256, "n_layers": 4, "n_attn_heads": 8, "ffn_size": 1024},
    "tiny": {
        "hidden_size": 64,
        "n_layers": 2,
        "n_attn_heads": 4,
        "ffn_size": 256,
        "vocab_size": 2000,
        "n_positions": 160,
    },
}
FORMS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": _PAPER_FORM,
    "reference": _REFERENCE_FORM,
    "graphmer-se": _GRAPHMER_SE_FORM,
    "codebert": _CODEBERT_FORM,
}


def preset_config(name: str, **changes: Any) -> GraphMERTConfig:
    """The configuration of a preset, with fields changed.

    Raises:
        ConfigError: no such preset; the message names the nearest one.
    """
    if name not in PRESETS:
        raise unknown_preset(name, PRESETS)
    return GraphMERTConfig(**(PRESETS[name] | changes))


def unknown_preset(name: str, known: Collection[str]) -> ConfigError:
    """Return the error that lists the presets and names the nearest one."""
    near = difflib.get_close_matches(name, known, n=1)
    return ConfigError(
        "no such preset",
        where="preset",
        got=name,
        expected=", ".join(known),
        fix=f"did you mean {near[0]}?" if near else None,
    )


def parameter_report(preset: str, *, n_relations: int | None = None) -> dict[str, Any]:
    """Count a preset's parameters, with the shapes they come from.

    Returns: {"preset", "n_relations", "n_parameters", "groups": {"layers", "embeddings", ...},
        "parts": [{"name", "arithmetic", "n"}], "layout": {...}}; layers of equal shape are one
        part.
    Checked by: tests/unit/test_presets.py
    """
    changes = {} if n_relations is None else {"n_relations": n_relations}
    config = preset_config(preset, **changes)
    with torch.device("meta"):
        model = GraphMERT(config)
    parts = count_parts((name, tuple(p.shape)) for name, p in model.named_parameters())
    n_nodes = config.n_root_slots * (1 + config.n_leaf_slots)
    return {
        "preset": preset,
        "n_relations": config.n_relations,
        "n_parameters": sum(part["n"] for part in parts),
        "groups": _groups(parts),
        "parts": parts,
        "layout": {
            "roots": config.n_root_slots,
            "leaves_per_root": config.n_leaf_slots,
            "nodes": n_nodes,
            "layers": config.n_layers,
            "width": config.hidden_size,
            "attention_heads": config.n_attn_heads,
        },
        "flops_per_sequence": _flops(config, n_live=140, n_masked=31, n_dense=n_nodes),
    }


def count_parts(tensors: Iterable[tuple[str, tuple[int, ...]]]) -> list[dict[str, Any]]:
    """Count tensors by (name, shape); layers of equal shape are one part.

    Returns: [{"name", "arithmetic", "n"}]
    """
    groups: dict[tuple[str, tuple[int, ...]], int] = {}
    for name, shape in tensors:
        pieces = [piece for piece in name.split(".") if not piece.isdigit()]
        key = (".".join(pieces), shape)
        groups[key] = groups.get(key, 0) + 1
    parts = []
    for (name, shape), n_layers in groups.items():
        product = " x ".join(str(size) for size in shape) or "1"
        times = f"{n_layers} x ({product})" if n_layers > 1 else product
        parts.append({"name": name, "arithmetic": times, "n": n_layers * math.prod(shape)})
    return parts


_GROUPS = {
    "encoder.layers.": "layers",
    "encoder.": "decay and hop gates",
    "embed.token.": "token embedding",
    "embed.hgat.": "H-GAT",
    "embed.relation.": "relation embedding",
    "embed.": "positions, types, slots and norm",
    "vocab_head.": "vocabulary head, tied",
    "relation_head.linear.": "relation head",
    "relation_head.slot.": "slot vectors of the relation head",
    "constraint_head.": "regularisers",
}


def _groups(parts: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Parameters by what they belong to; the first fitting prefix counts."""
    found: dict[str, int] = {}
    for part in parts:
        other = part["name"].split(".")[0].replace("_", " ")
        group = next((g for p, g in _GROUPS.items() if part["name"].startswith(p)), other)
        found[group] = found.get(group, 0) + part["n"]
    return found


def _flops(config: GraphMERTConfig, *, n_live: int, n_masked: int, n_dense: int) -> dict[str, int]:
    """Floating-point operations of one training step a sequence: 3 x (2 x multiply-adds)."""
    width, ffn, layers = config.hidden_size, config.ffn_size, config.n_layers
    per_node = layers * (4 * width * width + 2 * width * ffn)

    def total(n_nodes: int, n_predicted: int) -> int:
        attention = layers * 2 * n_nodes * n_nodes * width
        vocabulary = n_predicted * (width * width + width * config.vocab_size)
        return 6 * (n_nodes * per_node + attention + vocabulary)

    return {
        "compact (140 live nodes, 31 masked)": total(n_live, n_masked),
        "dense (all slots, all logits)": total(n_dense, n_dense),
    }
