"""What an ablation trains: variants of a run file, their budgets, and a hash of all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

from pydantic import Field

from graphmert.config import Settings, build, load_toml
from graphmert.model import GraphMERTConfig
from graphmert.presets import FORMS, PRESETS
from graphmert.run.manifest import fingerprint
from graphmert.run.settings import RunConfig, kg_path
from graphmert.run.training import objectives
from graphmert.shards import sha256_file

SECTIONS = ("data", "split", "text", "model", "masking", "feed", "train", "seed")
# Fields of the network that variants set and that neither a body nor its shape decides.
COMPARED = (
    *("relation_embedding", "relation_names", "hgat", "decay"),
    *("positions", "n_types", "leaf_visibility"),
)
CHECKPOINT_EVERY = 100
WARM_UPDATES, MEASURED_UPDATES = 4, 24


class Variant(Settings):
    """What differs from the base run."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    group: str
    note: str = ""
    set: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


class Variants(Settings):
    """A file of variants."""

    variant: tuple[Variant, ...]


@dataclass(frozen=True)
class Limits:
    """What every trial gets alike."""

    budget_s: float
    n_steps: int | None
    max_queries: int
    max_valid_queries: int


@dataclass(frozen=True)
class Trial:
    """A variant with a seed; equal keys mean equal work, equal speeds an equal update.

    Without a measured time of an update the budget is no number of updates yet: `n_steps` is
    None.
    """

    variant: Variant
    seed: int
    config: RunConfig
    key: str
    prepared: str
    speed: str
    n_steps: int | None

    @property
    def name(self) -> str:
        return f"{self.variant.name}-seed{self.seed}"


def plan(
    run_file: Path,
    variant: Variant,
    seed: int,
    limits: Limits,
    base: Sequence[str],
    times: Mapping[str, float],
) -> Trial:
    """The configuration of a trial, and the hash of all that its result depends on.

    A budget in seconds becomes updates by the CPU time of one, measured once: so trials can be
    run beside other work, and again with the same result.
    """
    config = load_toml(run_file, RunConfig, overrides=[*base, *variant.set])
    tree = config.model_dump(mode="json")
    tree["seed"] = seed
    tree["model"]["changes"] = _changes(config, variant)
    given = config.train.weights
    asked = variant.objectives or objectives(config)
    weights = {name: given.get(name) or 1.0 for name in asked if name not in variant.without}
    tree["train"] |= {
        "weights": weights,
        "seed": seed,
        "epochs": None,
        "total_steps": WARM_UPDATES,
        "max_seconds": None,
        "schedule": "step",
        "eval_every": None,
        "eval_batches": 4,
        "best_metric": "valid_loss",
        "best_mode": "min",
        "early_stopping_patience": None,
        "final_weights": "last",
        "checkpoint_every": CHECKPOINT_EVERY,
        "tracker": "none",
    }
    config = build(tree, RunConfig, source=f"variant {variant.name}")
    vocab = None if config.data.body else config.model.vocab_size
    inputs = [tree[name] for name in ("data", "split", "text")]
    prepared = fingerprint("prepared", inputs, vocab, _kg_hash(kg_path(config.data)))
    queries = [limits.max_queries, limits.max_valid_queries]
    resolved = tree | {"model": _network(config)}
    sections = [resolved[name] for name in SECTIONS if name != "seed"]
    unseeded = [*sections[:-1], {**tree["train"], "seed": 0}]
    speed = fingerprint(unseeded, prepared)
    n_steps = limits.n_steps
    if n_steps is None and speed in times:
        n_steps = max(1, round(limits.budget_s / times[speed]))
    key = fingerprint(sections, seed, n_steps, prepared, queries)
    warmup = min(config.train.warmup_steps, (n_steps or WARM_UPDATES) - 1)
    update = {"total_steps": n_steps or WARM_UPDATES, "warmup_steps": warmup}
    config = config.model_copy(update={"train": config.train.model_copy(update=update)})
    return Trial(variant, seed, config, key, prepared[:12], speed, n_steps)


def _changes(config: RunConfig, variant: Variant) -> dict[str, Any]:
    """The base's changes; a form that the variant sets keeps its own fields."""
    own = {one.partition("=")[0].strip() for one in variant.set}
    fixed = FORMS[config.model.form] if "model.form" in own else {}
    return {
        name: value
        for name, value in config.model.changes.items()
        if name not in fixed or f"model.changes.{name}" in own
    }


def _network(config: RunConfig) -> dict[str, Any]:
    """The network's settings without those that only repeat a default."""
    model = config.model
    preset = {} if config.data.body else PRESETS[model.preset]
    fields = preset | FORMS[model.form] | model.changes
    defaults = signature(GraphMERTConfig.__init__).parameters
    return {
        name: value
        for name, value in fields.items()
        if name not in COMPARED or value != defaults[name].default
    }


@cache
def _kg_hash(path: Path) -> str:
    return sha256_file(path)


def times_path(out: Path) -> Path:
    return out / "step_times.json"


def read_times(out: Path) -> dict[str, float]:
    """CPU seconds of an update of each kind of trial that was measured."""
    path = times_path(out)
    measured = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {speed: entry["cpu_seconds"] for speed, entry in measured.items()}
