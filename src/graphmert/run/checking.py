"""Check what a run file leaves open, and how the run was started, before anything is written."""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

import pydantic

from graphmert.config import Settings, build
from graphmert.constraints import REGULARISERS
from graphmert.errors import ConfigError
from graphmert.model import OBJECTIVES, GraphMERTConfig
from graphmert.presets import PRESETS, unknown_preset
from graphmert.processes import world_size
from graphmert.recipe import TrainConfig
from graphmert.run.losses import loss_form_of, ramps_by_loss

CHANGES = "model.changes"


def require_one_process() -> None:
    """Refuse a launcher that started several processes: all would write the same files.

    Raises:
        ConfigError: WORLD_SIZE is above 1.
    """
    if (n_processes := world_size()) > 1:
        raise ConfigError(
            "a run has one process, each of these would write its files",
            where="WORLD_SIZE",
            got=n_processes,
            expected=1,
            fix="Start the command without torchrun or accelerate launch, and unset WORLD_SIZE.",
        )


def check_network(
    preset: str, form: str, changes: Mapping[str, Any], *, presets: Collection[str] = PRESETS
) -> str:
    """Check the preset and `[model.changes]`; return the way losses are added up.

    Args:
        preset: shape of the network, where there is no body.
        form: of the encoder; its fields count where `changes` has none.
        changes: fields of `GraphMERTConfig`.
        presets: those that may be named.

    Raises:
        ConfigError: no such preset or field, or a value that the field does not take; the message
            names the nearest one.
    """
    if preset not in presets:
        raise unknown_preset(preset, presets)
    hints, _ = _fields()
    for name, value in changes.items():
        if typing.get_origin(hints.get(name)) is typing.Literal:
            _require(value, typing.get_args(hints[name]), f"{CHANGES}.{name}", "value")
    build(dict(changes), _fields()[1], source=CHANGES)
    for name in changes.get("objectives", ()):
        _require(name, (*OBJECTIVES, *REGULARISERS), f"{CHANGES}.objectives", "objective")
    return loss_form_of(form, changes)


def check_objectives(train: TrainConfig, known: Collection[str], loss_form: str) -> None:
    """Check the names in `[train.weights]` and `train.weight_ramps`.

    Args:
        known: objectives that may have a weight.
        loss_form: how losses are added up; see `graphmert.run.losses`.

    Raises:
        ConfigError: no such objective; the message names the nearest one.
    """
    for name in train.weights:
        _require(name, known, "train.weights", "objective")
    ramps_by_loss(train.weight_ramps, known, loss_form)


def _require(value: Any, known: Collection[str], where: str, what: str) -> None:
    if value not in known:
        near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.0)
        raise ConfigError(
            f"unknown {what} {value!r}",
            where=where,
            expected="one of " + ", ".join(known),
            fix=f"The nearest known is {near[0]!r}." if near else None,
        )


@lru_cache(maxsize=1)
def _fields() -> tuple[dict[str, Any], type[Settings]]:
    """The types of the network's fields, and settings made of them."""
    signature = inspect.signature(GraphMERTConfig.__init__)
    hints = typing.get_type_hints(GraphMERTConfig.__init__)
    own: dict[str, Any] = {
        name: (hints[name], one.default)
        for name, one in signature.parameters.items()
        if one.kind is inspect.Parameter.KEYWORD_ONLY
    }
    made: Any = pydantic.create_model("NetworkFields", __base__=Settings, **own)
    return {name: hint for name, (hint, _) in own.items()}, made


__all__ = ["check_network", "check_objectives", "require_one_process"]
