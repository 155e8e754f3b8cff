"""Turn checkpoints of other implementations into ours.

Legend: A attention heads, D width, E relations, F leaf slots, V vocabulary.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from graphmert.errors import CheckpointError, ConfigError
from graphmert.model import GraphMERT, GraphMERTConfig
from graphmert.presets import FORMS
from graphmert.shards import NO_SPACE_TEXT, atomic_write_json, disk_full, is_disk_full

_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_FIX = "Copy the folder again, or export it again from the program that wrote it."

_GRAPH = "graphmert.graph_encoder"
_NODE = f"{_GRAPH}.graph_node_feature"
_TOKENS = f"{_NODE}.atom_encoder.weight"
_PAIR = "lm_pair_head.mlp_layer_norm.mlp_layer_norm"
# A second name of a tensor: it may be stored, and must then hold the same values.
_TIED = {"lm_head.decoder.weight": _TOKENS, "lm_head.decoder.bias": "lm_head.bias"}

_COUNTS = {
    "vocab_size": "vocab_size",
    "num_hidden_layers": "n_layers",
    "hidden_size": "hidden_size",
    "intermediate_size": "ffn_size",
    "num_attention_heads": "n_attn_heads",
    "num_relationships": "n_relations",
    "root_nodes": "n_root_slots",
}
_OPTIONAL = {"dropout": 0.1, "relation_emb_dropout": 0.3, "mlm_sbo": True}
_UNREADABLE = (
    safetensors.SafetensorError, RuntimeError, EOFError, OSError, pickle.UnpicklingError,
)  # fmt: skip
_READ = {
    *_COUNTS, *_OPTIONAL,
    "model_type", "max_nodes", "pad_token_id", "span_upper_length", "_exp_mask_base",
}  # fmt: skip


def convert_reference(src: Path, out: Path) -> dict[str, Any]:
    """Convert a checkpoint folder of the published reference implementation.

    `out` becomes a folder for `GraphMERT.from_pretrained` with `relations.json`; it is whole or
    absent. The model has the form `reference`. Relation id k of the source becomes index k - 1;
    id 0, "no relation", becomes the last row of our tables.

    Args:
        src: folder with config.json, model.safetensors or pytorch_model.bin, and
            relation_map.json.
        out: folder to write; must be absent or empty.
    Returns:
        What was read and written, and by name what was assumed or ignored.
    Raises:
        CheckpointError: a file is missing, damaged or of another kind; a tensor is missing,
            unexpected or of another shape; the message names it.
        ConfigError: `out` exists and is not empty.
        CapabilityError: the disk is full.
    Source: GraphMERT, published code. Differs: none.
    Checked by: tests/unit/test_convert.py
    """
    src, out = Path(src), Path(out)
    _refuse_existing(out)
    if not src.is_dir():
        raise CheckpointError(
            "there is no such checkpoint folder",
            where=str(src),
            expected="a folder with config.json, relation_map.json and the weights",
        )
    source = _read_json(src / "config.json")
    weights_file = _find_weights(src)
    weights = _read_weights(weights_file)
    config = _config(source, weights, where=str(src / "config.json"))
    state, tied = _rename(weights, _mapping(config), where=str(weights_file))
    names = _read_relations(src / "relation_map.json", n_relations=config.n_relations)
    with torch.device("meta"):
        model = GraphMERT(config)
    model.load_state_dict(state, strict=True, assign=True)
    tokenizer = [name for name in _TOKENIZER_FILES if (src / name).is_file()]
    _write(out, model, names, [src / name for name in tokenizer])
    read = {"config.json", "relation_map.json", weights_file.name, *tokenizer}
    return {
        "source": str(src),
        "path": str(out),
        "form": "reference",
        "weights": weights_file.name,
        "stored_as": sorted({str(t.dtype).removeprefix("torch.") for t in weights.values()}),
        "n_tensors": len(weights),
        "n_parameters": sum(p.numel() for p in model.parameters()),
        "n_relations": config.n_relations,
        "unnamed_relations": sorted(set(range(config.n_relations)) - set(names.values())),
        "tokenizer_files": tokenizer,
        "tied_tensors": tied,
        "assumed_config": {k: v for k, v in _OPTIONAL.items() if k not in source},
        "ignored_config_keys": sorted(set(source) - _READ),
        "ignored_files": sorted(p.name for p in src.iterdir() if p.name not in read),
    }


# --- reading --------------------------------------------------------------------------------


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            "the checkpoint lacks a file", where=str(path.parent), expected=path.name
        ) from error
    except ValueError as error:
        raise CheckpointError(
            "a file of the checkpoint is truncated or not JSON", where=str(path), fix=_FIX
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            "a file of the checkpoint holds something else",
            where=str(path),
            got=type(value).__name__,
            expected="a JSON object",
        )
    return value


def _find_weights(folder: Path) -> Path:
    for name in _WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        "the checkpoint lacks its weights",
        where=str(folder),
        expected=" or ".join(_WEIGHT_FILES),
    )


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name; a pickle may hold tensors and plain containers only."""
    try:
        if path.suffix == ".safetensors":
            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        # a cut archive makes the reader seek to a place that does not exist
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise CheckpointError(
            "the weights are truncated or of another format",
            where=str(path),
            got=str(error).splitlines()[0] if str(error) else type(error).__name__,
            fix=_FIX,
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(t, Tensor) for t in weights.values()):
        raise CheckpointError(
            "the weights are of another format", where=str(path), expected="tensors by name"
        )
    return weights


def _read_relations(path: Path, *, n_relations: int) -> dict[str, int]:
    """Relation name -> our index; ids of the source are 1 .. E."""
    indices: dict[str, int] = {}
    for name, number in _read_json(path).items():
        is_id = isinstance(number, int) and not isinstance(number, bool)
        if not is_id or not 1 <= number <= n_relations:
            raise CheckpointError(
                "a relation has a bad id",
                where=f"{path}, {name}",
                got=number,
                expected=f"an integer from 1 to {n_relations}",
            )
        if number - 1 in indices.values():
            raise CheckpointError("two relations share an id", where=f"{path}, {name}", got=number)
        indices[name] = number - 1
    return dict(sorted(indices.items(), key=lambda item: item[1]))


# --- the configuration ----------------------------------------------------------------------


def _config(
    source: Mapping[str, Any], weights: Mapping[str, Tensor], *, where: str
) -> GraphMERTConfig:
    if source.get("model_type") != "graphmert":
        raise CheckpointError(
            "this is no checkpoint of the reference implementation",
            where=where,
            got=f"model_type {source.get('model_type')!r}",
            expected="model_type 'graphmert'",
        )
    sizes = {ours: _number(source, key, where) for key, ours in _COUNTS.items()}
    max_nodes = _number(source, "max_nodes", where)
    n_roots, width = sizes["n_root_slots"], sizes["hidden_size"]
    for key, whole, part in (
        ("max_nodes", max_nodes, n_roots),
        ("hidden_size", width, sizes["n_attn_heads"]),
    ):
        if whole % part:
            raise _bad_setting(key, where, got=whole, expected=f"a multiple of {part}")
    n_leaves = max_nodes // n_roots - 1
    if n_leaves < 1:
        raise _bad_setting("max_nodes", where, got=max_nodes, expected=f"more than {n_roots}")
    pad_id = _number(source, "pad_token_id", where, least=0)
    if pad_id >= sizes["vocab_size"]:
        raise _bad_setting("pad_token_id", where, got=pad_id, expected="less than vocab_size")
    base = _share(source, "_exp_mask_base", where)
    if base == 0:
        raise _bad_setting("_exp_mask_base", where, got=base, expected="a number in (0, 1]")
    optional = _OPTIONAL | {k: source[k] for k in _OPTIONAL if k in source}
    # The span places are as many as the longest span, or as the leaves of a root.
    n_places = n_leaves
    if source.get("span_upper_length") is not None:
        n_places = _number(source, "span_upper_length", where)
    stored = weights.get("lm_pair_head.position_embeddings.weight")
    if stored is not None and stored.dim() == 2 and stored.shape[0] == n_leaves:
        n_places = n_leaves
    form = FORMS["reference"] | {
        "objectives": ("mlm", "sbo", "leaf") if optional["mlm_sbo"] else ("mlm", "leaf"),
        "relation_dropout": _share(optional, "relation_emb_dropout", where),
    }
    return GraphMERTConfig(
        **sizes,
        **form,
        pad_token_id=pad_id,
        n_leaf_slots=n_leaves,
        max_tail_tokens=n_leaves,
        max_span=n_places,
        decay_base=base,
        dropout=_share(optional, "dropout", where),
    )


def _number(source: Mapping[str, Any], key: str, where: str, *, least: int = 1) -> int:
    value = source.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise _bad_setting(key, where, got=value, expected=f"an integer of at least {least}")
    return value


def _share(source: Mapping[str, Any], key: str, where: str) -> float:
    value = source.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise _bad_setting(key, where, got=value, expected="a number in [0, 1]")
    return float(value)


def _bad_setting(key: str, where: str, *, got: object, expected: str) -> CheckpointError:
    return CheckpointError(
        "a setting is missing or wrong",
        where=f"{where}, {key}",
        got="nothing" if got is None else repr(got),
        expected=expected,
    )


# --- the tensors ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tensor:
    """Where one of our tensors comes from: names and shape in the source, and how it is made."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    build: Callable[..., Tensor] = lambda tensor: tensor


def _mapping(config: GraphMERTConfig) -> dict[str, _Tensor]:
    """Our tensor names -> their source."""
    c = config
    width, n_rows = c.hidden_size, c.n_relations + 1

    def matrices(table: Tensor) -> Tensor:
        return _relation_rows(table).reshape(n_rows, width, width)

    def scores(table: Tensor) -> Tensor:
        # interleaved: channel c of W_r t, channel c of W_r h, next channel
        return _relation_rows(table).reshape(n_rows, width, 2).transpose(1, 2).contiguous()

    found = {
        "embed.token.weight": _Tensor((_TOKENS,), (c.vocab_size, width)),
        "embed.hgat.matrix": _Tensor(
            (f"{_NODE}.relation_matrix_encoder.weight",), (n_rows, width * width), matrices
        ),
        "embed.hgat.score": _Tensor(
            (f"{_NODE}.relation_encoder.weight",), (n_rows, 2 * width), scores
        ),
        "encoder.graph_token": _Tensor((f"{_NODE}.graph_token.weight",), (1, width)),
        "encoder.graph_distance": _Tensor(
            (f"{_GRAPH}.graph_token_virtual_distance",),
            (1, c.n_root_slots * (1 + c.n_leaf_slots)),
            lambda distance: distance[0],
        ),
        "encoder.p": _Tensor((f"{_GRAPH}.sp",), (c.n_attn_heads, 1, 1)),
        "vocab_head.bias": _Tensor(("lm_head.bias",), (c.vocab_size,)),
    }
    for ours, theirs, shape in _linears_and_norms(c):
        found[f"{ours}.weight"] = _Tensor((f"{theirs}.weight",), shape)
        found[f"{ours}.bias"] = _Tensor((f"{theirs}.bias",), shape[:1])
    for i in range(c.n_layers):
        for part, shape in (("weight", (width, width)), ("bias", (width,))):
            found[f"encoder.layers.{i}.qkv.{part}"] = _Tensor(
                tuple(f"{_GRAPH}.layers.{i}.self_attn.{x}_proj.{part}" for x in "qkv"),
                shape,
                lambda *parts: torch.cat(parts),
            )
    if "sbo" in c.objectives:
        found["sbo_head.place.weight"] = _Tensor(
            ("lm_pair_head.position_embeddings.weight",), (c.max_span, width)
        )
    return found


def _linears_and_norms(c: GraphMERTConfig) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield (our name, source name, weight shape) of every map that keeps its form."""
    width, ffn = c.hidden_size, c.ffn_size
    square, norm = (width, width), (width,)
    for i in range(c.n_layers):
        ours, theirs = f"encoder.layers.{i}", f"{_GRAPH}.layers.{i}"
        yield f"{ours}.out", f"{theirs}.self_attn.out_proj", square
        yield f"{ours}.attn_norm", f"{theirs}.self_attn_layer_norm", norm
        yield f"{ours}.up", f"{theirs}.fc1", (ffn, width)
        yield f"{ours}.down", f"{theirs}.fc2", (width, ffn)
        yield f"{ours}.ffn_norm", f"{theirs}.final_layer_norm", norm
    yield "transform.dense", "graphmert.lm_head_transform_weight", square
    yield "transform.norm", "graphmert.layer_norm", norm
    yield "vocab_head.transform.dense", "lm_head.dense", square
    yield "vocab_head.transform.norm", "lm_head.layer_norm", norm
    if "sbo" in c.objectives:
        yield "sbo_head.first.dense", f"{_PAIR}.0", (width, 3 * width)
        yield "sbo_head.first.norm", f"{_PAIR}.2", norm
        yield "sbo_head.second.dense", f"{_PAIR}.3", square
        yield "sbo_head.second.norm", f"{_PAIR}.5", norm
        yield "sbo_head.decoder", "lm_pair_head.decoder", (c.vocab_size, width)


def _relation_rows(table: Tensor) -> Tensor:
    """Rows 1 .. E first; row 0, no relation, last."""
    return torch.cat([table[1:], table[:1]])


def _rename(
    weights: Mapping[str, Tensor], mapping: Mapping[str, _Tensor], *, where: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Our state in float32, and the names of tensors that were stored twice."""
    tied = sorted(name for name in _TIED if name in weights)
    for name in tied:
        other = _TIED[name]
        if other not in weights or not torch.equal(weights[name], weights[other]):
            raise CheckpointError(
                "two tensors that are one in this format differ",
                where=f"{where}, {name}",
                expected=f"the values of {other}",
            )
    unexpected = set(weights) - set(tied)
    unexpected -= {name for source in mapping.values() for name in source.names}
    if unexpected:
        raise CheckpointError(
            "the checkpoint holds a tensor that the format does not have",
            where=where,
            got=", ".join(sorted(unexpected)[:5]) + (", ..." if len(unexpected) > 5 else ""),
            expected=f"{sum(len(source.names) for source in mapping.values())} known tensors",
        )
    state = {}
    for ours, source in mapping.items():
        for name in source.names:
            shape = tuple(weights[name].shape) if name in weights else None
            if shape != source.shape:
                raise CheckpointError(
                    "the checkpoint lacks a tensor"
                    if shape is None
                    else "a tensor has another shape than config.json says",
                    where=f"{where}, {name}",
                    got="nothing" if shape is None else shape,
                    expected=source.shape,
                )
        state[ours] = source.build(*(weights[name].float() for name in source.names)).contiguous()
    return state, tied


# --- writing --------------------------------------------------------------------------------


def _refuse_existing(out: Path) -> None:
    if out.exists() and not (out.is_dir() and next(out.iterdir(), None) is None):
        raise ConfigError(
            "the output exists",
            where=str(out),
            fix="Give another folder, or remove this one.",
        )


def _write(out: Path, model: GraphMERT, names: Mapping[str, int], copies: list[Path]) -> None:
    """Fill a hidden folder beside `out`, flush it to disk, and rename it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.parent / f".{out.name}.writing"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        model.save_pretrained(temporary)
        relations = {
            name: {"index": index, "label": name.replace("_", " ")} for name, index in names.items()
        }
        atomic_write_json(temporary / "relations.json", relations)
        for path in copies:
            shutil.copyfile(path, temporary / path.name)
        for path in (*temporary.iterdir(), temporary):
            _flush(path)
        temporary.replace(out)
        _flush(out.parent)
    except (OSError, safetensors.SafetensorError) as error:
        # the writer of the weights reports a full disk as text only
        full = is_disk_full(error) if isinstance(error, OSError) else NO_SPACE_TEXT in str(error)
        if full:
            cause = error if isinstance(error, OSError) else OSError(str(error))
            raise disk_full(out, cause) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
