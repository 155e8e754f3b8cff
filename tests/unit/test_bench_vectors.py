"""The plain loop of the benchmark trains the same network as ours."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from graphmert.forecast import Forecaster, settings_of

PATH = Path(__file__).parents[2] / "benchmarks" / "bench_vectors.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_vectors", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_vectors"] = module
    spec.loader.exec_module(module)
    return module


def test_the_plain_network_is_ours(bench: ModuleType) -> None:
    torch.manual_seed(1)
    model = Forecaster(
        settings_of("lvm-768d", dim=8, n_layers=3, n_attn_heads=2, ffn_width=12, dropout=0.0)
    )
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape)
    plain = bench.plain_copy(model)
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in model.parameters())
    x = torch.randn(4, 5, 8)
    left, right = model(x), plain(x)
    torch.testing.assert_close(left, right)
    left.square().sum().backward()
    right.square().sum().backward()
    ours = model.network.core.encoder
    torch.testing.assert_close(ours.p.grad.reshape(()), plain.p.grad)
    torch.testing.assert_close(
        ours.layers[1].qkv.weight.grad, plain.layers[1].attention.in_proj_weight.grad
    )
