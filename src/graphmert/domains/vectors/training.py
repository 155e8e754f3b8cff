"""Train a next-vector model on a DATASET; a run directory of its own.

RUN holds::

    manifest.json    what was trained on what: model, settings and their hash, fingerprints of the
                     three parts, versions, seed, number of processes, steps, hashes of outputs
    metrics.json     best and last epoch, and the history by epoch
    timings.json     seconds by epoch and activity, samples per second, hardware
    model/           the best weights (`Forecaster.load`), config.json, training.jsonl
    last/            the last weights

While it trains, model/checkpoints holds what a killed run goes on from; the finished run drops it
unless `keep_checkpoints` is set.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from graphmert.checkpoint import load_checkpoint
from graphmert.config import Settings, config_hash
from graphmert.domains.vectors.data import VectorData, Windows
from graphmert.domains.vectors.links import Leaves
from graphmert.errors import ConfigError, DataError
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
from graphmert.forecast.leaves import FORMAT as LEAF_FORMAT
from graphmert.presets import unknown_preset
from graphmert.processes import is_main_process, keep_freed_memory, world_size
from graphmert.progress import Progress, Silent
from graphmert.recipe import TrainConfig
from graphmert.shards import atomic_write_json, sha256_file
from graphmert.train import TrainResult, train

RUN_FORMAT = "graphmert-vector-run-1"
PACKAGES = ("graphmert", "torch", "accelerate", "numpy")
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
        default=200, ge=0, description="No such stop before so many updates and the warm-up."
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


@dataclass(frozen=True)
class VectorRun:
    """What a finished run holds; `manifest` and `metrics` are the files of these names."""

    path: Path
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]
    timings: Mapping[str, Any]

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """Metrics by epoch."""
        return self.metrics["history"]


def read_run(path: Path | str) -> VectorRun:
    """Read a finished run.

    Raises:
        DataError: the folder holds no finished run.
    """
    path = Path(path)
    try:
        manifest, metrics, timings = (
            json.loads((path / f"{name}.json").read_text(encoding="utf-8"))
            for name in ("manifest", "metrics", "timings")
        )
    except (FileNotFoundError, ValueError) as error:
        raise DataError(
            "there is no finished run of `vectors train`",
            where=str(path),
            got=error,
            fix="Run the same command again; it goes on where it was.",
        ) from error
    if manifest.get("format") != RUN_FORMAT:
        raise DataError(
            "a run of another kind",
            where=str(path),
            got=manifest.get("format"),
            expected=RUN_FORMAT,
        )
    return VectorRun(path, manifest, metrics, timings)


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
    """Train a network on a data set and write a run directory.

    A killed run goes on from its last checkpoint and ends with the same bytes; a finished one is
    read. Under a launcher every process calls this; the first one writes.

    Args:
        data: the data set.
        config: settings.
        out: the run directory.
        size: training vectors, all when None.
        leaves: for a network with leaves.
        name: of the model in the manifest; the kind of the network when empty.
        progress: told the updates.

    Raises:
        ConfigError: the network does not fit the vectors, or the folder holds another run.
        DataError: the loss is not finite, or the outputs collapsed to one vector.
    """
    out, progress = Path(out), progress or Silent()
    check_network(config.network, data)
    header = run_header(data, config, size=size, name=name or config.network.kind)
    if leaves is not None:
        header["data"]["fingerprints"]["links"] = leaves_fingerprint(leaves)
    if (out / "manifest.json").is_file():
        return _finished(out, header)
    windows = {part: data.windows(part, size=size) for part in ("train", "valid")}
    feed, valid = make_feeds(windows, config, leaves)
    settings = config.train_config(steps_per_epoch=feed.steps_per_epoch, n_processes=world_size())
    if config.device == "cpu" or not torch.cuda.is_available():
        keep_freed_memory()
    torch.manual_seed(config.seed)
    model = build_model(config.network)
    clock = EpochClock(feed.steps_per_epoch)
    model.on_step = clock.start_update
    alarm = CollapseAlarm(
        windows["valid"],
        ratio=config.collapse_ratio,
        after_step=max(config.collapse_after, settings.warmup_steps),
    )

    def evaluate(network: nn.Module, step: int) -> dict[str, float]:
        found = alarm(network, step)
        clock.end_epoch()
        return found

    progress.begin(f"train {header['model']}", total=settings.total_steps, unit="updates")
    result = train(
        model,
        feed,
        config=settings,
        out_dir=out / "model",
        eval_data=valid,
        evaluate=evaluate,
        fingerprint=config_hash(config) + json.dumps(header["data"]["fingerprints"]),
        on_progress=lambda step, total, line: progress.update(step, total=total),
    )
    progress.end()
    header["n_windows"] = {part: len(one) for part, one in windows.items()}
    run = _describe(out, model, result, header, clock, feed.steps_per_epoch)
    if is_main_process():
        _write(run, model, result, keep_checkpoints=config.keep_checkpoints)
    return run


def build_model(network: NetworkSettings | LeafSettings) -> Forecaster | LeafForecaster:
    """Return a model with random weights."""
    return LeafForecaster(network) if isinstance(network, LeafSettings) else Forecaster(network)


def load_model(folder: Path | str) -> Forecaster | LeafForecaster:
    """Load the model of a run's folder `model` or `last`, with or without leaves.

    Raises:
        CheckpointError: the folder is damaged or holds another kind of model.
    """
    text = (Path(folder) / "config.json").read_text(encoding="utf-8")
    is_leafy = f'"{LEAF_FORMAT}"' in text
    return LeafForecaster.load(folder) if is_leafy else Forecaster.load(folder)


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


def leaves_fingerprint(leaves: Leaves) -> str:
    """Return the hash of all leaves and the entities' vectors."""
    digest = hashlib.sha256("\n".join([*leaves.relations, *leaves.entity_ids]).encode())
    for column in (leaves.entities, leaves.offsets, leaves.head, leaves.relation, leaves.tail):
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


def run_header(
    data: VectorData, config: Settings, *, size: int | None, name: str
) -> dict[str, Any]:
    """Return what fixes a run: the head of its manifest."""
    parts = ("train", "valid", "test")
    return {
        "format": RUN_FORMAT,
        "model": name,
        "config": config.model_dump(mode="json"),
        "config_hash": config_hash(config),
        "seed": getattr(config, "seed", None),
        "data": {
            "path": str(data.path),
            "size": size,
            "vectors_sha256": data.info["vectors"]["sha256"],
            "dim": data.dim,
            "fingerprints": {part: data.fingerprint(part, size) for part in parts},
        },
        "world_size": world_size(),
        "versions": {package: version(package) for package in PACKAGES},
    }


def _finished(out: Path, header: Mapping[str, Any]) -> VectorRun:
    """Read a finished run if it is the one asked for."""
    run = read_run(out)
    fixed = [(run.manifest["config"], header["config"])]
    fixed.append((run.manifest["data"]["fingerprints"], header["data"]["fingerprints"]))
    for old, new in fixed:
        differing = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        if differing:
            raise ConfigError(
                "the folder holds a run of other settings or data",
                where=str(out),
                got=", ".join(differing),
                fix="Train into a new folder, or remove this one.",
            )
    return run


class EpochClock:
    """Seconds of each epoch, training and validation, without the writing of checkpoints."""

    def __init__(self, steps_per_epoch: int) -> None:
        self._steps_per_epoch = steps_per_epoch
        self._started: float | None = None
        self.seconds: list[float] = []

    def start_update(self, step: int, total: int) -> None:
        """Note the start of an epoch."""
        if self._started is None:
            self._started = time.perf_counter()

    def end_epoch(self) -> None:
        """Note the end of a validation."""
        if self._started is not None:
            self.seconds.append(time.perf_counter() - self._started)
            self._started = None


class CollapseAlarm:
    """Measure how far the outputs differ between inputs, and stop when they do not.

    ratio = sum_c var(output_c) / sum_c var(target_c) over fixed validation windows. A network that
    predicts one vector for all has ratio 0, however good its cosine looks.

    Args:
        windows: validation windows; at most `n_probes` of them, evenly spaced, are looked at.
        ratio: least ratio.
        after_step: no alarm before this update.
    """

    def __init__(
        self, windows: Windows, *, ratio: float, after_step: int = 0, n_probes: int = 512
    ) -> None:
        spread = torch.linspace(0, len(windows) - 1, min(n_probes, len(windows)))
        index = spread.round().long().unique().numpy()
        self._contexts = torch.from_numpy(windows.contexts(index))
        self._target_variance = _variance(torch.from_numpy(windows.targets(index)))
        self._ratio, self._after_step = ratio, after_step

    def __call__(self, model: nn.Module, step: int) -> dict[str, float]:
        """Return {"output_variance_ratio"}.

        Raises:
            DataError: the ratio is below the least one, or not a number.
        """
        device = next(model.parameters()).device
        with torch.no_grad():
            outputs = [model(part.to(device)).float().cpu() for part in self._contexts.split(128)]
        found = _variance(torch.cat(outputs)) / max(self._target_variance, 1e-12)
        if not found >= self._ratio and step > self._after_step:
            raise DataError(
                "the outputs collapsed to one vector",
                where=f"update {step}",
                got=f"variance of outputs / variance of targets = {found:.2e}",
                expected=f"at least {self._ratio:g}",
                fix="The last checkpoint is kept. Lengthen warmup or lower learning_rate, and "
                "train into a new folder; collapse_ratio = 0 turns this alarm off.",
            )
        return {"output_variance_ratio": found}


def _variance(x_BC: torch.Tensor) -> float:
    return float(x_BC.double().var(0, correction=0).sum())


# --- results --------------------------------------------------------------------------------


def epoch_history(log: Path, steps_per_epoch: int) -> list[dict[str, Any]]:
    """Return metrics by epoch from training.jsonl.

    Training values are means over the epoch's logged updates, validation values are those over
    the whole validation set at its end.
    """
    history: list[dict[str, Any]] = []
    logged: list[dict[str, Any]] = []
    for text in log.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if "metrics" not in line:
            logged.append(line)
            continue
        n_samples = sum(one["n_samples"] for one in logged)
        row: dict[str, Any] = {"epoch": -(-line["step"] // steps_per_epoch), "step": line["step"]}
        for ours, name in (("loss", "mse"), ("cosine", "cosine")):
            total = sum(one["losses"][name] * one["n_samples"] for one in logged)
            row[f"train_{ours}"] = total / n_samples if n_samples else None
            row[f"val_{ours}"] = line["metrics"][f"valid_loss/{name}"]
        if "valid_loss/leaf" in line["metrics"]:
            row["val_leaf"] = line["metrics"]["valid_loss/leaf"]
        row["output_variance_ratio"] = line["metrics"].get("output_variance_ratio")
        history.append(row)
        logged = []
    return history


def _describe(
    out: Path,
    model: Forecaster | LeafForecaster,
    result: TrainResult,
    header: dict[str, Any],
    clock: EpochClock,
    steps_per_epoch: int,
) -> VectorRun:
    log = out / "model" / "training.jsonl"
    history = epoch_history(log, steps_per_epoch)
    best = next((row for row in history if row["step"] == result.best_step), history[-1])
    n_parameters = sum(p.numel() for p in model.parameters())
    manifest = header | {
        "state": "done",
        "n_parameters": n_parameters,
        "steps_per_epoch": steps_per_epoch,
        "n_steps": result.n_steps,
        "stop_reason": result.stop_reason,
        "best_epoch": best["epoch"],
    }
    metrics = {"model": header["model"], "best": best, "last": history[-1], "history": history}
    timings = {
        "epoch_s": clock.seconds,
        **result.timings,
        "hardware": {
            "machine": platform.machine(),
            "device": _device_name(model),
            "n_threads": torch.get_num_threads(),
        },
    }
    return VectorRun(out, manifest, metrics, timings)


def _device_name(model: nn.Module) -> str:
    device = next(model.parameters()).device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if _is_linux() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def _is_linux() -> bool:
    return Path("/proc/cpuinfo").is_file()


def _write(
    run: VectorRun,
    model: Forecaster | LeafForecaster,
    result: TrainResult,
    *,
    keep_checkpoints: bool,
) -> None:
    """Write weights and files, the manifest last, and drop the checkpoints."""
    for folder, checkpoint in (("last", result.last), ("model", result.best)):
        model.load_state_dict(load_checkpoint(checkpoint).model)
        model.save(run.path / folder)
    outputs = ("model/model.safetensors", "model/training.jsonl", "last/model.safetensors")
    hashes = {name: sha256_file(run.path / name) for name in outputs}
    atomic_write_json(run.path / "metrics.json", run.metrics)
    atomic_write_json(run.path / "timings.json", run.timings)
    atomic_write_json(run.path / "manifest.json", {**run.manifest, "outputs": hashes})
    if not keep_checkpoints:
        shutil.rmtree(run.path / "model" / "checkpoints")
