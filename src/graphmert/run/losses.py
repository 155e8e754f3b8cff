"""Names: objectives as a run file has them, and the losses that the network returns for them.

Under `loss_form = "sum"` the loss of an objective is `<objective>_sum`; under "joint" MLM and
MNM-leaf are one loss, `nodes`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from graphmert.errors import ConfigError
from graphmert.presets import FORMS
from graphmert.recipe import TrainConfig

POOLED = ("mlm", "leaf")
NODES = "nodes"


def loss_of(objective: str, loss_form: str) -> str:
    """Return the name of an objective's loss."""
    if loss_form == "sum":
        return f"{objective}_sum"
    return NODES if loss_form == "joint" and objective in POOLED else objective


def loss_form_of(form: str, changes: Mapping[str, Any]) -> str:
    """Return how a network's losses are added up: as `changes` say, else as its form does."""
    return str(changes.get("loss_form", FORMS[form].get("loss_form", "mean")))


def by_loss(
    train: TrainConfig, *, asked: Iterable[str], known: Collection[str], loss_form: str
) -> TrainConfig:
    """Return settings whose weights and ramps are named as the network names its losses.

    Args:
        asked: the objectives that are trained.
        known: those that may have a ramp.
    """
    return train.model_copy(
        update={
            "weights": weights_by_loss(train.weights, asked, loss_form),
            "weight_ramps": ramps_by_loss(train.weight_ramps, known, loss_form),
        }
    )


def weights_by_loss(
    weights: Mapping[str, float], asked: Iterable[str], loss_form: str
) -> dict[str, float]:
    """Return the weight of the loss of each objective asked for; 1 where none is given."""
    given = {loss_of(name, loss_form): weights.get(name, 1.0) for name in asked}
    return given | ({NODES: 1.0} if NODES in given else {})


def ramps_by_loss(
    ramps: Mapping[str, int], known: Collection[str], loss_form: str
) -> dict[str, int]:
    """Return the ramps by loss; a run file may name objective or loss.

    Raises:
        ConfigError: no such objective or loss, or one named in both ways; MLM or MNM-leaf where
            they are one loss.
    """
    losses = {loss_of(name, loss_form) for name in known}
    alone = [name for name in known if loss_of(name, loss_form) != NODES]
    names = sorted({*alone, *losses})
    found: dict[str, int] = {}
    for name, ramp in ramps.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
            raise ConfigError(
                f"unknown objective {name!r}",
                where="train.weight_ramps",
                expected="one of " + ", ".join(names),
                fix=f"The nearest known is {near[0]!r}." if near else None,
            )
        loss = name if name in losses else loss_of(name, loss_form)
        if loss in found:
            raise ConfigError(
                "an objective has two ramps",
                where="train.weight_ramps",
                got=", ".join(ramps),
                expected=f"one for {loss}",
            )
        found[loss] = ramp
    return found


__all__ = ["by_loss", "loss_form_of", "loss_of", "ramps_by_loss", "weights_by_loss"]
