"""Windows of vectors as npz files: `context_sequences` (M, W, C) and `target_vectors` (M, C).

Both directions work in pieces; nothing is ever unpickled.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graphmert import shards
from graphmert.domains.vectors.data import VectorTable, Windows, write_vectors
from graphmert.errors import ConfigError, FormatError
from graphmert.progress import Progress, Silent

CONTEXT_NAMES = ("context_sequences", "contexts")
TARGET_NAMES = ("target_vectors", "targets")
_CHUNK = 4096


def import_npz(
    path: Path | str,
    out: Path | str,
    *,
    block_length: int | None = None,
    progress: Progress | None = None,
) -> VectorTable:
    """Write a VECTORS folder from an npz of windows.

    The file holds `context_sequences` (or `contexts`), (M, W, C), and `target_vectors` (or
    `targets`), (M, C), of any float type. Windows that follow each other (the context of the next
    is this one moved by one) are joined to one run of vectors, each stored once; a run is a
    document, unless `document_index` (M,) names documents, as `export_npz` writes it.

    Args:
        path: the npz file; it is read in pieces.
        out: the folder to write.
        block_length: cut runs into documents of so many vectors. Files whose windows cross the
            borders of their articles are one run and could not be split otherwise.
        progress: told how many windows are read.

    Raises:
        FormatError: arrays are missing, hold Python objects or have other shapes.
    """
    path, out = Path(path), Path(out)
    progress = progress or Silent()
    with _NpzArrays(path) as arrays:
        contexts, targets = arrays.find(CONTEXT_NAMES), arrays.find(TARGET_NAMES)
        n_windows, length, dim = _check_shapes(arrays, contexts, targets)
        documents = None
        if "document_index" in arrays.names:
            documents = arrays.numbers("document_index", n_windows)
        progress.begin("read windows", total=n_windows, unit="windows")
        with (
            shards.atomic_path(out / "imported.npy") as temporary,
            temporary.open("wb") as stream,
        ):
            runs = _write_runs(arrays, contexts, targets, documents, stream, progress)
        progress.end()
    rows = _rows_of_runs(runs, length, block_length)
    flat = np.memmap(out / "imported.npy", np.float32, "r").reshape(-1, dim)
    manifest = {
        "model": None,
        "source": path.name,
        "source_sha256": shards.sha256_file(path),
        "block_length": block_length,
        "n_runs": len(runs),
    }
    blocks = (flat[start : start + _CHUNK] for start in range(0, len(flat), _CHUNK))
    table = write_vectors(out, blocks, rows, manifest)
    (out / "imported.npy").unlink()
    return table


def _check_shapes(arrays: _NpzArrays, contexts: str, targets: str) -> tuple[int, int, int]:
    shape, target_shape = arrays.shape(contexts), arrays.shape(targets)
    if len(shape) != 3 or target_shape != (shape[0], shape[2]) or not all(shape):
        raise FormatError(
            "windows of another shape",
            where=arrays.where,
            got=f"{contexts} {shape}, {targets} {target_shape}",
            expected=f"{contexts} (M, W, C) and {targets} (M, C)",
        )
    return shape[0], shape[1], shape[2]


def _write_runs(
    arrays: _NpzArrays,
    contexts: str,
    targets: str,
    documents: NDArray[Any] | None,
    stream: IO[bytes],
    progress: Progress,
) -> list[int]:
    """Write the vectors of all runs one after another; return the number in each run."""
    runs: list[int] = []
    last: NDArray[np.float32] | None = None
    place = 0
    pairs = zip(arrays.chunks(contexts), arrays.chunks(targets), strict=True)
    for context_MWC, target_MC in pairs:
        for index in range(len(context_MWC)):
            window = np.concatenate([context_MWC[index], target_MC[index][None]])
            follows = last is not None and np.array_equal(window[:-1], last[1:])
            if documents is not None and place and documents[place] != documents[place - 1]:
                follows = False
            if follows:
                stream.write(window[-1:].tobytes())
                runs[-1] += 1
            else:
                stream.write(window.tobytes())
                runs.append(len(window))
            last = window
            place += 1
        progress.update(place)
    return runs


def _rows_of_runs(runs: Sequence[int], length: int, block_length: int | None) -> pa.Table:
    if block_length is not None and block_length <= length:
        raise ConfigError(
            "blocks are too short for a window",
            where="block_length",
            got=block_length,
            expected=f"more than {length}",
        )
    names: list[str] = []
    positions: list[NDArray[np.int32]] = []
    for run, n_rows in enumerate(runs):
        position = np.arange(n_rows, dtype=np.int32)
        positions.append(position)
        if block_length is None:
            names.extend([f"run-{run:06d}"] * n_rows)
        else:
            names.extend(f"run-{run:06d}/{one // block_length:06d}" for one in position.tolist())
    return pa.table(
        {
            "doc_id": pa.array(names, pa.string()),
            "position": pa.array(np.concatenate(positions)),
            "text": pa.array([""] * len(names), pa.string()),
        }
    )


class _NpzArrays:
    """Arrays of an npz file, read in pieces and never unpickled."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise FormatError("file not found", where=self.where, fix="Check the path.") from error
        except (zipfile.BadZipFile, OSError) as error:
            raise FormatError("not an npz file", where=self.where, got=error) from error
        # np.savez names its members so; others, such as a README, are no arrays.
        found = [one for one in self._zip.namelist() if one.endswith(".npy")]
        self.names = [one.removesuffix(".npy") for one in found]

    def __enter__(self) -> _NpzArrays:
        return self

    def __exit__(self, *details: object) -> None:
        self._zip.close()

    def find(self, names: Sequence[str]) -> str:
        """Return the first of some names that is there."""
        for name in names:
            if name in self.names:
                return name
        raise FormatError(
            "npz lacks an array", where=self.where, got=self.names, expected=" or ".join(names)
        )

    def _open(self, name: str) -> tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]:
        stream = self._zip.open(f"{name}.npy")
        try:
            version = np.lib.format.read_magic(stream)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, is_fortran, dtype = read(stream)
        except (ValueError, KeyError, EOFError) as error:
            raise FormatError(
                "array of the npz is broken", where=f"{self.where}: {name}", got=error
            ) from error
        if dtype.hasobject:
            raise FormatError(
                "array holds pickled Python objects, which are never loaded",
                where=f"{self.where}: {name}",
                got=dtype,
                expected="plain numbers",
                fix="Save it again with np.savez of float32 arrays.",
            )
        if is_fortran or dtype.kind not in "fiu":
            raise FormatError(
                "array of the npz has another form",
                where=f"{self.where}: {name}",
                got=f"{dtype}, {'Fortran' if is_fortran else 'C'} order",
                expected="numbers in C order",
            )
        return stream, shape, dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """Return an array's shape."""
        stream, shape, dtype = self._open(name)
        stream.close()
        if dtype.kind != "f":
            raise FormatError(
                "array of the npz is not of floats", where=f"{self.where}: {name}", got=dtype
            )
        return shape

    def numbers(self, name: str, n: int) -> NDArray[Any]:
        """Return an array of one number for each window."""
        stream, shape, _ = self._open(name)
        stream.close()
        if shape != (n,):
            raise FormatError(
                "array of the npz does not fit the windows",
                where=f"{self.where}: {name}",
                got=shape,
                expected=f"({n},), one for each window",
            )
        return np.concatenate(list(self._pieces(name)))

    def chunks(self, name: str) -> Iterator[NDArray[np.float32]]:
        """Yield an array as float32, some thousand rows at a time."""
        for piece in self._pieces(name):
            yield piece.astype(np.float32)

    def _pieces(self, name: str) -> Iterator[NDArray[Any]]:
        stream, shape, dtype = self._open(name)
        with stream:
            row = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
            for start in range(0, shape[0], _CHUNK):
                n_rows = min(_CHUNK, shape[0] - start)
                try:
                    data = stream.read(n_rows * row)
                except (zipfile.BadZipFile, zlib.error, EOFError, struct.error) as error:
                    raise self._short(name, error) from error
                if len(data) != n_rows * row:
                    raise self._short(name, f"{len(data)} of {n_rows * row} bytes")
                yield np.frombuffer(data, dtype).reshape(n_rows, *shape[1:])

    def _short(self, name: str, got: object) -> FormatError:
        return FormatError("array of the npz is not whole", where=f"{self.where}: {name}", got=got)


def export_npz(windows: Windows, path: Path | str) -> None:
    """Write windows as an npz: `context_sequences`, `target_vectors` and three numbers.

    `document_index` is added, so that the file can be imported again with its documents. The
    same windows give the same bytes; memory is bounded by a few thousand windows.
    """
    n_windows = len(windows)
    facts = {
        "context_length": windows.length,
        "num_sequences": n_windows,
        "vector_dim": windows.dim,
    }
    with shards.atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        shape = (n_windows, windows.length, windows.dim)
        write_array(archive, "context_sequences", shape, _pieces(windows, windows.contexts))
        shape = (n_windows, windows.dim)
        write_array(archive, "target_vectors", shape, _pieces(windows, windows.targets))
        for name, value in facts.items():
            write_array(archive, name, (), iter([np.int64(value)]), "<i8")
        write_array(archive, "document_index", (n_windows,), iter([windows.doc]), "<i4")


def _pieces(windows: Windows, take: Any) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(windows), _CHUNK):
        yield take(slice(start, start + _CHUNK))


def write_array(
    archive: zipfile.ZipFile,
    name: str,
    shape: tuple[int, ...],
    pieces: Iterator[Any],
    descr: str = "<f4",
) -> None:
    """Add an array to an open npz file, piece by piece.

    Args:
        pieces: together of that shape, in C order.
        descr: their type, as NumPy writes it.
    """
    # A fixed date, because equal windows shall give equal bytes.
    entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
    with archive.open(entry, "w", force_zip64=True) as stream:
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)  # type: ignore[arg-type]
        for piece in pieces:
            stream.write(np.ascontiguousarray(piece, descr).tobytes())
