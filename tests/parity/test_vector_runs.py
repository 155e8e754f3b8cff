"""Two processes equal one, and a killed run of `vectors train` equals one that was not."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toy_vectors
from graphmert.domains.vectors.data import VectorData
from graphmert.domains.vectors.training import train_vectors

ROOT = Path(__file__).parents[2]
N_STEPS = 50
NETWORK = {"dropout": 0.0, "n_layers": 2, "n_attn_heads": 2, "ffn_width": 24}
SETTINGS: dict[str, Any] = {
    "epochs": N_STEPS / 7, "learning_rate": 0.003, "precision": "fp32", "device": "cpu",
    "n_threads": 1, "log_every": 1, "eval_batch_size": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_vectors.write_dataset(tmp_path_factory.mktemp("toy"))


def lines_of(run: Path) -> list[dict[str, Any]]:
    text = (run / "model" / "training.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def alone(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, eight windows an update."""
    out = tmp_path_factory.mktemp("alone") / "run"
    config = toy_vectors.small_training("lvm-768d", network=NETWORK, batch_size=8, **SETTINGS)
    train_vectors(VectorData.load(dataset), config, out=out, name="lvm-768d")
    return out


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def launch(options: list[str], dataset: Path, out: Path) -> subprocess.Popen[str]:
    """The command under torchrun, with four windows an update and process."""
    settings = SETTINGS | {f"network.{k}": v for k, v in NETWORK.items()} | {"batch_size": 4}
    settings["network.dim"] = toy_vectors.DIM
    words = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "graphmert.cli"]
    words += ["vectors", "train", "lvm-768d", "--data", str(dataset), "--out", str(out), "--json"]
    for key, value in settings.items():
        words += ["--set", f"{key}={value}"]
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def one_host() -> list[list[str]]:
    return [["--standalone", "--nproc-per-node", "2"]]


def two_hosts() -> list[list[str]]:
    """Two launchers that meet at an endpoint, as on two hosts."""
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-id", "toy"]
    rendezvous += ["--rdzv-endpoint", f"127.0.0.1:{free_port()}"]
    local = ["--local-addr", "127.0.0.1", "--nnodes", "2", "--nproc-per-node", "1"]
    return [[*local, *rendezvous]] * 2


@pytest.mark.parametrize("launchers", [one_host, two_hosts])
def test_two_processes_equal_one(
    tmp_path: Path, dataset: Path, alone: Path, launchers: Any
) -> None:
    started = [launch(options, dataset, tmp_path / "run") for options in launchers()]
    printed = []
    for process in started:
        output, messages = process.communicate(timeout=240)
        assert process.returncode == 0, messages
        printed.append(output)
    # the first process prints, and no other
    assert sum(bool(text.strip()) for text in printed) == 1
    summary = json.loads("".join(printed))
    assert summary["n_steps"] == N_STEPS
    one, two = lines_of(alone), lines_of(tmp_path / "run")
    assert len(one) == len(two) > N_STEPS
    for left, right in zip(one, two, strict=True):
        assert left["step"] == right["step"]
        if "metrics" in left:
            assert left["metrics"] == pytest.approx(right["metrics"], rel=1e-4)
        else:
            assert right["loss"] == pytest.approx(left["loss"], rel=1e-5)
            assert left["n_samples"] == right["n_samples"]
    assert two[-1]["metrics"]["valid_loss/mse"] < two[0]["losses"]["mse"]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["world_size"] == 2


# --- kill -9 --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def context() -> multiprocessing.context.ForkServerContext:
    """Processes that start fast, so that a kill falls into training, not into imports."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["toy_vectors"])
    return made


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "timings.json" and ".writing-" not in path.name
    }


def start(
    context: multiprocessing.context.ForkServerContext, dataset: Path, out: Path
) -> multiprocessing.process.BaseProcess:
    values = {
        "model": "lvm-768d",
        "data": str(dataset),
        "out": str(out),
        "config": {"epochs": 6.0, "checkpoint_every": 3, "schedule": "plateau", "warmup": 0.0,
                   "plateau_patience": 0, "learning_rate": 0.01},
    }  # fmt: skip
    process = context.Process(target=toy_vectors.main, args=(json.dumps(values),))
    process.start()
    return process


@pytest.mark.parametrize("n_kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_run_ends_with_the_same_bytes(
    tmp_path: Path,
    dataset: Path,
    context: multiprocessing.context.ForkServerContext,
    n_kills: int,
) -> None:
    for name in ("warm-up", "whole"):
        begun = time.perf_counter()
        process = start(context, dataset, tmp_path / name)
        process.join()
        assert process.exitcode == 0
    duration_s = time.perf_counter() - begun
    expected = content(tmp_path / "whole")
    assert {"manifest.json", "metrics.json", "model/model.safetensors"} <= set(expected)
    rng = np.random.default_rng(n_kills)
    n_killed = attempt = n_starts = 0
    while n_killed < n_kills:
        process = start(context, dataset, tmp_path / f"cut-{attempt}")
        n_starts += 1
        assert n_starts < 20 * n_kills
        process.join(timeout=rng.uniform(0.1, 0.9) * duration_s)
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode == 0:
            assert content(tmp_path / f"cut-{attempt}") == expected
            attempt += 1
        else:
            n_killed += 1
    process = start(context, dataset, tmp_path / f"cut-{attempt}")
    process.join()
    assert process.exitcode == 0
    assert content(tmp_path / f"cut-{attempt}") == expected
    rates = {line["lr"] for line in lines_of(tmp_path / "whole") if "lr" in line}
    assert len(rates) > 1, "the plateau must act, so that its state is resumed"
