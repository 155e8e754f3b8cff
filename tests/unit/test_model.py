"""Saving and loading, the start of every parameter, and vectors as input."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel

from golden.forms import FORMS, SMALL, make_model, make_vocabulary, names_of, random_chains
from graphmert.batch import ChainBatch, collate, collate_masked
from graphmert.chain import LeafTriple, LeafyChain
from graphmert.constraints import REGULARISERS
from graphmert.masking import MaskingConfig, mask_chain
from graphmert.model import OBJECTIVES, GraphMERT, GraphMERTConfig

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{form: (form, {}) for form in FORMS},
    "logits": ("default", {"decay": "logits", "n_types": 0, "sbo_tied": False}),
    "bare": ("no-decay", {"positions": "none", "embedding_norm": False, "entity_pooled": False}),
    "constraints": ("code", {"objectives": ("entity", *REGULARISERS), "n_entity_types": 6}),
    "vectors": ("default", {"input_size": 6, "objectives": ("relation", "entity")}),
}


def make(variant: str) -> GraphMERT:
    form, changes = VARIANTS[variant]
    return make_model(form, **changes).float()


def make_batch(model: GraphMERT) -> ChainBatch:
    """Chains with one triple per root; for a vector model the tokens are rows of a table."""
    vectors = None
    if model.config.input_size is not None:
        generator = np.random.default_rng(1)
        vectors = generator.standard_normal((SMALL["vocab_size"], model.config.input_size))
    chains = random_chains(2, one_per_root=True)
    return collate(chains, relation_names=names_of(model), vectors=vectors)


# --- saving and loading ---------------------------------------------------------------------


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_round_trip(tmp_path: Path, variant: str) -> None:
    model = make(variant)
    model.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    batch = make_batch(model)
    for loaded in (GraphMERT.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert type(loaded) is GraphMERT
        assert not loaded.training
        saved, read = dict(model.named_parameters()), dict(loaded.named_parameters())
        assert saved.keys() == read.keys()
        assert all(torch.equal(saved[name], read[name]) for name in saved)
        with torch.no_grad():
            assert torch.equal(model(batch), loaded(batch))


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_configuration_round_trips(tmp_path: Path, variant: str) -> None:
    config = make(variant).config
    config.save_pretrained(tmp_path)
    for loaded in (GraphMERTConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is GraphMERTConfig
        fields = GraphMERTConfig.__init__.__kwdefaults__
        assert {k: getattr(loaded, k) for k in fields} == {k: getattr(config, k) for k in fields}


def test_equal_models_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make("default").save_pretrained(tmp_path / name)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


# --- the start ------------------------------------------------------------------------------


SCORER = "constraint_head.scorer.relation"


def has_started(name: str, value: Tensor) -> bool:
    """Whether a parameter holds what the documented initialisation gives."""
    if name.endswith("log_scale"):
        return float(value) == pytest.approx(math.log(20))
    if name == "entity_head.leaf.weight":
        return torch.equal(value, torch.eye(len(value)))
    if name in ("encoder.p", "encoder.graph_distance", "entity_head.gates", SCORER):
        return bool((value == 1).all())
    if "norm.weight" in name:
        return bool((value == 1).all())
    if name.endswith(("bias", "hop_gate", "potential")) or name == "embed.mask_vector":
        return bool((value == 0).all())
    drawn = value[1:] if name == "embed.token.weight" else value  # row 0 pads
    return abs(float(drawn.mean())) < 0.02 and 0.01 < float(drawn.std()) < 0.03


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_parameter_starts_as_documented(variant: str) -> None:
    form, changes = VARIANTS[variant]
    torch.manual_seed(0)
    model = GraphMERT(GraphMERTConfig(**(SMALL | FORMS[form] | changes)))
    assert [n for n, p in model.named_parameters() if not has_started(n, p.detach())] == []
    assert (model.embed.token.weight[0] == 0).all()


def test_parts_a_folder_lacks_start_as_documented(tmp_path: Path) -> None:
    """Another set of objectives or another form may be trained from a saved body."""
    body = make_model("no-decay", objectives=(), n_types=0).float()
    body.save_pretrained(tmp_path)
    changes: dict[str, Any] = {
        "objectives": list(OBJECTIVES),
        "input_size": 5,
        "decay": "logits",
        "graph_token": True,
        "hgat": "full",
        "n_types": 2,
    }
    grown = GraphMERT.from_pretrained(tmp_path, **changes)
    old = dict(body.named_parameters())
    added = {n: p for n, p in grown.named_parameters() if n not in old}
    assert {n.split(".")[0] for n in added} == {
        "embed", "encoder", "vocab_head", "sbo_head", "relation_head", "entity_head",
    }  # fmt: skip
    assert [n for n, p in added.items() if not has_started(n, p.detach())] == []
    assert all(torch.equal(p, old[n]) for n, p in grown.named_parameters() if n in old)


# --- vectors as input -----------------------------------------------------------------------


def vector_chain() -> LeafyChain:
    """Rows of a table of 12 vectors, the third root masked."""
    triples = (LeafTriple(0, 0, 2, (5,), 3), LeafTriple(1, 1, 2, (6, 7), 4))
    return LeafyChain((0, 1, -1, 3), triples)


def vector_table() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((12, 6)).astype(np.float32)


def test_vectors_take_the_place_of_tokens() -> None:
    model = make_model("default", input_size=6, relation_names=False)
    table = vector_table().astype(np.float64)
    batch = collate([vector_chain()], vectors=table)
    assert batch.vectors_BNC is not None
    batch.vectors_BNC.data = batch.vectors_BNC.double()
    with torch.no_grad():
        before = model(batch)
        model.embed.token.weight.fill_(9.0)
        assert torch.equal(model(batch), before)
        # what stands in the masked row is not seen, what stands elsewhere is
        batch.vectors_BNC[0, 2] += 1.0
        assert torch.equal(model(batch), before)
        batch.vectors_BNC[0, 3] += 1.0
        assert (model(batch) - before).abs().max() > 1e-3


def test_every_parameter_of_a_vector_model_receives_a_gradient() -> None:
    model = make("vectors")
    masking = MaskingConfig(mlm_rate=0.0, tail_rate=0.0, relation_rate=1.0, both_rate=0.0)
    vocabulary = make_vocabulary()
    rng = np.random.default_rng(0)
    table = np.random.default_rng(1).standard_normal((SMALL["vocab_size"], 6))
    chains = random_chains(4, n_chains=8)
    masked = [mask_chain(c, masking, vocabulary, rng, isolated=True) for c in chains]
    batch = collate_masked(
        masked,
        relation_names=names_of(model),
        names=collate([LeafyChain((6 + i, -1)) for i in range(6)], vectors=table),
        name_entities=np.arange(6),
        vectors=table,
    )
    losses = model.loss(batch)
    assert losses.keys() == {"relation", "entity"}
    assert all(count > 0 for _, count in losses.values())
    torch.stack([total / count for total, count in losses.values()]).sum().backward()
    without = {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not (parameter.grad != 0).any()
    }
    assert without == {"embed.token.weight"}  # nothing is read or predicted as a token
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
