"""Attention with the decay f = lambda ** GELU(sqrt(distance) - p), in float64 loops.

Written from the equations alone; imports nothing from the package.
"""

from __future__ import annotations

import math

import numpy as np

FORMS = ("log_bias", "weights", "logits")


def gelu(x: float) -> float:
    """Exact GELU: x times the normal distribution function of x."""
    return 0.5 * x * (1.0 + math.erf(x / math.sqrt(2.0)))


def gelu_array(x: np.ndarray) -> np.ndarray:
    """Exact GELU of every element."""
    return np.array([gelu(float(v)) for v in x.reshape(-1)]).reshape(x.shape)


def factor(distance: float, *, lam: float, p: float) -> float:
    """f of one pair at `distance` hops."""
    return lam ** gelu(math.sqrt(distance) - p)


def softplus(x: float, *, threshold: float = 1.0) -> float:
    """ln(1 + e^x), and x itself above the threshold."""
    return x if x > threshold else math.log1p(math.exp(x))


def softmax(row: np.ndarray) -> np.ndarray:
    """Softmax of one row; minus infinity gives weight zero."""
    finite = [float(v) for v in row if v != -math.inf]
    if not finite:
        return np.zeros(len(row))
    top = max(finite)
    exps = [0.0 if v == -math.inf else math.exp(float(v) - top) for v in row]
    return np.array(exps) / math.fsum(exps)


def attention_weights(
    scores_NN: np.ndarray,
    distance_NN: np.ndarray,
    *,
    form: str,
    lam: float,
    p: float,
    allowed_NN: np.ndarray | None = None,
    offset: float = 0.0,
    bias_NN: np.ndarray | None = None,
) -> np.ndarray:
    """Return the (N, N) weights of one attention head.

    `allowed_NN[i, j]` False: query i does not see key j (padding, visibility, graph token).
    `offset` is added to every distance (1 in the reference form), `bias_NN` to every logit.
    """
    n = scores_NN.shape[0]
    out = np.zeros((n, n))
    for i in range(n):
        row = np.full(n, -math.inf)
        f = np.ones(n)
        for j in range(n):
            if allowed_NN is not None and not allowed_NN[i, j]:
                continue
            f[j] = factor(float(distance_NN[i, j]) + offset, lam=lam, p=p)
            s = float(scores_NN[i, j])
            if form == "log_bias":
                row[j] = s + math.log(f[j])
            elif form == "logits":
                row[j] = s * f[j]
            elif form == "weights":
                row[j] = s
            else:
                raise ValueError(form)
            if bias_NN is not None:
                row[j] += float(bias_NN[i, j])
        weights = softmax(row)
        out[i] = weights * f if form == "weights" else weights
    return out


def allowed_keys(padding_N: np.ndarray, *, graph_token: bool = False) -> np.ndarray:
    """(N, N) table of what may be seen: real keys only; node 0 as graph token only by itself."""
    n = len(padding_N)
    allowed = np.zeros((n, n), dtype=bool)
    for i in range(n):
        for j in range(n):
            allowed[i, j] = bool(padding_N[j]) and not (graph_token and j == 0 and i != 0)
    return allowed


def allowed_isolated(triple_of_N: np.ndarray, padding_N: np.ndarray) -> np.ndarray:
    """Isolated visibility: roots (-1) see roots, a leaf sees roots and its own triple."""
    n = len(triple_of_N)
    allowed = np.zeros((n, n), dtype=bool)
    for i in range(n):
        for j in range(n):
            same = triple_of_N[j] == triple_of_N[i]
            allowed[i, j] = bool(padding_N[j]) and (triple_of_N[j] < 0 or same)
    return allowed


def with_graph_token(distance_NN: np.ndarray, virtual_N: np.ndarray) -> np.ndarray:
    """Prepend the graph token: softplus(virtual) to every node, 0 to itself.

    Its column is never read (nobody else sees it); it is filled with zeros.
    """
    n = distance_NN.shape[0]
    out = np.zeros((n + 1, n + 1))
    out[1:, 1:] = distance_NN
    for j in range(n):
        out[0, j + 1] = softplus(float(virtual_N[j]))
    return out


def attention(
    q_ANK: np.ndarray,
    k_ANK: np.ndarray,
    v_ANK: np.ndarray,
    distance_NN: np.ndarray,
    *,
    form: str,
    lam: float,
    p_A: np.ndarray,
    allowed_NN: np.ndarray | None = None,
    offset: float = 0.0,
    bias_ANN: np.ndarray | None = None,
) -> np.ndarray:
    """Return (A, N, K): every head's weights applied to its values; q scaled by K ** -0.5."""
    n_heads, n, width = q_ANK.shape
    out = np.zeros((n_heads, n, width))
    for a in range(n_heads):
        scores = np.zeros((n, n))
        for i in range(n):
            for j in range(n):
                scores[i, j] = float(np.dot(q_ANK[a, i] * width**-0.5, k_ANK[a, j]))
        weights = attention_weights(
            scores,
            distance_NN,
            form=form,
            lam=lam,
            p=float(p_A[a]),
            allowed_NN=allowed_NN,
            offset=offset,
            bias_NN=None if bias_ANN is None else bias_ANN[a],
        )
        for i in range(n):
            for j in range(n):
                out[a, i] += weights[i, j] * v_ANK[a, j]
    return out
