"""Next-vector networks against float64 loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from golden import reference_forecast as reference
from graphmert.forecast import Forecaster, settings_of

TOLERANCE = {"rtol": 1e-9, "atol": 1e-10}
DIM, LENGTH = 8, 5


def drawn(name: str, **changes: object) -> Forecaster:
    """A network in float64 whose every parameter is drawn anew."""
    model = Forecaster(settings_of(name, dim=DIM, **changes)).double().eval()
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = 0.6 * noise + (1.0 if parameter.ndim == 1 else 0.0)
    return model


def contexts(n: int = 3) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((n, LENGTH, DIM))


def arrays(module: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    assert isinstance(module.weight, torch.Tensor)
    assert isinstance(module.bias, torch.Tensor)
    return module.weight.detach().numpy(), module.bias.detach().numpy()


def check(model: Forecaster, wanted: list[np.ndarray]) -> None:
    with torch.no_grad():
        found = model.predict(torch.from_numpy(contexts()))
    np.testing.assert_allclose(found.raw_BC.numpy(), np.stack(wanted), **TOLERANCE)
    unit = np.stack([one / np.linalg.norm(one) for one in wanted])
    np.testing.assert_allclose(found.unit_BC.numpy(), unit, rtol=0, atol=1e-6)


def test_amn_equals_the_loops() -> None:
    model = drawn("amn", key_width=4, hidden=(6, 5))
    net = model.network.residual
    maps = [(arrays(net[0]), arrays(net[2])), (arrays(net[3]), arrays(net[5]))]
    maps.append((arrays(net[6]), None))
    key, query = arrays(model.network.key), arrays(model.network.query)
    check(model, [reference.amn(one, key, query, maps) for one in contexts()])


def test_amn_cannot_see_order() -> None:
    model = drawn("amn", key_width=4, hidden=(6, 5))
    x = torch.from_numpy(contexts())
    with torch.no_grad():
        torch.testing.assert_close(model(x), model(x.flip(1)))
        assert (model(x) - model(x.roll(1, 0))).abs().max() > 1e-3


def test_gru_stack_equals_the_loops() -> None:
    model = drawn("gru", width=6, n_layers=2)
    layers = []
    for gru, norm in zip(model.network.grus, model.network.norms, strict=True):
        cell = tuple(
            getattr(gru, f"{name}_l0").detach().numpy()
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        layers.append((cell, arrays(norm)))
    into, out = arrays(model.network.into), arrays(model.network.out)
    check(model, [reference.gru_stack(one, into, layers, out) for one in contexts()])


def lvm_weights(model: Forecaster) -> dict[str, np.ndarray]:
    core, head = model.network.core, model.network.head
    found = {
        "position": core.embed.position.weight.detach().numpy(),
        "p": np.float64(core.encoder.p.item() if core.encoder.p is not None else 0.0),
    }
    for i, layer in enumerate(core.encoder.layers):
        weight, bias = arrays(layer.qkv)
        for part, name in enumerate("qkv"):
            rows = slice(part * DIM, (part + 1) * DIM)
            found[f"{i}.{name}.weight"], found[f"{i}.{name}.bias"] = weight[rows], bias[rows]
        names = {"out": "out", "attn_norm": "norm_1", "up": "up", "down": "down"}
        for ours, theirs in (names | {"ffn_norm": "norm_2"}).items():
            found[f"{i}.{theirs}.weight"], found[f"{i}.{theirs}.bias"] = arrays(
                getattr(layer, ours)
            )
    for place, name in ((0, "head_1"), (3, "head_2")):
        found[f"{name}.weight"], found[f"{name}.bias"] = arrays(head[place])
    return found


@pytest.mark.parametrize("band", [None, 2])
def test_lvm_equals_the_loops(band: int | None) -> None:
    decay = "log_bias" if band is None else "none"
    model = drawn("lvm-768d", n_layers=2, n_attn_heads=2, ffn_width=10, band=band, decay=decay)
    weights = lvm_weights(model)
    lam = 0.6 if band is None else 1.0
    wanted = [
        reference.lvm(one, weights, n_layers=2, n_heads=2, lam=lam, band=band) for one in contexts()
    ]
    check(model, wanted)


def test_the_threshold_of_the_decay_has_a_gradient() -> None:
    """The analytic gradient of p equals a difference quotient of the loops."""
    model = drawn("lvm-768d", n_layers=2, n_attn_heads=2, ffn_width=10)
    p = model.network.core.encoder.p
    assert p.numel() == 1
    model(torch.from_numpy(contexts())).square().sum().backward()
    weights, step = lvm_weights(model), 1e-5

    def total(value: float) -> float:
        one = weights | {"p": np.float64(value)}
        outputs = [reference.lvm(x, one, n_layers=2, n_heads=2, lam=0.6) for x in contexts()]
        return float(sum((y**2).sum() for y in outputs))

    slope = (total(p.item() + step) - total(p.item() - step)) / (2 * step)
    assert abs(slope) > 1e-2
    assert p.grad.item() == pytest.approx(slope, rel=1e-5)
