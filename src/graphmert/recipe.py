"""What a training run is given: batches, settings, learning rates, which samples meet.

Nothing here needs tensors, so settings can be read and written without loading PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pydantic
from pydantic import Field

from graphmert.config import Settings
from graphmert.errors import ConfigError

FREE_FIELDS = frozenset(
    {"micro_batch_size", "max_tokens_per_micro_batch", "n_threads", "prefetch", "tracker"}
)
"""Settings that may change between a checkpoint and the run that goes on from it."""

_PLATEAU_THRESHOLD = 1e-4


class MicroBatch(Protocol):
    """A part of an update that is computed in one forward pass.

    It may also have `counts() -> dict[str, number]`, the counts that `model.loss` will return
    for it. They are needed as soon as an update has more than one micro-batch or process.
    """

    @property
    def n_samples(self) -> int:
        """Return how many samples it holds."""
        ...

    def to(self, device: Any) -> MicroBatch:
        """Return it on a device."""
        ...


class DataSource(Protocol):
    """Batches as a pure function of the step: no iterator, no state, no global randomness."""

    @property
    def steps_per_epoch(self) -> int:
        """Return how many updates see every sample once."""
        ...

    def batch(self, step: int) -> Sequence[Any]:
        """Return the micro-batches of an update; a lazy sequence is indexed only as needed."""
        ...


class TrainConfig(Settings):
    """Say how to train; exactly one of `total_steps` and `epochs` is set."""

    total_steps: int | None = Field(default=None, ge=1, description="Number of updates.")
    epochs: float | None = Field(default=None, gt=0, description="Passes over the data, instead.")
    max_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Stop after this much training time, evaluation not counted.",
    )
    schedule: Literal["step", "time", "plateau"] = Field(
        default="step",
        description="What the learning rate follows: updates, or the share of max_seconds that "
        "is gone (then a run is not repeatable to the byte), or, constant until evaluations no "
        "longer improve, the best metric.",
    )
    plateau_factor: float = Field(
        default=0.5, gt=0, lt=1, description='What schedule = "plateau" multiplies the rate by.'
    )
    plateau_patience: int = Field(
        default=3, ge=0, description="Evaluations without a better metric before it does so."
    )
    batch_size: int = Field(
        default=128, ge=1, description="Samples per update, over all processes."
    )
    micro_batch_size: int | None = Field(
        default=None,
        ge=1,
        description="Most samples in one forward pass; the gradient stays the same.",
    )
    max_tokens_per_micro_batch: int | None = Field(
        default=None, ge=1, description="Most positions, padding included, in one forward pass."
    )
    learning_rate: float = Field(default=4e-4, gt=0, description="Peak of the schedule.")
    pretrained_learning_rate: float | None = Field(
        default=None, gt=0, description="Peak for parameters that come from a pretrained body."
    )
    min_learning_rate: float = Field(default=1e-5, ge=0, description="Floor of the cosine.")
    warmup_steps: int = Field(default=500, ge=0, description="Updates of linear warm-up.")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="Of AdamW.")
    eps: float = Field(default=1e-8, gt=0, description="Of AdamW.")
    weight_decay: float = Field(
        default=0.01, ge=0, description="Of AdamW; not for biases, norms and other vectors."
    )
    clip_norm: float | None = Field(
        default=1.0, gt=0, description="Largest norm of the gradient over all parameters."
    )
    precision: Literal["bf16", "fp32"] = Field(
        default="fp32", description="bf16 computes under autocast; parameters stay fp32."
    )
    device: Literal["auto", "cpu"] = Field(default="auto", description="auto takes an accelerator.")
    n_threads: int | None = Field(
        default=None, ge=1, description="Threads per process; the bytes may depend on it."
    )
    weights: dict[str, float] = Field(
        default_factory=dict, description="Weight per objective; empty: 1 for each."
    )
    weight_ramps: dict[str, int] = Field(
        default_factory=dict,
        description="Updates over which an objective's weight grows from 0 to its own.",
    )
    length_curriculum: tuple[tuple[int, int], ...] = Field(
        default=(),
        description="Pairs [first update, most roots of a chain]; the first begins at 0. Empty: "
        "chains are as long as they are.",
    )
    eval_every: int | None = Field(
        default=None, ge=1, description="Updates between evaluations; only at the end when not set."
    )
    eval_batches: int | None = Field(
        default=None, ge=1, description="Validation batches per evaluation; all when not set."
    )
    best_metric: str = Field(
        default="valid_loss", description="Metric that names the best checkpoint."
    )
    best_mode: Literal["min", "max"] = Field(
        default="min", description="Whether less or more is better."
    )
    final_weights: Literal["best", "last"] = Field(
        default="best", description="Weights the model holds at the end."
    )
    early_stopping_patience: int | None = Field(
        default=None, ge=1, description="Stop after so many evaluations without a better metric."
    )
    checkpoint_every: int = Field(default=500, ge=1, description="Updates between checkpoints.")
    log_every: int = Field(default=10, ge=1, description="Updates between lines of training.jsonl.")
    tracker: str = Field(
        default="none", description="none, tensorboard, wandb or another tracker of accelerate."
    )
    prefetch: bool = Field(default=False, description="Build the next batch in a thread meanwhile.")
    seed: int = Field(default=0, ge=0, description="Of dropout; the data source has its own.")

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if (self.total_steps is None) == (self.epochs is None):
            raise ValueError("set exactly one of total_steps and epochs")
        if self.schedule == "time" and self.max_seconds is None:
            raise ValueError('schedule = "time" needs max_seconds')
        if self.min_learning_rate > self.learning_rate:
            raise ValueError("min_learning_rate is above learning_rate")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("betas lie in [0, 1)")
        if any(weight < 0 for weight in self.weights.values()):
            raise ValueError("weights are not negative")
        if self.early_stopping_patience is not None and self.eval_every is None:
            raise ValueError("early_stopping_patience needs eval_every")
        if self.schedule == "plateau" and self.eval_every is None:
            raise ValueError('schedule = "plateau" needs eval_every')
        if any(ramp < 1 for ramp in self.weight_ramps.values()):
            raise ValueError("weight_ramps are numbers of updates, at least 1")
        firsts = [first for first, _ in self.length_curriculum]
        if firsts and (firsts[0] != 0 or sorted(set(firsts)) != firsts):
            raise ValueError("length_curriculum begins at update 0 and its updates ascend")
        if any(length < 2 for _, length in self.length_curriculum):
            raise ValueError("length_curriculum keeps at least 2 roots")
        return self

    def lasting(self) -> dict[str, Any]:
        """Return the settings whose change makes a training anew, as plain values.

        A checkpoint is gone on from when any of `FREE_FIELDS` changes; the threads stay here
        nevertheless, because the bytes of a result may depend on their number.
        """
        return self.model_dump(mode="json", exclude=set(FREE_FIELDS - {"n_threads"}))

    def weight_at(self, objective: str, step: float) -> float:
        """Return an objective's weight after so many finished updates.

            weight * min(1, (step + 1) / ramp)
        Without a ramp it is the weight at any step.
        """
        weight = self.weights.get(objective, 1.0)
        ramp = self.weight_ramps.get(objective)
        return weight if ramp is None else weight * min(1.0, (step + 1) / ramp)

    def n_steps(self, data: DataSource) -> int:
        """Return the number of updates; the data source is asked only when epochs are set."""
        if self.total_steps is not None:
            return self.total_steps
        assert self.epochs is not None
        return max(1, math.ceil(self.epochs * data.steps_per_epoch))


def learning_rate_at(
    step: int,
    *,
    total_steps: int,
    config: TrainConfig,
    peak: float | None = None,
    elapsed_s: float = 0.0,
    factor: float = 1.0,
) -> float:
    """Return the learning rate of an update: linear warm-up, then a cosine to a floor.

        lr = floor + (peak - floor) (1 + cos(pi p)) / 2        p = (step + 1 - warmup)
                                                                   / (total - warmup)
    The peak is reached by the last update of the warm-up and the floor by the last of all.
    With schedule = "time", p is at least elapsed_s / max_seconds. With schedule = "plateau" the
    cosine is replaced by max(floor, peak * factor).

    Args:
        step: number of finished updates.
        total_steps: number of updates in all.
        config: settings.
        peak: peak of the parameter group, `config.learning_rate` when not given.
        elapsed_s: training time so far, in seconds.
        factor: what `Plateau` has come down to.
    """
    peak = config.learning_rate if peak is None else peak
    floor = min(config.min_learning_rate, peak)
    share = (step + 1 - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    if config.schedule == "time":
        assert config.max_seconds is not None
        share = max(share, elapsed_s / config.max_seconds)
    share = min(1.0, max(0.0, share))
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "plateau":
        return warm * max(floor, peak * factor)
    return warm * (floor + (peak - floor) * (1 + math.cos(math.pi * share)) / 2)


@dataclass(frozen=True)
class Plateau:
    """Lower the learning rate when a metric stays flat, as PyTorch's ReduceLROnPlateau does.

    A value is better when it beats the best by more than the share `_PLATEAU_THRESHOLD` of it.
    After more than `plateau_patience` evaluations in a row that are not, the factor shrinks and
    the count starts anew.

    Attributes:
        factor: of the learning rate.
        best: best value so far.
        n_flat: evaluations since then, or since the factor last shrank.

    Checked by: tests/unit/test_recipe.py
    """

    factor: float = 1.0
    best: float | None = None
    n_flat: int = 0

    def after(self, value: float, config: TrainConfig) -> Plateau:
        """Return the state after an evaluation."""
        if self.best is None or self._is_better(value, self.best, config.best_mode):
            return Plateau(self.factor, value, 0)
        if self.n_flat + 1 > config.plateau_patience:
            return Plateau(self.factor * config.plateau_factor, self.best, 0)
        return Plateau(self.factor, self.best, self.n_flat + 1)

    @staticmethod
    def _is_better(value: float, best: float, mode: str) -> bool:
        if mode == "min":
            return value < best * (1 - _PLATEAU_THRESHOLD)
        return value > best * (1 + _PLATEAU_THRESHOLD)


def update_seed(seed: int, step: int, place: int) -> int:
    """Return the seed of a micro-batch.

    Args:
        seed: of the run.
        step: number of finished updates.
        place: of the micro-batch in the update, counted over all processes, so that their number
            changes nothing.
    """
    return int(np.random.SeedSequence([seed, step, place]).generate_state(1, np.uint64)[0] >> 1)


class BucketSchedule:
    """Give the samples of each update, grouped into micro-batches of similar length.

    `schedule[step]` is a list of index arrays and a pure function of (seed, step). Make one
    with `bucket_schedule`.
    """

    def __init__(
        self,
        lengths: npt.ArrayLike,
        *,
        batch_size: int,
        max_tokens_per_micro_batch: int | None,
        micro_batch_size: int | None,
        multiple_of: int,
        window: int,
        seed: int,
        n_steps: int | None,
    ) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int64)
        if self.lengths.ndim != 1 or not len(self.lengths):
            raise ConfigError(
                "a schedule needs at least one sample", got=f"lengths of shape {self.lengths.shape}"
            )
        longest = int(self.lengths.argmax())
        limit = max_tokens_per_micro_batch
        if limit is not None and self.lengths[longest] > limit:
            raise ConfigError(
                "a sample is longer than max_tokens_per_micro_batch",
                where=f"sample {longest}",
                got=int(self.lengths[longest]),
                expected=f"at most {limit}",
                fix=f"Set max_tokens_per_micro_batch to {self.lengths[longest]} or more.",
            )
        self.batch_size = batch_size
        self.max_tokens_per_micro_batch = limit
        self.micro_batch_size = micro_batch_size or batch_size
        self.multiple_of = multiple_of
        self.window = window
        self.seed = seed
        self.n_steps = n_steps
        self.steps_per_epoch = math.ceil(len(self.lengths) / batch_size)
        self._epoch: tuple[int, list[npt.NDArray[np.int64]]] | None = None

    def __len__(self) -> int:
        """Return the number of updates: `n_steps`, or those of one epoch when it is None."""
        return self.steps_per_epoch if self.n_steps is None else self.n_steps

    def __getitem__(self, step: int) -> list[npt.NDArray[np.int64]]:
        """Return the sample indices of an update, one array per micro-batch, longest first."""
        if step < 0 or (self.n_steps is not None and step >= self.n_steps):
            raise IndexError(f"update {step} of {self.n_steps}")
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, self._updates_of(epoch))
        return self._cut(self._epoch[1][place])

    def _updates_of(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        """Shuffle the samples, sort them within windows, cut updates and shuffle those."""
        rng = np.random.default_rng([self.seed, epoch])
        updates = np.array_split(rng.permutation(len(self.lengths)), self.steps_per_epoch)
        ordered: list[npt.NDArray[np.int64]] = []
        for start in range(0, len(updates), self.window):
            group = updates[start : start + self.window]
            samples = np.concatenate(group)
            samples = samples[np.argsort(-self.lengths[samples], kind="stable")]
            ordered += np.split(samples, np.cumsum([len(update) for update in group])[:-1])
        return [ordered[i] for i in rng.permutation(len(ordered))]

    def _cut(self, samples: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        """Cut an update, longest samples first, so that padding and size stay within bounds."""
        parts: list[npt.NDArray[np.int64]] = []
        start = 0
        while start < len(samples):
            size = self.micro_batch_size
            if self.max_tokens_per_micro_batch is not None:
                width = max(1, int(self.lengths[samples[start]]))
                size = min(size, self.max_tokens_per_micro_batch // width)
            parts.append(samples[start : start + size])
            start += size
        while len(parts) % self.multiple_of and max(map(len, parts)) > 1:
            largest = max(range(len(parts)), key=lambda i: len(parts[i]))
            parts[largest : largest + 1] = np.array_split(parts[largest], 2)
        return parts


def bucket_schedule(
    lengths: npt.ArrayLike,
    *,
    batch_size: int,
    max_tokens_per_micro_batch: int | None = None,
    seed: int,
    n_steps: int | None = None,
    micro_batch_size: int | None = None,
    multiple_of: int = 1,
    window: int = 16,
) -> BucketSchedule:
    """Plan updates over samples of different lengths.

    Every sample comes once in each epoch. The updates of an epoch differ in size by at most one
    sample, so that the last of an epoch is not a small, noisy one.

    Args:
        lengths: positions per sample.
        batch_size: most samples in an update.
        max_tokens_per_micro_batch: most positions in a micro-batch, padding included.
        seed: of the shuffling.
        n_steps: number of updates; any step may be asked for when None.
        micro_batch_size: most samples in a micro-batch.
        multiple_of: the number of micro-batches is made a multiple of this where an update has
            enough samples; set it to the number of processes.
        window: updates whose samples are sorted together; 1 draws each update at random and
            sorts only inside it.

    Returns:
        A schedule; `schedule[step]` is a list of int64 index arrays.

    Raises:
        ConfigError: no samples, or one longer than max_tokens_per_micro_batch.

    Checked by: tests/unit/test_train.py
    """
    return BucketSchedule(
        lengths,
        batch_size=batch_size,
        max_tokens_per_micro_batch=max_tokens_per_micro_batch,
        micro_batch_size=micro_batch_size,
        multiple_of=multiple_of,
        window=window,
        seed=seed,
        n_steps=n_steps,
    )
