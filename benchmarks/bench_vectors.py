"""Windows per second of GraphMERT-LVM in training: our loop against a plain one, in turn.

    python benchmarks/bench_vectors.py --data DATASET [--steps 40] [--rounds 3] [--threads 2]

Both train the same network (the weights are copied and the outputs compared first) on the same
windows, with the same batch, loss, clipping and optimiser. The plain loop is what one writes
first: PyTorch's own attention module, fp32, the mask made anew in every layer, AdamW as it comes.
Ours is `graphmert.train.train` in bf16 and in fp32. Each loop runs in a process of its own; rounds
alternate, so that other load falls on all. The result is a JSON file.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphmert.domains.vectors.data import VectorData, Windows
from graphmert.forecast import Forecaster, LVMSettings, WindowFeed
from graphmert.processes import keep_freed_memory
from graphmert.recipe import TrainConfig
from graphmert.train import train

RESULTS = Path(__file__).parent / "results"
BATCH, RATE, CLIP, DECAY = 32, 1e-4, 1.0, 0.01
TARGET = 2.0
WARM_STEPS = 2  # whose memory is new to the process
LOOPS = ("plain_fp32", "ours_bf16", "ours_fp32")


class PlainLayer(nn.Module):
    """A post-LN layer of PyTorch's modules; the decay is made anew in every call."""

    def __init__(self, s: LVMSettings) -> None:
        super().__init__()
        width, drop = s.encoder_width, s.dropout
        self.attention = nn.MultiheadAttention(
            width, s.n_attn_heads, dropout=drop, batch_first=True
        )
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(drop)
        self.ffn = nn.Sequential(
            nn.Linear(width, s.ffn_width), nn.GELU(), nn.Linear(s.ffn_width, width)
        )
        self.decay_base = s.decay_base

    def forward(self, x: Tensor, p: Tensor) -> Tensor:
        place = torch.arange(x.shape[1], device=x.device)
        distance = (place[:, None] - place[None, :]).abs().float()
        mask = math.log(self.decay_base) * F.gelu(distance.sqrt() - p)
        mixed, _ = self.attention(x, x, x, attn_mask=mask, need_weights=False)
        x = self.norm1(x + self.dropout(mixed))
        return self.norm2(x + self.ffn(x))


class PlainLVM(nn.Module):
    """GraphMERT-LVM as one writes it first."""

    def __init__(self, s: LVMSettings) -> None:
        super().__init__()
        width = s.encoder_width
        self.position = nn.Parameter(torch.zeros(1, s.length, width))
        self.p = nn.Parameter(torch.ones(()))
        self.layers = nn.ModuleList(PlainLayer(s) for _ in range(s.n_layers))
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Dropout(s.dropout), nn.Linear(width, s.dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.position
        for layer in self.layers:
            x = layer(x, self.p)
        return self.head(x.mean(1))


def plain_copy(model: Forecaster) -> PlainLVM:
    """The plain network with the weights of ours."""
    assert isinstance(model.settings, LVMSettings)
    plain = PlainLVM(model.settings)
    state = {
        name.removeprefix("network."): tensor.clone() for name, tensor in model.state_dict().items()
    }
    core, renamed = "core.encoder.layers", {}
    for i in range(model.settings.n_layers):
        ours = f"{core}.{i}"
        for part in ("weight", "bias"):
            renamed[f"layers.{i}.attention.in_proj_{part}"] = state[f"{ours}.qkv.{part}"]
            for mine, theirs in (
                ("out", "attention.out_proj"), ("attn_norm", "norm1"), ("ffn_norm", "norm2"),
                ("up", "ffn.0"), ("down", "ffn.2"),
            ):  # fmt: skip
                renamed[f"layers.{i}.{theirs}.{part}"] = state[f"{ours}.{mine}.{part}"]
    renamed["position"] = state["core.embed.position.weight"][None]
    renamed["p"] = state["core.encoder.p"].reshape(())
    renamed |= {name: tensor for name, tensor in state.items() if name.startswith("head.")}
    plain.load_state_dict(renamed)
    return plain


def largest_difference(windows: Windows) -> float:
    """Between the outputs of both networks with equal weights, in fp32 and evaluation."""
    torch.manual_seed(0)
    model = Forecaster(LVMSettings(dim=windows.dim, length=windows.length)).eval()
    plain = plain_copy(model).eval()
    x = torch.from_numpy(windows.contexts(slice(0, BATCH)))
    with torch.no_grad():
        return float((model(x) - plain(x)).abs().max())


def plain_loop(windows: Windows, *, n_steps: int) -> dict[str, Any]:
    """Seconds a step and the last loss of the plain loop."""
    torch.manual_seed(0)
    settings = LVMSettings(dim=windows.dim, length=windows.length)
    model = plain_copy(Forecaster(settings)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    feed = WindowFeed(windows, batch_size=BATCH, seed=0)
    seconds, n_samples, losses, cpu_s = [], [], [], []
    for step in range(n_steps):
        begun = time.perf_counter()
        (batch,) = feed.batch(step)
        optimizer.zero_grad()
        predicted = model(batch.contexts_BWC)
        loss = F.mse_loss(predicted, batch.targets_BC)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        losses.append(loss.item())
        F.cosine_similarity(predicted, batch.targets_BC).mean().item()
        seconds.append(time.perf_counter() - begun)
        n_samples.append(batch.n_samples)
        cpu_s.append(time.process_time())
    return _row(seconds, n_samples, losses, cpu_s)


def our_loop(windows: Windows, *, n_steps: int, precision: str, threads: int) -> dict[str, Any]:
    """The same of the training loop of the package."""
    keep_freed_memory()  # as `vectors train` and `vectors bench` do
    torch.manual_seed(0)
    model = Forecaster(LVMSettings(dim=windows.dim, length=windows.length))
    config = TrainConfig.model_validate(
        {
            "total_steps": n_steps,
            "batch_size": BATCH,
            "learning_rate": RATE,
            "min_learning_rate": RATE,
            "warmup_steps": 0,
            "weight_decay": DECAY,
            "clip_norm": CLIP,
            "precision": precision,
            "weights": {"mse": 1.0, "cosine": 0.0},
            "log_every": 1,
            "checkpoint_every": 10**9,
            "device": "cpu",
            "n_threads": threads,
        }
    )
    ends: list[float] = []
    cpu_s: list[float] = []
    sizes: list[int] = []
    losses: list[float] = []
    starts: list[float] = []
    model.on_step = lambda step, total: starts.append(time.perf_counter())

    def note(step: int, total: int, line: Any) -> None:
        ends.append(time.perf_counter())
        cpu_s.append(time.process_time())
        sizes.append(line["n_samples"])
        losses.append(line["losses"]["mse"])

    with tempfile.TemporaryDirectory() as folder:
        train(
            model, WindowFeed(windows, batch_size=BATCH, seed=0), config=config, out_dir=folder,
            on_progress=note,
        )  # fmt: skip
    seconds = [end - start for start, end in zip(starts, ends, strict=True)]
    return _row(seconds, sizes, losses, cpu_s)


def _row(
    seconds: list[float], sizes: list[int], losses: list[float], cpu_s: list[float]
) -> dict[str, Any]:
    warm = WARM_STEPS
    return {
        "samples_per_cpu_s": sum(sizes[warm:]) / (cpu_s[-1] - cpu_s[warm - 1]),
        "samples_per_s": sum(sizes[warm:]) / sum(seconds[warm:]),
        "median_step_s": statistics.median(seconds[warm:]),
        "n_steps": len(seconds) - warm,
        "last_losses": statistics.mean(losses[-5:]),
    }


def machine(threads: int) -> dict[str, Any]:
    """What the numbers were measured on."""
    info, lines = Path("/proc/cpuinfo"), []
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
    names = [x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")]
    flags = next((x for x in lines if x.startswith("flags")), "").split()
    return {
        "cpu": names[0] if names else platform.processor(),
        "features": [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags],
        "n_cpus": os.cpu_count(),
        "n_threads": threads,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def run_loop(name: str, windows: Windows, options: argparse.Namespace) -> dict[str, Any]:
    """One loop in this process."""
    torch.set_num_threads(options.threads)
    if name == "plain_fp32":
        return plain_loop(windows, n_steps=options.steps)
    precision = name.removeprefix("ours_")
    return our_loop(windows, n_steps=options.steps, precision=precision, threads=options.threads)


def in_subprocess(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One loop in a fresh process."""
    words = [sys.executable, __file__, "--loop", name]
    for option in ("data", "size", "steps", "threads"):
        words += [f"--{option}", str(getattr(options, option))]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=RESULTS / "bench_vectors.json")
    parser.add_argument("--loop", choices=LOOPS, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    options = parse(words)
    data = VectorData.load(options.data, verify=False)
    windows = data.windows("train", size=options.size)
    if options.loop:
        print(json.dumps(run_loop(options.loop, windows, options)))
        return
    loops: dict[str, list[dict[str, Any]]] = {name: [] for name in LOOPS}
    load = [list(os.getloadavg())]
    for _ in range(options.rounds):
        for name in LOOPS:
            loops[name].append(in_subprocess(name, options))
    load.append(list(os.getloadavg()))
    measures = {}
    for measure in ("samples_per_s", "samples_per_cpu_s"):
        medians = {
            name: statistics.median(row[measure] for row in rows) for name, rows in loops.items()
        }
        measures[measure] = medians | {
            f"{name}_over_plain": medians[name] / medians["plain_fp32"] for name in LOOPS[1:]
        }
    result = {
        "machine": machine(options.threads),
        "batch": BATCH,
        "n_windows": len(windows),
        "fingerprint": data.fingerprint("train", options.size),
        "largest_difference_of_outputs": largest_difference(windows),
        "load_before_and_after": load,
        "target": TARGET,
        "loops": loops,
        **measures,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(measures, indent=2))


if __name__ == "__main__":
    main()
