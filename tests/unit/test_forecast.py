"""Next-vector models: published sizes, folders, feeds, losses."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from graphmert.errors import CheckpointError, ConfigError, DataError
from graphmert.forecast import (
    FORECASTERS,
    Forecaster,
    WindowFeed,
    count_parameters,
    parameter_report,
    settings_of,
)
from graphmert.forecast.networks import sinusoids

SMALL: dict[str, dict[str, Any]] = {
    "amn": {"key_width": 4, "hidden": (6, 5)},
    "lstm": {"width": 6},
    "gru": {"width": 6, "n_layers": 2},
    "transformer": {"width": 6, "n_attn_heads": 2, "ffn_width": 8, "n_layers": 2},
    "lvm-768d": {"n_attn_heads": 2, "ffn_width": 10, "n_layers": 2},
}
DIM, LENGTH = 8, 5


def small(name: str, **changes: Any) -> Forecaster:
    torch.manual_seed(0)
    return Forecaster(settings_of(name, dim=DIM, **(SMALL[name] | changes)))


def contexts(n: int = 4, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, LENGTH, DIM, generator=torch.Generator().manual_seed(seed))


class ToyWindows:
    """Windows over random vectors; window i holds rows i to i + 5."""

    def __init__(self, n: int = 21) -> None:
        rng = np.random.default_rng(3)
        self.vectors = rng.standard_normal((n + LENGTH, DIM)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.vectors) - LENGTH

    def contexts(self, index: Any) -> np.ndarray:
        return self.vectors[np.asarray(index)[:, None] + np.arange(LENGTH)]

    def targets(self, index: Any) -> np.ndarray:
        return self.vectors[np.asarray(index) + LENGTH]


# --- sizes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "trained", "with_buffers"),
    [
        ("amn", 1_510_912, 1_510_912),
        ("lstm", 5_120_768, 5_120_768),
        ("gru", 7_095_552, 7_095_552),
        ("transformer", 17_867_520, 17_918_720),
        ("lvm-768d", 67_352_833, 67_352_833),
    ],
)
def test_published_parameter_counts(name: str, trained: int, with_buffers: int) -> None:
    report = parameter_report(name)
    assert (report["n_parameters"], report["n_with_buffers"]) == (trained, with_buffers)
    assert count_parameters(FORECASTERS[name]) == trained
    for part in [*report["parts"], *report["buffers"]]:
        sizes = (int(number) for number in re.findall(r"\d+", part["arithmetic"]))
        assert math.prod(sizes) == part["n"], part


def test_the_threshold_is_one_scalar() -> None:
    (part,) = [p for p in parameter_report("lvm-768d")["parts"] if p["name"].endswith(".p")]
    assert part["n"] == 1


@pytest.mark.parametrize("name", sorted(FORECASTERS))
def test_a_model_has_the_parameters_that_are_counted(name: str) -> None:
    model = small(name)
    assert sum(p.numel() for p in model.parameters()) == count_parameters(model.settings)


# --- predictions ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FORECASTERS))
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = small(name)
    raw = model(contexts())
    assert raw.shape == (4, DIM)
    (raw * contexts(seed=1)[:, 0]).sum().backward()
    lacking = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # with one target the keys of attention and of the softmax may cancel, biases of keys do
    assert [n for n in lacking if "key.bias" not in n and "query.bias" not in n] == []


@pytest.mark.parametrize("name", sorted(FORECASTERS))
def test_samples_do_not_touch_each_other(name: str) -> None:
    model, x = small(name).eval(), contexts()
    with torch.no_grad():
        together = model(x)
        for i in range(len(x)):
            torch.testing.assert_close(model(x[i : i + 1])[0], together[i])
        unit = model.predict(x).unit_BC
    torch.testing.assert_close(unit, together / together.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize("name", ["lstm", "gru", "transformer", "lvm-768d"])
def test_order_matters(name: str) -> None:
    model, x = small(name).eval(), contexts()
    for parameter in model.parameters():
        parameter.data = parameter.data * 3 + 0.1 * torch.randn(parameter.shape)
    with torch.no_grad():
        assert (model(x) - model(x.flip(1))).abs().max() > 1e-3


def test_lstm_is_pytorchs_layers_and_the_last_step() -> None:
    model = small("lstm").eval()
    states, _ = model.network.lstm(contexts())
    wanted = F.linear(states[:, -1], model.network.out.weight, model.network.out.bias)
    torch.testing.assert_close(model(contexts()), wanted)
    assert model.network.lstm.dropout == 0.2


def test_transformer_layers_are_causal() -> None:
    """The state of a step does not depend on later steps, through either attention."""
    network = small("transformer").eval().network
    seen: list[torch.Tensor] = []
    network.layers[-1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    x, y = contexts(), contexts()
    y[:, 3:] += 1.0
    with torch.no_grad():
        network(x), network(y)
    torch.testing.assert_close(seen[0][:, :3], seen[1][:, :3])
    assert (seen[0][:, 3:] - seen[1][:, 3:]).abs().min() > 0


def test_sinusoids_equal_the_formula() -> None:
    table = sinusoids(7, 6)
    for i in range(7):
        for k in range(3):
            angle = i / 10_000 ** (2 * k / 6)
            assert table[i, 2 * k].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[i, 2 * k + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_a_band_hides_far_roots() -> None:
    """With one layer, root 0 of a band of 1 sees roots 0 and 1 only."""
    model = small("lvm-768d", n_layers=1, decay="none", band=1).eval()
    core = model.network.core
    from graphmert.forecast.networks import vector_batch

    x, y = contexts(), contexts()
    y[:, 2:] += 1.0
    with torch.no_grad():
        left, right = core(vector_batch(x)), core(vector_batch(y))
    torch.testing.assert_close(left[:, 0], right[:, 0])
    assert (left[:, 1] - right[:, 1]).abs().max() > 1e-4


# --- loss and feed --------------------------------------------------------------------------


def test_losses_are_the_mean_squared_error_and_the_cosine() -> None:
    model, feed = small("amn"), WindowFeed(ToyWindows(), batch_size=6, seed=1)
    (batch,) = feed.batch(0)
    raw = model(batch.contexts_BWC)
    (error, n), (cosine, m) = (model.loss(batch)[name] for name in ("mse", "cosine"))
    assert float(n) == float(m) == batch.n_samples == batch.counts()["mse"]
    wanted = F.mse_loss(raw, batch.targets_BC)
    assert (error / n).item() == pytest.approx(wanted.item(), rel=1e-6)
    wanted = F.cosine_similarity(raw, batch.targets_BC).mean()
    assert (cosine / m).item() == pytest.approx(wanted.item(), rel=1e-6)
    assert error.requires_grad
    assert not cosine.requires_grad


@pytest.mark.parametrize("n_processes", [1, 2, 3])
def test_an_epoch_holds_every_window_once(n_processes: int) -> None:
    windows = ToyWindows()
    feed = WindowFeed(windows, batch_size=6, n_processes=n_processes, seed=1)
    assert feed.steps_per_epoch == 4
    targets, sizes = [], []
    for step in range(4):
        batches = feed.batch(step)
        assert len(batches) % n_processes == 0
        sizes.append(sum(batch.n_samples for batch in batches))
        targets += [batch.targets_BC for batch in batches]
    assert max(sizes) <= 6
    found = torch.cat(targets).numpy()
    order = np.argsort(found[:, 0])
    wanted = windows.vectors[LENGTH:]
    np.testing.assert_array_equal(found[order], wanted[np.argsort(wanted[:, 0])])


def test_processes_see_the_same_updates() -> None:
    one = WindowFeed(ToyWindows(), batch_size=6, n_processes=1, seed=1)
    two = WindowFeed(ToyWindows(), batch_size=6, n_processes=2, seed=1)
    for step in range(8):
        alone = one.batch(step)[0].targets_BC
        dealt = torch.cat([batch.targets_BC for batch in two.batch(step)])
        torch.testing.assert_close(alone, dealt, rtol=0, atol=0)


def test_a_vector_that_is_not_finite_is_named() -> None:
    windows = ToyWindows()
    windows.vectors[7, 2] = np.nan
    with pytest.raises(DataError, match=r"not finite \(window \d+\)"):
        for step in range(4):
            WindowFeed(windows, batch_size=6, seed=1).batch(step)


def test_no_window_is_an_error() -> None:
    with pytest.raises(DataError, match="there is no window"):
        WindowFeed(ToyWindows(0), batch_size=6, seed=1)


# --- settings and folders -------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FORECASTERS))
def test_a_saved_model_predicts_the_same(tmp_path: Path, name: str) -> None:
    model = small(name).eval()
    model.save(tmp_path)
    loaded = Forecaster.load(tmp_path)
    assert loaded.settings == model.settings
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(contexts()), model(contexts()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model folder"):
        Forecaster.load(tmp_path)
    small("amn").save(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-9])
    with pytest.raises(CheckpointError, match="damaged"):
        Forecaster.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(weights)
    (tmp_path / "config.json").write_text(json.dumps(record | {"format": "x"}))
    with pytest.raises(CheckpointError, match="another format"):
        Forecaster.load(tmp_path)
    record["network"]["dim"] = 9
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="damaged"):
        Forecaster.load(tmp_path)


def test_bad_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="did you mean gru"):
        settings_of("gruu")
    with pytest.raises(ConfigError, match="multiple of n_attn_heads"):
        settings_of("lvm-768d", n_attn_heads=7)


def test_a_narrow_lvm_projects_its_input() -> None:
    model = small("lvm-768d", width=4)
    assert isinstance(model.network.core.embed.vector, nn.Linear)
    assert model(contexts()).shape == (4, DIM)
