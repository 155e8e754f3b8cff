"""Start a GraphMERT from a BERT- or RoBERTa-family checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig
from transformers.utils.hub import cached_file

from graphmert.errors import CapabilityError, CheckpointError
from graphmert.model import GraphMERT, GraphMERTConfig

_FAMILIES = {"bert": 0, "roberta": 1, "xlm-roberta": 1, "camembert": 1}


def load_body_config(path_or_id: str | Path) -> PretrainedConfig:
    """Read a body's configuration from a folder or the local hub cache; nothing is downloaded.

    Raises:
        CapabilityError: no such folder or cached model, a family other than BERT and RoBERTa, or
            an activation other than the exact GELU.
    """
    try:
        config = AutoConfig.from_pretrained(str(path_or_id), local_files_only=True)
    except (OSError, ValueError) as error:
        raise CapabilityError(
            "the pretrained body could not be found",
            where=str(path_or_id),
            got=str(error).splitlines()[0],
            expected="a folder with config.json, or a model id in the local hub cache",
            fix="download the model first and give its folder",
        ) from error
    if config.model_type not in _FAMILIES:
        raise CapabilityError(
            "this model family cannot serve as a body",
            where=str(path_or_id),
            got=config.model_type,
            expected=" or ".join(_FAMILIES),
        )
    if config.hidden_act != "gelu":
        raise CapabilityError(
            "this body's activation is not supported",
            where=str(path_or_id),
            got=config.hidden_act,
            expected="gelu",
        )
    return config


def config_from_body(body: PretrainedConfig, **changes: Any) -> GraphMERTConfig:
    """The GraphMERT configuration whose layers are those of a BERT or RoBERTa body."""
    offset = body.pad_token_id + 1 if _FAMILIES[body.model_type] else 0
    fields: dict[str, Any] = {
        "vocab_size": body.vocab_size,
        "pad_token_id": body.pad_token_id,
        "hidden_size": body.hidden_size,
        "n_layers": body.num_hidden_layers,
        "n_attn_heads": body.num_attention_heads,
        "ffn_size": body.intermediate_size,
        "n_positions": body.max_position_embeddings - offset,
        "position_offset": offset,
        "norm_eps": body.layer_norm_eps,
        "dropout": body.hidden_dropout_prob,
    }
    return GraphMERTConfig(**(fields | changes))


def from_body(path_or_id: str | Path, **changes: Any) -> GraphMERT:
    """Build a GraphMERT on a pretrained body; parts the body lacks keep their random start.

    Positions are extended by repeating the pretrained rows from the first real one; roots and
    leaves both start from type row 0 (a body's row 1, if any, marks second sentences); the
    vocabulary head of a masked language model is taken over where the checkpoint holds one, else
    it starts as an identity transform. `pretrained_parameter_names()` of the result lists what
    was copied.

    Args:
        changes: fields of `GraphMERTConfig` that differ from the body's.
    Source: GraphMERT-CodeBERT, base model. Checked by: tests/parity/test_body.py
    """
    body = load_body_config(path_or_id)
    model = GraphMERT(config_from_body(body, **changes))
    copied = copy_body(model, _read_weights(path_or_id), source=str(path_or_id))
    model.set_pretrained_parameter_names(copied)
    return model


def _read_weights(path_or_id: str | Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    for name in ("model.safetensors", "pytorch_model.bin"):
        file = cached_file(
            str(path_or_id),
            name,
            local_files_only=True,
            _raise_exceptions_for_missing_entries=False,
        )
        if file is None:
            continue
        if name.endswith(".safetensors"):
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    raise CheckpointError(
        "the pretrained body has no weights",
        where=str(path_or_id),
        expected="model.safetensors or pytorch_model.bin",
    )


def copy_body(model: GraphMERT, weights: dict[str, Tensor], *, source: str) -> set[str]:
    """Copy BERT or RoBERTa weights into the model; return the names of copied parameters."""
    plain = {}
    for name, value in weights.items():
        for prefix in ("bert.", "roberta."):
            name = name.removeprefix(prefix)
        plain[name.replace(".gamma", ".weight").replace(".beta", ".bias")] = value.float()
    target = model.state_dict()
    copied: set[str] = set()

    def put(name: str, value: Tensor) -> None:
        if tuple(target[name].shape) != tuple(value.shape):
            raise CheckpointError(
                "a tensor of the pretrained body has another shape",
                where=f"{source}, for {name}",
                got=tuple(value.shape),
                expected=tuple(target[name].shape),
            )
        target[name] = value
        copied.add(name)

    def take(name: str) -> Tensor:
        if name not in plain:
            raise CheckpointError(
                "the pretrained body lacks a tensor", where=source, got="nothing", expected=name
            )
        return plain[name]

    put("embed.token.weight", take("embeddings.word_embeddings.weight"))
    if model.embed.position is not None:
        put("embed.position.weight", _extend(model, take("embeddings.position_embeddings.weight")))
    if model.embed.node_type is not None:
        types = take("embeddings.token_type_embeddings.weight")
        rows = torch.arange(model.embed.node_type.num_embeddings).clamp(max=0)
        put("embed.node_type.weight", types[rows])
    if model.embed.norm is not None:
        for part in ("weight", "bias"):
            put(f"embed.norm.{part}", take(f"embeddings.LayerNorm.{part}"))
    for i in range(model.config.n_layers):
        theirs, ours = f"encoder.layer.{i}.", f"encoder.layers.{i}."
        for part in ("weight", "bias"):
            qkv = [take(f"{theirs}attention.self.{x}.{part}") for x in ("query", "key", "value")]
            put(f"{ours}qkv.{part}", torch.cat(qkv))
            for mine, other in (
                ("out", "attention.output.dense"),
                ("attn_norm", "attention.output.LayerNorm"),
                ("up", "intermediate.dense"),
                ("down", "output.dense"),
                ("ffn_norm", "output.LayerNorm"),
            ):
                put(f"{ours}{mine}.{part}", take(f"{theirs}{other}.{part}"))
    if model.vocab_head is not None:
        for mine, names in _VOCAB_HEAD.items():
            found = next((plain[n] for n in names if n in plain), None)
            if found is not None:
                put(f"vocab_head.{mine}", found)
        if "vocab_head.transform.dense.weight" not in copied:
            target["vocab_head.transform.dense.weight"] = torch.eye(model.config.hidden_size)
    model.load_state_dict(target)
    return copied


_VOCAB_HEAD = {
    "transform.dense.weight": ("cls.predictions.transform.dense.weight", "lm_head.dense.weight"),
    "transform.dense.bias": ("cls.predictions.transform.dense.bias", "lm_head.dense.bias"),
    "transform.norm.weight": (
        "cls.predictions.transform.LayerNorm.weight",
        "lm_head.layer_norm.weight",
    ),
    "transform.norm.bias": ("cls.predictions.transform.LayerNorm.bias", "lm_head.layer_norm.bias"),
    "bias": ("cls.predictions.bias", "lm_head.bias"),
}


def _extend(model: GraphMERT, table: Tensor) -> Tensor:
    """Fit the position table: cut it, or repeat its rows from the first real position."""
    assert model.embed.position is not None
    wanted = model.embed.position.num_embeddings
    offset = model.config.position_offset
    real = table[offset:]
    rows = torch.arange(wanted - offset) % len(real)
    return torch.cat([table[:offset], real[rows]])
