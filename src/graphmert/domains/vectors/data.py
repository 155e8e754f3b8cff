"""Vectors on disk, data sets over them, and windows of neighbouring vectors.

VECTORS is a folder::

    vectors.npy      (N, C) float32, rows of a document together and in order
    rows.parquet     row, doc_id, position (of the sentence in its document), text
    manifest.json    {"format", "model", "n_vectors", "dim", "sha256" (of vectors.npy),
                      "rows_sha256", ...}

DATASET is a folder over one VECTORS::

    dataset.json     {"format", "length", "seed", "vectors": {"path", "sha256", "dim",
                      "n_vectors", "model"}, "parts", "sizes", "fingerprints": {"test": hex,
                      "valid": hex, "train": {"10000": hex, ..., "all": hex}}, "gate", "ledger"}
    split.parquet    doc_id, part (train|valid|test), order, start, end (rows of the vectors)

Vectors are stored once and read through a memory map; a window is its first row. Windows never
cross the end of a document. A training set of size n holds the windows among the first n vectors
of the training documents in their order, so smaller sets lie inside larger ones, and validation
and test windows do not depend on the size.

Shapes: N vectors, C channels, M windows, B windows of a batch, W vectors of a context.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graphmert import shards
from graphmert.errors import ConfigError, DataError, FormatError, ProvenanceError
from graphmert.shards import Ledger

Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")
CONTEXT_LENGTH = 5
VECTORS_FORMAT = "graphmert-vectors-1"
DATASET_FORMAT = "graphmert-vector-dataset-1"
ALL = "all"

ROWS_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)
SPLIT_SCHEMA = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("order", pa.int32(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("end", pa.int64(), nullable=False),
    ]
)


# --- VECTORS --------------------------------------------------------------------------------


@dataclass(frozen=True)
class VectorTable:
    """A VECTORS folder: the vectors through a memory map, and what each row is."""

    path: Path
    vectors: NDArray[np.float32]
    """(N, C) float32."""
    manifest: Mapping[str, Any]

    @property
    def n_vectors(self) -> int:
        """Number of rows."""
        return int(self.vectors.shape[0])

    @property
    def dim(self) -> int:
        """Number of channels."""
        return int(self.vectors.shape[1])

    @property
    def sha256(self) -> str:
        """SHA-256 of vectors.npy."""
        return str(self.manifest["sha256"])

    def rows(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the table of rows.

        Raises:
            FormatError: columns are missing, or it has another number of rows than vectors.
        """
        path = self.path / "rows.parquet"
        table = shards.read_table(path, columns or ROWS_SCHEMA.names)
        if table.num_rows != self.n_vectors:
            raise FormatError(
                "rows and vectors differ in number",
                where=str(path),
                got=table.num_rows,
                expected=self.n_vectors,
                fix="Embed again.",
            )
        return table

    def documents(self) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
        """Return the documents in the order of their rows: ids, first rows, ends.

        Raises:
            FormatError: the rows of a document are not together.
        """
        encoded = self.rows(["doc_id"])["doc_id"].combine_chunks().dictionary_encode()
        codes = np.asarray(encoded.indices)
        starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]]).astype(np.int64)
        ids = [encoded.dictionary[int(code)].as_py() for code in codes[starts]]
        if len(set(ids)) != len(ids):
            raise FormatError(
                "the rows of a document are not together",
                where=str(self.path / "rows.parquet"),
                expected="all rows of a doc_id next to each other, in order",
            )
        return ids, starts, np.r_[starts[1:], len(codes)].astype(np.int64)


def open_vectors(path: Path | str, *, verify: bool = True) -> VectorTable:
    """Open a VECTORS folder.

    Args:
        path: the folder.
        verify: compare the vectors with the hash in the manifest.

    Raises:
        FormatError: a file is missing or is not what the manifest says.
        ProvenanceError: the vectors have another hash.
    """
    path = Path(path)
    manifest = read_json(path / "manifest.json", VECTORS_FORMAT, "Write it with `vectors embed`.")
    vectors = open_matrix(path / "vectors.npy")
    expected = (manifest["n_vectors"], manifest["dim"])
    if vectors.shape != expected:
        raise FormatError(
            "vectors are not those of the manifest",
            where=str(path / "vectors.npy"),
            got=vectors.shape,
            expected=expected,
        )
    if verify and shards.sha256_file(path / "vectors.npy") != manifest["sha256"]:
        raise ProvenanceError(
            "the vectors were changed after they were written",
            where=str(path / "vectors.npy"),
            expected=f"sha256 {manifest['sha256']}",
            fix="Embed again.",
        )
    return VectorTable(path, vectors, manifest)


def open_matrix(path: Path) -> NDArray[np.float32]:
    """Map a (N, C) float32 array of an npy file into memory.

    Raises:
        FormatError: missing, not an npy file, holding Python objects, or of another shape or type.
    """
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise FormatError("vectors not found", where=str(path), fix="Check the path.") from error
    except (ValueError, EOFError) as error:
        raise FormatError(
            "not a readable array", where=str(path), got=error, expected="float32 (N, C)"
        ) from error
    if matrix.ndim != 2 or matrix.dtype != np.float32:
        raise FormatError(
            "array of another form",
            where=str(path),
            got=f"{matrix.dtype} {matrix.shape}",
            expected="float32 (N, C)",
        )
    return matrix


def write_vectors(
    path: Path | str,
    blocks: NDArray[np.float32] | Iterable[NDArray[np.float32]],
    rows: pa.Table,
    manifest: Mapping[str, Any],
) -> VectorTable:
    """Write a VECTORS folder; the manifest comes last, so a folder with one is whole.

    Args:
        path: the folder.
        blocks: float32 (N, C), or such arrays one after another, of which one is in memory at a
            time.
        rows: columns doc_id, position, text, one row a vector.
        manifest: further keys, such as the model.

    Raises:
        DataError: rows and vectors differ in number, or blocks in the number of channels.
    """
    path = Path(path)
    if isinstance(blocks, np.ndarray):
        blocks = [blocks]
    (path / "manifest.json").unlink(missing_ok=True)
    numbers = pa.array(np.arange(rows.num_rows, dtype=np.int64))
    columns = [numbers, *(rows[name] for name in ROWS_SCHEMA.names[1:])]
    table = pa.table(dict(zip(ROWS_SCHEMA.names, columns, strict=True)))
    shards.write_table(path / "rows.parquet", table.cast(ROWS_SCHEMA))
    with shards.atomic_path(path / "vectors.npy") as temporary:
        dim = _write_matrix(temporary, blocks, rows.num_rows)
    facts = {
        "format": VECTORS_FORMAT,
        "n_vectors": rows.num_rows,
        "dim": dim,
        "sha256": shards.sha256_file(path / "vectors.npy"),
        "rows_sha256": shards.sha256_file(path / "rows.parquet"),
    }
    shards.atomic_write_json(path / "manifest.json", {**manifest, **facts})
    return open_vectors(path, verify=False)


def _write_matrix(path: Path, blocks: Iterable[NDArray[np.float32]], n_rows: int) -> int:
    """Write blocks one after another as one npy file; return the number of channels."""
    dim, n_written = -1, 0
    with path.open("wb") as stream:
        for block in blocks:
            if dim < 0:
                dim = int(block.shape[1])
                header = {"descr": "<f4", "fortran_order": False, "shape": (n_rows, dim)}
                np.lib.format.write_array_header_1_0(stream, header)
            if block.shape[1] != dim:
                raise DataError(
                    "vectors differ in the number of channels", got=block.shape[1], expected=dim
                )
            n_written += len(block)
            stream.write(np.ascontiguousarray(block, "<f4").data)
    if n_written != n_rows or dim < 0:
        raise DataError("rows and vectors differ in number", got=n_written, expected=n_rows)
    return dim


def read_json(path: Path, wanted_format: str, fix: str) -> dict[str, Any]:
    """Read a JSON file that names its format.

    Raises:
        FormatError: missing, not JSON, or of another format.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FormatError("file not found", where=str(path), fix=fix) from error
    except ValueError as error:
        raise FormatError("file is not JSON", where=str(path), got=error, fix=fix) from error
    found = value.get("format") if isinstance(value, dict) else None
    if found != wanted_format:
        raise FormatError(
            "file of another format", where=str(path), got=found, expected=wanted_format, fix=fix
        )
    return value


# --- windows --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of `length` context vectors and the vector that follows them.

    Attributes:
        vectors: (N, C) all vectors, read through a memory map.
        starts: (M,) int64, first row of each window; its target is row start + length.
        doc: (M,) int32, number of the window's document in split.parquet.
        length: vectors of a context.
        ledger: the rows that start no window, by reason.
    """

    vectors: NDArray[np.float32]
    starts: NDArray[np.int64]
    doc: NDArray[np.int32]
    length: int
    ledger: Ledger = field(default_factory=lambda: Ledger("windows"))

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def dim(self) -> int:
        """Number of channels."""
        return int(self.vectors.shape[1])

    def context_rows(self, index: Any) -> NDArray[np.int64]:
        """Return the rows of contexts, shape (B, length)."""
        return self.starts[index][..., None] + np.arange(self.length)

    def target_rows(self, index: Any) -> NDArray[np.int64]:
        """Return the rows of targets, shape (B,)."""
        return self.starts[index] + self.length

    def contexts(self, index: Any) -> NDArray[np.float32]:
        """Return context vectors, float32 (B, length, C).

        Args:
            index: numbers of windows, a slice or a mask.
        """
        return np.asarray(self.vectors[self.context_rows(index)])

    def targets(self, index: Any) -> NDArray[np.float32]:
        """Return target vectors, float32 (B, C)."""
        return np.asarray(self.vectors[self.target_rows(index)])


def make_windows(
    vectors: NDArray[np.float32],
    documents: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    *,
    length: int = CONTEXT_LENGTH,
) -> Windows:
    """Return all windows inside documents, in the order given.

    Args:
        vectors: (N, C) all vectors.
        documents: number of each document.
        starts, ends: its rows, half-open.
        length: vectors of a context; the target is one more.
    """
    if length < 1:
        raise ConfigError("a context is too short", got=length, expected="at least 1 vector")
    n_rows = ends - starts
    n_windows = np.maximum(n_rows - length, 0)
    total = int(n_windows.sum())
    within = np.arange(total) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    ledger = Ledger("windows")
    ledger.offered(int(n_rows.sum()))
    ledger.keep(total)
    short = n_windows == 0
    ledger.leave_out("document not longer than a context", int(n_rows[short].sum()))
    ledger.leave_out("window would cross the end of its document", int((~short).sum()) * length)
    return Windows(
        vectors=vectors,
        starts=np.repeat(starts, n_windows) + within,
        doc=np.repeat(documents, n_windows).astype(np.int32),
        length=length,
        ledger=ledger.check(),
    )


# --- DATASET --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class VectorData:
    """A DATASET: documents in parts, nested training sets, windows and fingerprints.

    Attributes:
        path: the folder.
        vectors: (N, C) float32, a memory map.
        split: the table split.parquet.
        info: the content of dataset.json.
    """

    path: Path
    vectors: NDArray[np.float32]
    split: pa.Table
    info: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path | str, *, verify: bool = True) -> VectorData:
        """Open a DATASET folder that `vectors prepare` wrote.

        Args:
            path: the folder.
            verify: compare the vectors with the hash that the data set was made from.

        Raises:
            FormatError: a file is missing or of another form.
            ProvenanceError: the vectors are not those the data set was made from.
        """
        path = Path(path)
        info = read_json(path / "dataset.json", DATASET_FORMAT, "Write it with `vectors prepare`.")
        place = path / info["vectors"]["path"]
        table = open_vectors(place, verify=verify)
        if table.sha256 != info["vectors"]["sha256"]:
            raise ProvenanceError(
                "the data set was made from other vectors",
                where=str(place),
                got=f"sha256 {table.sha256}",
                expected=info["vectors"]["sha256"],
                fix="Prepare the data set again.",
            )
        split = shards.read_table(path / "split.parquet", SPLIT_SCHEMA.names).cast(SPLIT_SCHEMA)
        return cls(path, table.vectors, split, info)

    @property
    def dim(self) -> int:
        """Number of channels."""
        return int(self.vectors.shape[1])

    @property
    def sizes(self) -> tuple[int, ...]:
        """The named sizes of the training set, in vectors, smallest first."""
        return tuple(self.info["sizes"])

    def table(self) -> VectorTable:
        """Return the vectors with their rows (document, position, text)."""
        return open_vectors(self.path / self.info["vectors"]["path"], verify=False)

    def documents(
        self, part: Part, *, size: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return numbers, first rows and ends of a part's documents, in their order.

        Args:
            part: train, valid or test.
            size: the first so many vectors of the training part; the last document is cut.
                Only for train.

        Raises:
            ConfigError: an unknown part, or a size that the training part does not have.
        """
        return part_documents(self.split, part, size=size, where=str(self.path))

    def windows(self, part: Part, *, size: int | None = None, length: int | None = None) -> Windows:
        """Return the windows of a part.

        Args:
            part: train, valid or test; the last two are the same for every size.
            size: size of the training set in vectors, None for all of it.
            length: vectors of a context; None is the data set's own number.
        """
        chosen = size if part == "train" else None
        length = int(self.info["length"]) if length is None else length
        return make_windows(self.vectors, *self.documents(part, size=chosen), length=length)

    def fingerprint(self, part: Part, size: int | None = None) -> str:
        """Return the hash of a part's vectors, documents and window length.

        Two data sets with equal fingerprints ask the same questions, whatever their order.
        """
        chosen = size if part == "train" else None
        stored = self.info["fingerprints"][part]
        if isinstance(stored, dict):
            stored = stored.get(ALL if chosen is None else str(chosen))
        if stored is not None:
            return cast(str, stored)
        _, starts, ends = self.documents(part, size=chosen)
        return fingerprint_documents(self.vectors, starts, ends, length=self.info["length"])


def part_documents(
    split: pa.Table, part: str, *, size: int | None, where: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return numbers, first rows and ends of a part's documents; see `VectorData.documents`."""
    if part not in PARTS:
        raise ConfigError("no such part", where=where, got=part, expected=", ".join(PARTS))
    parts = np.asarray(split["part"].to_pylist())
    order = np.asarray(split["order"].to_numpy())
    numbers = np.flatnonzero(parts == part)
    numbers = numbers[np.argsort(order[numbers], kind="stable")].astype(np.int64)
    starts = np.asarray(split["start"].to_numpy())[numbers]
    ends = np.asarray(split["end"].to_numpy())[numbers]
    if size is None:
        return numbers, starts, ends
    if part != "train":
        raise ConfigError("only the training part has sizes", where=where, got=part)
    before = np.cumsum(ends - starts) - (ends - starts)
    total = int((ends - starts).sum())
    if not 1 <= size <= total:
        raise ConfigError(
            "the training part does not have so many vectors",
            where=where,
            got=size,
            expected=f"1 to {total}",
            fix="Choose a smaller size, or embed more documents.",
        )
    used = before < size
    room = size - before[used]
    return numbers[used], starts[used], np.minimum(ends[used], starts[used] + room)


def fingerprint_documents(
    vectors: NDArray[np.float32],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    *,
    length: int,
) -> str:
    """Return the SHA-256 of documents as vectors, whatever their order, and a window length."""
    digests = sorted(
        hashlib.sha256(np.ascontiguousarray(vectors[start:end]).data).hexdigest()
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    )
    head = json.dumps({"length": length, "dim": int(vectors.shape[1]), "dtype": "float32"})
    return hashlib.sha256("\n".join([head, *digests]).encode()).hexdigest()
