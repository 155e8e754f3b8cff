"""Runs of `vectors train`: files, history, alarm, refusals, the benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import toy_vectors
from graphmert.domains.vectors.benchmark import (
    extrapolation_text,
    large_hours,
    run_benchmark,
)
from graphmert.domains.vectors.data import VectorData
from graphmert.domains.vectors.training import (
    CollapseAlarm,
    VectorTraining,
    default_training,
    read_run,
    train_vectors,
)
from graphmert.errors import ConfigError, DataError
from graphmert.forecast import FORECASTERS, Forecaster
from toy_vectors import small_training


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> VectorData:
    return VectorData.load(toy_vectors.write_dataset(tmp_path_factory.mktemp("toy")))


def cosine(model: Forecaster, data: VectorData, part: str) -> float:
    windows = data.windows(part)  # type: ignore[arg-type]
    x, y = (torch.from_numpy(f(slice(None))) for f in (windows.contexts, windows.targets))
    with torch.no_grad():
        return float(F.cosine_similarity(model(x), y).mean())


@pytest.mark.parametrize("name", sorted(FORECASTERS))
def test_a_run_learns_and_keeps_best_and_last(tmp_path: Path, data: VectorData, name: str) -> None:
    config = small_training(name, epochs=6.0, learning_rate=0.02, warmup=0.2)
    run = train_vectors(data, config, out=tmp_path, name=name)
    assert [row["epoch"] for row in run.history] == [1, 2, 3, 4, 5, 6]
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]
    best = max(run.history, key=lambda row: row["val_cosine"])
    assert run.metrics["best"] == best
    for folder, row in (("model", best), ("last", run.history[-1])):
        found = cosine(Forecaster.load(tmp_path / folder), data, "valid")
        assert found == pytest.approx(row["val_cosine"], abs=1e-5)
    assert run.manifest["n_windows"] == {"train": 8 * 7, "valid": 7}
    assert run.manifest["data"]["fingerprints"]["test"] == data.fingerprint("test")
    assert not (tmp_path / "model" / "checkpoints").exists()
    again = train_vectors(data, config, out=tmp_path, name=name)
    assert (
        again.manifest
        == read_run(tmp_path).manifest
        == json.loads(json.dumps(run.manifest | {"outputs": again.manifest["outputs"]}))
    )


def test_training_values_are_means_over_the_epoch(tmp_path: Path, data: VectorData) -> None:
    run = train_vectors(data, small_training("amn"), out=tmp_path)
    lines = [
        json.loads(x) for x in (tmp_path / "model" / "training.jsonl").read_text().split("\n")[:-1]
    ]
    first = [x for x in lines if "losses" in x and x["step"] <= 7]
    weights = [x["n_samples"] for x in first]
    assert sum(weights) == 56
    wanted = np.average([x["losses"]["mse"] for x in first], weights=weights)
    assert run.history[0]["train_loss"] == pytest.approx(wanted)


def test_other_settings_or_data_are_refused(tmp_path: Path, data: VectorData) -> None:
    train_vectors(data, small_training("amn"), out=tmp_path / "run")
    with pytest.raises(ConfigError, match="other settings or data"):
        train_vectors(data, small_training("amn", learning_rate=0.1), out=tmp_path / "run")
    other = VectorData.load(toy_vectors.write_dataset(tmp_path / "other", n_rows=13))
    with pytest.raises(ConfigError, match=r"other settings or data.*test, train, valid"):
        train_vectors(other, small_training("amn"), out=tmp_path / "run")


def test_vectors_of_another_dimension_are_refused(tmp_path: Path, data: VectorData) -> None:
    config = small_training("gru", network={"dim": 8})
    with pytest.raises(ConfigError, match=r"network\.dim=16"):
        train_vectors(data, config, out=tmp_path)
    config = small_training("lvm-768d", network={"length": 4})
    with pytest.raises(ConfigError, match=r"network\.length=5"):
        train_vectors(data, config, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_size_takes_the_first_vectors(tmp_path: Path, data: VectorData) -> None:
    run = train_vectors(data, small_training("amn"), out=tmp_path, size=30)
    assert run.manifest["n_windows"] == {"train": 7 + 7 + 1, "valid": 7}
    assert run.manifest["data"]["size"] == 30
    fingerprints = run.manifest["data"]["fingerprints"]
    assert fingerprints["test"] == data.fingerprint("test")
    assert fingerprints["train"] != data.fingerprint("train")


def test_early_stopping_ends_a_run(tmp_path: Path, data: VectorData) -> None:
    config = small_training(
        "amn", epochs=60.0, learning_rate=0.05, early_stopping_patience=2, schedule="constant"
    )
    run = train_vectors(data, config, out=tmp_path)
    assert run.manifest["stop_reason"] == "early_stopping"
    assert len(run.history) == run.metrics["best"]["epoch"] + 2 < 60


def test_vectors_with_nan_stop_the_run(tmp_path: Path) -> None:
    vectors = toy_vectors.random_walks(10, 12)
    vectors[20, 3] = np.nan
    data = VectorData.load(toy_vectors.write_dataset(tmp_path, vectors=vectors))
    with pytest.raises(DataError, match="a vector is not finite"):
        train_vectors(data, small_training("amn"), out=tmp_path / "run")


# --- the alarm ------------------------------------------------------------------------------


class Constant(torch.nn.Module):
    """Predict one vector, with a little of the last context vector in it."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.vector = torch.nn.Parameter(torch.ones(toy_vectors.DIM))
        self.share = share

    def forward(self, contexts: torch.Tensor) -> torch.Tensor:
        return self.vector + self.share * contexts[:, -1]


def test_the_alarm_measures_variance(data: VectorData) -> None:
    windows = data.windows("valid")
    alarm = CollapseAlarm(windows, ratio=0.01, after_step=10)
    outputs = 0.3 * windows.contexts(slice(None))[:, -1] + 1.0
    targets = windows.targets(slice(None))
    wanted = outputs.var(0).sum() / targets.var(0).sum()
    found = alarm(Constant(0.3), 99)["output_variance_ratio"]
    assert found == pytest.approx(float(wanted), rel=1e-5)
    assert alarm(Constant(0.0), 10)["output_variance_ratio"] == pytest.approx(0.0, abs=1e-9)
    for share in (0.0, 0.05, float("nan")):
        with pytest.raises(DataError, match="collapsed to one vector"):
            alarm(Constant(share), 11)


def test_a_collapsed_run_stops_with_its_checkpoints(tmp_path: Path, data: VectorData) -> None:
    """A step so large that a post-LN network predicts one vector for everything."""
    config = small_training(
        "lvm-768d",
        network={"n_layers": 8},
        epochs=6.0,
        learning_rate=0.5,
        warmup=0.0,
        schedule="constant",
        clip_norm=None,
        collapse_after=0,
    )
    with pytest.raises(DataError, match="collapsed to one vector"):
        train_vectors(data, config, out=tmp_path / "alarm")
    assert not (tmp_path / "alarm" / "manifest.json").exists()
    quiet = config.model_copy(update={"collapse_ratio": 0.0})
    run = train_vectors(data, quiet, out=tmp_path / "quiet")
    assert run.history[-1]["output_variance_ratio"] < 1e-3


# --- settings -------------------------------------------------------------------------------


def test_default_recipes() -> None:
    small = VectorTraining.model_validate(default_training("gru", n_vectors=10_000))
    assert (small.learning_rate, small.schedule, small.epochs) == (5e-4, "plateau", 20)
    lvm = [
        VectorTraining.model_validate(default_training("lvm-768d", n_vectors=n))
        for n in (10_000, 80_634, 232_605)
    ]
    assert [one.epochs for one in lvm] == [3, 25, 12]
    assert {(one.learning_rate, one.schedule, one.warmup) for one in lvm} == {(1e-4, "cosine", 0.1)}
    for one in (small, *lvm):
        assert (one.batch_size, one.weight_decay, one.clip_norm) == (32, 0.01, 1.0)
    with pytest.raises(ConfigError, match="did you mean lstm"):
        default_training("lstn", n_vectors=1)


def test_an_update_has_the_windows_of_all_processes() -> None:
    config = small_training("amn", epochs=1.5, warmup=0.5)
    found = config.train_config(steps_per_epoch=7, n_processes=3)
    assert (found.batch_size, found.micro_batch_size, found.total_steps) == (24, 8, 11)
    assert found.warmup_steps == 6


# --- the benchmark --------------------------------------------------------------------------


def test_many_validation_windows_do_not_shorten_the_large_training() -> None:
    """3 epochs of 100 windows at 1 s, each validated in 10 s, whatever its windows are."""
    assert large_hours(300.0, 300, 10.0) == pytest.approx(25 * (80_629 + 10) / 3600)


SEED_KEYS = {
    "model_type", "dataset_size", "train_size", "val_size", "epochs", "batch_size", "world_size",
    "total_training_time", "avg_epoch_time", "parameters", "history",
}  # fmt: skip
EPOCH_KEYS = {"epoch", "train_loss", "train_cosine", "val_loss", "val_cosine", "epoch_time"}


def test_benchmark_results(tmp_path: Path, data: VectorData) -> None:
    config = small_training("lvm-768d", epochs=3.0, log_every=10)
    found = run_benchmark(data, config, out=tmp_path / "b", size=96, name="lvm-768d")
    assert found == json.loads((tmp_path / "b" / "benchmark_results.json").read_text())
    assert set(found) >= SEED_KEYS
    assert [set(row) for row in found["history"]] == [EPOCH_KEYS] * 3
    assert (found["dataset_size"], found["train_size"], found["val_size"]) == (63, 56, 7)
    assert found["total_training_time"] == pytest.approx(3 * found["avg_epoch_time"])
    assert (found["world_size"], found["global_batch"], found["batch_size"]) == (1, 8, 8)
    assert found["fingerprint"] == data.fingerprint("train", 96)
    large = found["extrapolation"]
    n_seen = 3 * (56 * large["train_s_per_window"] + large["validation_s"])
    assert n_seen == pytest.approx(found["total_training_time"])
    hours = 25 * (80_629 * large["train_s_per_window"] + large["validation_s"]) / 3600
    assert large["hours"] == pytest.approx(hours)
    assert large["validation_windows"] == 7
    assert f"{hours:.1f} hours" in extrapolation_text(found)
    with pytest.raises(ConfigError, match="not empty"):
        run_benchmark(data, config, out=tmp_path / "b", size=96, name="lvm-768d")
