"""Functions that tests send to worker processes: top-level, so that they can be named there."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from graphmert.errors import FormatError
from graphmert.shards import Ledger, atomic_path


def squares(shard: list[int]) -> pa.Table:
    return pa.table({"value": shard, "square": [value * value for value in shard]})


def total(shard: list[int]) -> dict[str, Any]:
    ledger = Ledger("total")
    ledger.offered(len(shard))
    for value in shard:
        if value % 3 == 0:
            ledger.leave_out("multiple of three", example=str(value))
        else:
            ledger.keep()
    return {"sum": sum(shard), "ledger": ledger.to_dict()}


def counted(shard: tuple[str, int]) -> int:
    """Leave one file for every call, so that a test can count calls over processes."""
    folder, value = shard
    (Path(folder) / f"call-{value}-{time.monotonic_ns()}").touch()
    return value


def bad_input(shard: int) -> int:
    if shard == 2:
        raise FormatError("bad row", where="table.parquet", got=shard, expected="not two", fix="F")
    return shard


def dies(shard: int) -> int:
    if shard == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return shard


def write_then_wait(target: str, ready: str) -> None:
    """Write half of a file, say so, and wait to be killed."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        Path(ready).touch()
        time.sleep(60)
