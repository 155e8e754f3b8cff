"""Read checkpoints of the next-vector models that ours follow, `.pt` files.

The file is a state dict, or a dict that holds one under model_state_dict, state_dict or model;
a prefix `module.` is dropped. Nothing but tensors and plain containers is unpickled. Expected
names, N a number of a layer or of a place in a Sequential, with the usual other spellings; what is
spelt otherwise can be renamed by a table (`names`):

    GraphMERT-LVM  position_embeddings (1, W, C); layers.N.attention.in_proj_weight, in_proj_bias
                   (or q_proj, k_proj, v_proj), out_proj; layers.N.norm1, norm2; layers.N.ffn.N
                   (or fc1, fc2); output_head.N; decay_mask.threshold
    AMN            key_proj, query_proj, residual_net.N
    LSTM           lstm.*, output_proj
    GRU            input_proj, gru_blocks.N.gru.*, gru_blocks.N.norm (or gru_layers.N.*,
                   layer_norms.N), output_proj
    Transformer    input_proj, pos_encoder.pe, transformer_decoder.layers.N.*, head.N

The source let a vector attend to two neighbours on each side and no further; its threshold had no
effect. `decay="band"` repeats that and says which value was left out; `decay="log_bias"` keeps the
threshold and lets distance weaken attention gradually, which computes something else.
"""

from __future__ import annotations

import pickle
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from graphmert.errors import CheckpointError, ConfigError
from graphmert.forecast.forecaster import Forecaster, settings_of

WRAPPERS = ("model_state_dict", "state_dict", "model")
PRESET_OF = {
    "lvm": "lvm-768d", "amn": "amn", "lstm": "lstm", "gru": "gru", "transformer": "transformer",
}  # fmt: skip
BAND = 2

_W = r"(?P<part>weight|bias)"
_N = r"(?P<k>\d+)"
_ATTN = r"(?:self_)?(?:attention|attn|mha)"
_LAYER = r"(?:encoder\.)?(?:transformer_)?(?:layers?|blocks)\.(?P<i>\d+)\."
_OUT = r"(?:output_proj|output_projection|out_proj|output|out|fc)"
_IN = r"(?:input_proj|input_projection|in_proj|into)"


@dataclass(frozen=True)
class _Rule:
    """A source name and ours; {i} is the layer, {part} weight or bias, {k} a place by order."""

    pattern: str
    target: str
    places: tuple[str, ...] = ()


_LAYER_NORMS = {"1": "attn_norm", "2": "ffn_norm"}
_RULES: dict[str, tuple[_Rule, ...]] = {
    "lvm": (
        _Rule(
            r"pos(?:ition(?:al)?)?_(?:embed(?:ding)?s?|encoding)(?:\.weight)?",
            "core.embed.position.weight",
        ),
        _Rule(r"(?:.*[._])?(?:distance_)?(?:threshold|p)", "core.encoder.p"),
        _Rule(
            _LAYER + _ATTN + rf"\.in_proj_{_W}", "core.encoder.layers.{i}.qkv.{part}"
        ),
        *(
            _Rule(
                _LAYER + _ATTN + rf"\.(?:{x}_proj|{name}|w{x}|{x})\.{_W}",
                f"core.encoder.layers.{{i}}.{x}.{{part}}",
            )
            for x, name in (("q", "query"), ("k", "key"), ("v", "value"))
        ),
        _Rule(
            _LAYER + _ATTN + rf"\.(?:out_proj|o_proj|output|out|wo)\.{_W}",
            "core.encoder.layers.{i}.out.{part}",
        ),
        *(
            _Rule(
                _LAYER + rf"(?:(?:layer_?)?norm_?{n}|ln_?{n}|{ours})\.{_W}",
                f"core.encoder.layers.{{i}}.{ours}.{{part}}",
            )
            for n, ours in _LAYER_NORMS.items()
        ),
        _Rule(
            _LAYER + rf"(?:ffn|feed_forward|mlp|ff)\.{_N}\.{_W}",
            "core.encoder.layers.{i}.{k}.{part}",
            ("up", "down"),
        ),
        *(
            _Rule(
                _LAYER + rf"(?:(?:ffn|mlp)\.)?(?:fc{n}|linear{n}|{ours})\.{_W}",
                f"core.encoder.layers.{{i}}.{ours}.{{part}}",
            )
            for n, ours in (("1", "up"), ("2", "down"))
        ),
        _Rule(
            rf"(?:output_head|head|output_proj|output_projection|projection)\.{_N}\.{_W}",
            "head.{k}.{part}",
            ("0", "3"),
        ),
    ),
    "amn": (
        _Rule(rf"(?:key_proj|key|key_projection)\.{_W}", "key.{part}"),
        _Rule(rf"(?:query_proj|query|query_projection)\.{_W}", "query.{part}"),
        _Rule(
            rf"(?:residual_net|residual|residual_mlp|net|mlp)\.{_N}\.{_W}",
            "residual.{k}.{part}",
            ("0", "2", "3", "5", "6"),
        ),
    ),
    "lstm": (
        _Rule(r"lstm\.(?P<part>(?:weight|bias)_[ih]h_l\d+)", "lstm.{part}"),
        _Rule(rf"{_OUT}\.{_W}", "out.{part}"),
    ),
    "gru": (
        _Rule(rf"{_IN}\.{_W}", "into.{part}"),
        _Rule(
            r"gru(?:_blocks|_layers|s)?\.(?P<i>\d+)\.(?:gru\.)?(?P<part>(?:weight|bias)_[ih]h_l0)",
            "grus.{i}.{part}",
        ),
        _Rule(
            rf"(?:gru(?:_blocks|_layers|s)?\.(?P<i>\d+)\.(?:layer_)?norm)\.{_W}",
            "norms.{i}.{part}",
        ),
        _Rule(rf"(?:layer_)?norms\.(?P<i>\d+)\.{_W}", "norms.{i}.{part}"),
        _Rule(rf"{_OUT}\.{_W}", "out.{part}"),
    ),
    "transformer": (
        _Rule(rf"{_IN}\.{_W}", "into.{part}"),
        _Rule(r"(?:pos(?:itional)?_enc(?:oder|oding)\.)?(?:pe|table)", "table_1ND"),
        _Rule(
            r"(?:(?:transformer_)?(?:decoder|transformer)\.)?layers\.(?P<i>\d+)\.(?P<part>.+)",
            "layers.{i}.{part}",
        ),
        _Rule(
            rf"(?:head|output_head|output_proj)\.{_N}\.{_W}", "head.{k}.{part}", ("0", "2", "3")
        ),
    ),
}  # fmt: skip


def convert_lvm(
    src: Path | str,
    out: Path | str,
    *,
    kind: str | None = None,
    names: Path | None = None,
    decay: Literal["band", "log_bias"] = "band",
    n_attn_heads: int = 8,
) -> dict[str, Any]:
    """Convert a `.pt` checkpoint of a next-vector model into a folder for `Forecaster.load`.

    Args:
        src: the file.
        out: the folder to write; must be absent or empty.
        kind: lvm, amn, lstm, gru or transformer; read off the names when None.
        names: TOML file, name in the checkpoint = expected name.
        decay: how GraphMERT-LVM weakens attention; see the head of this module.
        n_attn_heads: attention heads, which no tensor tells.

    Returns:
        What was read and written, and what was left out and why.

    Raises:
        CheckpointError: not such a file; a tensor is missing, unexpected, of another shape or
            not finite; the message names it.
        ConfigError: `out` is not empty, or an unknown kind.
    """
    src, out = Path(src), Path(out)
    if out.exists() and not (out.is_dir() and next(out.iterdir(), None) is None):
        raise ConfigError(
            "the output exists", where=str(out), fix="Give another folder, or remove this one."
        )
    weights, ignored = read_state(src)
    weights = _renamed(weights, names, where=str(src))
    kind = kind or guess_kind(weights)
    if kind not in _RULES:
        raise ConfigError("no such model", got=kind, expected=", ".join(_RULES))
    state = _map(weights, _RULES[kind], kind=kind, where=str(src))
    left_out: dict[str, str] = {}
    changes = _shape(kind, state, where=str(src))
    if kind in ("lvm", "transformer"):
        changes["n_attn_heads"] = n_attn_heads
    if kind == "lvm":
        state, dropped = _with_decay(state, decay)
        left_out |= dropped
        changes |= {"decay": "none", "band": BAND} if decay == "band" else {"decay": "log_bias"}
    model = _fill(Forecaster(settings_of(PRESET_OF[kind], **changes)), state, where=str(src))
    model.save(out)
    return {
        "source": str(src),
        "path": str(out),
        "model": PRESET_OF[kind],
        "settings": model.settings.model_dump(mode="json"),
        "n_tensors": len(weights),
        "n_parameters": sum(p.numel() for p in model.parameters()),
        "assumed": {"n_attn_heads": n_attn_heads} if "n_attn_heads" in changes else {},
        "left_out": left_out,
        "ignored": ignored,
    }


def read_state(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of a `.pt` file by name, and the keys beside them.

    Raises:
        CheckpointError: missing, damaged, or holding other objects than tensors and containers.
    """
    if not path.is_file():
        raise CheckpointError("there is no such checkpoint", where=str(path), expected="a .pt file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "the checkpoint holds Python objects, which are not loaded",
            where=str(path),
            got=str(error).strip().splitlines()[0],
            expected="tensors and plain containers",
            fix="Where it was made, save model.state_dict() alone.",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(
            "the checkpoint is truncated or of another format", where=str(path), got=error
        ) from error
    ignored: list[str] = []
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), Mapping):
            ignored = sorted(str(name) for name in content if name != key)
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            "the checkpoint holds no tensors by name", where=str(path), got=type(content).__name__
        )
    others = [str(k) for k, v in content.items() if not isinstance(v, Tensor)]
    if others:
        raise CheckpointError(
            "the checkpoint holds no tensors by name",
            where=str(path),
            got=", ".join(others[:5]),
            expected=f"a state dict, alone or under {', '.join(WRAPPERS)}",
        )
    return {str(k).removeprefix("module."): v.float() for k, v in content.items()}, ignored


def guess_kind(weights: Mapping[str, Tensor]) -> str:
    """Return which model the names belong to."""
    text = " ".join(weights)
    for mark, kind in (("multihead_attn", "transformer"), ("gru", "gru"), ("lstm", "lstm")):
        if mark in text:
            return kind
    return "amn" if re.search(r"(?:^| )key", text) else "lvm"


def _renamed(weights: Mapping[str, Tensor], names: Path | None, *, where: str) -> dict[str, Tensor]:
    if names is None:
        return dict(weights)
    try:
        table = tomllib.loads(names.read_text(encoding="utf-8"))
    except (FileNotFoundError, tomllib.TOMLDecodeError) as error:
        raise ConfigError("no readable table of names", where=str(names), got=error) from error
    unknown = sorted(set(table) - set(weights))
    if unknown:
        raise ConfigError(
            "the table names tensors that the checkpoint lacks",
            where=str(names),
            got=", ".join(unknown[:5]),
            expected=f"names of {where}",
        )
    return {str(table.get(name, name)): tensor for name, tensor in weights.items()}


def _map(
    weights: Mapping[str, Tensor], rules: Sequence[_Rule], *, kind: str, where: str
) -> dict[str, Tensor]:
    """Our names; numbers in a Sequential become places by their order."""
    matched: list[tuple[str, _Rule, dict[str, str]]] = []
    unexpected = []
    for name in weights:
        for rule in rules:
            match = re.fullmatch(rule.pattern, name)
            if match:
                matched.append((name, rule, match.groupdict()))
                break
        else:
            unexpected.append(name)
    if unexpected:
        raise CheckpointError(
            f"the checkpoint holds tensors that {PRESET_OF[kind]} does not have",
            where=where,
            got=", ".join(sorted(unexpected)[:5]) + (", ..." if len(unexpected) > 5 else ""),
            fix="Give the model with --model, or a table of names with --names.",
        )
    numbers: dict[tuple[str, str | None], set[int]] = {}
    for _, rule, found in matched:
        if rule.places:
            numbers.setdefault((rule.pattern, found.get("i")), set()).add(int(found["k"]))
    state: dict[str, Tensor] = {}
    for name, rule, found in matched:
        values = {key: value for key, value in found.items() if value is not None}
        if rule.places:
            order = sorted(numbers[rule.pattern, found.get("i")])
            if len(order) != len(rule.places):
                raise CheckpointError(
                    "a Sequential has another number of parts with weights",
                    where=f"{where}, {name}",
                    got=len(order),
                    expected=len(rule.places),
                )
            values["k"] = rule.places[order.index(int(found["k"]))]
        ours = rule.target.format(**values)
        if ours in state:
            raise CheckpointError("two tensors have one meaning", where=f"{where}, {name}")
        state[ours] = weights[name]
    return _joined(state) if kind == "lvm" else state


def _joined(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join query, key and value into one map."""
    found = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"(core\.encoder\.layers\.\d+)\.([qkv])\.(weight|bias)", name)
        if match is None:
            found[name] = tensor
            continue
        layer, _, part = match.groups()
        pieces = [state.get(f"{layer}.{x}.{part}") for x in "qkv"]
        if all(piece is not None for piece in pieces):
            found[f"{layer}.qkv.{part}"] = torch.cat([p for p in pieces if p is not None])
    return found


def _shape(kind: str, state: dict[str, Tensor], *, where: str) -> dict[str, Any]:
    """Sizes that the tensors tell; what is missing is reported when they are loaded."""

    def size(name: str, axis: int) -> int:
        tensor = state.get(name)
        if tensor is None or tensor.ndim <= axis:
            raise CheckpointError("the checkpoint lacks a tensor", where=where, expected=name)
        return int(tensor.shape[axis])

    def layers(pattern: str) -> int:
        found = {int(m.group(1)) for name in state if (m := re.match(pattern, name))}
        return max(found, default=0) + 1

    if kind == "amn":
        return {
            "dim": size("key.weight", 1),
            "key_width": size("key.weight", 0),
            "hidden": (size("residual.0.weight", 0), size("residual.3.weight", 0)),
        }
    if kind == "lstm":
        count = sum(name.startswith("lstm.weight_ih_l") for name in state)
        return {"dim": size("out.weight", 0), "width": size("out.weight", 1), "n_layers": count}
    if kind in ("gru", "transformer"):
        found = {"dim": size("into.weight", 1), "width": size("into.weight", 0)}
        found["n_layers"] = layers(r"(?:grus|layers)\.(\d+)\.")
        if kind == "transformer":
            found["ffn_width"] = size("layers.0.linear1.weight", 0)
        return found
    place = "core.embed.position.weight"
    if place in state:
        state[place] = state[place].reshape(-1, state[place].shape[-1])
    return {
        "dim": size(place, 1),
        "length": size(place, 0),
        "n_layers": layers(r"core\.encoder\.layers\.(\d+)\."),
        "ffn_width": size("core.encoder.layers.0.up.weight", 0),
    }


def _with_decay(
    state: Mapping[str, Tensor], decay: Literal["band", "log_bias"]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The threshold, in the shape of ours or left out."""
    found, p = dict(state), state.get("core.encoder.p")
    if p is None:
        return found, {}
    if decay == "log_bias":
        found["core.encoder.p"] = p.reshape(1, 1, 1)
        return found, {}
    del found["core.encoder.p"]
    return found, {"threshold": f"{p.item():.4f} has no effect within a band of {BAND}"}


def _fill(model: Forecaster, state: Mapping[str, Tensor], *, where: str) -> Forecaster:
    wanted = {name.removeprefix("network."): t for name, t in model.state_dict().items()}
    for name in sorted({*wanted, *state}):
        if name not in state or name not in wanted:
            raise CheckpointError(
                "the checkpoint lacks a tensor"
                if name in wanted
                else "the checkpoint has a tensor too many",
                where=where,
                **{"expected" if name in wanted else "got": name},
            )
        if state[name].shape != wanted[name].shape:
            raise CheckpointError(
                "a tensor has another shape",
                where=f"{where}, {name}",
                got=tuple(state[name].shape),
                expected=tuple(wanted[name].shape),
            )
        if not torch.isfinite(state[name]).all():
            raise CheckpointError("a tensor is not finite", where=f"{where}, {name}")
    model.load_state_dict({f"network.{name}": t.contiguous() for name, t in state.items()})
    return model.eval()
