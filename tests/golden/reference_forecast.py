"""AMN, the GRU stack and GraphMERT-LVM for one context, in float64 loops.

Written from the equations alone; imports nothing from the package. Weights are (out, in).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

Arrays = Mapping[str, np.ndarray]
Linear = tuple[np.ndarray, np.ndarray]


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return np.array([sum(w * v for w, v in zip(row, x, strict=True)) for row in weight]) + bias


def gelu(x: np.ndarray) -> np.ndarray:
    return np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x])


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    mean = sum(x) / len(x)
    variance = sum((x - mean) ** 2) / len(x)
    return (x - mean) / math.sqrt(variance + 1e-5) * weight + bias


def softmax(x: Sequence[float]) -> list[float]:
    top = max(x)
    exps = [math.exp(v - top) for v in x]
    return [e / sum(exps) for e in exps]


def amn(
    context_WC: np.ndarray, key: Linear, query: Linear, net: Sequence[tuple[Linear, Linear | None]]
) -> np.ndarray:
    """b + net([b ; sum_w a_w x_w]); net: linear maps, each but the last with GELU and a norm."""
    mean_C = sum(context_WC) / len(context_WC)
    q_K = linear(mean_C, *query)
    scores = [float(np.dot(linear(x_C, *key), q_K)) / math.sqrt(len(q_K)) for x_C in context_WC]
    mixed_C = sum(a * x_C for a, x_C in zip(softmax(scores), context_WC, strict=True))
    x = np.concatenate([mean_C, mixed_C])
    for dense, norm in net:
        x = linear(x, *dense)
        if norm is not None:
            x = layer_norm(gelu(x), *norm)
    return mean_C + x


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gru_cell(
    x: np.ndarray, h: np.ndarray, w_in: np.ndarray, w_h: np.ndarray, b_in: np.ndarray,
    b_h: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """r, z = sigma(...); n = tanh(W x + b + r (U h + c)); h' = (1 - z) n + z h."""
    d = len(h)
    from_x, from_h = linear(x, w_in, b_in), linear(h, w_h, b_h)
    r = sigmoid(from_x[:d] + from_h[:d])
    z = sigmoid(from_x[d : 2 * d] + from_h[d : 2 * d])
    n = np.tanh(from_x[2 * d :] + r * from_h[2 * d :])
    return (1 - z) * n + z * h


def gru_stack(
    context_WC: np.ndarray,
    into: Linear,
    layers: Sequence[tuple[tuple[np.ndarray, ...], Linear]],
    out: Linear,
) -> np.ndarray:
    """Layer by layer x = LN(x + gru(x)); the last step, projected."""
    x_WD = [linear(x_C, *into) for x_C in context_WC]
    for cell, norm in layers:
        h = np.zeros(len(x_WD[0]))
        y_WD = []
        for x in x_WD:
            h = gru_cell(x, h, *cell)
            y_WD.append(layer_norm(x + h, *norm))
        x_WD = y_WD
    return linear(x_WD[-1], *out)


def lvm(
    context_WC: np.ndarray,
    weights: Arrays,
    *,
    n_layers: int,
    n_heads: int,
    lam: float,
    band: int | None = None,
) -> np.ndarray:
    """Positions, post-LN layers with ln(lam) GELU(sqrt|i - j| - p) on the logits, mean, head."""
    n, d = context_WC.shape
    width = d // n_heads
    p = float(weights["p"])
    x_WD = [context_WC[i] + weights["position"][i] for i in range(n)]
    for layer in range(n_layers):
        w = {name: weights[f"{layer}.{name}"] for name in LVM_LAYER}
        q, k, v = (
            [linear(x, w[f"{part}.weight"], w[f"{part}.bias"]) for x in x_WD] for part in "qkv"
        )
        y_WD = []
        for i in range(n):
            mixed = np.zeros(d)
            for a in range(n_heads):
                part = slice(a * width, (a + 1) * width)
                logits = []
                for j in range(n):
                    bias = math.log(lam) * float(gelu(np.array([math.sqrt(abs(i - j)) - p]))[0])
                    score = float(np.dot(q[i][part], k[j][part])) / math.sqrt(width) + bias
                    hidden = band is not None and abs(i - j) > band
                    logits.append(-math.inf if hidden else score)
                for j, weight in enumerate(softmax(logits)):
                    mixed[part] += weight * v[j][part]
            mixed = linear(mixed, w["out.weight"], w["out.bias"])
            x = layer_norm(x_WD[i] + mixed, w["norm_1.weight"], w["norm_1.bias"])
            inner = gelu(linear(x, w["up.weight"], w["up.bias"]))
            inner = linear(inner, w["down.weight"], w["down.bias"])
            y_WD.append(layer_norm(x + inner, w["norm_2.weight"], w["norm_2.bias"]))
        x_WD = y_WD
    mean_D = sum(x_WD) / n
    first = gelu(linear(mean_D, weights["head_1.weight"], weights["head_1.bias"]))
    return linear(first, weights["head_2.weight"], weights["head_2.bias"])


LVM_LAYER = [
    f"{name}.{part}"
    for name in ("q", "k", "v", "out", "norm_1", "up", "down", "norm_2")
    for part in ("weight", "bias")
]
