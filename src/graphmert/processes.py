"""One process or many: the accelerator, sums over processes, and errors that say what to do."""

from __future__ import annotations

import contextlib
import ctypes
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, LoggerType
from torch import Tensor, nn

from graphmert.errors import CapabilityError, ConfigError
from graphmert.recipe import TrainConfig

# From malloc.h: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD, as large as glibc lets them be.
_MALLOPT = {-3: 1 << 25, -1: (1 << 31) - 1, -2: 1 << 28}

LossParts = Mapping[str, tuple[Tensor, Tensor]]


def world_size() -> int:
    """Return how many processes the launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Return whether this process writes and prints; true without a launcher."""
    return os.environ.get("RANK", "0") == "0"


def keep_freed_memory() -> bool:
    """Let this process keep the memory it frees, where the C library is glibc.

    Each update frees and asks again for as much memory as all weights and gradients take. By
    default that memory goes back to the system, and every page of it is cleared and mapped anew:
    on CPUs a fifth of a training step of GraphMERT-LVM in bf16.

    Returns:
        Whether the C library took the settings.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another system or C library
        return False
    return all(mallopt(parameter, value) == 1 for parameter, value in _MALLOPT.items())


def leave_group() -> None:
    """Leave the process group at the end of a program, if it joined one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class LossModule(nn.Module):
    """Make `loss` the forward, which DDP, FSDP and autocast wrap."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any) -> LossParts:
        """Return (sum, count) of each objective."""
        loss: Any = self.model.loss
        return loss(batch)


def open_accelerator(config: TrainConfig, tracker_dir: Path) -> Accelerator:
    """Return an accelerator for these settings, with its tracker started.

    Raises:
        CapabilityError: the processes do not find each other, or a package is missing.
        ConfigError: an unknown tracker.
    """
    if config.tracker != "none":
        _check_tracker(config.tracker)
    # accelerate keeps the settings of the first accelerator of a process; start anew.
    AcceleratorState._reset_state()
    try:
        accelerator = Accelerator(
            mixed_precision="bf16" if config.precision == "bf16" else "no",
            cpu=config.device == "cpu",
            log_with=None if config.tracker == "none" else config.tracker,
            project_dir=tracker_dir,
            # An objective may be absent from a batch, and its parameters with it.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
    except (RuntimeError, ValueError) as error:
        if "mixed precision" in str(error):
            raise CapabilityError(
                "this device cannot compute in bf16", got=error, fix="Set precision to fp32."
            ) from error
        raise _process_group_error(error) from error
    if is_sharded(accelerator) and not accelerator.is_fsdp2:
        raise CapabilityError(
            "FSDP version 1 is not supported",
            fix="Set fsdp_version: 2 in the accelerate configuration (FSDP_VERSION=2).",
        )
    if config.tracker != "none":
        values = {k: v for k, v in config.model_dump(mode="json").items() if v is not None}
        plain = {k: v if isinstance(v, int | float) else str(v) for k, v in values.items()}
        accelerator.init_trackers("graphmert", config=plain)
    return accelerator


def _check_tracker(name: str) -> None:
    known = sorted(str(kind) for kind in LoggerType if kind != LoggerType.ALL)
    if name not in known:
        near = difflib.get_close_matches(name, [*known, "none"], n=1, cutoff=0.0)
        raise ConfigError(
            f"unknown tracker {name!r}",
            expected="none, " + ", ".join(known),
            fix=f"Did you mean {near[0]!r}?",
        )
    if name not in [str(kind) for kind in get_available_trackers()]:
        extra = "graphmert[tensorboard]" if name == "tensorboard" else name.replace("_", "-")
        raise CapabilityError(
            f"tracker {name!r} is not installed",
            fix=f"Run `pip install '{extra}'`, or set tracker to none.",
        )


@contextlib.contextmanager
def capability_errors(config: TrainConfig) -> Iterator[None]:
    """Turn what PyTorch says about memory and other processes into what to change.

    Raises:
        CapabilityError: out of memory, or another process cannot be reached.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(error, config) from error
    except RuntimeError as error:
        text = str(error)
        if "DefaultCPUAllocator" in text:
            raise _out_of_memory(error, config) from error
        if isinstance(error, torch.distributed.DistError) or "gloo" in text or "NCCL" in text:
            raise _process_group_error(error) from error
        raise


def _out_of_memory(error: BaseException, config: TrainConfig) -> CapabilityError:
    size = config.micro_batch_size or config.batch_size
    return CapabilityError(
        "out of memory while training",
        got=str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
        fix=f"Lower micro_batch_size (now {size}) or max_tokens_per_micro_batch (now "
        f"{config.max_tokens_per_micro_batch or 'not set'}); the gradient stays the same. Or set "
        "precision to bf16 in a new folder. Otherwise training goes on from the last checkpoint.",
    )


def _process_group_error(error: BaseException) -> CapabilityError:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    found = ", ".join(f"{name}={os.environ.get(name, 'not set')}" for name in names)
    return CapabilityError(
        "the processes cannot work together",
        got=f"{str(error).strip().splitlines()[0]} ({found})",
        fix="Start them with torchrun, which sets these variables; with several hosts, the port "
        "of MASTER_ADDR must be open to all. If another process stopped first, its own message "
        "says why; the same command goes on from the last checkpoint.",
    )


def is_sharded(accelerator: Accelerator) -> bool:
    """Return whether each process holds only a part of the weights."""
    return accelerator.distributed_type == DistributedType.FSDP


def _wide(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def sum_over_processes(accelerator: Accelerator, values: Sequence[float]) -> list[float]:
    """Return the sum of each value over all processes, which give them in the same order."""
    if accelerator.num_processes == 1:
        return list(values)
    device = accelerator.device
    local = torch.tensor(values, dtype=_wide(device), device=device)
    summed = accelerator.reduce(local, "sum")
    assert isinstance(summed, Tensor)
    return summed.tolist()


def accumulate(pairs: dict[str, Tensor], parts: LossParts, *, factor: float) -> None:
    """Add (sum, count) of each objective to running totals."""
    for name, (part_sum, part_count) in parts.items():
        dtype = _wide(part_sum.device)
        pair = torch.stack([part_sum.detach().to(dtype), part_count.detach().to(dtype)]) * factor
        pairs[name] = pairs[name] + pair if name in pairs else pair


def log_to_tracker(accelerator: Accelerator, line: Mapping[str, Any]) -> None:
    """Give the tracker, if there is one, a line of the log."""
    values = _flatten(line)
    accelerator.log(values, step=values.pop("step"))


def _flatten(line: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in line.items():
        nested = isinstance(value, Mapping)
        flat |= _flatten(value, f"{prefix}{key}/") if nested else {prefix + key: value}
    return flat
