"""The 10k benchmark: train GraphMERT-LVM for a few epochs and say how fast it went.

OUT/benchmark_results.json has the keys of the benchmark this follows (model_type, dataset_size,
train_size, val_size, epochs, batch_size, world_size, total_training_time, avg_epoch_time,
parameters, history), and ours beside them (global_batch, samples_per_s, precision, fingerprint,
fingerprints, seed, versions, hardware, extrapolation). OUT is also a run of `vectors train`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphmert.domains.vectors.data import VectorData
from graphmert.domains.vectors.training import VectorRun, VectorTraining, train_vectors
from graphmert.errors import ConfigError
from graphmert.processes import is_main_process
from graphmert.progress import Progress
from graphmert.shards import atomic_write_json

LARGE_WINDOWS, LARGE_EPOCHS = 80_629, 25
"""Training windows and epochs of the training that the benchmark is asked to foretell; it is
validated after each epoch on as many windows as here."""

_MODEL_TYPES = {
    "amn": "AMN",
    "lstm": "LSTM",
    "gru": "GRU",
    "transformer": "Transformer",
    "lvm-768d": "GraphMERT-LVM-768D",
}


def run_benchmark(
    data: VectorData,
    config: VectorTraining,
    *,
    out: Path | str,
    size: int,
    name: str,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train in a new folder and return the content of benchmark_results.json.

    Every update is logged, so that the training values of the history are exact means.

    Args:
        data: the data set.
        config: settings; the epochs are timed one by one.
        out: a new folder.
        size: training vectors.
        name: preset of the model.
        progress: told the updates.

    Raises:
        ConfigError: the folder is not empty: a resumed run would have no times of its first part.
    """
    out = Path(out)
    if is_main_process() and out.is_dir() and any(out.iterdir()):
        raise ConfigError(
            "a benchmark is timed from its first update on, and this folder is not empty",
            where=str(out),
            fix="Give a new folder.",
        )
    exact = config.model_copy(update={"log_every": 1})
    run = train_vectors(data, exact, out=out, size=size, name=name, progress=progress)
    results = benchmark_results(run, exact)
    if is_main_process():
        atomic_write_json(out / "benchmark_results.json", results)
    return results


def benchmark_results(run: VectorRun, config: VectorTraining) -> dict[str, Any]:
    """Return a finished run in the form of the benchmark."""
    manifest, seconds = run.manifest, run.timings["epoch_s"]
    n_train, n_valid = (manifest["n_windows"][part] for part in ("train", "valid"))
    history = [
        {key: row[key] for key in ("epoch", "train_loss", "train_cosine", "val_loss", "val_cosine")}
        | {"epoch_time": epoch_s}
        for row, epoch_s in zip(run.history, seconds, strict=True)
    ]
    average_s = sum(seconds) / len(seconds)
    eval_s = run.timings["eval_s"] / len(seconds)
    n_processes = manifest["world_size"]
    n_trained = manifest["n_steps"] / manifest["steps_per_epoch"] * n_train
    return {
        "model_type": _MODEL_TYPES.get(manifest["model"], manifest["model"]),
        "dataset_size": n_train + n_valid,
        "train_size": n_train,
        "val_size": n_valid,
        "epochs": len(history),
        "batch_size": config.batch_size,
        "world_size": n_processes,
        "total_training_time": sum(seconds),
        "avg_epoch_time": average_s,
        "parameters": manifest["n_parameters"],
        "history": history,
        "global_batch": config.batch_size * n_processes,
        "samples_per_s": n_trained / run.timings["train_s"],
        "precision": config.precision,
        "fingerprint": manifest["data"]["fingerprints"]["train"],
        "fingerprints": manifest["data"]["fingerprints"],
        "seed": manifest["seed"],
        "versions": manifest["versions"],
        "hardware": run.timings["hardware"],
        "extrapolation": {
            "windows": LARGE_WINDOWS,
            "epochs": LARGE_EPOCHS,
            "validation_windows": n_valid,
            "train_s_per_window": (sum(seconds) - run.timings["eval_s"]) / n_trained,
            "validation_s": eval_s,
            "hours": large_hours(sum(seconds) - run.timings["eval_s"], n_trained, eval_s),
        },
    }


def large_hours(train_s: float, n_trained: float, eval_s: float) -> float:
    """Return how long the large training would take.

    hours = epochs * (windows * train_s / n_trained + eval_s) / 3600. A window costs less in
    validation than in training, so the two are not averaged.

    Args:
        train_s: seconds of training here.
        n_trained: windows trained on in them, repeats counted.
        eval_s: seconds of one validation.
    """
    return LARGE_EPOCHS * (LARGE_WINDOWS * train_s / n_trained + eval_s) / 3600


def extrapolation_text(results: dict[str, Any]) -> str:
    """Say how long the large training would take at this speed."""
    large = results["extrapolation"]
    return (
        f"{results['samples_per_s']:.1f} windows/s in training, {results['avg_epoch_time']:.1f} s "
        f"an epoch of {results['dataset_size']} windows, {large['validation_s']:.1f} s of it "
        f"validation; {large['windows']} windows x {large['epochs']} epochs would take "
        f"{large['hours']:.1f} hours on these {results['world_size']} processes"
    )
