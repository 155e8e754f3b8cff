"""From VECTORS to a DATASET: gate, split by document, nested subsets, fingerprints."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from graphmert import shards
from graphmert.config import Settings
from graphmert.domains.vectors.data import (
    ALL,
    CONTEXT_LENGTH,
    DATASET_FORMAT,
    PARTS,
    SPLIT_SCHEMA,
    VectorData,
    VectorTable,
    fingerprint_documents,
    make_windows,
    part_documents,
)
from graphmert.domains.vectors.gate import GateSettings, check_vectors
from graphmert.errors import DataError
from graphmert.progress import Progress


class PrepareSettings(Settings):
    """How vectors become a data set."""

    sizes: tuple[int, ...] = ()
    """Named sizes of the training set, in vectors; all of it is always there too."""
    valid_share: float = Field(default=0.05, gt=0, lt=1)
    """Share of the vectors, in whole documents, for validation."""
    test_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the vectors, in whole documents, for the test."""
    seed: int = Field(default=0, ge=0)
    """Another seed draws other documents."""
    length: int = Field(default=CONTEXT_LENGTH, ge=1)
    """Vectors of a context."""
    gate: GateSettings = GateSettings()
    """What vectors are refused."""


def prepare(
    vectors: VectorTable,
    out: Path | str,
    settings: PrepareSettings,
    *,
    extend: VectorData | None = None,
    progress: Progress | None = None,
) -> VectorData:
    """Write a DATASET folder over a VECTORS folder.

    Documents are drawn for test and validation in the order of SHA-256(seed, doc_id); the others
    train, in the same order. With `extend` the documents of an earlier data set keep part and
    order, and new documents all go to training, after the old ones: so the test set stays what
    it was while the training set grows.

    Args:
        vectors: the vectors.
        out: the folder to write.
        settings: shares, sizes, seed and gate.
        extend: an earlier data set over a part of these documents.
        progress: told how many vectors the gate has seen.

    Raises:
        DataError: the gate refuses the vectors, or too few documents for three parts.
        ConfigError: a size that the training part does not have.
    """
    out = Path(out)
    ids, starts, ends = vectors.documents()
    _check_lengths(ids, starts, ends, settings.length, str(vectors.path))
    gate = check_vectors(
        vectors.vectors, starts, ends, settings.gate, where=str(vectors.path), progress=progress
    )
    placed = _place(ids, ends - starts, settings, where=str(vectors.path))
    if extend is not None:
        placed = _place_after(ids, ends - starts, settings, extend)
    table = pa.table(
        {
            "doc_id": pa.array(ids, pa.string()),
            "part": pa.array([part for part, _ in placed], pa.string()),
            "order": pa.array([order for _, order in placed], pa.int32()),
            "start": pa.array(starts, pa.int64()),
            "end": pa.array(ends, pa.int64()),
        },
        schema=SPLIT_SCHEMA,
    )
    info = _describe(vectors, out, table, settings, gate)
    if extend is not None:
        _check_kept(info, extend)
    (out / "dataset.json").unlink(missing_ok=True)
    shards.write_table(out / "split.parquet", table)
    shards.atomic_write_json(out / "dataset.json", info)
    return VectorData.load(out, verify=False)


def _check_lengths(
    ids: Sequence[str],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    length: int,
    where: str,
) -> None:
    longest = int(np.argmax(ends - starts))
    n_longest = int((ends - starts)[longest])
    if n_longest <= length:
        raise DataError(
            "no document is long enough for a window",
            where=where,
            got=f"{n_longest} vectors in the longest, {ids[longest]}",
            expected=f"at least {length + 1}: {length} of context and a target",
            fix="Use shorter windows or longer documents.",
        )


def _key(seed: int, doc_id: str) -> str:
    return hashlib.sha256(f"{seed}:{doc_id}".encode()).hexdigest()


def _place(
    ids: Sequence[str], n_rows: NDArray[np.int64], settings: PrepareSettings, where: str
) -> list[tuple[str, int]]:
    """Return (part, order) of each document."""
    if len(ids) < len(PARTS):
        raise DataError(
            "too few documents to split",
            where=where,
            got=len(ids),
            expected="at least 3: one each for train, valid and test",
            fix="Embed more documents. An npz of one sequence can be cut with --block-length.",
        )
    order = sorted(range(len(ids)), key=lambda index: (_key(settings.seed, ids[index]), ids[index]))
    total = int(n_rows.sum())
    placed: list[tuple[str, int]] = [("", 0)] * len(ids)
    shares = {"test": settings.test_share, "valid": settings.valid_share}
    left = iter(order)
    n_left = len(order)
    for part, share in shares.items():
        taken = count = 0
        # One document is kept back for each part still to be filled.
        while (taken == 0 or taken < share * total) and n_left > (2 if part == "test" else 1):
            index = next(left)
            placed[index] = (part, count)
            taken += int(n_rows[index])
            count, n_left = count + 1, n_left - 1
    for count, index in enumerate(left):
        placed[index] = ("train", count)
    return placed


def _place_after(
    ids: Sequence[str], n_rows: NDArray[np.int64], settings: PrepareSettings, extend: VectorData
) -> list[tuple[str, int]]:
    """Return (part, order) with the documents of an earlier data set where they were."""
    columns = (extend.split[name].to_pylist() for name in ("doc_id", "part", "order"))
    old = {doc_id: (part, order) for doc_id, part, order in zip(*columns, strict=True)}
    gone = sorted(set(old) - set(ids))
    if gone:
        raise DataError(
            "documents of the earlier data set are missing",
            where=str(extend.path),
            got=f"{len(gone)}, the first {gone[0]}",
            expected="all of them among the vectors",
            fix="Embed the earlier documents together with the new ones.",
        )
    new = sorted(
        (one for one in ids if one not in old), key=lambda one: (_key(settings.seed, one), one)
    )
    first = 1 + max((order for part, order in old.values() if part == "train"), default=-1)
    placed = old | {doc_id: ("train", first + index) for index, doc_id in enumerate(new)}
    return [placed[one] for one in ids]


def _check_kept(info: Mapping[str, Any], extend: VectorData) -> None:
    for part in ("test", "valid"):
        before, now = extend.info["fingerprints"][part], info["fingerprints"][part]
        if before != now:
            raise DataError(
                f"the {part} part is not that of the earlier data set",
                where=str(extend.path),
                got=now,
                expected=before,
                fix="Embed with the same model and settings, the earlier documents first: which "
                "repeated sentence is left out depends on their order.",
            )


def _describe(
    vectors: VectorTable,
    out: Path,
    table: pa.Table,
    settings: PrepareSettings,
    gate: Mapping[str, Any],
) -> dict[str, Any]:
    where = str(out)
    parts: dict[str, Any] = {}
    ledgers: dict[str, Any] = {}
    prints: dict[str, Any] = {}
    for part in PARTS:
        sizes: list[int | None] = [None, *settings.sizes] if part == "train" else [None]
        for size in sizes:
            numbers, starts, ends = part_documents(table, part, size=size, where=where)
            windows = make_windows(vectors.vectors, numbers, starts, ends, length=settings.length)
            if not len(windows):
                raise DataError(
                    f"the {part} part has no window",
                    where=where,
                    got=f"{len(numbers)} documents of at most {int((ends - starts).max())} vectors",
                    expected=f"a document of more than {settings.length}",
                    fix="Change the seed, the shares or the sizes.",
                )
            name = part if part != "train" else f"train/{ALL if size is None else size}"
            parts[name] = {
                "n_documents": len(numbers),
                "n_vectors": int((ends - starts).sum()),
                "n_windows": len(windows),
            }
            ledgers[name] = windows.ledger.to_dict()
            prints[name] = fingerprint_documents(
                vectors.vectors, starts, ends, length=settings.length
            )
    train = {key.partition("/")[2]: one for key, one in prints.items() if "/" in key}
    return {
        "format": DATASET_FORMAT,
        "length": settings.length,
        "seed": settings.seed,
        "sizes": sorted(set(settings.sizes)),
        "settings": settings.model_dump(mode="json"),
        "vectors": {
            "path": os.path.relpath(vectors.path.resolve(), out.resolve()),
            "sha256": vectors.sha256,
            "dim": vectors.dim,
            "n_vectors": vectors.n_vectors,
            "model": vectors.manifest.get("model"),
        },
        "parts": parts,
        "fingerprints": {"test": prints["test"], "valid": prints["valid"], "train": train},
        "gate": dict(gate),
        "ledger": ledgers,
    }
