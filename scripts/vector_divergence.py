"""Train one post-LN network with and without warm-up, and say what becomes of its outputs.

    python scripts/vector_divergence.py --data DATASET --out FOLDER [--keep results/NAME.json]

The settings are those of runs/vectors/divergence.toml; the second training has warmup = 0 and
nothing else changed, and a third repeats it with the alarm on. Beside them stands the cosine that
the mean of all training targets gets: what a network reaches that says the same for every input.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from graphmert.config import load_toml
from graphmert.domains.vectors.data import VectorData
from graphmert.domains.vectors.training import VectorTraining, train_vectors
from graphmert.errors import DataError
from graphmert.shards import atomic_write_json

ROOT = Path(__file__).parents[1]
ROW = ("epoch", "train_loss", "val_loss", "val_cosine", "output_variance_ratio")


def constant_cosine(data: VectorData, size: int | None) -> float:
    """Mean validation cosine of the mean training target."""
    mean = data.windows("train", size=size).targets(slice(None)).astype(np.float64).mean(0)
    targets = data.windows("valid").targets(slice(None)).astype(np.float64)
    norms = np.linalg.norm(targets, axis=1) * np.linalg.norm(mean)
    return float((targets @ mean / norms).mean())


def trained(
    data: VectorData, config: VectorTraining, out: Path, *, size: int | None
) -> dict[str, Any]:
    """Train once and keep what is compared; a run that was stopped says why."""
    facts: dict[str, Any] = {"warmup": config.warmup, "collapse_ratio": config.collapse_ratio}
    try:
        run = train_vectors(data, config, out=out, size=size, name="lvm")
    except DataError as error:
        return facts | {"stopped": str(error).split(" The last checkpoint")[0]}
    history = [{key: row[key] for key in ROW} for row in run.history]
    return facts | {"n_parameters": run.manifest["n_parameters"], "history": history}


def main() -> None:
    """Train three times and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=5_000)
    parser.add_argument("--config", type=Path, default=ROOT / "runs/vectors/divergence.toml")
    parser.add_argument("--keep", type=Path, help="copy of the result")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    config = load_toml(options.config, VectorTraining, overrides=options.overrides)
    data = VectorData.load(options.data)
    bare = config.model_copy(update={"warmup": 0.0})
    watched = bare.model_copy(update={"collapse_ratio": 1e-3, "collapse_after": 0})
    variants = {"with_warmup": config, "without_warmup": bare, "without_warmup_alarm": watched}
    result = {
        "config": config.model_dump(mode="json"),
        "size": options.size,
        "fingerprints": {p: data.fingerprint(p, options.size) for p in ("train", "valid")},
        "constant_vector_val_cosine": constant_cosine(data, options.size),
        "runs": {
            name: trained(data, one, options.out / name, size=options.size)
            for name, one in variants.items()
        },
    }
    for path in filter(None, (options.out / "divergence.json", options.keep)):
        atomic_write_json(path, result)
    for name, run in result["runs"].items():
        last = run.get("history", [{}])[-1]
        print(name, run.get("stopped") or {key: last[key] for key in ROW[2:]})
    print("constant vector", result["constant_vector_val_cosine"])


if __name__ == "__main__":
    main()
