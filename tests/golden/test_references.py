"""The references against each other, before anything is measured by them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from golden import make_reference_checkpoint as make
from golden import reference_decay as decay
from golden import reference_distance as distance
from golden import reference_encoder as encoder
from golden import reference_hgat as hgat
from golden import reference_losses as losses

GRAPHS = [
    (1, []),
    (5, []),
    (4, [(0, 3)]),
    (6, [(2, 4), (2, 3), (2, 1)]),
    (7, [(6, 5), (0, 2), (3, 1), (3, 4)]),
]


@pytest.mark.parametrize("rule", ["shortest", "reference"])
@pytest.mark.parametrize(("n_roots", "triples"), GRAPHS)
def test_closed_form_equals_search(n_roots: int, triples: list, rule: str) -> None:
    found = distance.distance_by_search(n_roots, triples, rule=rule)
    assert (found >= 0).all()
    np.testing.assert_array_equal(found, distance.distance_closed_form(n_roots, triples, rule=rule))


def test_hand_made_distances() -> None:
    # roots 0 1 2; leaves 3 4 5 of a triple at root 0, leaf 6 of another one there, leaf 7 at 2
    triples = [(0, 3), (0, 1), (2, 1)]
    paper = distance.distance_by_search(3, triples)
    assert paper[3].tolist() == [1, 2, 3, 0, 1, 1, 2, 4]
    assert distance.distance_by_search(3, triples, rule="reference")[3, 5] == 2


def test_decay_factor_by_hand() -> None:
    # p = sqrt(distance): GELU(0) = 0, f = 1; far away GELU is the identity
    assert decay.factor(4.0, lam=0.6, p=2.0) == 1.0
    assert decay.factor(400.0, lam=0.6, p=2.0) == pytest.approx(0.6**18, rel=1e-12)
    assert decay.gelu(1.0) == pytest.approx(0.8413447460685429, rel=1e-14)
    assert decay.softplus(0.5) == pytest.approx(math.log(1 + math.exp(0.5)))
    assert decay.softplus(1.5) == 1.5


@pytest.mark.parametrize("form", decay.FORMS)
def test_rows_of_the_decay_forms(form: str) -> None:
    rng = np.random.default_rng(0)
    sp = distance.distance_by_search(4, [(1, 3)])
    scores = rng.standard_normal(sp.shape)
    padding = np.ones(len(sp), dtype=bool)
    padding[-1] = False
    allowed = decay.allowed_keys(padding)
    weights = decay.attention_weights(scores, sp, form=form, lam=0.6, p=0.5, allowed_NN=allowed)
    assert (weights[:, -1] == 0).all()
    if form == "weights":  # as printed: not renormalised
        assert (weights.sum(1) < 1.0).all()
        plain = decay.attention_weights(
            scores, sp, form="log_bias", lam=1.0, p=0.5, allowed_NN=allowed
        )
        f = np.vectorize(lambda d: decay.factor(d, lam=0.6, p=0.5))(sp)
        np.testing.assert_allclose(weights, plain * f, rtol=1e-13)
        log_bias = decay.attention_weights(
            scores, sp, form="log_bias", lam=0.6, p=0.5, allowed_NN=allowed
        )
        np.testing.assert_allclose(weights / weights.sum(1, keepdims=True), log_bias, rtol=1e-12)
    else:
        np.testing.assert_allclose(weights.sum(1), 1.0, rtol=1e-13)


def test_hgat_weights_and_equal_heads() -> None:
    rng = np.random.default_rng(1)
    tail, heads = rng.standard_normal(4), rng.standard_normal((3, 4))
    matrix, a, b = rng.standard_normal((4, 4)), rng.standard_normal(4), rng.standard_normal(4)
    alpha, message = hgat.attention_over_heads(
        tail, heads, matrix_DD=matrix, a_tail_D=a, a_head_D=b
    )
    assert alpha.sum() == pytest.approx(1.0, rel=1e-14)
    np.testing.assert_allclose(message, matrix @ (alpha @ heads), rtol=1e-12)
    same = np.stack([heads[0]] * 3)
    alpha, _ = hgat.attention_over_heads(tail, same, matrix_DD=matrix, a_tail_D=a, a_head_D=b)
    np.testing.assert_allclose(alpha, 1 / 3)


def test_layer_norm_and_losses_by_hand() -> None:
    x = losses.layer_norm(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2), eps=0.0)
    np.testing.assert_allclose(x, [[-1.0, 1.0]])
    uniform = np.zeros((3, 12))
    assert losses.mean_cross_entropy(uniform, [1, 5, -100]) == pytest.approx(math.log(12))
    assert losses.mean_cross_entropy(uniform, [-100] * 3) == 0.0
    eye = np.eye(3)
    nce = losses.info_nce(eye[:1], eye, [0], temperature=0.5, false_negatives=[[2]])
    assert nce == pytest.approx(math.log(math.exp(2) + 1) - 2)
    parts = {"a": (6.0, 3), "b": (5.0, 0), "c": (4.0, 1)}
    weights = {"a": 0.5, "b": 9.0, "c": 2.0}
    assert losses.weighted_total(parts, weights) == 9.0
    assert losses.weighted_total(parts, weights, mean=False) == 11.0


@pytest.mark.parametrize(
    ("n_relations", "n_parameters"), [(29, 78_623_356), (28, 78_360_188), (33, 79_676_028)]
)
def test_parameter_counts_of_the_table(n_relations: int, n_parameters: int) -> None:
    config = make.make_config(
        vocab_size=30_522,
        root_nodes=128,
        n_leaves=7,
        num_hidden_layers=12,
        hidden_size=512,
        intermediate_size=2048,
        num_attention_heads=8,
        num_relationships=n_relations,
        span_upper_length=7,
    )
    assert sum(math.prod(s) for s in make.tensor_shapes(config).values()) == n_parameters


def test_checkpoint_dense_equals_compact(tmp_path: Path) -> None:
    config, arrays = make.write_reference_checkpoint(tmp_path, seed=3)
    assert json.loads((tmp_path / "config.json").read_text()) == config
    stored = load_file(str(tmp_path / "model.safetensors"))
    assert stored.keys() == arrays.keys()
    chain = make.make_inputs(config, seed=3)[0]
    compact = encoder.run_checkpoint(stored, config, chain)
    dense = encoder.run_checkpoint(arrays, config, chain, dense=True)
    np.testing.assert_allclose(compact.logits_NV, dense.logits_NV, atol=1e-12)
    np.testing.assert_allclose(compact.graph_state_D, dense.graph_state_D, atol=1e-12)
    np.testing.assert_allclose(compact.pair_logits_MV, dense.pair_logits_MV, atol=1e-12)
    assert compact.loss == pytest.approx(dense.loss, rel=1e-13)
    assert compact.states_ND.std() > 0.1
