"""A next-vector model: a network with its loss, its presets, and its folder on disk.

Legend: B batch, W window, C channels.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from graphmert.errors import CheckpointError, ConfigError
from graphmert.forecast.networks import (
    AMNSettings,
    GRUSettings,
    LSTMSettings,
    LVMSettings,
    NetworkSettings,
    TransformerSettings,
    build_network,
)
from graphmert.presets import count_parts, unknown_preset
from graphmert.shards import NO_SPACE_TEXT, atomic_path, atomic_write_json, disk_full

FORMAT = "graphmert-forecast-1"
FORECASTERS: dict[str, NetworkSettings] = {
    "amn": AMNSettings(),
    "lstm": LSTMSettings(),
    "gru": GRUSettings(),
    "transformer": TransformerSettings(),
    "lvm-768d": LVMSettings(),
}
"""Presets by name."""

_SETTINGS: pydantic.TypeAdapter[NetworkSettings] = pydantic.TypeAdapter(NetworkSettings)


@dataclass(frozen=True)
class WindowBatch:
    """Contexts and the vectors that follow them, a micro-batch of training.

    Attributes:
        contexts_BWC: float32. targets_BC: float32.
    """

    contexts_BWC: Tensor
    targets_BC: Tensor

    @property
    def n_samples(self) -> int:
        """Number of windows."""
        return int(self.targets_BC.shape[0])

    def to(self, device: torch.device | str) -> WindowBatch:
        """Return it on a device."""
        return WindowBatch(self.contexts_BWC.to(device), self.targets_BC.to(device))

    def counts(self) -> dict[str, int]:
        """Windows of each objective."""
        return {"mse": self.n_samples, "cosine": self.n_samples}


@dataclass(frozen=True)
class Forecast:
    """A prediction as the network gives it, and at length one; both (B, C)."""

    raw_BC: Tensor
    unit_BC: Tensor


class Forecaster(nn.Module):
    """One of the five networks behind one protocol.

    Args:
        settings: of the network; `FORECASTERS` holds the named ones.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = build_network(settings)
        self.on_step: Callable[[int, int], None] | None = None

    @property
    def dim(self) -> int:
        """Channels of the vectors."""
        return self.settings.dim

    def forward(self, contexts_BWC: Tensor) -> Tensor:
        """Predict the next vector, raw, (B, C)."""
        return self.network(contexts_BWC)

    def predict(self, contexts_BWC: Tensor) -> Forecast:
        """Predict the next vector, raw and at length one."""
        raw_BC = self(contexts_BWC)
        return Forecast(raw_BC, F.normalize(raw_BC.float(), dim=-1))

    def loss(self, batch: WindowBatch) -> dict[str, tuple[Tensor, Tensor]]:
        """Sums and counts of MSE(raw, target), a mean over channels, and of the cosine.

        The cosine has no gradient: it is there to be reported.
        """
        return vector_losses(self(batch.contexts_BWC), batch.targets_BC)

    def save(self, folder: Path | str) -> None:
        """Write model.safetensors and config.json.

        Raises:
            CapabilityError: the disk is full.
        """
        save_network(folder, self, {"format": FORMAT, "network": self.settings})

    @classmethod
    def load(cls, folder: Path | str) -> Forecaster:
        """Read a folder that `save` wrote; the model is in evaluation mode.

        Raises:
            CheckpointError: a file is missing, damaged or of another model.
        """
        folder = Path(folder)
        record = read_config(folder, FORMAT)
        return load_network(folder, lambda: cls(_SETTINGS.validate_python(record["network"])))


def vector_losses(raw_BC: Tensor, target_BC: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Return {"mse": (sum, B), "cosine": (sum, B)} of predictions and targets."""
    wide = torch.promote_types(raw_BC.dtype, torch.float32)
    raw_BC, target_BC = raw_BC.to(wide), target_BC.to(wide)
    error = (raw_BC - target_BC).square().mean(-1).sum()
    cosine = F.cosine_similarity(raw_BC.detach(), target_BC, dim=-1).sum()
    count = torch.tensor(float(len(raw_BC)), device=raw_BC.device)
    return {"mse": (error, count), "cosine": (cosine, count)}


def settings_of(name: str, **changes: Any) -> NetworkSettings:
    """Return the settings of a preset, with fields changed.

    Raises:
        ConfigError: no such preset, or a bad value; the message names it.
    """
    if name not in FORECASTERS:
        raise unknown_preset(name, FORECASTERS)
    values = FORECASTERS[name].model_dump() | changes
    try:
        return _SETTINGS.validate_python(values)
    except pydantic.ValidationError as error:
        raise ConfigError(
            "bad settings of a network", where=name, got=str(error.errors()[0]["msg"])
        ) from error


def parameter_report(preset: str) -> dict[str, Any]:
    """Count a preset's parameters, with the shapes they come from.

    Returns: {"preset", "n_parameters", "n_with_buffers", "parts", "buffers", "settings"}; parts
        and buffers are [{"name", "arithmetic", "n"}].
    Checked by: tests/unit/test_forecast.py
    """
    settings = settings_of(preset)
    with torch.device("meta"):
        model = Forecaster(settings)
    parts = count_parts((name, tuple(p.shape)) for name, p in model.named_parameters())
    buffers = count_parts((name, tuple(b.shape)) for name, b in model.named_buffers())
    n_parameters = sum(part["n"] for part in parts)
    return {
        "preset": preset,
        "n_parameters": n_parameters,
        "n_with_buffers": n_parameters + sum(part["n"] for part in buffers),
        "parts": parts,
        "buffers": buffers,
        "settings": settings.model_dump(mode="json"),
    }


def count_parameters(settings: NetworkSettings) -> int:
    """Return the number of trained parameters, without making them."""
    with torch.device("meta"):
        return sum(p.numel() for p in build_network(settings).parameters())


# --- folders --------------------------------------------------------------------------------


def save_network(folder: Path | str, model: nn.Module, record: dict[str, Any]) -> None:
    """Write a model's tensors and its config.json; the latter comes last."""
    folder = Path(folder)
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    with atomic_path(folder / "model.safetensors") as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": "pt"})
        except safetensors.SafetensorError as error:
            if NO_SPACE_TEXT in str(error):  # the writer reports a full disk as text only
                raise disk_full(folder, OSError(NO_SPACE_TEXT)) from error
            raise
    plain = {
        key: value.model_dump(mode="json") if isinstance(value, pydantic.BaseModel) else value
        for key, value in record.items()
    }
    atomic_write_json(folder / "config.json", plain)


def read_config(folder: Path, wanted_format: str) -> dict[str, Any]:
    """Read the config.json of a model folder of a format.

    Raises:
        CheckpointError: it is missing, damaged or of another format.
    """
    path = folder / "config.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            "this is no model folder", where=str(folder), expected="config.json"
        ) from error
    except ValueError as error:
        raise CheckpointError("a file of the model is not JSON", where=str(path)) from error
    found = record.get("format") if isinstance(record, dict) else None
    if found != wanted_format:
        raise CheckpointError(
            "a model of another format", where=str(path), got=found, expected=wanted_format
        )
    return record


def load_network(folder: Path, build: Callable[[], Any]) -> Any:
    """Build a model and fill it with the tensors of a folder.

    Raises:
        CheckpointError: settings or tensors are damaged or do not fit.
    """
    try:
        with torch.device("meta"):
            model = build()
        model.load_state_dict(load_file(folder / "model.safetensors"), strict=True, assign=True)
    except (
        FileNotFoundError,
        KeyError,
        RuntimeError,
        pydantic.ValidationError,
        safetensors.SafetensorError,
    ) as error:
        raise CheckpointError(
            "the model folder is damaged",
            where=str(folder),
            got=str(error).splitlines()[0],
            fix="Copy it again, or train again.",
        ) from error
    return model.eval()
