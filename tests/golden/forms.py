"""Small models of every encoder form in float64, with every parameter drawn at random."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from graphmert.batch import RelationNames
from graphmert.chain import LeafTriple, LeafyChain
from graphmert.masking import MaskVocabulary
from graphmert.model import GraphMERT, GraphMERTConfig

N_RELATIONS = 4
VOCAB_SIZE = 41
PAD, UNK, CLS, SEP, MASK = 0, 1, 2, 3, 4
FIRST_WORD = 5

SMALL: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "pad_token_id": PAD,
    "hidden_size": 16,
    "n_layers": 2,
    "n_attn_heads": 4,
    "ffn_size": 24,
    "n_positions": 24,
    "n_root_slots": 24,
    "n_leaf_slots": 5,
    "max_tail_tokens": 6,
    "max_name_tokens": 3,
    "max_span": 4,
    "n_ordinals": 4,
    "n_relations": N_RELATIONS,
    "hgat_rank": 3,
    "norm_eps": 1e-5,
}
_PLAIN = {
    "positions": "none",
    "n_types": 0,
    "relation_embedding": False,
    "relation_names": False,
    "hgat": "full",
    "hgat_slope": 0.01,
    "leaf_visibility": "open",
}
CODE = {"relation_bias": True, "graph_depth": 3, "n_hops": 2}
FORMS: dict[str, dict[str, Any]] = {
    "default": {},
    "default-open": {"leaf_visibility": "open", "hgat": "full", "decay_per_attn_head": True},
    "rotary": {"positions": "rotary", "relation_names": False},
    "no-decay": {"decay": "none", "hgat": "none"},
    "code": {**CODE, "leaf_visibility": "open"},
    "code-isolated": {**CODE, "decay": "none"},
    "code-weights": {**CODE, "leaf_visibility": "open", "decay": "weights", "hgat": "none"},
    "weights": {"decay": "weights", "relation_names": False},
    "paper": {**_PLAIN, "decay": "weights", "loss_form": "sum", "sbo_tied": False},
    "reference": {
        **_PLAIN,
        "decay": "logits",
        "decay_per_attn_head": True,
        "distance_rule": "reference",
        "distance_offset": 1,
        "graph_token": True,
        "embedding_norm": False,
        "output_transform": True,
        "sbo_tied": False,
        "loss_form": "joint",
        "objectives": ("mlm", "sbo", "leaf"),
    },
}
NAMES = RelationNames(((5,), (6, 7), (8, 9, 10), (11,), (12, 13)))
NO_NAMES = RelationNames()


def make_vocabulary() -> MaskVocabulary:
    return MaskVocabulary(
        mask_id=MASK,
        special_ids=frozenset({PAD, UNK, CLS, SEP, MASK}),
        ordinary_ids=np.arange(FIRST_WORD, VOCAB_SIZE),
        n_relations=N_RELATIONS,
    )


def make_model(form: str, *, seed: int = 0, **changes: Any) -> GraphMERT:
    """A model in eval mode and float64; no parameter is left at a value that hides a mistake."""
    model = GraphMERT(GraphMERTConfig(**(SMALL | FORMS[form] | changes))).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if name.endswith("log_scale"):
                parameter.copy_(torch.tensor(1.7))
            elif "norm.weight" in name:
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.dim() >= 2 and "embed.token" not in name:
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)
            elif "embed.token" in name:
                parameter.copy_(0.7 * noise)
                parameter[PAD] = 0
            else:
                parameter.copy_(0.3 * noise)
        if model.encoder.p is not None:
            model.encoder.p.add_(1.2)
        if model.encoder.graph_distance is not None:
            model.encoder.graph_distance.mul_(6)
    return model


def names_of(model: GraphMERT) -> RelationNames:
    return NAMES if model.config.relation_names else NO_NAMES


def random_chain(
    rng: np.random.Generator,
    *,
    n_roots: int = 12,
    n_triples: int = 4,
    max_tail: int = 5,
    max_head: int = 3,
    one_per_root: bool = False,
) -> LeafyChain:
    """A chain between CLS and SEP; without `one_per_root` the first two triples share a head."""
    words = rng.integers(FIRST_WORD, VOCAB_SIZE, size=n_roots - 2).tolist()
    starts = rng.permutation(np.arange(1, n_roots - max_head))[:n_triples].tolist()
    triples = []
    for index, start in enumerate(starts):
        if index == 1 and not one_per_root:
            start = starts[0]
        tail = rng.integers(FIRST_WORD, VOCAB_SIZE, size=int(rng.integers(1, max_tail + 1)))
        triples.append(
            LeafTriple(
                relation=int(rng.integers(N_RELATIONS)),
                head_start=int(start),
                head_end=int(start) + int(rng.integers(1, max_head + 1)),
                tail=tuple(int(t) for t in tail),
                tail_entity=int(rng.integers(6)),
                head_entity=10 + int(start),
            )
        )
    return LeafyChain((CLS, *words, SEP), tuple(triples), "chain")


def random_chains(seed: int, *, n_chains: int = 3, **options: Any) -> list[LeafyChain]:
    """Chains of different lengths; the last has no triples."""
    rng = np.random.default_rng(seed)
    chains = [
        random_chain(rng, n_roots=int(rng.integers(8, 15)), **options) for _ in range(n_chains - 1)
    ]
    return [*chains, random_chain(rng, n_roots=7, n_triples=0)]
