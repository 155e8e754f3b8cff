"""Hierarchical graph attention over head tokens, one triple and one tail token at a time.

    e_ij = LeakyReLU(a_r . [W_r t_i | W_r h_j]);  alpha_ij = softmax_j(e_ij)
    t_i' = t_i + sum_j alpha_ij W_r h_j

Written from the equations alone; imports nothing from the package.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from golden.reference_decay import softmax

HeadTail = tuple[int, Sequence[int], Sequence[int]]  # (relation, head nodes, leaf nodes)


def leaky_relu(x: float, *, slope: float = 0.01) -> float:
    """x where positive, slope times x elsewhere."""
    return x if x > 0 else slope * x


def deinterleave(a_2D: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split an interleaved a_r: elements 2c for W_r t, elements 2c + 1 for W_r h."""
    d = len(a_2D) // 2
    return (
        np.array([a_2D[2 * c] for c in range(d)]),
        np.array([a_2D[2 * c + 1] for c in range(d)]),
    )


def attention_over_heads(
    tail_D: np.ndarray,
    heads_MD: np.ndarray,
    *,
    matrix_DD: np.ndarray,
    a_tail_D: np.ndarray,
    a_head_D: np.ndarray,
    slope: float = 0.01,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (weights over the head tokens, the message added to the tail token)."""
    wt = matrix_DD @ tail_D
    energies = np.zeros(len(heads_MD))
    for j, head in enumerate(heads_MD):
        wh = matrix_DD @ head
        energies[j] = leaky_relu(float(a_tail_D @ wt + a_head_D @ wh), slope=slope)
    alpha = softmax(energies)
    message = np.zeros_like(tail_D, dtype=np.float64)
    for j, head in enumerate(heads_MD):
        message += alpha[j] * (matrix_DD @ head)
    return alpha, message


def hgat(
    x_ND: np.ndarray,
    triples: Sequence[HeadTail],
    *,
    matrices_EDD: np.ndarray,
    a_tail_ED: np.ndarray,
    a_head_ED: np.ndarray,
    slope: float = 0.01,
) -> np.ndarray:
    """Return x with every leaf's message added; messages read the x that came in."""
    out = np.array(x_ND, dtype=np.float64)
    for relation, head_nodes, leaf_nodes in triples:
        heads = x_ND[list(head_nodes)]
        for i in leaf_nodes:
            _, message = attention_over_heads(
                x_ND[i],
                heads,
                matrix_DD=matrices_EDD[relation],
                a_tail_D=a_tail_ED[relation],
                a_head_D=a_head_ED[relation],
                slope=slope,
            )
            out[i] = x_ND[i] + message
    return out
