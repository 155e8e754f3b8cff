"""What a trained encoder costs on this machine: milliseconds and memory."""

from __future__ import annotations

import resource
import time
from typing import Any

import torch

from graphmert.batch import collate
from graphmert.model import GraphMERT
from graphmert.run.code.prepared import CodePrepared
from graphmert.run.code.training import words_for

N_WARM = 2


@torch.no_grad()
def measure_cost(prepared: CodePrepared, model: GraphMERT, part: str) -> dict[str, Any]:
    """Median milliseconds of a chain, alone and in batches of 16, and peak memory.

    Forward passes before the clock starts warm up; the clock waits for the device.
    """
    model.eval()
    chains = sorted(prepared.chains[part], key=lambda chain: chain.n_nodes)
    middle = chains[len(chains) // 2 : len(chains) // 2 + 16]
    words, pad_id = words_for(prepared, model.config), prepared.tokenizer.pad_id

    def median_ms(size: int) -> float:
        batch = collate(middle[:size], relation_names=words, pad_id=pad_id).to(model.device)
        seconds = []
        for _ in range(N_WARM):
            model(batch)
        for _ in range(7):
            wait_for(model.device)
            started = time.perf_counter()
            model(batch)
            wait_for(model.device)
            seconds.append(time.perf_counter() - started)
        return 1000 * sorted(seconds)[3] / len(middle[:size])

    cost = {
        "median_nodes": int(middle[0].n_nodes),
        "ms_per_chain_alone": round(median_ms(1), 2),
        "ms_per_chain_in_16": round(median_ms(16), 2),
        "n_threads": torch.get_num_threads(),
        "device": str(model.device),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "n_parameters": sum(p.numel() for p in model.parameters()),
    }
    if model.device.type == "cuda":
        cost["peak_device_memory_mb"] = torch.cuda.max_memory_allocated(model.device) // 2**20
    return cost


def wait_for(device: torch.device) -> None:
    """Return when the device has done what it was given; the CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
