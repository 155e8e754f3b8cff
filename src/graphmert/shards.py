"""Files that are whole or absent, ledgers that balance, and work cut into fixed shards.

Nothing here draws random numbers or reads the clock: the bytes written depend on the content
alone, for one worker or many.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import multiprocessing
import os
import secrets
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from graphmert.errors import CapabilityError, DataError, FormatError

EXAMPLES_PER_REASON = 5
TEMPORARY_MARK = ".writing-"
NO_SPACE_TEXT = "No space left on device"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


# --- atomic files ---------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block succeeds.

    The file and its folder are flushed to disk before and after the replacement, so that at
    any instant `path` holds the old content, the new content or nothing, never a part. When
    the block fails the temporary file is removed and `path` is left as it was. A process
    killed inside the block leaves only a hidden `.NAME.writing-*` file, which the next write
    of the same path removes.

    Args:
        path: the file to write; missing folders are made.

    Raises:
        CapabilityError: the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        temporary = (
            path.parent / f".{path.name}{TEMPORARY_MARK}{os.getpid()}-{secrets.token_hex(4)}"
        )
        # Made here with the usual permissions, so that two writers never share one.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        _flush_file(temporary)
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(path, error) from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def is_disk_full(error: OSError) -> bool:
    """Return whether an error means that the disk, or the user's part of it, is full."""
    # pyarrow loses errno in some versions and keeps only the text.
    return error.errno in _NO_SPACE or NO_SPACE_TEXT in str(error)


def disk_full(path: Path, error: OSError) -> CapabilityError:
    """Return the error that says which file did not fit and what to free."""
    return CapabilityError(
        "disk is full, nothing was written",
        where=str(path),
        got=error.strerror or str(error),
        fix=f"Free space on the disk of {path.parent} and run the same command again; "
        "finished work is kept.",
    )


def atomic_write_bytes(path: Path | str, data: bytes) -> None:
    """Write bytes so that the file is whole or absent.

    Raises:
        CapabilityError: the disk is full.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: Path | str, text: str) -> None:
    """Write text as UTF-8, newlines as given, so that the file is whole or absent."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: Path | str, value: Any) -> None:
    """Write a value as indented JSON with sorted keys, so that the file is whole or absent.

    Raises:
        ValueError: the value holds NaN or an infinity, which JSON has no form for.
    """
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    atomic_write_text(path, text + "\n")


def move_files(source: Path, target: Path, *, last: str) -> None:
    """Move the files of a folder into another on the same disk, replacing those of their names.

    The file named `last` is removed from the target first and moved in at the end: where it is,
    all others are whole and belong to it.
    """
    names = sorted(one.name for one in source.iterdir() if one.name != last)
    (target / last).unlink(missing_ok=True)
    for name in (*names, last):
        _flush_file(source / name)
        (source / name).replace(target / name)
    _flush_folder(target)


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _remove_leftovers(path: Path) -> None:
    """Remove what a killed writer of the same path left; a living writer keeps its file."""
    start = f".{path.name}{TEMPORARY_MARK}"
    for entry in path.parent.iterdir():
        if entry.name.startswith(start):
            owner = entry.name[len(start) :].partition("-")[0]
            if owner.isdigit() and not _is_alive(int(owner)):
                entry.unlink(missing_ok=True)


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _flush_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- tables ---------------------------------------------------------------------------------


def write_table(path: Path | str, table: pa.Table) -> None:
    """Write a table as Parquet; equal tables give equal bytes.

    Args:
        path: the file to write, whole or absent.
        table: chunks are joined first, so that their borders leave no trace.

    Raises:
        CapabilityError: the disk is full.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        _write_parquet(table, stream)


def write_groups(path: Path | str, schema: pa.Schema, groups: Iterable[pa.Table]) -> int:
    """Write tables as the row groups of one Parquet file, holding one of them at a time.

    Args:
        path: the file to write, whole or absent.
        schema: the columns of every table.
        groups: each becomes a row group of its own.

    Returns:
        The number of rows.

    Raises:
        CapabilityError: the disk is full.
    """
    n_rows = 0
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        options: dict[str, Any] = {"compression": "zstd", "compression_level": 3}
        with pq.ParquetWriter(stream, schema, store_schema=True, **options) as writer:
            for group in groups:
                table = group.cast(schema).combine_chunks()
                writer.write_table(table, row_group_size=max(1, table.num_rows))
                n_rows += table.num_rows
    return n_rows


def n_groups(path: Path | str) -> int:
    """Return the number of row groups of a Parquet file."""
    with pq.ParquetFile(path) as file:
        return int(file.num_row_groups)


def read_group(path: Path | str, index: int, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one row group of a Parquet file."""
    with pq.ParquetFile(path) as file:
        return file.read_row_group(index, columns=None if columns is None else list(columns))


def _write_parquet(table: pa.Table, stream: IO[bytes]) -> None:
    pq.write_table(
        table.combine_chunks(),
        stream,
        compression="zstd",
        compression_level=3,
        row_group_size=65_536,
        store_schema=True,
        write_statistics=True,
    )


def read_table(path: Path | str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet table.

    Args:
        path: the file.
        columns: the columns wanted; all when None.

    Raises:
        FormatError: the file is missing, is not whole Parquet or lacks a column.
    """
    path = Path(path)
    if not path.is_file():
        raise FormatError(
            "table not found", where=str(path), fix="Run the stage that writes it, then this one."
        )
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            absent = [name for name in columns or () if name not in names]
            if absent:
                raise FormatError(
                    "table lacks columns", where=str(path), got=names, expected=absent
                )
            return file.read(columns=None if columns is None else list(columns))
    except (pa.ArrowException, OSError, EOFError) as error:
        raise FormatError(
            "table is not readable Parquet",
            where=str(path),
            got=str(error).splitlines()[0] if str(error) else type(error).__name__,
            expected="a whole Parquet file",
            fix="Delete it and run the stage that writes it again.",
        ) from error


# --- ledger ---------------------------------------------------------------------------------


class Ledger:
    """Count what a stage was offered, what it kept and what it left out, by reason.

    The rule kept + left out = offered is checked by `check`. For every reason the first few
    examples are kept. Merging shard ledgers in shard order gives the ledger of one pass.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.n_offered = 0
        self.n_kept = 0
        self.reasons: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}

    @property
    def n_left_out(self) -> int:
        """The number of items left out, over all reasons."""
        return sum(self.reasons.values())

    def offered(self, n: int = 1) -> None:
        """Count items that came in."""
        self.n_offered += n

    def keep(self, n: int = 1) -> None:
        """Count items that were kept."""
        self.n_kept += n

    def leave_out(self, reason: str, n: int = 1, example: str | None = None) -> None:
        """Count items that were left out for a reason, with one example of them."""
        if n == 0:
            return
        self.reasons[reason] = self.reasons.get(reason, 0) + n
        examples = self.examples.setdefault(reason, [])
        if example is not None and len(examples) < EXAMPLES_PER_REASON:
            examples.append(example)

    def merge(self, other: Ledger) -> None:
        """Add the counts of another ledger; its examples come after ours."""
        self.n_offered += other.n_offered
        self.n_kept += other.n_kept
        for reason, count in other.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + count
            examples = self.examples.setdefault(reason, [])
            room = EXAMPLES_PER_REASON - len(examples)
            examples.extend(other.examples.get(reason, [])[:room])

    def check(self) -> Ledger:
        """Return the ledger itself if it balances.

        Raises:
            DataError: kept + left out differs from offered.
        """
        if self.n_kept + self.n_left_out != self.n_offered:
            raise DataError(
                "ledger does not balance",
                where=f"stage {self.stage}",
                got=f"{self.n_kept} kept + {self.n_left_out} left out",
                expected=f"{self.n_offered} offered",
                fix="This is a defect in the stage; please report it.",
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the ledger as JSON values, reasons sorted by name."""
        return {
            "stage": self.stage,
            "offered": self.n_offered,
            "kept": self.n_kept,
            "left_out": {reason: self.reasons[reason] for reason in sorted(self.reasons)},
            "examples": {reason: list(self.examples[reason]) for reason in sorted(self.reasons)},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Ledger:
        """Build a ledger from what `to_dict` returned."""
        ledger = cls(values["stage"])
        ledger.n_offered = values["offered"]
        ledger.n_kept = values["kept"]
        ledger.reasons = dict(values["left_out"])
        ledger.examples = {reason: list(texts) for reason, texts in values["examples"].items()}
        return ledger

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ledger) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"Ledger({self.stage!r}, offered={self.n_offered}, kept={self.n_kept}, "
            f"left_out={self.reasons})"
        )


# --- shards ---------------------------------------------------------------------------------


class ShardFunction(Protocol):
    """A top-level function of one shard, the same result every time."""

    def __call__(self, shard: Any, /) -> Any:
        """Return a `pa.Table` or a value that pickles."""
        ...


class Keep(Protocol):
    """Where results of finished shards lie, such as `graphmert.kept.KeptResults`."""

    def read(self, index: int) -> tuple[bool, Any]:
        """Return (found, result) of a shard."""
        ...

    def write(self, index: int, result: Any) -> None:
        """Keep a shard's result."""
        ...


def map_shards(
    fn: ShardFunction,
    shards: Sequence[Any],
    *,
    n_workers: int = 1,
    keep: Keep | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Any]:
    """Apply a function to every shard, over processes when asked, and keep shard order.

    The caller fixes what is in each shard; the number of workers decides only where a shard
    is computed. With `keep` each result is written at once, and a later call reads those that
    are there and computes the rest.

    Args:
        fn: a top-level function (or a `functools.partial` of one); returns a `pa.Table` or a
            value that pickles.
        shards: the arguments, one call each.
        n_workers: processes; 1 computes in this one.
        keep: where results lie; None keeps them in memory only.
        on_progress: called in this process as on_progress(n_done, n_shards).

    Returns:
        The results, in shard order.

    Raises:
        CapabilityError: the disk is full, or a worker process was killed.
        GraphMERTError: whatever `fn` raises, unchanged.
    """
    results: dict[int, Any] = {}
    missing: list[int] = []
    for index in range(len(shards)):
        found, result = (False, None) if keep is None else keep.read(index)
        if found:
            results[index] = result
        else:
            missing.append(index)
    if on_progress is not None:
        on_progress(len(results), len(shards))

    for index, result in _compute(fn, shards, missing, n_workers, is_kept=keep is not None):
        if keep is not None:
            keep.write(index, result)
        results[index] = result
        if on_progress is not None:
            on_progress(len(results), len(shards))
    return [results[index] for index in range(len(shards))]


def _compute(
    fn: ShardFunction,
    shards: Sequence[Any],
    missing: Sequence[int],
    n_workers: int,
    *,
    is_kept: bool,
) -> Iterator[tuple[int, Any]]:
    """Yield (index, result) as they become ready."""
    if n_workers <= 1 or len(missing) <= 1:
        for index in missing:
            yield index, fn(shards[index])
        return
    # Spawned processes inherit no threads and no locks of this one.
    context = multiprocessing.get_context("spawn")
    n_workers = min(n_workers, len(missing))
    with ProcessPoolExecutor(n_workers, context, initializer=_die_on_interrupt) as pool:
        waiting: dict[Future[Any], int] = {}
        queue = iter(missing)
        try:
            while True:
                # Twice the workers in flight keeps them busy without holding every shard.
                while len(waiting) < 2 * n_workers and (index := next(queue, None)) is not None:
                    waiting[pool.submit(fn, shards[index])] = index
                if not waiting:
                    return
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=waiting.__getitem__):
                    index = waiting.pop(future)
                    yield index, future.result()
        except BrokenProcessPool as error:
            raise CapabilityError(
                "a worker process was killed",
                got=error,
                fix="If memory ran out, use fewer workers, then run again"
                + ("; finished shards are kept." if is_kept else "."),
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _die_on_interrupt() -> None:
    """Let Ctrl-C end a worker at once and without a traceback; the parent says what to do."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
