"""A small model and data for tests of the training loop, and a script that trains them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from graphmert.recipe import BucketSchedule, TrainConfig, bucket_schedule
from graphmert.train import train

N_SAMPLES, WIDTH, N_LABELS = 24, 6, 5


@dataclass(frozen=True)
class ToyBatch:
    """Rows of features, a label per row or -1 (ignored), and a target per row."""

    features_BD: Tensor
    labels_B: Tensor
    targets_B: Tensor

    @property
    def n_samples(self) -> int:
        return len(self.labels_B)

    def to(self, device: torch.device) -> ToyBatch:
        return ToyBatch(
            self.features_BD.to(device), self.labels_B.to(device), self.targets_B.to(device)
        )

    def counts(self) -> dict[str, int]:
        return {"label": int((self.labels_B >= 0).sum()), "value": len(self.labels_B)}


@dataclass(frozen=True)
class Uncounted:
    """The same without counts()."""

    batch: ToyBatch

    @property
    def n_samples(self) -> int:
        return self.batch.n_samples

    def to(self, device: torch.device) -> ToyBatch:
        return self.batch.to(device)


class ToyData:
    """Samples with lengths; about a third of the labels is ignored."""

    def __init__(self, schedule: BucketSchedule, *, counted: bool = True) -> None:
        rng = np.random.default_rng(7)
        self.features_SD = torch.tensor(rng.normal(size=(N_SAMPLES, WIDTH)), dtype=torch.float32)
        labels = rng.integers(0, N_LABELS, N_SAMPLES)
        labels[rng.random(N_SAMPLES) < 0.35] = -1
        self.labels_S = torch.tensor(labels)
        self.targets_S = torch.tensor(rng.normal(size=N_SAMPLES), dtype=torch.float32)
        self.schedule = schedule
        self.counted = counted

    @property
    def steps_per_epoch(self) -> int:
        return self.schedule.steps_per_epoch

    def batch(self, step: int) -> list[ToyBatch] | list[Uncounted]:
        parts = [torch.tensor(rows) for rows in self.schedule[step]]
        made = [
            ToyBatch(self.features_SD[rows], self.labels_S[rows], self.targets_S[rows])
            for rows in parts
        ]
        return made if self.counted else [Uncounted(batch) for batch in made]


class ToyModel(nn.Module):
    """Two objectives over one hidden layer; `rare` is used only by even-sized batches."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.body = nn.Linear(WIDTH, 8)
        self.norm = nn.LayerNorm(8)
        self.dropout = nn.Dropout(dropout)
        self.label_head = nn.Linear(8, N_LABELS)
        self.value_head = nn.Linear(8, 1)
        self.rare = nn.Linear(8, 1)
        self.tied_head = nn.Linear(8, 1)
        self.tied_head.weight = self.value_head.weight
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
        self.calls: list[tuple[int, int]] = []

    def on_step(self, step: int, total_steps: int) -> None:
        self.calls.append((step, total_steps))

    def pretrained_parameter_names(self) -> list[str]:
        return ["body.weight", "body.bias"]

    def loss(self, batch: ToyBatch) -> dict[str, tuple[Tensor, Tensor]]:
        hidden_BD = self.dropout(torch.tanh(self.norm(self.body(batch.features_BD))))
        label_sum = nn.functional.cross_entropy(
            self.label_head(hidden_BD), batch.labels_B, ignore_index=-1, reduction="sum"
        )
        value_B = (self.value_head(hidden_BD) + self.tied_head(hidden_BD)).squeeze(-1)
        if len(batch.labels_B) % 2 == 0:
            value_B = value_B + self.rare(hidden_BD).squeeze(-1)
        value_sum = ((value_B - batch.targets_B) ** 2).sum()
        return {
            "label": (label_sum, (batch.labels_B >= 0).sum()),
            "value": (value_sum, torch.tensor(len(batch.labels_B))),
        }


def toy_data(
    *,
    batch_size: int = 8,
    micro_batch_size: int | None = None,
    multiple_of: int = 1,
    counted: bool = True,
) -> ToyData:
    lengths = np.random.default_rng(5).integers(3, 12, N_SAMPLES)
    schedule = bucket_schedule(
        lengths,
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        multiple_of=multiple_of,
        seed=1,
    )
    return ToyData(schedule, counted=counted)


def toy_config(**changes: object) -> TrainConfig:
    settings: dict[str, object] = {
        "total_steps": 6,
        "batch_size": 8,
        "learning_rate": 0.01,
        "min_learning_rate": 0.001,
        "warmup_steps": 2,
        "log_every": 1,
        "checkpoint_every": 2,
        "device": "cpu",
        "n_threads": 1,
    }
    return TrainConfig.model_validate(settings | changes)


def main(arguments: str) -> None:
    """Train as `arguments`, a JSON object, say; run in a process of its own."""
    values = json.loads(arguments)
    data = toy_data(**values.get("data", {}))
    has_eval = values["config"].get("eval_every") is not None
    train(
        ToyModel(dropout=values.get("dropout", 0.0)),
        data,
        config=toy_config(**values["config"]),
        out_dir=Path(values["out_dir"]),
        eval_data=toy_data(batch_size=12) if has_eval else None,
    )


if __name__ == "__main__":
    main(sys.argv[1])
