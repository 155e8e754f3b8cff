from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pytest

import workers
from graphmert import shards
from graphmert.errors import CapabilityError, DataError, FormatError
from graphmert.kept import KeptResults, drop_kept
from graphmert.shards import Ledger

SHARDS = [[1, 2, 3], [4, 5, 6, 7], [], [8]]


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


# --- atomic files


def test_write_and_replace(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    shards.atomic_write_text(path, "one\r\n")
    assert path.read_bytes() == b"one\r\n"
    shards.atomic_write_text(path, "two 🧬")
    assert path.read_text(encoding="utf-8") == "two 🧬"
    assert list(files_in(path.parent)) == ["file.txt"]


def test_json_is_sorted_and_strict(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    shards.atomic_write_json(path, {"b": 1, "a": "é"})
    assert path.read_text(encoding="utf-8") == '{\n  "a": "é",\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        shards.atomic_write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8"))["b"] == 1


def test_usual_permissions(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    shards.atomic_write_bytes(tmp_path / "atomic", b"")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")}
    assert len(modes) == 1


def test_error_inside_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    shards.atomic_write_text(path, "old")
    with pytest.raises(KeyError), shards.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyError("stop")
    assert files_in(tmp_path) == {"file.txt": b"old"}


def raise_no_space(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("old", [None, b"old"], ids=["new-file", "replacing"])
def test_disk_full_while_writing_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bytes | None
) -> None:
    path = tmp_path / "file.bin"
    if old is not None:
        path.write_bytes(old)

    def write_half(self: Path, data: bytes) -> int:
        with self.open("wb") as stream:
            stream.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(CapabilityError, match="disk is full") as caught:
        shards.atomic_write_bytes(path, b"0123456789")
    monkeypatch.undo()
    assert caught.value.where == str(path)
    assert str(tmp_path) in str(caught.value.fix)
    assert files_in(tmp_path) == ({} if old is None else {"file.bin": old})


@pytest.mark.parametrize("call", ["mkdir", "open", "fsync", "replace"])
def test_disk_full_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    owner = Path if call in ("mkdir", "replace") else os
    monkeypatch.setattr(owner, call, raise_no_space)
    with pytest.raises(CapabilityError, match="disk is full"):
        shards.atomic_write_bytes(tmp_path / "file.bin", b"data")
    monkeypatch.undo()
    assert files_in(tmp_path) == {}


def test_disk_full_while_writing_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.parquet"

    def write_half(table: pa.Table, stream: IO[bytes], **options: object) -> None:
        stream.write(b"PAR1")
        raise OSError("Error writing bytes to file. Detail: No space left on device")

    monkeypatch.setattr(shards.pq, "write_table", write_half)
    with pytest.raises(CapabilityError, match="disk is full") as caught:
        shards.write_table(path, pa.table({"a": [1]}))
    assert caught.value.where == str(path)
    assert files_in(tmp_path) == {}


def test_a_really_full_disk(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(CapabilityError), shards.atomic_path(tmp_path / "file") as temporary:
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        temporary.write_bytes(b"data")
    assert list(tmp_path.iterdir()) == []


def test_other_os_errors_pass_unchanged(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileExistsError):
        shards.atomic_write_bytes(tmp_path / "file" / "below", b"")


def test_killed_writer_leaves_no_part(tmp_path: Path) -> None:
    target, ready = tmp_path / "file.bin", tmp_path / "ready"
    context = multiprocessing.get_context("spawn")
    writer = context.Process(target=workers.write_then_wait, args=(str(target), str(ready)))
    writer.start()
    for _ in range(600):
        if ready.exists():
            break
        time.sleep(0.05)
    assert ready.exists()
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    ready.unlink()
    assert not target.exists()
    assert all(shards.TEMPORARY_MARK in path.name for path in tmp_path.iterdir())
    shards.atomic_write_bytes(target, b"whole")
    assert files_in(tmp_path) == {"file.bin": b"whole"}


def test_living_writer_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with shards.atomic_path(path) as first:
        first.write_bytes(b"first")
        shards.atomic_write_bytes(path, b"second")
        assert path.read_bytes() == b"second"
    assert files_in(tmp_path) == {"file": b"first"}


# --- tables


def test_table_round_trip_and_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    shards.write_table(path, table)
    assert shards.read_table(path).equals(table)
    assert shards.read_table(path, ["b"]).column_names == ["b"]


def test_chunk_borders_leave_no_trace(tmp_path: Path) -> None:
    whole = pa.table({"a": list(range(10))})
    parts = pa.concat_tables([whole.slice(0, 3), whole.slice(3, 0), whole.slice(3)])
    shards.write_table(tmp_path / "whole", whole)
    shards.write_table(tmp_path / "parts", parts)
    assert shards.sha256_file(tmp_path / "whole") == shards.sha256_file(tmp_path / "parts")


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not found") as caught:
        shards.read_table(tmp_path / "none.parquet")
    assert caught.value.where == str(tmp_path / "none.parquet")


def test_missing_column(tmp_path: Path) -> None:
    shards.write_table(tmp_path / "t.parquet", pa.table({"a": [1]}))
    with pytest.raises(FormatError, match="lacks columns"):
        shards.read_table(tmp_path / "t.parquet", ["a", "z"])


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "flipped"])
def test_corrupt_parquet(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "t.parquet"
    shards.write_table(path, pa.table({"a": [f"row {i}" for i in range(1000)]}))
    data = bytearray(path.read_bytes())
    if damage == "empty":
        data = bytearray()
    elif damage == "text":
        data = bytearray(b"doc_id,text\n")
    elif damage == "truncated":
        data = data[:-100]
    else:
        for position in range(10, 400):
            data[position] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(FormatError, match="not readable Parquet") as caught:
        shards.read_table(path)
    assert caught.value.where == str(path)


def test_sha256_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert shards.sha256_file(tmp_path / "a") == known


# --- ledger


def test_ledger_counts_and_examples() -> None:
    ledger = Ledger("stage")
    ledger.offered(10)
    ledger.keep(2)
    for number in range(7):
        ledger.leave_out("too long", example=f"row {number}")
    ledger.leave_out("empty")
    ledger.leave_out("never", n=0, example="not shown")
    assert ledger.check() is ledger
    assert ledger.n_left_out == 8
    assert ledger.to_dict() == {
        "stage": "stage",
        "offered": 10,
        "kept": 2,
        "left_out": {"empty": 1, "too long": 7},
        "examples": {"empty": [], "too long": [f"row {number}" for number in range(5)]},
    }


@pytest.mark.parametrize("offered", [2, 4])
def test_unbalanced_ledger(offered: int) -> None:
    ledger = Ledger("stage")
    ledger.offered(offered)
    ledger.keep(2)
    ledger.leave_out("bad")
    with pytest.raises(DataError, match=f"2 kept \\+ 1 left out, expected {offered} offered"):
        ledger.check()


# --- map_shards


def kept(folder: Path, fingerprint: str = "f") -> KeptResults:
    return KeptResults(folder, "part", fingerprint)


def test_one_and_many_workers_give_equal_bytes(tmp_path: Path) -> None:
    for function in (workers.squares, workers.total):
        one = tmp_path / f"{function.__name__}-1"
        two = tmp_path / f"{function.__name__}-2"
        first = shards.map_shards(function, SHARDS, n_workers=1, keep=kept(one))
        second = shards.map_shards(function, SHARDS, n_workers=2, keep=kept(two))
        assert first == second
        assert files_in(one) == files_in(two)
        assert len(files_in(one)) == len(SHARDS)


def test_no_shards(tmp_path: Path) -> None:
    assert shards.map_shards(workers.squares, [], n_workers=2, keep=kept(tmp_path)) == []


def test_finished_shards_are_not_computed_again(tmp_path: Path) -> None:
    calls, out = tmp_path / "calls", tmp_path / "out"
    calls.mkdir()
    work = [(str(calls), value) for value in range(4)]

    def go(fingerprint: str) -> list[int]:
        return shards.map_shards(workers.counted, work, keep=kept(out, fingerprint))

    assert go("a") == [0, 1, 2, 3]
    assert len(list(calls.iterdir())) == 4
    assert go("a") == [0, 1, 2, 3]
    assert len(list(calls.iterdir())) == 4
    (out / "part-00002.kept").unlink()
    assert go("a") == [0, 1, 2, 3]
    assert len(list(calls.iterdir())) == 5
    assert go("b") == [0, 1, 2, 3]
    assert len(list(calls.iterdir())) == 9


def test_resumed_tables_equal_computed_ones(tmp_path: Path) -> None:
    computed = shards.map_shards(workers.squares, SHARDS, keep=kept(tmp_path))
    resumed = shards.map_shards(workers.squares, SHARDS, keep=kept(tmp_path))
    for one, two in zip(computed, resumed, strict=True):
        assert one.equals(two)
        assert one.schema.equals(two.schema, check_metadata=True)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_errors_come_through_whole(n_workers: int) -> None:
    with pytest.raises(FormatError) as caught:
        shards.map_shards(workers.bad_input, [1, 2, 3], n_workers=n_workers)
    assert str(caught.value) == "bad row (table.parquet): got 2, expected not two. F"


@pytest.mark.parametrize("is_kept", [False, True])
def test_killed_worker_is_named(tmp_path: Path, is_kept: bool) -> None:
    keep = kept(tmp_path) if is_kept else None
    with pytest.raises(CapabilityError, match="worker process was killed") as caught:
        shards.map_shards(workers.dies, [0, 1, 2, 3], n_workers=2, keep=keep)
    assert ("finished shards are kept" in str(caught.value)) == is_kept


def test_progress_is_told() -> None:
    seen: list[tuple[int, int]] = []
    shards.map_shards(workers.total, SHARDS, on_progress=lambda *pair: seen.append(pair))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("part", ["head", "value", "body"])
def test_damaged_shard_result(tmp_path: Path, part: str) -> None:
    shards.map_shards(workers.squares, [[1]], keep=kept(tmp_path))
    path = tmp_path / "part-00000.kept"
    data = path.read_bytes()
    damaged = {
        "head": data[:5],
        "value": data.replace(b'"table": 0', b'"table": 1'),
        "body": data[:-3] + b"abc",
    }
    path.write_bytes(damaged[part])
    with pytest.raises(FormatError, match="not readable"):
        shards.map_shards(workers.squares, [[1]], keep=kept(tmp_path))


@dataclass(frozen=True)
class Part:
    """A result of several pieces."""

    table: pa.Table
    keys: np.ndarray
    ledgers: tuple[Ledger, ...]
    words: dict[int, str]
    rest: list[Any]


def test_what_is_kept_comes_back_as_it_was(tmp_path: Path) -> None:
    ledger = Ledger("stage")
    ledger.offered(3)
    ledger.keep(1)
    ledger.leave_out("bad", 2, "an example")
    table = pa.table({"text": ["🌱", None], "rows": [[1, 2], []]})
    keys = np.array([2**64 - 1, 0], np.uint64)
    part = Part(table, keys, (ledger,), {2**63: "a\nb"}, [None, 0.1, True, ()])
    keep = KeptResults(tmp_path, "p", "f", records=(Part,))
    keep.write(3, part)
    found, back = keep.read(3)
    assert found
    assert back.table.equals(table)
    assert back.keys.dtype == np.uint64
    assert back.keys.tolist() == keys.tolist()
    assert (back.ledgers, back.words, back.rest) == (part.ledgers, part.words, part.rest)
    assert keep.read(2) == (False, None)
    assert KeptResults(tmp_path, "p", "other").read(3) == (False, None)
    with pytest.raises(TypeError, match="cannot be kept"):
        keep.write(0, {1, 2})
    drop_kept(tmp_path)
    assert not tmp_path.exists()
