"""How well masked tokens, tails and relations are restored, over a whole part, beside counts.

Legend: P labelled positions, V vocabulary, E relations.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from graphmert.batch import collate_masked
from graphmert.chain import LeafyChain
from graphmert.masking import IGNORE, MaskedChain, mask_chain
from graphmert.model import GraphMERT
from graphmert.run.code.prepared import CodePrepared
from graphmert.run.code.training import words_for


@dataclass
class Tally:
    """Sums of hits and of -log p."""

    n: int = 0
    n_right: int = 0
    loss: float = 0.0

    def add(self, log_p: np.ndarray, labels: np.ndarray) -> None:
        """Count a block of log probabilities (P, classes) against its labels."""
        self.n += len(labels)
        self.n_right += int((log_p.argmax(-1) == labels).sum())
        self.loss -= float(log_p[np.arange(len(labels)), labels].sum())

    def to_dict(self) -> dict[str, float | int | None]:
        """Accuracy and cross-entropy."""
        if not self.n:
            return {"n": 0, "accuracy": None, "cross_entropy": None}
        return {
            "n": self.n,
            "accuracy": round(self.n_right / self.n, 4),
            "cross_entropy": round(self.loss / self.n, 4),
        }


class CountBaseline:
    """p(label | context) from training counts, smoothed towards p(label), that towards 1 / V."""

    def __init__(self, n_labels: int, *, strength: float = 1.0) -> None:
        self.n_labels, self.strength = n_labels, strength
        self.counts: dict[Hashable, Counter[int]] = defaultdict(Counter)
        self.all = np.zeros(n_labels)
        self._prior: np.ndarray | None = None

    def see(self, context: Hashable, label: int) -> None:
        """Count one training example."""
        self.counts[context][label] += 1
        self.all[label] += 1
        self._prior = None

    def prior(self) -> np.ndarray:
        """p(label)."""
        prior = self._prior
        if prior is None:
            prior = (self.all + 1 / self.n_labels) / (self.all.sum() + 1)
            self._prior = prior
        return prior

    def log_p(self, context: Hashable) -> np.ndarray:
        """Log probabilities of every label."""
        p = self.strength * self.prior()
        seen = self.counts.get(context, Counter())
        if seen:
            p = p.copy()
            labels = np.fromiter(seen.keys(), np.int64, len(seen))
            p[labels] += np.fromiter(seen.values(), np.float64, len(seen))
        return np.log(p / (self.strength + sum(seen.values())))

    def score(self, contexts: Sequence[Hashable], labels: np.ndarray, tally: Tally) -> None:
        """Count a block."""
        for context, label in zip(contexts, labels, strict=True):
            tally.add(self.log_p(context)[None], np.array([label]))


@dataclass
class _Counts:
    """Count baselines of the three objectives, by name."""

    mlm: dict[str, CountBaseline] = field(default_factory=dict)
    leaf: dict[str, CountBaseline] = field(default_factory=dict)
    relation: dict[str, CountBaseline] = field(default_factory=dict)


def measure_masked(
    prepared: CodePrepared, model: GraphMERT, part: str, *, seed: int = 0
) -> dict[str, Any]:
    """Accuracy and cross-entropy of MLM and MNM on every chain of a part, masked once.

    Returns: objective -> system -> n, accuracy, cross_entropy; for relations also
        `share_of_best_count`, the encoder's cross-entropy over that of the best count.
    """
    counts = _train_counts(prepared)
    tallies: dict[str, dict[str, Tally]] = {
        "mlm": {"graphmert": Tally(), "majority": Tally(), "neighbour": Tally()},
        "leaf": {"graphmert": Tally(), "majority": Tally(), "neighbour": Tally()},
        "relation": {"graphmert": Tally(), **{name: Tally() for name in counts.relation}},
    }
    model.eval()
    for masked, chains in _masked_batches(prepared, model, part, seed):
        _add_model(prepared, model, masked, tallies)
        for item, chain in zip(masked, chains, strict=True):
            _add_counts(prepared, item, chain, counts, tallies)
    found: dict[str, Any] = {
        objective: {name: tally.to_dict() for name, tally in systems.items()}
        for objective, systems in tallies.items()
    }
    own = found["relation"]["graphmert"]["cross_entropy"]
    best = [
        one["cross_entropy"]
        for name, one in found["relation"].items()
        if name != "graphmert" and one["n"]
    ]
    if own is not None and best and min(best) > 0:
        found["share_of_best_count"] = round(own / min(best), 4)
    return found


def _masked_batches(
    prepared: CodePrepared, model: GraphMERT, part: str, seed: int
) -> Iterator[tuple[list[MaskedChain], list[LeafyChain]]]:
    chains = sorted(prepared.chains[part], key=lambda chain: (chain.n_nodes, chain.chain_id))
    rng = np.random.default_rng([seed, 7])
    isolated = model.config.leaf_visibility == "isolated"
    masking = prepared.config.masking.model_copy(update={"entity_rate": 0.0})
    for start in range(0, len(chains), 16):
        block = list(chains[start : start + 16])
        yield (
            [
                mask_chain(chain, masking, prepared.mask_vocabulary, rng, isolated=isolated)
                for chain in block
            ],
            block,
        )


@torch.no_grad()
def _add_model(
    prepared: CodePrepared,
    model: GraphMERT,
    masked: Sequence[MaskedChain],
    tallies: dict[str, dict[str, Tally]],
) -> None:
    batch = collate_masked(
        masked, relation_names=words_for(prepared, model.config), pad_id=prepared.tokenizer.pad_id
    ).to(model.device)
    assert batch.labels is not None
    labels = batch.labels
    states = model(batch)
    flat = states.reshape(-1, states.shape[-1])
    asked = set(model.config.objectives)
    for name, position, label in (
        ("mlm", labels.mlm_position_P, labels.mlm_label_P),
        ("leaf", labels.leaf_position_P, labels.leaf_label_P),
    ):
        if name not in asked:
            continue
        for some, true in zip(position.split(2048), label.split(2048), strict=True):
            log_p = model.token_logits(flat, some).float().log_softmax(-1)
            tallies[name]["graphmert"].add(log_p.cpu().numpy(), true.cpu().numpy())
    if "relation" in asked and len(labels.relation_label_P):
        log_p = model.relation_logits(states, batch)[labels.relation_triple_P]
        log_p = log_p.float().log_softmax(-1).cpu().numpy()
        tallies["relation"]["graphmert"].add(log_p, labels.relation_label_P.cpu().numpy())


def _train_counts(prepared: CodePrepared) -> _Counts:
    n_tokens, n_relations = prepared.tokenizer.vocab_size, len(prepared.vocabulary.relations)
    counts = _Counts(
        mlm={name: CountBaseline(n_tokens) for name in ("majority", "neighbour")},
        leaf={name: CountBaseline(n_tokens) for name in ("majority", "neighbour")},
        relation={
            name: CountBaseline(n_relations)
            for name in ("majority", "head_type", "tail_type", "both_types", "neighbour")
        },
    )
    special = prepared.tokenizer.special_ids
    types = prepared.type_of_row
    for chain in prepared.chains["train"]:
        for left, token in zip(chain.roots, chain.roots[1:], strict=False):
            if token not in special:
                counts.mlm["majority"].see(None, token)
                counts.mlm["neighbour"].see(left, token)
        before = -1
        for triple in chain.triples:
            for token in triple.tail:
                counts.leaf["majority"].see(None, token)
                counts.leaf["neighbour"].see(triple.relation, token)
            head, tail = int(types[triple.head_entity]), int(types[triple.tail_entity])
            for name, context in _contexts(head, tail, before).items():
                counts.relation[name].see(context, triple.relation)
            before = triple.relation
    return counts


def _contexts(head: int, tail: int, before: int) -> dict[str, Hashable]:
    """What each count baseline of the relation is given."""
    return {
        "majority": None,
        "head_type": head,
        "tail_type": tail,
        "both_types": (head, tail),
        "neighbour": before,
    }


def _add_counts(
    prepared: CodePrepared,
    item: MaskedChain,
    chain: LeafyChain,
    counts: _Counts,
    tallies: dict[str, dict[str, Tally]],
) -> None:
    """What counts say of one masked chain; a neighbour is what is shown, masked or not."""
    places = np.flatnonzero(item.root_labels != IGNORE)
    labels = item.root_labels[places]
    left = [item.chain.roots[int(p) - 1] if p else -1 for p in places]
    counts.mlm["majority"].score([None] * len(places), labels, tallies["mlm"]["majority"])
    counts.mlm["neighbour"].score(left, labels, tallies["mlm"]["neighbour"])
    types = prepared.type_of_row
    before = -1
    for triple, leaf, relation in zip(
        item.chain.triples, item.leaf_labels, item.relation_labels, strict=True
    ):
        asked = leaf[leaf != IGNORE]
        if len(asked):
            context = [triple.relation] * len(asked)
            counts.leaf["majority"].score([None] * len(asked), asked, tallies["leaf"]["majority"])
            counts.leaf["neighbour"].score(context, asked, tallies["leaf"]["neighbour"])
        if relation != IGNORE:
            head, tail = int(types[triple.head_entity]), int(types[triple.tail_entity])
            for name, context in _contexts(head, tail, before).items():
                counts.relation[name].score(
                    [context], np.array([relation]), tallies["relation"][name]
                )
        before = triple.relation
