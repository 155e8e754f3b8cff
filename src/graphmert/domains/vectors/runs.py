"""The run directory of `vectors train`: what is written, and how it is read again.

RUN holds::

    manifest.json    what was trained on what: model, settings and their hash, fingerprints of the
                     three parts, versions, seed, number of processes, steps, hashes of outputs
    metrics.json     best and last epoch, and the history by epoch
    timings.json     seconds by epoch and activity, samples per second, hardware
    model/           the best weights (`load_model`), config.json, training.jsonl
    last/            the last weights
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from graphmert.checkpoint import load_checkpoint
from graphmert.config import Settings, config_hash
from graphmert.domains.vectors.data import VectorData
from graphmert.domains.vectors.links import Leaves
from graphmert.domains.vectors.watch import EpochClock
from graphmert.errors import CheckpointError, ConfigError, DataError
from graphmert.forecast import Forecaster, LeafForecaster
from graphmert.forecast.leaves import FORMAT as LEAF_FORMAT
from graphmert.processes import world_size
from graphmert.shards import atomic_write_json, sha256_file
from graphmert.train import TrainResult

RUN_FORMAT = "graphmert-vector-run-1"
BARE = " without leaves"
"""Added to the name of a system whose network could have read leaves and did not."""

_NO_SETTINGS = (
    "seed", "device", "n_threads", "checkpoint_every", "keep_checkpoints", "log_every", "tracker"
)  # fmt: skip
PACKAGES = ("graphmert", "torch", "accelerate", "numpy")


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


def load_model(folder: Path | str) -> Forecaster | LeafForecaster:
    """Load the model of a run's folder `model` or `last`, with or without leaves.

    Raises:
        CheckpointError: the folder is missing, damaged or holds another kind of model.
    """
    try:
        text = (Path(folder) / "config.json").read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(
            "this is no model folder", where=str(folder), expected="config.json"
        ) from error
    except UnicodeDecodeError as error:
        raise CheckpointError("a file of the model is not JSON", where=str(folder)) from error
    is_leafy = f'"{LEAF_FORMAT}"' in text
    return LeafForecaster.load(folder) if is_leafy else Forecaster.load(folder)


def settings_hash(manifest: Mapping[str, Any]) -> str:
    """Return the hash of what a run was trained with, but for the seed and the documents.

    Two runs that differ in seed only have one hash. Where it ran and what it wrote down does not
    count; the number of processes does, because each adds windows to an update.
    """
    settings = {key: one for key, one in manifest["config"].items() if key not in _NO_SETTINGS}
    links = manifest["data"]["fingerprints"].get("links")
    facts = [settings, manifest["world_size"], links if has_leaves(manifest) else None]
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def has_leaves(manifest: Mapping[str, Any]) -> bool:
    """Return whether a run's network reads leaves beside vectors."""
    return bool(manifest["config"]["network"].get("use_leaves", False))


def run_facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what evaluation.json says of a run: see `graphmert.evaluate.forecasts`."""
    is_bare = "use_leaves" in manifest["config"]["network"] and not has_leaves(manifest)
    return {
        "system": manifest["model"] + (BARE if is_bare else ""),
        "trained": True,
        "n_parameters": manifest["n_parameters"],
        "size": manifest["data"]["size"],
        "seed": manifest["seed"],
        "config_hash": settings_hash(manifest),
        "train_fingerprint": manifest["data"]["fingerprints"]["train"],
    }


def leaves_fingerprint(leaves: Leaves) -> str:
    """Return the hash of all leaves and the entities' vectors."""
    digest = hashlib.sha256("\n".join([*leaves.relations, *leaves.entity_ids]).encode())
    for column in (leaves.entities, leaves.offsets, leaves.head, leaves.relation, leaves.tail):
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


def run_header(
    data: VectorData, config: Settings, leaves: Leaves | None, *, size: int | None, name: str
) -> dict[str, Any]:
    """Return what fixes a run: the head of its manifest."""
    prints = {part: data.fingerprint(part, size) for part in ("train", "valid", "test")}
    if leaves is not None:
        prints["links"] = leaves_fingerprint(leaves)
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
            "length": data.info["length"],
            "model_sha256": data.table().manifest.get("model_sha256"),
            "fingerprints": prints,
        },
        "world_size": world_size(),
        "versions": {package: version(package) for package in PACKAGES},
    }


def drop_checkpoints(path: Path) -> None:
    """Delete what a finished run no longer needs; another process may do so as well."""
    shutil.rmtree(path / "model" / "checkpoints", ignore_errors=True)


def finished_run(out: Path, header: Mapping[str, Any], *, keep_checkpoints: bool) -> VectorRun:
    """Read a finished run if it is the one asked for.

    A kill may have come between its manifest and the end of its checkpoints.
    """
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
    if not keep_checkpoints:
        drop_checkpoints(out)
    return run


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


def describe_run(
    out: Path,
    model: Forecaster | LeafForecaster,
    result: TrainResult,
    header: Mapping[str, Any],
    clock: EpochClock,
) -> VectorRun:
    """Return a run that has just ended; nothing is written yet."""
    log = out / "model" / "training.jsonl"
    history = epoch_history(log, header["steps_per_epoch"])
    best = next((row for row in history if row["step"] == result.best_step), history[-1])
    n_parameters = sum(p.numel() for p in model.parameters())
    manifest = {
        **header,
        "state": "done",
        "n_parameters": n_parameters,
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
            "n_threads": header["config"].get("n_threads") or torch.get_num_threads(),
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


def write_run(
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
        drop_checkpoints(run.path)
