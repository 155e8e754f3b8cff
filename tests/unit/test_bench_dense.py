"""The dense baseline of the benchmarks computes the compact model's loss and gradients."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def _load(name: str) -> ModuleType:
    """Import a file of the benchmarks folder, which is no package."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


dense = _load("dense")
bench_train = _load("bench_train")


def _both(kernel: str, *, dtype: torch.dtype, **changes: object):
    size = bench_train.TINY
    model = bench_train.build_model(size, **changes).to(dtype).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    masked = bench_train.masked_chains(size, n_chains=3)
    compact = bench_train.compact_batch(masked)
    laid_out = dense.lay_out(masked, pad_id=0, config=model.config)
    baseline = dense.DenseGraphMERT(model, kernel=kernel, train_p=True)
    return model, compact, baseline, laid_out


def _gradients(model: torch.nn.Module, losses: dict) -> dict[str, torch.Tensor]:
    model.zero_grad()
    sum(total / count for total, count in losses.values()).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("kernel", "decay", "per_attn_head"),
    [
        ("eager", "log_bias", False),
        ("eager", "log_bias", True),
        ("eager", "weights", False),
        ("eager", "none", False),
        ("fused", "log_bias", False),
        ("fused", "log_bias", True),
    ],
)
def test_dense_equals_compact(kernel: str, decay: str, per_attn_head: bool) -> None:
    """Same losses, counts and gradients of every parameter in float64."""
    model, compact, baseline, laid_out = _both(
        kernel, dtype=torch.float64, decay=decay, decay_per_attn_head=per_attn_head
    )
    expected, got = model.loss(compact), baseline.loss(laid_out)
    assert got.keys() == expected.keys() == {"mlm", "leaf"}
    for name, (total, count) in expected.items():
        assert got[name][1] == count
        torch.testing.assert_close(got[name][0], total, rtol=1e-10, atol=1e-10)
    ours, theirs = _gradients(model, expected), _gradients(model, got)
    assert ours.keys() == theirs.keys() == dict(model.named_parameters()).keys()
    for name, grad in ours.items():
        torch.testing.assert_close(theirs[name], grad, rtol=1e-8, atol=1e-10, msg=name)


def test_bf16_is_close() -> None:
    """Both layouts under bf16 autocast agree with float32 to bf16 rounding."""
    model, compact, baseline, laid_out = _both("fused", dtype=torch.float32, decay="log_bias")
    exact = {name: float(total.detach()) for name, (total, _) in model.loss(compact).items()}
    with torch.autocast("cpu", torch.bfloat16):
        rounded = (model.loss(compact), baseline.loss(laid_out))
    for losses in rounded:
        for name, (total, _) in losses.items():
            assert float(total.detach()) == pytest.approx(exact[name], rel=0.02)


def test_dense_really_computes_pads() -> None:
    """All slots go through the layers and the vocabulary network."""
    model, _, baseline, laid_out = _both("eager", dtype=torch.float32, decay="log_bias")
    shapes = []
    model.vocab_head.register_forward_hook(lambda _m, _i, logits: shapes.append(logits.shape))
    baseline.loss(laid_out)
    size = bench_train.TINY
    n_nodes = size.n_root_slots * (1 + size.n_leaf_slots)
    assert shapes == [(3, n_nodes, size.model["vocab_size"])]
    assert not laid_out.real_BN.all()


def test_unsupported_forms_are_refused() -> None:
    model = bench_train.build_model(bench_train.TINY, leaf_visibility="isolated")
    with pytest.raises(ValueError, match="leaf_visibility"):
        dense.DenseGraphMERT(model, kernel="eager")


def test_inputs_follow_the_stated_statistics() -> None:
    """128 roots, 12 leaves, 140 live nodes, 19 + 12 masked positions; the same every time."""
    size = bench_train.PAPER
    masked = bench_train.masked_chains(size, n_chains=2)
    for item in masked:
        assert len(item.chain.roots) == 128
        assert item.chain.n_nodes == 140
        assert int((item.root_labels != -100).sum()) == 19
        assert sum(int((labels != -100).sum()) for labels in item.leaf_labels) == 12
    again = bench_train.masked_chains(size, n_chains=2)
    assert [item.chain for item in masked] == [item.chain for item in again]


def test_bench_writes_its_results(tmp_path: Path) -> None:
    """The whole benchmark at tiny size: every variant, ratio and FLOP count is in the file."""
    out = tmp_path / "bench.json"
    bench_train.main(["--tiny", "--batch", "2", "--repeats", "1", "--out", str(out)])
    result = json.loads(out.read_text(encoding="utf-8"))
    assert set(result["variants"]) == set(bench_train.VARIANTS)
    for row in result["variants"].values():
        assert row["sequences_per_s"] > 0
        assert row["peak_bytes"] is None or row["peak_bytes"] >= 0
        assert row["flops_per_sequence"] > 0
    assert {"dense_eager_fp32", "dense_fused_bf16"} <= set(result["ratios"]["speed"])
    assert result["two_passes"]["time_ratio"] > 0
    losses = [row["loss"] for row in result["variants"].values()]
    assert max(losses) == pytest.approx(min(losses), rel=0.02)
