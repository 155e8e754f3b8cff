"""Train a next-vector model on a DATASET; a run directory of its own, see `runs`.

While it trains, RUN/model/checkpoints holds what a killed run goes on from; the finished run drops
it unless `keep_checkpoints` is set.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from graphmert.config import Settings, config_hash
from graphmert.domains.vectors.data import VectorData, Windows
from graphmert.domains.vectors.links import Leaves
from graphmert.domains.vectors.runs import (
    VectorRun,
    describe_run,
    finished_run,
    load_model,
    read_run,
    run_header,
    write_run,
)
from graphmert.domains.vectors.watch import CollapseAlarm, EpochClock
from graphmert.errors import ConfigError
from graphmert.forecast import (
    FORECASTERS,
    Forecaster,
    LeafFeed,
    LeafForecaster,
    LeafSettings,
    LVMSettings,
    NetworkSettings,
    WindowFeed,
    known_tails,
)
from graphmert.presets import unknown_preset
from graphmert.processes import is_main_process, keep_freed_memory, world_size
from graphmert.progress import Progress, Silent
from graphmert.recipe import TrainConfig
from graphmert.train import train

__all__ = [
    "CollapseAlarm",
    "VectorRun",
    "VectorTraining",
    "build_model",
    "default_training",
    "load_model",
    "read_run",
    "train_vectors",
]

BEST_METRIC = "valid_loss/cosine"
WITH_LEAVES = "lvm-leaves"


class VectorTraining(Settings):
    """Say which network to train, and how."""

    network: NetworkSettings | LeafSettings = Field(
        discriminator="kind", description="The network."
    )
    epochs: float = Field(gt=0, description="Passes over the training windows, at most.")
    batch_size: int = Field(
        default=32, ge=1, description="Windows per update and process; the update has all of them."
    )
    learning_rate: float = Field(default=5e-4, gt=0, description="Peak of the schedule.")
    min_learning_rate: float = Field(default=1e-6, ge=0, description="Its floor.")
    schedule: Literal["plateau", "cosine", "constant"] = Field(
        default="plateau",
        description="After the warm-up: halved when the validation cosine stays flat, a cosine to "
        "the floor, or constant.",
    )
    warmup: float = Field(default=0.0, ge=0, lt=1, description="Share of updates of warm-up.")
    plateau_factor: float = Field(default=0.5, gt=0, lt=1, description="Of schedule plateau.")
    plateau_patience: int = Field(default=3, ge=0, description="Flat epochs before it acts.")
    weight_decay: float = Field(default=0.01, ge=0, description="Of AdamW; not for vectors.")
    clip_norm: float | None = Field(default=1.0, gt=0, description="Largest norm of the gradient.")
    precision: Literal["bf16", "fp32"] = Field(default="fp32", description="Of the computation.")
    device: Literal["auto", "cpu"] = Field(default="auto", description="auto takes an accelerator.")
    n_threads: int | None = Field(default=None, ge=1, description="Threads per process.")
    early_stopping_patience: int | None = Field(
        default=None, ge=1, description="Stop after so many epochs without a better cosine."
    )
    eval_batch_size: int = Field(default=256, ge=1, description="Windows per validation batch.")
    checkpoint_every: int | None = Field(
        default=None, ge=1, description="Updates between checkpoints; an epoch when not set."
    )
    keep_checkpoints: bool = Field(
        default=False, description="Keep optimiser and weights to go on from after the end."
    )
    log_every: int = Field(default=10, ge=1, description="Updates between lines of training.jsonl.")
    collapse_ratio: float = Field(
        default=1e-3,
        ge=0,
        description="Stop when the variance of the outputs over validation windows is below this "
        "share of the targets' variance; 0 never stops.",
    )
    collapse_after: int = Field(
        default=500, ge=0, description="No such stop before so many updates and the warm-up."
    )
    tracker: str = Field(default="none", description="none, tensorboard, wandb or another.")
    seed: int = Field(default=0, ge=0, description="Of weights, order and dropout.")

    @model_validator(mode="after")
    def _consistent(self) -> VectorTraining:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError("min_learning_rate is above learning_rate")
        return self

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each objective; the cosine is reported only."""
        found = {"mse": 1.0, "cosine": 0.0}
        if isinstance(self.network, LeafSettings):
            found["leaf"] = self.network.leaf_weight
        return found

    def train_config(self, *, steps_per_epoch: int, n_processes: int) -> TrainConfig:
        """Return the settings of the training loop."""
        n_steps = max(1, -int(-self.epochs * steps_per_epoch // 1))
        is_flat = self.schedule == "constant"
        return TrainConfig(
            total_steps=n_steps,
            batch_size=self.batch_size * n_processes,
            micro_batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            min_learning_rate=self.learning_rate if is_flat else self.min_learning_rate,
            schedule="plateau" if self.schedule == "plateau" else "step",
            warmup_steps=round(self.warmup * n_steps),
            plateau_factor=self.plateau_factor,
            plateau_patience=self.plateau_patience,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            precision=self.precision,
            device=self.device,
            n_threads=self.n_threads,
            weights=self.weights,
            eval_every=min(steps_per_epoch, n_steps),
            best_metric=BEST_METRIC,
            best_mode="max",
            early_stopping_patience=self.early_stopping_patience,
            checkpoint_every=self.checkpoint_every or steps_per_epoch,
            log_every=self.log_every,
            tracker=self.tracker,
            seed=self.seed,
        )


def default_training(model: str, *, n_vectors: int) -> dict[str, Any]:
    """Return the settings of a preset as plain values: the recipe its source used, or close to it.

    The four small models: AdamW 5e-4, plateau, 20 epochs. GraphMERT-LVM: AdamW 1e-4 with warm-up
    and cosine (the source had neither and diverged), 3, 25 or 12 epochs by size. With leaves:
    AdamW 5e-4 with warm-up and cosine, 5 epochs; its network needs the number of relations.

    Raises:
        ConfigError: no such model.
    """
    known: dict[str, Any] = {**FORECASTERS, WITH_LEAVES: LeafSettings()}
    if model not in known:
        raise unknown_preset(model, known)
    network = known[model]
    values: dict[str, Any] = {"network": network.model_dump(mode="json"), "epochs": 20.0}
    if isinstance(network, LeafSettings):
        values |= {"epochs": 5.0, "schedule": "cosine", "warmup": 0.1}
    if isinstance(network, LVMSettings):
        values |= {
            "epochs": lvm_epochs(n_vectors),
            "learning_rate": 1e-4,
            "schedule": "cosine",
            "warmup": 0.1,
        }
    return values


def lvm_epochs(n_vectors: int) -> float:
    """Return how long the source trained GraphMERT-LVM on 10, 80 and 232 thousand vectors."""
    for most, epochs in ((40_000, 3.0), (150_000, 25.0)):
        if n_vectors <= most:
            return epochs
    return 12.0


def train_vectors(
    data: VectorData,
    config: VectorTraining,
    *,
    out: Path | str,
    size: int | None = None,
    leaves: Leaves | None = None,
    name: str = "",
    progress: Progress | None = None,
) -> VectorRun:
    """Train a network on a data set and write a run directory, or read it if it is finished.

    A killed run ends with the same bytes. Under a launcher every process calls this.

    Args:
        data: the data set.
        config: settings.
        out: the run directory.
        size: training vectors, all when None.
        leaves: of its rows, for a network with leaves.
        name: of the model, for the manifest; the kind of the network when empty.
        progress: told the updates.

    Raises:
        ConfigError: the network does not fit the vectors, or the folder holds another run.
        DataError: the loss is not finite; a CollapseError: the outputs collapsed to one vector.
    """
    out, progress, name = Path(out), progress or Silent(), name or config.network.kind
    check_network(config.network, data)
    header = run_header(data, config, leaves, size=size, name=name)
    if (out / "manifest.json").is_file():
        return finished_run(out, header, keep_checkpoints=config.keep_checkpoints)
    windows = {part: data.windows(part, size=size) for part in ("train", "valid")}
    feed, valid = make_feeds(windows, config, leaves)
    settings = config.train_config(steps_per_epoch=feed.steps_per_epoch, n_processes=world_size())
    if config.device == "cpu" or not torch.cuda.is_available():
        keep_freed_memory()
    torch.manual_seed(config.seed)
    model, clock = build_model(config.network), EpochClock()
    model.on_step = clock.start_update
    evaluate = _watch(config, windows["valid"], clock, warmup_steps=settings.warmup_steps)
    inputs = config_hash(config) + json.dumps(header["data"]["fingerprints"])
    progress.begin(f"train {name}", total=settings.total_steps, unit="updates")
    result = train(
        model,
        feed,
        config=settings,
        out_dir=out / "model",
        eval_data=valid,
        evaluate=evaluate,
        fingerprint=inputs,
        on_progress=lambda step, total, line: progress.update(step, total=total),
    )
    progress.end()
    header |= {"n_windows": {part: len(one) for part, one in windows.items()}}
    header |= {"steps_per_epoch": feed.steps_per_epoch}
    run = describe_run(out, model, result, header, clock)
    if is_main_process():
        write_run(run, model, result, keep_checkpoints=config.keep_checkpoints)
    return run


def _watch(
    config: VectorTraining, windows: Windows, clock: EpochClock, *, warmup_steps: int
) -> Callable[[nn.Module, int], dict[str, float]]:
    """The callback after each epoch: it looks for a collapse and stops the clock."""
    after_step = max(config.collapse_after, warmup_steps)
    alarm = CollapseAlarm(windows, ratio=config.collapse_ratio, after_step=after_step)

    def evaluate(network: nn.Module, step: int) -> dict[str, float]:
        found = alarm(network, step)
        clock.end_epoch()
        return found

    return evaluate


def build_model(network: NetworkSettings | LeafSettings) -> Forecaster | LeafForecaster:
    """Return a model with random weights."""
    return LeafForecaster(network) if isinstance(network, LeafSettings) else Forecaster(network)


def make_feeds(
    windows: Mapping[str, Windows], config: VectorTraining, leaves: Leaves | None
) -> tuple[WindowFeed | LeafFeed, WindowFeed | LeafFeed]:
    """Return training and validation batches.

    Raises:
        ConfigError: a network with leaves without links, or with another number of relations.
        DataError: there is no window.
    """
    n_processes, network = world_size(), config.network
    sizes = {"train": config.batch_size, "valid": config.eval_batch_size}
    seeds = {"train": config.seed, "valid": 0}
    if not isinstance(network, LeafSettings):
        plain = [
            WindowFeed(
                windows[part],
                batch_size=size * n_processes,
                n_processes=n_processes,
                seed=seeds[part],
            )
            for part, size in sizes.items()
        ]
        return plain[0], plain[1]
    if leaves is None:
        raise ConfigError("a network with leaves needs links", fix="Give --links LINKS.")
    if network.n_relations != len(leaves.relations):
        raise ConfigError(
            "the network has another number of relations than the links",
            where="network.n_relations",
            got=network.n_relations,
            expected=len(leaves.relations),
        )
    rows = np.unique(windows["train"].context_rows(slice(None)))
    known = {"train": known_tails(leaves, rows), "valid": known_tails(leaves)}
    leafy = [
        LeafFeed(
            windows[part],
            leaves,
            network,
            known=known[part],
            batch_size=size * n_processes,
            n_processes=n_processes,
            seed=seeds[part],
        )
        for part, size in sizes.items()
    ]
    return leafy[0], leafy[1]


def check_network(network: Any, data: VectorData) -> None:
    """Refuse a network whose vectors have another size, or whose context another length.

    Raises:
        ConfigError: as said.
    """
    if network.dim != data.dim:
        raise ConfigError(
            "the network takes vectors of another dimension",
            where="network.dim",
            got=network.dim,
            expected=f"{data.dim}, as in {data.path}",
            fix=f"Give --set network.dim={data.dim}, or embed with another model.",
        )
    length = getattr(network, "length", None)
    if length is not None and length != data.info["length"]:
        raise ConfigError(
            "the network takes contexts of another length",
            where="network.length",
            got=length,
            expected=f"{data.info['length']}, as in {data.path}",
            fix=f"Give --set network.length={data.info['length']}.",
        )
