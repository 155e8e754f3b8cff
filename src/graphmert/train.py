"""One training loop for any model that returns sums and counts.

An update is a pure function of (weights, optimiser, step): the data source is asked for the
batches of a step, and the random generator is seeded from (seed, step, micro-batch). So a run
that was killed and resumed writes the same losses and the same bytes as one that was not, and a
run on two processes equals one process up to rounding.

The gradient of an update is that of

    sum over objectives o of  weight_o * (sum over the update of sum_o) / (... of count_o)

however the update is cut into micro-batches and dealt to processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from graphmert.checkpoint import (
    append_log,
    collect_model,
    collect_optimizer,
    find_checkpoints,
    load_checkpoint,
    prune_checkpoints,
    restore_model,
    restore_optimizer,
    save_checkpoint,
    truncate_log,
)
from graphmert.errors import CapabilityError, ConfigError, DataError
from graphmert.optimizer import build_optimizer
from graphmert.processes import (
    LossModule,
    LossParts,
    accumulate,
    capability_errors,
    is_sharded,
    log_to_tracker,
    open_accelerator,
    sum_over_processes,
)
from graphmert.recipe import (
    FREE_FIELDS,
    DataSource,
    Plateau,
    TrainConfig,
    bucket_schedule,
    learning_rate_at,
    update_seed,
)

__all__ = ["DataSource", "TrainConfig", "TrainResult", "bucket_schedule", "train"]

Evaluate = Callable[[nn.Module, int], Mapping[str, float]]
OnProgress = Callable[[int, int, Mapping[str, Any]], None]

_EVALUATION = 2**32 - 1  # the place of evaluation among the micro-batches of a step
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """Say what a training run reached and where it lies.

    Args:
        n_steps: number of finished updates.
        stop_reason: "steps", "time" or "early_stopping".
        last: folder of the last checkpoint.
        best: folder of the best checkpoint; the last one when nothing was evaluated.
        best_step: its number of updates.
        best_value: its metric, or None when nothing was evaluated.
        timings: seconds by activity, CPU seconds of the updates (batches made ahead included)
            and samples per second, of this process only.
    """

    n_steps: int
    stop_reason: str
    last: Path
    best: Path
    best_step: int
    best_value: float | None
    timings: dict[str, float]


@dataclass(frozen=True)
class _Progress:
    """All that the loop carries from update to update, besides weights and optimiser."""

    step: int = 0
    best_value: float | None = None
    best_step: int | None = None
    n_stale: int = 0  # evaluations since the best one
    elapsed_s: float = 0.0  # counted only when max_seconds is set; else runs would differ
    log_bytes: int = 0
    plateau: tuple[float, float | None, int] = (1.0, None, 0)  # the fields of a Plateau


@dataclass(frozen=True)
class _Dealt:
    """A micro-batch that this process computes; `index` counts over all processes."""

    index: int
    batch: Any
    is_live: bool  # False: computed with weight 0 only to keep processes in step


@dataclass(frozen=True)
class _Update:
    n_samples: int
    loss: float
    losses: dict[str, float]
    counts: dict[str, float]
    grad_norm: float = 0.0


def train(
    model: nn.Module,
    data: DataSource,
    *,
    config: TrainConfig,
    out_dir: Path | str,
    eval_data: DataSource | None = None,
    evaluate: Evaluate | None = None,
    fingerprint: str = "",
    tracker_dir: Path | str | None = None,
    on_progress: OnProgress | None = None,
) -> TrainResult:
    """Train a model, going on from the last checkpoint in `out_dir` when there is one.

    Writes `out_dir/training.jsonl`, a line per logged update and per evaluation, and
    `out_dir/checkpoints`, the last two and the best. Both are the same bytes for the same
    inputs, killed and resumed or not. Several processes need `out_dir` on a shared disk.

    Args:
        model: has `loss(batch) -> {objective: (sum, count)}`, 0-d tensors, the sum with a
            gradient. Optional: `pretrained_parameter_names()` for the second learning rate;
            `on_step(step, total_steps)`, called before each update, a function of both only.
        data: training batches.
        config: settings.
        out_dir: folder of this training run.
        eval_data: validation batches; give metrics `valid_loss` and `valid_loss/<objective>`.
        evaluate: gives more metrics from (model in eval mode, number of finished updates);
            called without gradients on every process, the first one's metrics count.
        fingerprint: hash of what else the result depends on, such as data and model settings;
            a checkpoint with another one is refused.
        tracker_dir: folder for trackers that write files, `out_dir/tracker` when not given.
        on_progress: called with (finished updates, total, last values) after each update.

    Returns:
        What was reached. The model then holds the weights that `config.final_weights` names,
        except under FSDP, where they are read from the checkpoint folder.

    Raises:
        DataError: a loss or the gradient is not finite; batches contradict the settings.
        ConfigError: unknown objective in `weights`, unknown metric or tracker.
        CheckpointError: the last checkpoint is damaged or was made with other settings.
        CapabilityError: out of memory, processes that do not meet, missing package, full disk.

    Checked by: tests/unit/test_train.py, tests/parity/test_resume.py
    """
    out_dir = Path(out_dir)
    with capability_errors(config):
        accelerator = open_accelerator(config, Path(tracker_dir or out_dir / "tracker"))
        run = _Run(accelerator, model, data, config, out_dir, fingerprint)
        try:
            return _loop(run, eval_data, evaluate, on_progress)
        finally:
            run.close()


def _loop(
    run: _Run,
    eval_data: DataSource | None,
    evaluate: Evaluate | None,
    on_progress: OnProgress | None,
) -> TrainResult:
    """Make updates until there is a reason to stop: all of training, top to bottom."""
    run.check_evaluation(eval_data, evaluate)
    evaluates = eval_data is not None or evaluate is not None
    while run.stop_reason is None:
        with run.timed("train_s"):
            run.start_update()
            update = run.update(run.micro_batches())
        line = run.finish_update(update)
        if run.is_due(run.config.log_every):
            run.write(line)
        if on_progress is not None:
            on_progress(run.progress.step, run.total_steps, line)
        is_best = False
        if evaluates and run.is_due(run.config.eval_every):
            with run.timed("eval_s"):
                metrics = run.evaluate(eval_data, evaluate)
            run.write({"step": run.progress.step, "metrics": metrics})
            is_best = run.note(metrics)
        if is_best or run.is_due(run.config.checkpoint_every):
            with run.timed("checkpoint_s"):
                run.save()
    return run.finish()


class _Run:
    """Hold what one call of `train` works on; each method is a phase of its loop."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        data: DataSource,
        config: TrainConfig,
        out_dir: Path,
        fingerprint: str,
    ) -> None:
        self.accelerator = accelerator
        self.model = model
        self.data = data
        self.config = config
        self.total_steps = config.n_steps(data)
        train_settings = config.model_dump(mode="json", exclude=set(FREE_FIELDS))
        self.settings = {"train": train_settings, "inputs": fingerprint}
        self.checkpoint_dir = out_dir / "checkpoints"
        self.progress = _Progress()
        self.timings = {"train_s": 0.0, "eval_s": 0.0, "checkpoint_s": 0.0}
        self.cpu_s = 0.0
        self.n_samples = 0
        self.executor = ThreadPoolExecutor(1) if config.prefetch else None
        self.next: tuple[int, Future[list[_Dealt]]] | None = None

        found = find_checkpoints(self.checkpoint_dir)
        checkpoint = load_checkpoint(found[-1][1], settings=self.settings) if found else None
        if checkpoint is not None:
            restore_model(model, checkpoint)
            self.progress = _Progress(**checkpoint.state)
            _logger.info("going on from %s", checkpoint.path)
        optimizer, self.peaks = build_optimizer(model, config)
        self.network, self.optimizer = accelerator.prepare(LossModule(model), optimizer)
        self.network.train()
        if checkpoint is not None:
            restore_optimizer(model, self.optimizer.optimizer, checkpoint)
        self.log_path = out_dir / "training.jsonl"
        if accelerator.is_main_process:
            truncate_log(self.log_path, n_bytes=self.progress.log_bytes)
        self.former_threads = torch.get_num_threads()
        torch.set_num_threads(config.n_threads or self.former_threads)

    @property
    def stop_reason(self) -> str | None:
        config, progress = self.config, self.progress
        if progress.n_stale >= (config.early_stopping_patience or math.inf):
            return "early_stopping"
        if progress.step >= self.total_steps:
            return "steps"
        if config.max_seconds is not None and progress.elapsed_s >= config.max_seconds:
            return "time"
        return None

    def is_due(self, every: int | None) -> bool:
        """Return whether something done every so many updates, and at the end, is due."""
        is_last = self.stop_reason is not None
        return is_last or (every is not None and self.progress.step % every == 0)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started, began = time.perf_counter(), time.process_time()
        yield
        self.timings[name] += time.perf_counter() - started
        if name == "train_s":
            self.cpu_s += time.process_time() - began
        if name == "train_s" and self.config.max_seconds is not None:
            # Counted only here: otherwise checkpoints of equal runs would differ.
            elapsed_s = self.progress.elapsed_s + time.perf_counter() - started
            if self.accelerator.num_processes > 1:
                elapsed_s = broadcast_object_list([elapsed_s])[0]
            self.progress = dataclasses.replace(self.progress, elapsed_s=elapsed_s)

    # --- an update --------------------------------------------------------------------------

    def start_update(self) -> None:
        """Set the learning rates, and tell the model which update comes."""
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = learning_rate_at(
                self.progress.step,
                total_steps=self.total_steps,
                config=self.config,
                peak=peak,
                elapsed_s=self.progress.elapsed_s,
                factor=self.progress.plateau[0],
            )
        on_step = getattr(self.model, "on_step", None)
        if on_step is not None:
            on_step(self.progress.step, self.total_steps)

    def micro_batches(self) -> list[_Dealt]:
        """Return this process's part of the update; start on the next one if asked to."""
        step = self.progress.step
        ready = self.next is not None and self.next[0] == step
        dealt = self.next[1].result() if self.next and ready else self._deal(self.data, step)
        if self.executor is not None and step + 1 < self.total_steps:
            self.next = (step + 1, self.executor.submit(self._deal, self.data, step + 1))
        return dealt

    def update(self, dealt: Sequence[_Dealt]) -> _Update:
        """Compute the gradient of the whole update, clip it and step the optimiser."""
        accelerator, step = self.accelerator, self.progress.step
        totals = self._counts(dealt)
        pairs: dict[str, Tensor] = {}
        self.optimizer.zero_grad(set_to_none=True)
        for position, item in enumerate(dealt):
            torch.manual_seed(update_seed(self.config.seed, step, item.index))
            is_final = position == len(dealt) - 1
            with contextlib.nullcontext() if is_final else accelerator.no_sync(self.network):
                parts = self.network(item.batch.to(accelerator.device))
                self._check_names(parts)
                if totals is None:
                    totals = {name: float(count) for name, (_, count) in parts.items()}
                loss = self._scaled(parts, totals, is_live=item.is_live)
                if loss.requires_grad:
                    accelerator.backward(loss)
            # A repeated micro-batch adds nothing, but every process has all names.
            accumulate(pairs, parts, factor=float(item.is_live))
        n_samples = sum(d.batch.n_samples for d in dealt if d.is_live)
        update = self._reduce(pairs, n_samples, step=step)
        self._check_update(update, totals or {})
        limit = self.config.clip_norm or math.inf
        norm = accelerator.clip_grad_norm_(self.network.parameters(), limit)
        grad_norm = 0.0 if norm is None else float(norm)
        self._check_finite("the gradient", grad_norm)
        self.optimizer.step()
        return dataclasses.replace(update, grad_norm=grad_norm)

    def finish_update(self, update: _Update) -> dict[str, Any]:
        """Count the update and return its line of the log."""
        self.n_samples += update.n_samples
        self.progress = dataclasses.replace(self.progress, step=self.progress.step + 1)
        return {
            "step": self.progress.step,
            "loss": update.loss,
            "losses": update.losses,
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
            "grad_norm": update.grad_norm,
            "n_samples": update.n_samples,
        }

    def _deal(self, data: DataSource, step: int) -> list[_Dealt]:
        """Deal micro-batches in turn; a process left without one repeats the last, unweighted.

        All processes then run the same number of forwards, which FSDP needs.
        """
        rank, n_processes = self.accelerator.process_index, self.accelerator.num_processes
        micro_batches = data.batch(step)
        last = len(micro_batches) - 1
        if last < 0:
            raise DataError("the data source gave an empty update", where=f"update {step + 1}")
        indices = range(rank, math.ceil((last + 1) / n_processes) * n_processes, n_processes)
        return [_Dealt(i, micro_batches[min(i, last)], is_live=i <= last) for i in indices]

    def _counts(self, dealt: Sequence[_Dealt]) -> dict[str, float] | None:
        """Return counts over the whole update; None for a lone micro-batch without counts()."""
        n_processes = self.accelerator.num_processes
        if not all(hasattr(item.batch, "counts") for item in dealt):
            if len(dealt) == n_processes == 1:
                return None
            raise CapabilityError(
                "batches without counts() cannot be added up",
                where=f"update {self.progress.step + 1}",
                got=f"{len(dealt)} micro-batches per process, {n_processes} processes",
                expected="one of each, or batches with counts()",
                fix="Set micro_batch_size to batch_size and run one process.",
            )
        local: dict[str, float] = {}
        for item in dealt:
            for name, count in item.batch.counts().items():
                local[name] = local.get(name, 0.0) + float(count) * item.is_live
        names = sorted(local)
        totals = sum_over_processes(self.accelerator, [local[name] for name in names])
        return dict(zip(names, totals, strict=True))

    def _scaled(self, parts: LossParts, totals: Mapping[str, float], *, is_live: bool) -> Tensor:
        """Return this micro-batch's share of the loss of the update."""
        loss = torch.zeros((), device=self.accelerator.device)
        for name in sorted(parts):
            count = totals.get(name, 0.0)
            weight = self.config.weight_at(name, self.progress.step) if is_live and count else 0.0
            # DDP and FSDP average gradients over processes, hence the factor.
            scale = weight * self.accelerator.num_processes / (count or 1.0)
            loss = loss + parts[name][0] * scale
        return loss

    def _reduce(self, pairs: Mapping[str, Tensor], n_samples: int, *, step: float) -> _Update:
        """Return the losses over all processes; the device is waited for here."""
        names = sorted(pairs)
        local = torch.stack([pairs[name] for name in names]).flatten().tolist() if names else []
        sums = sum_over_processes(self.accelerator, [*local, float(n_samples)])
        counts = dict(zip(names, sums[1::2], strict=False))
        losses = {n: sums[2 * i] / counts[n] if counts[n] else 0.0 for i, n in enumerate(names)}
        loss = sum(self.config.weight_at(name, step) * value for name, value in losses.items())
        return _Update(n_samples=round(sums[-1]), loss=loss, losses=losses, counts=counts)

    # --- checks -----------------------------------------------------------------------------

    def check_evaluation(self, eval_data: DataSource | None, evaluate: Evaluate | None) -> None:
        """Refuse settings that ask for an evaluation which cannot be made."""
        if eval_data is None and evaluate is None and self.config.eval_every is not None:
            raise ConfigError(
                "eval_every is set but there is nothing to evaluate",
                fix="Give train() eval_data or evaluate, or leave eval_every out.",
            )
        if evaluate is not None and is_sharded(self.accelerator):
            raise CapabilityError(
                "an evaluation callback needs whole weights, and FSDP shards them",
                fix="Use eval_data alone, or train with DDP.",
            )

    def _check_names(self, parts: LossParts) -> None:
        weights = self.config.weights
        for name in sorted(set(parts) ^ set(weights)) if weights else ():
            known = name in parts
            raise ConfigError(
                f"weights {'lacks' if known else 'has unknown'} objective {name!r}",
                got=", ".join(sorted(weights)),
                expected=", ".join(sorted(parts)),
                fix=f"Set weights.{name}, to 0 to turn it off." if known else "Remove it.",
            )

    def _check_update(self, update: _Update, totals: Mapping[str, float]) -> None:
        where = f"update {self.progress.step + 1}"
        for name, value in update.losses.items():
            self._check_finite(f"objective {name}", value)
            if not math.isclose(totals.get(name, 0.0), update.counts[name], rel_tol=1e-6):
                raise DataError(
                    f"counts() and loss() disagree on objective {name}",
                    where=where,
                    got=f"{totals.get(name, 0.0):g} from counts()",
                    expected=f"{update.counts[name]:g} from loss()",
                )
        if update.n_samples > self.config.batch_size:
            raise DataError(
                "an update has more samples than batch_size",
                where=where,
                got=update.n_samples,
                expected=f"at most {self.config.batch_size}",
                fix="Give the data source the batch_size of the training settings.",
            )

    def _check_finite(self, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        found = find_checkpoints(self.checkpoint_dir)
        kept = f"The last checkpoint is {found[-1][1]}." if found else "There is no checkpoint."
        raise DataError(
            f"training diverged, {what} is {value}",
            where=f"update {self.progress.step + 1}",
            fix=f"{kept} Lower learning_rate, lengthen warmup_steps or set precision to fp32, "
            "and train into a new folder.",
        )

    # --- evaluation, log, checkpoints -------------------------------------------------------

    def evaluate(self, eval_data: DataSource | None, evaluate: Evaluate | None) -> dict[str, float]:
        """Return the metrics of validation batches and callback, those of the first process."""
        metrics: dict[str, float] = {}
        step = self.progress.step
        self.network.eval()
        torch.manual_seed(update_seed(self.config.seed, step, _EVALUATION))
        with torch.no_grad():
            if eval_data is not None:
                metrics |= self._validate(eval_data)
            if evaluate is not None:
                with self.accelerator.autocast():
                    metrics |= {k: float(v) for k, v in evaluate(self.model, step).items()}
        self.network.train()
        if self.accelerator.num_processes > 1:
            metrics = broadcast_object_list([metrics])[0]
        return dict(sorted(metrics.items()))

    def _validate(self, eval_data: DataSource) -> dict[str, float]:
        pairs: dict[str, Tensor] = {}
        n_batches = self.config.eval_batches or eval_data.steps_per_epoch
        for index in range(min(n_batches, eval_data.steps_per_epoch)):
            for item in self._deal(eval_data, index):
                parts = self.network(item.batch.to(self.accelerator.device))
                accumulate(pairs, parts, factor=float(item.is_live))
        total = self._reduce(pairs, 0, step=math.inf)
        return {"valid_loss": total.loss} | {f"valid_loss/{n}": v for n, v in total.losses.items()}

    def note(self, metrics: Mapping[str, float]) -> bool:
        """Count an evaluation; return whether it is the best so far."""
        name, progress = self.config.best_metric, self.progress
        if name not in metrics:
            near = difflib.get_close_matches(name, list(metrics), n=1, cutoff=0.0)
            raise ConfigError(
                f"best_metric {name!r} is not evaluated",
                expected="one of " + ", ".join(metrics),
                fix=f"Did you mean {near[0]!r}?" if near else None,
            )
        value = metrics[name]
        self._check_finite(f"metric {name}", value)
        factor, best, n_flat = progress.plateau
        plateau = Plateau(factor, best, n_flat).after(value, self.config)
        state = (plateau.factor, plateau.best, plateau.n_flat)
        progress = self.progress = dataclasses.replace(progress, plateau=state)
        sign = 1 if self.config.best_mode == "max" else -1
        if progress.best_value is not None and sign * value <= sign * progress.best_value:
            self.progress = dataclasses.replace(progress, n_stale=progress.n_stale + 1)
            return False
        self.progress = dataclasses.replace(
            progress, best_value=value, best_step=progress.step, n_stale=0
        )
        return True

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line to training.jsonl and tell the tracker."""
        log_to_tracker(self.accelerator, line)
        if self.accelerator.is_main_process:
            n_bytes = append_log(self.log_path, line)
            self.progress = dataclasses.replace(self.progress, log_bytes=n_bytes)

    def save(self) -> None:
        """Write a checkpoint and delete those that are no longer kept."""
        sharded, is_main = is_sharded(self.accelerator), self.accelerator.is_main_process
        if sharded or is_main:  # gathering shards needs every process
            model = collect_model(self.model)
            optimizer = collect_optimizer(self.model, self.optimizer.optimizer)
            if is_main:
                save_checkpoint(
                    self.checkpoint_dir,
                    step=self.progress.step,
                    model=model,
                    optimizer=optimizer,
                    state=dataclasses.asdict(self.progress),
                    settings=self.settings,
                )
                self._prune()
        self.accelerator.wait_for_everyone()

    def _prune(self) -> None:
        best = self.progress.best_step
        prune_checkpoints(self.checkpoint_dir, keep_steps=() if best is None else (best,))

    def close(self) -> None:
        """Let go of threads, trackers and the accelerator's hold on the model."""
        if self.executor is not None:
            self.executor.shutdown(cancel_futures=True)
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.accelerator.free_memory()
        torch.set_num_threads(self.former_threads)

    def finish(self) -> TrainResult:
        """Leave the asked-for weights in the model and say what was reached."""
        if self.accelerator.is_main_process:
            self._prune()  # a kill may have come between saving and pruning
        progress = self.progress
        best_step = progress.step if progress.best_step is None else progress.best_step
        folders = dict(find_checkpoints(self.checkpoint_dir))
        is_elsewhere = self.config.final_weights == "best" and best_step != progress.step
        if is_elsewhere and not is_sharded(self.accelerator):
            restore_model(self.model, load_checkpoint(folders[best_step]))
        self.model.eval()
        rate = self.n_samples / max(self.timings["train_s"], 1e-9)
        return TrainResult(
            n_steps=progress.step,
            stop_reason=self.stop_reason or "",
            last=folders[progress.step],
            best=folders[best_step],
            best_step=best_step,
            best_value=progress.best_value,
            timings={**self.timings, "train_cpu_s": self.cpu_s, "n_samples_per_s": rate},
        )
