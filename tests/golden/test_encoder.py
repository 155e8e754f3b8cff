"""Whole forwards against the float64 references: every form, and a published checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from golden import make_reference_checkpoint as make
from golden import reference_encoder as reference
from golden.encode_by_reference import states
from golden.forms import FORMS, make_model, names_of, random_chains
from graphmert.batch import collate, collate_masked
from graphmert.chain import LeafTriple, LeafyChain
from graphmert.masking import IGNORE, MaskedChain
from graphmert.model import GraphMERT, GraphMERTConfig

TOLERANCE = {"rtol": 1e-9, "atol": 1e-10}
# Rotary positions are checked apart: no source gives their equation.
EXACT_FORMS = [name for name in FORMS if name != "rotary"]


@pytest.mark.parametrize("form", EXACT_FORMS)
def test_states_equal_the_loops(form: str) -> None:
    model = make_model(form, seed=1)
    options = {"one_per_root": True} if form in ("paper", "reference") else {}
    chains = random_chains(2, **options)
    names = names_of(model)
    with torch.no_grad():
        found = model(collate(chains, relation_names=names)).numpy()
    for row, wanted in enumerate(states(model, chains, names)):
        np.testing.assert_allclose(found[row, : len(wanted)], wanted, **TOLERANCE)
        assert wanted.std() > 0.1


def test_rotary_sees_relative_places_only() -> None:
    """Without decay and leaves, moving every root by the same number changes nothing."""
    model = make_model("rotary", decay="none")
    chain = random_chains(0, n_chains=1)[0]
    batch = collate([chain])
    moved = collate([chain])
    moved.root_BN.add_(5)
    turned = collate([chain])
    turned.root_BN.copy_(turned.root_BN.flip(1))
    with torch.no_grad():
        # angles are computed in float32
        torch.testing.assert_close(model(batch), model(moved), rtol=1e-6, atol=1e-6)
        assert (model(batch) - model(turned)).abs().max() > 1e-3


# --- a checkpoint in the published format ---------------------------------------------------


def reference_model(config: dict[str, object]) -> GraphMERT:
    size = {k: v for k, v in config.items() if isinstance(v, int)}
    n_leaves = size["max_nodes"] // size["root_nodes"] - 1
    return GraphMERT(
        GraphMERTConfig(
            vocab_size=size["vocab_size"],
            pad_token_id=0,
            hidden_size=size["hidden_size"],
            n_layers=size["num_hidden_layers"],
            n_attn_heads=size["num_attention_heads"],
            ffn_size=size["intermediate_size"],
            n_root_slots=size["root_nodes"],
            n_leaf_slots=n_leaves,
            max_span=size["span_upper_length"],
            n_relations=size["num_relationships"],
            decay_base=float(str(config["_exp_mask_base"])),
            norm_eps=1e-5,
            **FORMS["reference"],
        )
    )


def fill(model: GraphMERT, arrays: dict[str, np.ndarray]) -> GraphMERT:
    """Copy the arrays by their meaning; relation r of the file is our relation r - 1."""
    d, n_layers = model.config.hidden_size, model.config.n_layers
    graph = "graphmert.graph_encoder"
    node = f"{graph}.graph_node_feature"
    order = [*range(1, model.config.n_relations + 1), 0]
    interleaved = arrays[f"{node}.relation_encoder.weight"][order]
    state = {
        "embed.token.weight": arrays[f"{node}.atom_encoder.weight"],
        "embed.hgat.matrix": arrays[f"{node}.relation_matrix_encoder.weight"][order].reshape(
            -1, d, d
        ),
        "embed.hgat.score": np.stack([interleaved[:, 0::2], interleaved[:, 1::2]], axis=1),
        "encoder.graph_token": arrays[f"{node}.graph_token.weight"],
        "encoder.graph_distance": arrays[f"{graph}.graph_token_virtual_distance"][0],
        "encoder.p": arrays[f"{graph}.sp"],
        "vocab_head.bias": arrays["lm_head.bias"],
        "sbo_head.place.weight": arrays["lm_pair_head.position_embeddings.weight"],
    }
    mlp = "lm_pair_head.mlp_layer_norm.mlp_layer_norm"
    pairs = {
        "transform.dense": "graphmert.lm_head_transform_weight",
        "transform.norm": "graphmert.layer_norm",
        "vocab_head.transform.dense": "lm_head.dense",
        "vocab_head.transform.norm": "lm_head.layer_norm",
        "sbo_head.first.dense": f"{mlp}.0",
        "sbo_head.first.norm": f"{mlp}.2",
        "sbo_head.second.dense": f"{mlp}.3",
        "sbo_head.second.norm": f"{mlp}.5",
        "sbo_head.decoder": "lm_pair_head.decoder",
    }
    for i in range(n_layers):
        theirs, ours = f"{graph}.layers.{i}", f"encoder.layers.{i}"
        pairs |= {
            f"{ours}.out": f"{theirs}.self_attn.out_proj",
            f"{ours}.attn_norm": f"{theirs}.self_attn_layer_norm",
            f"{ours}.up": f"{theirs}.fc1",
            f"{ours}.down": f"{theirs}.fc2",
            f"{ours}.ffn_norm": f"{theirs}.final_layer_norm",
        }
        for part in ("weight", "bias"):
            state[f"{ours}.qkv.{part}"] = np.concatenate(
                [arrays[f"{theirs}.self_attn.{x}_proj.{part}"] for x in "qkv"]
            )
    for ours, theirs in pairs.items():
        for part in ("weight", "bias"):
            state[f"{ours}.{part}"] = arrays[f"{theirs}.{part}"]
    model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()}, strict=True)
    return model


def masked_chain(config: dict[str, object], given: reference.ReferenceInput) -> MaskedChain:
    n_max = int(str(config["root_nodes"]))
    f = reference.leaves_per_root(config)
    triples = tuple(LeafTriple(r - 1, start, end, tail) for r, start, end, tail in given.triples)
    labels = given.labels
    return MaskedChain(
        chain=LeafyChain(given.roots, triples),
        root_labels=np.array([labels.get(i, IGNORE) for i in range(len(given.roots))]),
        leaf_labels=tuple(
            np.array([labels.get(n_max + f * t.head_start + k, IGNORE) for k in range(len(t.tail))])
            for t in triples
        ),
        relation_labels=np.full(len(triples), IGNORE),
        entity_labels=np.full(len(triples), -1),
        spans=np.array(given.spans, dtype=np.int64).reshape(-1, 2),
    )


@pytest.mark.parametrize("width", ["float64", "float32"])
def test_published_checkpoint(tmp_path: Path, width: str) -> None:
    config, _ = make.write_reference_checkpoint(tmp_path, seed=11)
    arrays = load_file(str(tmp_path / "model.safetensors"))
    model = fill(reference_model(config), arrays).eval()
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if width == "float64" else {"rtol": 0, "atol": 2e-5}
    if width == "float64":
        model = model.double()
    inputs = make.make_inputs(config, seed=11)
    wanted = [reference.run_checkpoint(arrays, config, given) for given in inputs]
    for given, one in zip(inputs, wanted, strict=True):
        batch = collate_masked([masked_chain(config, given)])
        with torch.no_grad():
            states_ND = model(batch)[0]
            logits = model.token_logits(states_ND, torch.arange(len(states_ND)))
            losses = model.loss(batch)
        np.testing.assert_allclose(states_ND.numpy(), one.states_ND, **tolerance)
        np.testing.assert_allclose(logits.numpy(), one.logits_NV, **tolerance)
        total = sum(float(value) / float(count) for value, count in losses.values())
        assert total == pytest.approx(one.loss, abs=tolerance["atol"], rel=1e-6)
    # padded together: one mean over the masked nodes of all chains
    batch = collate_masked([masked_chain(config, given) for given in inputs])
    with torch.no_grad():
        states_BND = model(batch)
        losses = model.loss(batch)
    n_asked = [len(given.labels) for given in inputs]
    mean = np.average([one.node_loss for one in wanted], weights=n_asked)
    value, count = losses["nodes"]
    assert float(count) == sum(n_asked)
    assert float(value / count) == pytest.approx(mean, abs=tolerance["atol"], rel=1e-6)
    for row, one in enumerate(wanted):
        found = states_BND[row, : len(one.states_ND)].numpy()
        np.testing.assert_allclose(found, one.states_ND, **tolerance)


@pytest.mark.parametrize(
    ("n_relations", "n_parameters"), [(29, 78_623_356), (28, 78_360_188), (33, 79_676_028)]
)
def test_parameters_of_the_published_sizes(n_relations: int, n_parameters: int) -> None:
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
    with torch.device("meta"):
        model = reference_model(config)
    assert sum(p.numel() for p in model.parameters()) == n_parameters
