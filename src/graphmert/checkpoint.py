"""Checkpoints: a folder that is whole or absent, verified when read, never pickled.

    checkpoint-<step>/
      model.safetensors       parameters and buffers; tied tensors once
      optimizer.safetensors   "<parameter>/<slot>" for each slot of the optimiser
      checkpoint.json         step, state, settings and their hash, versions,
                              size and SHA-256 of both files, and its own SHA-256

A folder is written under a hidden name and renamed when everything is on disk, so a kill at any
instant leaves either the old set of checkpoints or the new one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import platform
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from graphmert.errors import CheckpointError
from graphmert.shards import (
    NO_SPACE_TEXT,
    atomic_path,
    atomic_write_json,
    disk_full,
    is_disk_full,
    sha256_file,
)

FORMAT_VERSION = 1
_TENSOR_FILES = ("model.safetensors", "optimizer.safetensors")
_RECORD_FILE = "checkpoint.json"
_FIX = "Delete this folder to go on from the checkpoint before it, or restore it from a copy."


@dataclass(frozen=True)
class Checkpoint:
    """Hold what a checkpoint folder holds; tensors are on the CPU.

    Args:
        path: the folder.
        step: number of finished updates.
        model: tensors by parameter or buffer name.
        optimizer: tensors by "<parameter>/<slot>".
        state: JSON values of the training loop.
        settings: JSON values that the run depends on.
        versions: versions of the package, PyTorch and Python.
    """

    path: Path
    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str]


def save_checkpoint(
    root: Path | str,
    *,
    step: int,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    state: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Path:
    """Write `root/checkpoint-<step>` so that it is whole or absent.

    Args:
        root: the folder of all checkpoints of a run; made when missing.
        step: number of finished updates.
        model: see `collect_model`.
        optimizer: see `collect_optimizer`.
        state: JSON values of the training loop.
        settings: JSON values that the run depends on; `load_checkpoint` compares them.

    Returns:
        The folder.

    Raises:
        CapabilityError: the disk is full.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    final = root / f"checkpoint-{step}"
    temporary = root / f".checkpoint-{step}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        files: dict[str, dict[str, Any]] = {}
        for name, tensors in zip(_TENSOR_FILES, (model, optimizer), strict=True):
            _write_tensors(temporary / name, tensors)
            path = temporary / name
            files[name] = {"n_bytes": path.stat().st_size, "sha256": sha256_file(path)}
        record: dict[str, Any] = {
            "format": FORMAT_VERSION,
            "step": step,
            "state": dict(state),
            "settings": dict(settings),
            "settings_hash": _digest(settings),
            "versions": _versions(),
            "files": files,
        }
        record["sha256"] = _digest(record)
        atomic_write_json(temporary / _RECORD_FILE, record)
        _fsync_folder(temporary)
        if final.exists():
            shutil.rmtree(final)
        temporary.replace(final)
        _fsync_folder(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def load_checkpoint(path: Path | str, *, settings: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read a checkpoint after verifying every file of it.

    Args:
        path: a folder that `save_checkpoint` wrote.
        settings: when given, they must equal those of the checkpoint.

    Returns:
        The checkpoint, with tensors on the CPU.

    Raises:
        CheckpointError: a file is missing, truncated or changed, or the settings differ; the
            message names the file or the settings.
    """
    path = Path(path)
    record = _read_record(path / _RECORD_FILE)
    for name in _TENSOR_FILES:
        _verify_file(path / name, record["files"][name])
    if settings is not None and _digest(settings) != record["settings_hash"]:
        raise CheckpointError(
            "checkpoint was made with other settings",
            where=str(path),
            got="; ".join(_differences(record["settings"], settings)),
            fix="Set these values back, or train into a new folder.",
        )
    return Checkpoint(
        path=path,
        step=record["step"],
        model=load_file(path / _TENSOR_FILES[0]),
        optimizer=load_file(path / _TENSOR_FILES[1]),
        state=record["state"],
        settings=record["settings"],
        versions=record["versions"],
    )


def find_checkpoints(root: Path | str) -> list[tuple[int, Path]]:
    """Return (step, folder) of each checkpoint under `root`, earliest first."""
    found: list[tuple[int, Path]] = []
    root = Path(root)
    if not root.is_dir():
        return found
    for path in root.iterdir():
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if match and path.is_dir():
            found.append((int(match.group(1)), path))
    return sorted(found)


def prune_checkpoints(
    root: Path | str, *, keep_last: int = 2, keep_steps: Collection[int] = ()
) -> None:
    """Delete all but the last checkpoints and those of the named steps.

    Folders that a killed process left half-written are deleted too.

    Args:
        root: the folder of all checkpoints of a run.
        keep_last: how many of the latest to keep.
        keep_steps: steps to keep besides, such as the best one.
    """
    root = Path(root)
    found = find_checkpoints(root)
    for step, path in found[: max(0, len(found) - keep_last)]:
        if step not in keep_steps:
            # Renamed first: a kill while deleting must not leave a folder that looks whole.
            doomed = root / f".checkpoint-{step}.old"
            path.replace(doomed)
            shutil.rmtree(doomed)
    for pattern in (".checkpoint-*.tmp", ".checkpoint-*.old"):
        for path in root.glob(pattern):
            shutil.rmtree(path)


def collect_model(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers as CPU copies, tied tensors once.

    Sharded tensors are gathered, so under FSDP every process has to call this.
    """
    aliases = _aliases(model)
    return {
        name: _whole(tensor) for name, tensor in model.state_dict().items() if name not in aliases
    }


def restore_model(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's tensors into a model that is not sharded.

    Raises:
        CheckpointError: names or shapes differ.
    """
    tensors = dict(checkpoint.model)
    for alias, name in _aliases(model).items():
        if name in tensors:
            tensors[alias] = tensors[name]
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            "checkpoint does not fit the model",
            where=str(checkpoint.path / _TENSOR_FILES[0]),
            got=str(error),
            fix="Build the model with the settings it was trained with.",
        ) from error


def collect_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's tensors as CPU copies, named "<parameter>/<slot>".

    Sharded tensors are gathered, so under FSDP every process has to call this.
    """
    return {
        f"{name}/{slot}": _whole(tensor)
        for name, parameter in model.named_parameters()
        for slot, tensor in sorted(optimizer.state.get(parameter, {}).items())
    }


def restore_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Checkpoint
) -> None:
    """Copy a checkpoint's optimiser tensors into an optimiser of the same parameters.

    Raises:
        CheckpointError: the checkpoint names a parameter that the optimiser does not update.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    slots: dict[str, dict[str, Tensor]] = {}
    for key, tensor in checkpoint.optimizer.items():
        name, _, slot = key.rpartition("/")
        slots.setdefault(name, {})[slot] = tensor
    state: dict[int, dict[str, Tensor]] = {}
    ordered = [p for group in optimizer.param_groups for p in group["params"]]
    for index, parameter in enumerate(ordered):
        found = slots.pop(names[parameter], None)
        if found is not None:
            state[index] = {slot: _placed_like(t, parameter) for slot, t in found.items()}
    if slots:
        raise CheckpointError(
            "checkpoint does not fit the optimiser",
            where=str(checkpoint.path / _TENSOR_FILES[1]),
            got=f"state of {', '.join(sorted(slots)[:3])}",
            expected="parameters that are trained",
            fix="Build the model with the settings it was trained with.",
        )
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def append_log(path: Path, line: Mapping[str, Any]) -> int:
    """Append a JSON line, flush it to disk and return the size of the file.

    What JSON has no form for, NaN and infinities, becomes null.

    Raises:
        CapabilityError: the disk is full.
    """
    text = json.dumps(_finite(line), ensure_ascii=False, allow_nan=False) + "\n"
    try:
        with path.open("ab") as stream:
            stream.write(text.encode("utf-8"))
            stream.flush()
            os.fsync(stream.fileno())
            return stream.tell()
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(path, error) from error
        raise


def truncate_log(path: Path, *, n_bytes: int) -> None:
    """Cut a log back to its size at the checkpoint that training goes on from.

    Raises:
        CheckpointError: the log is shorter than that.
    """
    found = path.stat().st_size if path.is_file() else 0
    if found < n_bytes:
        raise CheckpointError(
            "training log is shorter than at the last checkpoint",
            where=str(path),
            got=f"{found} bytes",
            expected=f"at least {n_bytes} bytes",
            fix="Restore the file, or train into a new folder.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        stream.truncate(n_bytes)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _aliases(model: nn.Module) -> dict[str, str]:
    """Map each further name of a tied tensor to its first name."""
    first: dict[int, str] = {}
    aliases: dict[str, str] = {}
    named = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in named:
        if first.setdefault(id(tensor), name) != name:
            aliases[name] = first[id(tensor)]
    return aliases


def _whole(tensor: Tensor) -> Tensor:
    """Return a contiguous CPU copy; gather the shards of a distributed tensor."""
    full_tensor = getattr(tensor, "full_tensor", None)
    whole = tensor if full_tensor is None else full_tensor()
    return whole.detach().to("cpu", copy=True).contiguous()


def _placed_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Shard a tensor as its parameter is sharded; leave scalars such as the step alone."""
    if not hasattr(parameter, "full_tensor") or tensor.shape != parameter.shape:
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(parameter, DTensor)
    return distribute_tensor(
        tensor.to(parameter.device), parameter.device_mesh, parameter.placements
    )


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with atomic_path(path) as temporary:
        try:
            save_file(dict(tensors), temporary)
        except safetensors.SafetensorError as error:
            # The writer reports a full disk as text only.
            if NO_SPACE_TEXT in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
            raise


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        digest = record.pop("sha256")
    except FileNotFoundError as error:
        raise CheckpointError("checkpoint file is missing", where=str(path), fix=_FIX) from error
    except (ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(
            "checkpoint file is truncated or not JSON", where=str(path), fix=_FIX
        ) from error
    if digest != _digest(record):
        raise CheckpointError(
            "checkpoint file was changed after it was written",
            where=str(path),
            got=f"sha256 {_digest(record)}",
            expected=digest,
            fix=_FIX,
        )
    if record["format"] != FORMAT_VERSION:
        raise CheckpointError(
            "checkpoint is of another format",
            where=str(path),
            got=f"format {record['format']}",
            expected=f"format {FORMAT_VERSION}",
            fix="Use the version of the package that wrote it.",
        )
    return record


def _verify_file(path: Path, expected: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise CheckpointError("checkpoint file is missing", where=str(path), fix=_FIX)
    n_bytes = path.stat().st_size
    if n_bytes != expected["n_bytes"]:
        shorter = n_bytes < expected["n_bytes"]
        raise CheckpointError(
            f"checkpoint file is {'truncated' if shorter else 'too long'}",
            where=str(path),
            got=f"{n_bytes} bytes",
            expected=f"{expected['n_bytes']} bytes",
            fix=_FIX,
        )
    digest = sha256_file(path)
    if digest != expected["sha256"]:
        raise CheckpointError(
            "checkpoint file was changed after it was written",
            where=str(path),
            got=f"sha256 {digest}",
            expected=expected["sha256"],
            fix=_FIX,
        )


def _digest(values: Mapping[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def _differences(old: Any, new: Any, key: str = "") -> list[str]:
    """Return "key: old in the checkpoint, new now" for each value that differs."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        lines: list[str] = []
        for name in sorted({*old, *new}):
            lines += _differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
        return lines
    same = json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)
    return [] if same else [f"{key}: {old!r} in the checkpoint, {new!r} now"]


def _versions() -> dict[str, str]:
    try:
        package = version("graphmert")
    except PackageNotFoundError:
        package = "unknown"
    return {
        "graphmert": package,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def _fsync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
