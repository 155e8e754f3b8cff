"""A small DATASET of vectors that follow one another, and a script that trains on it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from graphmert.config import build
from graphmert.domains.vectors.data import (
    DATASET_FORMAT,
    SPLIT_SCHEMA,
    VectorData,
    fingerprint_documents,
    part_documents,
    write_vectors,
)
from graphmert.domains.vectors.training import VectorTraining, default_training, train_vectors
from graphmert.shards import atomic_write_json, write_table

DIM, LENGTH = 16, 5
SMALL: dict[str, dict[str, Any]] = {
    "amn": {"key_width": 8, "hidden": [12, 8]},
    "lstm": {"width": 12},
    "gru": {"width": 12, "n_layers": 2},
    "transformer": {"width": 12, "n_attn_heads": 2, "ffn_width": 16, "n_layers": 2},
    "lvm-768d": {"n_attn_heads": 2, "ffn_width": 24, "n_layers": 2},
    "lvm-leaves": {"n_attn_heads": 2, "ffn_width": 24, "n_layers": 2, "width": 12},
}
"""Changes that make each preset small."""


def random_walks(n_documents: int, n_rows: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Documents whose vectors turn slowly, at length one: (n_documents * n_rows, DIM)."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(DIM, DIM)))
    rows = []
    for _ in range(n_documents):
        x = rng.normal(size=DIM)
        for _ in range(n_rows):
            x = 0.7 * (turn @ x) + 0.5 * rng.normal(size=DIM)
            rows.append(x / np.linalg.norm(x))
    return np.array(rows, np.float32)


def write_dataset(
    folder: Path,
    *,
    n_documents: int = 10,
    n_rows: int = 12,
    vectors: NDArray[np.float32] | None = None,
) -> Path:
    """Write VECTORS and DATASET; the last two documents are validation and test."""
    if vectors is None:
        vectors = random_walks(n_documents, n_rows)
    ids = [f"d{i}" for i in range(n_documents) for _ in range(n_rows)]
    rows = pa.table(
        {
            "doc_id": ids,
            "position": pa.array([i % n_rows for i in range(len(ids))], pa.int32()),
            "text": [f"text {i}" for i in range(len(ids))],
        }
    )
    table = write_vectors(folder / "vectors", [vectors], rows, {"model": "toy"})
    parts = ["train"] * (n_documents - 2) + ["valid", "test"]
    starts = [i * n_rows for i in range(n_documents)]
    split = pa.table(
        {
            "doc_id": [f"d{i}" for i in range(n_documents)],
            "part": parts,
            "order": pa.array(range(n_documents), pa.int32()),
            "start": starts,
            "end": [start + n_rows for start in starts],
        }
    ).cast(SPLIT_SCHEMA)
    prints = {}
    for part in ("train", "valid", "test"):
        _, begin, end = part_documents(split, part, size=None, where="toy")
        prints[part] = fingerprint_documents(table.vectors, begin, end, length=LENGTH)
    info = {
        "format": DATASET_FORMAT,
        "length": LENGTH,
        "seed": 0,
        "vectors": {
            "path": "../vectors",
            "sha256": table.sha256,
            "dim": table.dim,
            "n_vectors": table.n_vectors,
            "model": "toy",
        },
        "sizes": [],
        "fingerprints": prints | {"train": {"all": prints["train"]}},
    }
    write_table(folder / "dataset" / "split.parquet", split)
    atomic_write_json(folder / "dataset" / "dataset.json", info)
    return folder / "dataset"


def small_training(model: str, **changes: Any) -> VectorTraining:
    """Settings of a small network of a kind."""
    values = default_training(model, n_vectors=100)
    values["network"] |= {"dim": DIM, **SMALL[model], **changes.pop("network", {})}
    values |= {"epochs": 2.0, "batch_size": 8, "device": "cpu", "n_threads": 1, "log_every": 1}
    return build(values | changes, VectorTraining)


def main(arguments: str) -> None:
    """Train as `arguments`, a JSON object, say; run in a process of its own."""
    values = json.loads(arguments)
    torch.set_num_threads(1)
    config = small_training(values["model"], **values.get("config", {}))
    train_vectors(VectorData.load(values["data"]), config, out=values["out"])


if __name__ == "__main__":
    main(sys.argv[1])
