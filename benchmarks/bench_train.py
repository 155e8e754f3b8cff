"""Time one training step of the compact model against two dense baselines, at the paper's size.

Usage: python benchmarks/bench_train.py [--batch 4] [--repeats 5] [--threads 2] [--out FILE]
       [--variants NAME ...] [--dropout 0.0] [--tiny]

What is measured, on what input and with what targets: benchmarks/README.md. Every variant is
timed in a process of its own, and its memory in another; `--tiny` runs all in this process, at
a toy size, for the test.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dense import DenseBatch, DenseGraphMERT, lay_out
from torch import Tensor, nn
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from graphmert.batch import ChainBatch, collate_masked
from graphmert.chain import LeafTriple, LeafyChain
from graphmert.masking import MaskedChain, MaskingConfig, MaskVocabulary, mask_chain
from graphmert.model import GraphMERT
from graphmert.presets import preset_config

SEED = 0
PAD_ID, MASK_ID, N_SPECIAL = 0, 4, 5
TARGETS = {"dense_eager_fp32": 20.0, "dense_fused_bf16": 6.0}
MEMORY_TARGET = 1 / 8
RESULTS = Path(__file__).parent / "results"
# One large allocation, one mapping: what is freed leaves the resident set at once.
MEMORY_ENV = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}


@dataclass(frozen=True)
class Size:
    """The network and the synthetic chains it is fed: every chain has the same counts."""

    n_root_slots: int
    n_leaf_slots: int
    n_triples: int
    tail_tokens: int
    head_tokens: int
    model: dict[str, Any] = field(default_factory=dict)


# 128 roots + 4 tails of 3 tokens = 140 live nodes of 1,024.
PAPER = Size(128, 7, n_triples=4, tail_tokens=3, head_tokens=2, model={"vocab_size": 30_522})
TINY = Size(
    16,
    3,
    n_triples=2,
    tail_tokens=2,
    head_tokens=2,
    model={
        "vocab_size": 97,
        "hidden_size": 32,
        "n_layers": 2,
        "n_attn_heads": 4,
        "ffn_size": 64,
        "n_root_slots": 16,
        "n_leaf_slots": 3,
        "n_relations": 5,
    },
)


@dataclass(frozen=True)
class Variant:
    """One way to compute the step."""

    layout: str
    precision: str
    kernel: str = ""


VARIANTS = {
    "compact_bf16": Variant("compact", "bf16"),
    "compact_fp32": Variant("compact", "fp32"),
    "dense_eager_fp32": Variant("dense", "fp32", "eager"),
    "dense_fused_bf16": Variant("dense", "bf16", "fused"),
    "dense_eager_bf16": Variant("dense", "bf16", "eager"),
}


def build_model(size: Size, **changes: Any) -> GraphMERT:
    """Form `paper` with decay log_bias and the objectives mlm and leaf, from random weights."""
    torch.manual_seed(SEED)
    fixed = {"decay": "log_bias", "objectives": ("mlm", "leaf"), "loss_form": "mean"}
    quiet = {"dropout": 0.0, "relation_dropout": 0.0}
    return GraphMERT(preset_config("paper", **(size.model | fixed | quiet | changes)))


def masked_chains(size: Size, *, n_chains: int) -> list[MaskedChain]:
    """Random chains: 15 % of the roots masked in spans, every tail masked whole."""
    rng = np.random.default_rng(SEED)
    config = preset_config("paper", **size.model)
    words = np.arange(N_SPECIAL, config.vocab_size)
    special = frozenset(range(N_SPECIAL))
    vocabulary = MaskVocabulary(MASK_ID, special, words, config.n_relations)
    rates = MaskingConfig(tail_rate=1.0, relation_rate=0.0, both_rate=0.0, entity_rate=0.0)
    masked = []
    for index in range(n_chains):
        starts = rng.choice(
            size.n_root_slots // size.head_tokens, size=size.n_triples, replace=False
        )
        triples = tuple(
            LeafTriple(
                relation=int(rng.integers(config.n_relations)),
                head_start=int(start) * size.head_tokens,
                head_end=(int(start) + 1) * size.head_tokens,
                tail=tuple(int(t) for t in rng.choice(words, size.tail_tokens)),
            )
            for start in starts
        )
        roots = tuple(int(t) for t in rng.choice(words, size.n_root_slots))
        # Dense layouts list triples by root; keep that order so that both sum alike.
        ordered = tuple(sorted(triples, key=lambda triple: triple.head_start))
        chain = LeafyChain(roots, ordered, f"chain {index}")
        masked.append(mask_chain(chain, rates, vocabulary, rng, isolated=False))
    return masked


def compact_batch(masked: Sequence[MaskedChain]) -> ChainBatch:
    """Live nodes only, with labels."""
    return collate_masked(masked, pad_id=PAD_ID)


class Bench:
    """A variant, ready to take training steps on one fixed batch."""

    def __init__(self, variant: Variant, size: Size, *, batch: int, dropout: float) -> None:
        model = build_model(size, dropout=dropout)
        masked = masked_chains(size, n_chains=batch)
        self.precision = variant.precision
        self.model = model.train()
        self.batch: ChainBatch | DenseBatch
        self.loss: Callable[[Any], dict[str, tuple[Tensor, Tensor]]]
        if variant.layout == "compact":
            self.batch, self.loss = compact_batch(masked), model.loss
        else:
            kernel = "fused" if variant.kernel == "fused" else "eager"
            self.batch = lay_out(masked, pad_id=PAD_ID, config=model.config)
            self.loss = DenseGraphMERT(model, kernel=kernel).train().loss
        self.parameters = list(model.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)

    def backward(self, batches: Sequence[Any]) -> float:
        """Forward and backward of each batch in turn; returns the summed loss."""
        value = 0.0
        for batch in batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
                losses = self.loss(batch)
            loss = sum((s / n for s, n in losses.values() if n > 0), torch.zeros(()))
            loss.backward()
            value += float(loss.detach())
        return value

    def step(self, batches: Sequence[Any] | None = None, *, keep_grads: bool = False) -> float:
        """One update: forward, backward, clip, AdamW."""
        self.optimizer.zero_grad(set_to_none=not keep_grads)
        value = self.backward([self.batch] if batches is None else batches)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        return value


def time_steps(
    step: Callable[[], object], *, repeats: int, warm_up: int, budget_s: float
) -> list[float]:
    """Seconds of each of at most `repeats` steps; fewer (but 2) once `budget_s` is spent."""
    for _ in range(warm_up):
        step()
    seconds: list[float] = []
    while len(seconds) < repeats and (len(seconds) < 2 or sum(seconds) < budget_s):
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    return seconds


def _attention_flops(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(q, k, v)


def _attention_backward_flops(grad: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad, q, k, v)


# torch's table has the fused kernels of GPUs only.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}


def count_flops(bench: Bench) -> tuple[float, int]:
    """Loss, and matrix-product FLOPs of one forward and backward pass."""
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        loss = bench.backward([bench.batch])
    return loss, int(counter.get_total_flops())


def measure_time(name: str, size: Size, args: argparse.Namespace) -> dict[str, Any]:
    """Loss, FLOPs and seconds a step of one variant."""
    bench = Bench(VARIANTS[name], size, batch=args.batch, dropout=args.dropout)
    loss, flops = count_flops(bench)
    cpu_s: list[float] = []

    def step() -> None:
        begun = time.process_time()
        bench.step()
        cpu_s.append(time.process_time() - begun)

    seconds = time_steps(step, repeats=args.repeats, warm_up=args.warm_up, budget_s=args.budget_s)
    update = time_steps(bench.optimizer.step, repeats=3, warm_up=1, budget_s=5)
    median_s = statistics.median(seconds)
    return {
        "precision": bench.precision,
        "batch": args.batch,
        "loss": loss,
        "step_s": seconds,
        "median_step_s": median_s,
        "median_cpu_s": statistics.median(cpu_s[args.warm_up :]),
        "adamw_s": statistics.median(update),
        "sequences_per_s": args.batch / median_s,
        "flops_per_sequence": flops // args.batch,
        "flops_per_s": flops / median_s,
    }


@contextlib.contextmanager
def peak_resident() -> Iterator[Callable[[], int]]:
    """Give a function that says by how many bytes the resident set rose above now, at most.

    Linux resets the high-water mark (VmHWM) when 5 is written to clear_refs.
    """
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status_bytes("VmRSS")
    yield lambda: _status_bytes("VmHWM") - before


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def measure_memory(name: str, size: Size, args: argparse.Namespace) -> dict[str, Any]:
    """Peak bytes of a step beyond parameters, gradients and optimiser state."""
    # A toy step first: libraries load their code and start their threads.
    Bench(VARIANTS[name], TINY, batch=2, dropout=0.0).step()
    bench = Bench(VARIANTS[name], size, batch=args.batch, dropout=args.dropout)
    for parameter in bench.parameters:
        parameter.grad = torch.full_like(parameter, 1e-9)
    bench.optimizer.step()
    with peak_resident() as peak_bytes:
        bench.step(keep_grads=True)
        return {"peak_bytes": peak_bytes(), "peak_batch": args.batch}


def only(batch: ChainBatch, objective: str) -> ChainBatch:
    """The batch with the labels of mlm or of leaf alone."""
    assert batch.labels is not None
    none = batch.labels.mlm_label_P[:0]
    other = "leaf" if objective == "mlm" else "mlm"
    dropped = {f"{other}_position_P": none, f"{other}_label_P": none}
    return replace(batch, labels=replace(batch.labels, **dropped))


def measure_passes(name: str, size: Size, args: argparse.Namespace) -> dict[str, Any]:
    """One pass for MLM and MNM together against one pass for each; one update either way."""
    bench = Bench(VARIANTS[name], size, batch=args.batch, dropout=args.dropout)
    assert isinstance(bench.batch, ChainBatch)
    parts = [only(bench.batch, "mlm"), only(bench.batch, "leaf")]
    bench.step()
    bench.step(parts)
    one: list[tuple[float, float]] = []
    two: list[tuple[float, float]] = []
    for _ in range(args.repeats):  # alternate, so that other load falls on both
        for batches, times in (([bench.batch], one), (parts, two)):
            begun = time.perf_counter(), time.process_time()
            bench.step(batches)
            times.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    (one_s, one_cpu_s), (two_s, two_cpu_s) = (
        (statistics.median(wall), statistics.median(cpu))
        for wall, cpu in (zip(*one, strict=True), zip(*two, strict=True))
    )
    return {
        "one_pass_s": one_s,
        "two_passes_s": two_s,
        "time_ratio": two_s / one_s,
        "cpu_time_ratio": two_cpu_s / one_cpu_s,
    }


TASKS = {"time": measure_time, "memory": measure_memory, "passes": measure_passes}


def in_subprocess(task: str, name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run one task of one variant in a fresh process."""
    words = [sys.executable, __file__, "--task", task, "--variants", name]
    for option in ("batch", "repeats", "warm_up", "threads", "dropout", "budget_s"):
        words += [f"--{option.replace('_', '-')}", str(getattr(args, option))]
    env = os.environ | (MEMORY_ENV if task == "memory" else {})
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=env)
    return json.loads(done.stdout)


def machine(args: argparse.Namespace) -> dict[str, Any]:
    """What the numbers were measured on."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        cpu = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), cpu)
        flags = next((x for x in lines if x.startswith("flags")), "").split()
        features = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags]
    else:
        features = []
    return {
        "cpu": cpu,
        "features": features,
        "n_cpus": os.cpu_count(),
        "n_threads": args.threads,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def ratios(variants: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Compact in its best precision against each dense variant."""
    compact = [row for name, row in variants.items() if name.startswith("compact")]
    dense = {name: row for name, row in variants.items() if name.startswith("dense")}
    if not compact:
        return {}
    best = max(compact, key=lambda row: row["sequences_per_s"])
    found: dict[str, dict[str, float]] = {
        "cpu_time": {n: row["median_cpu_s"] / best["median_cpu_s"] for n, row in dense.items()},
        "speed": {n: best["sequences_per_s"] / row["sequences_per_s"] for n, row in dense.items()},
        "flops": {
            n: row["flops_per_sequence"] / best["flops_per_sequence"] for n, row in dense.items()
        },
    }
    if best["peak_bytes"]:
        found["memory"] = {n: best["peak_bytes"] / row["peak_bytes"] for n, row in dense.items()}
    return found


def print_table(result: dict[str, Any]) -> None:
    """Every variant, then the ratios beside their targets."""
    head = ("variant", "seq/s", "s/step", "CPU s", "GFLOP/seq", "GFLOP/s", "peak MB", "loss")
    print("{:<18}{:>9}{:>9}{:>9}{:>11}{:>9}{:>9}{:>10}".format(*head))
    for name, row in result["variants"].items():
        peak = "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}"
        print(
            f"{name:<18}{row['sequences_per_s']:>9.3f}{row['median_step_s']:>9.3f}"
            f"{row['median_cpu_s']:>9.3f}{row['flops_per_sequence'] / 1e9:>11.2f}"
            f"{row['flops_per_s'] / 1e9:>9.1f}{peak:>9}{row['loss']:>10.5f}"
        )
    for name, ratio in result["ratios"].get("speed", {}).items():
        target = f"target >= {TARGETS[name]:g}" if name in TARGETS else "no target"
        flops = result["ratios"]["flops"][name]
        cpu = result["ratios"]["cpu_time"][name]
        print(
            f"speed, compact / {name}: {ratio:.1f} ({target}; CPU time ratio {cpu:.1f}, "
            f"FLOP ratio {flops:.1f})"
        )
    for name, ratio in result["ratios"].get("memory", {}).items():
        target = "target <= 0.125" if name == "dense_eager_fp32" else "no target"
        print(f"memory, compact / {name}: {ratio:.3f} ({target})")
    passes = result["two_passes"]
    print(
        f"two passes / one pass for MLM + MNM: {passes['time_ratio']:.2f} in time, "
        f"{passes['cpu_time_ratio']:.2f} in CPU time"
    )


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compact against dense training steps.")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--budget-s", type=float, default=120.0, help="a variant's timed steps")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=RESULTS / "bench_train.json")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    args = parse(words)
    size = TINY if args.tiny else PAPER
    if args.task:
        torch.set_num_threads(args.threads)
        print(json.dumps(TASKS[args.task](args.variants[0], size, args)))
        return
    load = [list(os.getloadavg())]
    variants: dict[str, dict[str, Any]] = {}
    for name in args.variants:
        if args.tiny:
            variants[name] = {**measure_time(name, size, args), "peak_bytes": None}
        else:
            variants[name] = in_subprocess("time", name, args)
            variants[name] |= in_subprocess("memory", name, args)
    if args.tiny:
        passes = measure_passes("compact_bf16", size, args)
    else:
        passes = in_subprocess("passes", "compact_bf16", args)
    load.append(list(os.getloadavg()))
    result = {
        "machine": machine(args),
        "size": asdict(size),
        "tiny": args.tiny,
        "dropout": args.dropout,
        "load_before_and_after": load,
        "targets": {"speed": TARGETS, "memory": {"dense_eager_fp32": MEMORY_TARGET}},
        "variants": variants,
        "ratios": ratios(variants),
        "two_passes": passes,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print_table(result)


if __name__ == "__main__":
    main()
