"""Training that is killed at any instant and started again writes the bytes of one that is not."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

import toy_training

N_STEPS = 30


@pytest.fixture(scope="module")
def context() -> multiprocessing.context.ForkServerContext:
    """Processes that start fast, so that a kill falls into training, not into imports."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["toy_training"])
    return made


def start(context: multiprocessing.context.ForkServerContext, out_dir: Path) -> BaseProcess:
    values = {
        "config": {
            "total_steps": N_STEPS,
            "eval_every": 4,
            "checkpoint_every": 3,
            "log_every": 2,
            "early_stopping_patience": 7,
        },
        "data": {"micro_batch_size": 3},
        "dropout": 0.2,
        "out_dir": str(out_dir),
    }
    process = context.Process(target=toy_training.main, args=(json.dumps(values),))
    process.start()
    return process


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("n_kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_training_ends_with_the_same_bytes(
    tmp_path: Path, context: multiprocessing.context.ForkServerContext, n_kills: int
) -> None:
    for name in ("warm-up", "whole"):
        started = time.perf_counter()
        process = start(context, tmp_path / name)
        process.join()
        assert process.exitcode == 0
    duration_s = time.perf_counter() - started
    expected = content(tmp_path / "whole")
    assert len(expected["training.jsonl"].splitlines()) == N_STEPS // 2 + N_STEPS // 4 + 1

    rng = np.random.default_rng(n_kills)
    n_killed, attempt, n_starts = 0, 0, 0
    while n_killed < n_kills:
        process = start(context, tmp_path / f"cut-{attempt}")
        n_starts += 1
        assert n_starts < 10 * n_kills
        process.join(timeout=rng.uniform(0.0, duration_s))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode == 0:
            assert content(tmp_path / f"cut-{attempt}") == expected
            attempt += 1
        else:
            n_killed += 1
    process = start(context, tmp_path / f"cut-{attempt}")
    process.join()
    assert process.exitcode == 0
    assert content(tmp_path / f"cut-{attempt}") == expected
