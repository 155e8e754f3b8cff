"""A run killed at any instant, given again, ends with the bytes of one that was not killed."""

from __future__ import annotations

import json
import multiprocessing
import signal
import sys
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_run
from graphmert.shards import TEMPORARY_MARK

Context = multiprocessing.context.ForkServerContext
# What changes files, and so what a kill may fall between.
FILE_EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"})


@pytest.fixture(scope="module")
def context() -> Context:
    """Processes that start fast, so that a kill falls into the stage, not into imports."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["tiny_run", "graphmert.cli", "graphmert.run.stages"])
    return made


def run_command(folder: str, stage: str, begun: Event, kill_at: int) -> None:
    """Give the command `graphmert run RUN.toml`; die before the file event `kill_at`, if any."""
    import os

    from graphmert import cli
    from graphmert.run.manifest import Manifest

    os.chdir(folder)
    os.dup2(os.open("log.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
    os.dup2(2, 1)
    run, seen, inside = Manifest.run, 0, False

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if not inside or event not in FILE_EVENTS:
            return
        if event == "open" and not _is_within(folder, arguments[0]):
            return
        seen += 1
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def told(self: Manifest, name: str, *rest: object) -> object:
        nonlocal inside
        if name == stage:
            inside = True
            begun.set()
        try:
            return run(self, name, *rest)  # type: ignore[arg-type]
        finally:
            if inside:
                inside = False
                Path("events.txt").write_text(str(seen))

    Manifest.run = told  # type: ignore[method-assign, assignment]
    sys.addaudithook(count)
    sys.argv = ["graphmert", "run", "RUN.toml"]
    cli.main()


def _is_within(folder: str, path: object) -> bool:
    """Whether an opened path lies in the folder, which is the working directory."""
    return not str(path).startswith("/") or str(path).startswith(folder)


def start(
    context: Context, folder: Path, stage: str, *, kill_at: int = 0
) -> tuple[BaseProcess, Event]:
    begun = context.Event()
    arguments = (str(folder), stage, begun, kill_at)
    process = context.Process(target=run_command, args=arguments)
    process.start()
    return process, begun


def finish(context: Context, folder: Path, stage: str) -> None:
    process, _ = start(context, folder, stage)
    process.join()
    assert process.exitcode == 0, (folder / "log.txt").read_text()


def assert_same(folder: Path, finished: Path) -> None:
    one, two = tiny_run.contents(folder / "run"), tiny_run.contents(finished / "run")
    # A process may have taken the number of a killed one; what that left is then kept.
    extra = {name for name in one if TEMPORARY_MARK in name}
    assert one.keys() - extra == two.keys()
    assert [name for name in two if one[name] != two[name]] == []


def copy_without(finished: Path, folder: Path, stage: str) -> Path:
    return tiny_run.rewind(tiny_run.copy(finished, folder), stage)


@pytest.mark.parametrize("n_kills", [1, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", tiny_run.STAGES)
def test_killed_between_two_changes_of_files(
    finished: Path, tmp_path: Path, context: Context, stage: str, n_kills: int
) -> None:
    """The instants where a kill can do harm: before a file is opened, renamed or removed."""
    whole = copy_without(finished, tmp_path / "whole", stage)
    finish(context, whole, stage)
    assert_same(whole, finished)
    n_events = int((whole / "events.txt").read_text())
    assert n_events > 5
    rng = np.random.default_rng([n_kills, tiny_run.STAGES.index(stage)])
    # The files that end a stage are written last: one kill always falls there.
    instants = [n_events - 2, *rng.integers(1, n_events + 1, size=n_kills).tolist()]
    folder = copy_without(finished, tmp_path / "killed", stage)
    n_killed = 0
    for instant in instants:
        process, _ = start(context, folder, stage, kill_at=int(instant))
        process.join()
        if process.exitcode == 0:  # fewer changes were left to make
            assert_same(folder, finished)
            tiny_run.rewind(folder, stage)
        else:
            assert process.exitcode == -signal.SIGKILL, (folder / "log.txt").read_text()
            n_killed += 1
    assert n_killed >= max(1, n_kills // 2)
    finish(context, folder, stage)
    assert_same(folder, finished)


def stage_record(folder: Path, stage: str, file: str) -> dict[str, Any]:
    """What a file of the run says of a stage, nothing if it is not done."""
    values = json.loads((folder / "run" / file).read_text(encoding="utf-8"))
    return values.get("stages", values).get(stage, {})


@pytest.mark.slow
@pytest.mark.parametrize("stage", tiny_run.STAGES)
def test_killed_at_any_time(finished: Path, tmp_path: Path, context: Context, stage: str) -> None:
    folder = copy_without(finished, tmp_path / "run", stage)
    finish(context, folder, stage)
    duration_s = stage_record(folder, stage, "timings.json")["seconds"]
    tiny_run.rewind(folder, stage)
    rng = np.random.default_rng(tiny_run.STAGES.index(stage))
    n_killed = n_starts = 0
    while n_killed < 20:
        n_starts += 1
        assert n_starts < 200
        process, begun = start(context, folder, stage)
        while not begun.wait(timeout=0.05) and process.is_alive():
            pass
        process.join(timeout=rng.uniform(0.0, duration_s))
        n_killed += process.is_alive() and not stage_record(folder, stage, "manifest.json")
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), (folder / "log.txt").read_text()
        if stage_record(folder, stage, "manifest.json"):
            finish(context, folder, stage)
            assert_same(folder, finished)
            tiny_run.rewind(folder, stage)
    finish(context, folder, stage)
    assert_same(folder, finished)
