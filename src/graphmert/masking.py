"""Choose what the model must predict: spans of roots, whole tails, relations, entities.

Masking turns a `LeafyChain` into the chain as the model sees it and the labels it must
recover. It is a pure function of (chain, config, random generator). Pads and special tokens
are never masked and never drawn as replacements. Legend: R roots, T triples, S spans.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from graphmert.chain import LeafTriple, LeafyChain
from graphmert.config import Settings

IGNORE = -100


class MaskingConfig(Settings):
    """What is masked, and how often. A triple gets at most one of tail, relation, both."""

    mlm_rate: float = Field(
        default=0.15, ge=0, le=1, description="share of root tokens masked by MLM"
    )
    mlm_share: float = Field(
        default=1.0, ge=0, le=1, description="share of chains that MLM touches"
    )
    span_p: float = Field(default=0.2, gt=0, lt=1, description="p of the geometric span length")
    max_span: int = Field(default=7, ge=1, description="longest masked span, in tokens")
    tail_rate: float = Field(
        default=0.7, ge=0, le=1, description="probability: tail masked, relation seen"
    )
    relation_rate: float = Field(
        default=0.15, ge=0, le=1, description="probability: relation masked, tail seen"
    )
    both_rate: float = Field(
        default=0.15, ge=0, le=1, description="probability: tail and relation masked"
    )
    entity_rate: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="probability that a triple also asks for its tail entity",
    )
    query_slots: int = Field(
        default=1,
        ge=0,
        description="masked leaves of a query whose tail length is unknown; 0: the tail's length",
    )
    partial_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of masked tails of which only some tokens are masked, not the whole",
    )
    mention_rate: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="probability that the roots where a masked tail is written are masked too; "
        "above 0 an entity is only asked for where its tail is masked",
    )
    facts: Literal["triple", "pair"] = Field(
        default="triple",
        description="what is masked together: copies of a triple, or all triples between the "
        "same head and tail whatever their relations",
    )

    @model_validator(mode="after")
    def _check_rates(self) -> MaskingConfig:
        if self.tail_rate + self.relation_rate + self.both_rate > 1 + 1e-9:
            raise ValueError("tail_rate + relation_rate + both_rate must not exceed 1")
        return self


@dataclass(frozen=True)
class MaskVocabulary:
    """The ids masking needs: mask token, special ids, ids a replacement may be drawn from."""

    mask_id: int
    special_ids: frozenset[int]
    ordinary_ids: np.ndarray
    n_relations: int

    @property
    def mask_relation(self) -> int:
        """Index that stands for a hidden relation: one past the last."""
        return self.n_relations


@dataclass(frozen=True)
class MaskedChain:
    """A chain as the model sees it, and its labels (IGNORE where nothing is asked).

    Attributes:
        chain: roots and leaves after masking; queries are extra triples at the end.
        root_labels: int64 (R,).
        leaf_labels: one int64 array per triple, as long as its tail.
        relation_labels: int64 (T,).
        entity_labels: int64 (T,), the tail's entity row where it is asked, else -1.
        spans: int64 (S, 2), masked root spans.
    """

    chain: LeafyChain
    root_labels: np.ndarray
    leaf_labels: tuple[np.ndarray, ...]
    relation_labels: np.ndarray
    entity_labels: np.ndarray
    spans: np.ndarray


def draw_spans(maskable: np.ndarray, config: MaskingConfig, rng: np.random.Generator) -> np.ndarray:
    """Draw disjoint spans of maskable roots until the budget is filled.

    Span lengths follow a geometric distribution with p = `span_p` truncated at `max_span`;
    the last span is cut so that the budget, round(mlm_rate * maskable roots), is never passed.

    Args:
        maskable: bool (R,), True where a root may be masked.
    Returns:
        int64 (S, 2), half-open root spans in ascending order.
    Source: GraphMERT, MLM (spans of SpanBERT). Differs: none.
    Checked by: tests/property/test_chain.py
    """
    budget = round(config.mlm_rate * int(maskable.sum()))
    lengths = np.arange(1, config.max_span + 1)
    weights = config.span_p * (1 - config.span_p) ** (lengths - 1)
    weights = weights / weights.sum()
    free = maskable.copy()
    spans: list[tuple[int, int]] = []
    for start in rng.permutation(np.flatnonzero(maskable)):
        if budget <= 0:
            break
        wanted = min(int(rng.choice(lengths, p=weights)), budget)
        end = int(start)
        while end < len(free) and end - start < wanted and free[end]:
            end += 1
        if end > start:
            free[start:end] = False
            spans.append((int(start), end))
            budget -= end - int(start)
    return np.array(sorted(spans), dtype=np.int64).reshape(-1, 2)


def _replace(
    tokens: np.ndarray, vocabulary: MaskVocabulary, rng: np.random.Generator
) -> np.ndarray:
    """80 % mask token, 10 % random ordinary token, 10 % kept; one draw for the whole span."""
    draw = rng.random()
    if draw < 0.8:
        return np.full_like(tokens, vocabulary.mask_id)
    if draw < 0.9:
        return rng.choice(vocabulary.ordinary_ids, size=len(tokens)).astype(tokens.dtype)
    return tokens


def _mask_roots(
    chain: LeafyChain, config: MaskingConfig, vocabulary: MaskVocabulary, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    roots = np.array(chain.roots, dtype=np.int64)
    labels = np.full(len(roots), IGNORE, dtype=np.int64)
    if config.mlm_rate == 0 or rng.random() >= config.mlm_share:
        return roots, labels, np.zeros((0, 2), dtype=np.int64)
    special = np.fromiter((t in vocabulary.special_ids for t in chain.roots), bool, len(roots))
    spans = draw_spans(~special, config, rng)
    for start, end in spans:
        labels[start:end] = roots[start:end]
        roots[start:end] = _replace(roots[start:end], vocabulary, rng)
    return roots, labels, spans


def _facts(chain: LeafyChain, config: MaskingConfig) -> list[int]:
    """Number the facts: triples of one head and relation with the same tail tokens or entity.

    Copies of a fact hang anywhere on the chain; a synonym of the tail and a homonym belong to it.
    With `facts` "pair" the relation does not count.
    """
    facts: list[int] = []
    known: dict[tuple[object, ...], int] = {}
    for index, triple in enumerate(chain.triples):
        head: object = triple.head_entity
        if triple.head_entity < 0:
            head = chain.roots[triple.head_start : triple.head_end]
        relation = triple.relation if config.facts == "triple" else -1
        keys: list[tuple[object, ...]] = [(head, relation, triple.tail)]
        if triple.tail_entity >= 0:
            keys.append((head, relation, triple.tail_entity))
        same = {known[key] for key in keys if key in known}
        number = min(same, default=index)
        facts = [number if fact in same else fact for fact in facts]
        known = {key: number if fact in same else fact for key, fact in known.items()}
        known.update(dict.fromkeys(keys, number))
        facts.append(number)
    return facts


def _random_relation(relation: int, vocabulary: MaskVocabulary, rng: np.random.Generator) -> int:
    draw = rng.random()
    if draw < 0.8:
        return vocabulary.mask_relation
    if draw < 0.9:
        return int(rng.integers(vocabulary.n_relations))
    return relation


def mask_chain(
    chain: LeafyChain,
    config: MaskingConfig,
    vocabulary: MaskVocabulary,
    rng: np.random.Generator,
    *,
    isolated: bool,
) -> MaskedChain:
    """Mask one chain for all objectives at once.

    Every fact (head, relation, tail) draws once, so copies of a masked triple are masked too.
    An entity query is a triple whose tail is `query_slots` masked leaves. Under open
    visibility it replaces nothing but is only asked where the fact's tail is masked.

    Args:
        isolated: the model's leaf visibility; if True a visible tail cannot leak to a query.
    Source: GraphMERT, MNM; GraphMERT-CodeBERT, relation masking. Differs: one draw per fact,
        tail-only, relation-only and both.
    Checked by: tests/property/test_chain.py
    """
    roots, root_labels, spans = _mask_roots(chain, config, vocabulary, rng)
    decisions: dict[int, _Decision] = {}
    triples: list[LeafTriple] = []
    leaf_labels: list[np.ndarray] = []
    relation_labels: list[int] = []
    entity_labels: list[int] = []
    queries: list[LeafTriple] = []
    for triple, fact in zip(chain.triples, _facts(chain, config), strict=True):
        if first := fact not in decisions:
            decisions[fact] = _decide(triple, config, vocabulary, rng)
        decision = decisions[fact]
        mode = decision.mode
        tail, labels = _mask_tail(triple, decision, config, vocabulary)
        wholly_hidden = mode == "tail" and bool(decision.hidden.all())
        ask = decision.ask_entity and first and triple.tail_entity >= 0 and mode != "both"
        ask = ask and (wholly_hidden or (isolated and not config.mention_rate))
        if decision.hides_mentions:
            _hide(roots, triple, vocabulary)
        inline = ask and config.query_slots == 0 and wholly_hidden
        if ask and not inline:
            size = config.query_slots or len(triple.tail)
            queries.append(replace(triple, tail=(vocabulary.mask_id,) * size, tail_type=-1))
        triples.append(decision.apply(triple, tail))
        leaf_labels.append(labels)
        relation_labels.append(triple.relation if mode in ("relation", "both") else IGNORE)
        entity_labels.append(triple.tail_entity if inline else -1)
    for query in queries:
        triples.append(query)
        leaf_labels.append(np.full(len(query.tail), IGNORE, dtype=np.int64))
        relation_labels.append(IGNORE)
        entity_labels.append(query.tail_entity)
    return MaskedChain(
        LeafyChain(tuple(int(t) for t in roots), tuple(triples), chain.chain_id),
        root_labels,
        tuple(leaf_labels),
        np.array(relation_labels, dtype=np.int64),
        np.array(entity_labels, dtype=np.int64),
        spans,
    )


@dataclass(frozen=True)
class _Decision:
    """What is hidden of one fact, the same for all its copies.

    `hidden` tells which tokens of `tail`; `relation` is the relation shown in place of
    `own_relation`.
    """

    mode: str
    ask_entity: bool
    own_relation: int
    relation: int
    tail: tuple[int, ...]
    hidden: np.ndarray
    hides_mentions: bool

    def apply(self, triple: LeafTriple, tail: np.ndarray) -> LeafTriple:
        """A copy as shown: its own relation where the fact's is shown as it is."""
        as_it_is = self.relation == self.own_relation
        return replace(
            triple,
            relation=triple.relation if as_it_is else self.relation,
            tail=tuple(int(t) for t in tail),
            tail_type=-1 if self.hidden.any() else triple.tail_type,
        )


def _hide(roots: np.ndarray, triple: LeafTriple, vocabulary: MaskVocabulary) -> None:
    """Mask the roots where a tail is written, whatever MLM made of them."""
    for start, end in triple.mentions:
        roots[start:end] = vocabulary.mask_id


def _decide(
    triple: LeafTriple, config: MaskingConfig, vocabulary: MaskVocabulary, rng: np.random.Generator
) -> _Decision:
    draw = rng.random()
    ask_entity = bool(rng.random() < config.entity_rate)
    mode, shown, hidden = "visible", triple.relation, np.zeros(len(triple.tail), dtype=bool)
    if draw < config.tail_rate:
        mode, hidden = "tail", _hidden(len(triple.tail), config, rng)
    elif draw < config.tail_rate + config.relation_rate:
        mode, shown = "relation", _random_relation(triple.relation, vocabulary, rng)
    elif draw < config.tail_rate + config.relation_rate + config.both_rate:
        mode, shown, hidden = "both", vocabulary.mask_relation, ~hidden
    hides = bool(hidden.any()) and config.mention_rate > 0 and rng.random() < config.mention_rate
    return _Decision(mode, ask_entity, triple.relation, shown, triple.tail, hidden, hides)


def _hidden(size: int, config: MaskingConfig, rng: np.random.Generator) -> np.ndarray:
    """Which tokens of a masked tail are hidden: all, or a random part with `partial_share`."""
    if not config.partial_share or rng.random() >= config.partial_share:
        return np.ones(size, dtype=bool)
    hidden = rng.random(size) < rng.random()
    hidden[rng.integers(size)] = True
    return hidden


def _mask_tail(
    triple: LeafTriple, decision: _Decision, config: MaskingConfig, vocabulary: MaskVocabulary
) -> tuple[np.ndarray, np.ndarray]:
    """The tail as shown and its labels; a query of unknown length has no token labels."""
    if decision.mode == "both" and config.query_slots:
        shown = np.full(config.query_slots, vocabulary.mask_id, dtype=np.int64)
        return shown, np.full(len(shown), IGNORE, dtype=np.int64)
    tail = np.array(triple.tail, dtype=np.int64)
    hidden = decision.hidden
    if triple.tail != decision.tail:  # another name of the same entity
        hidden = np.full(len(tail), bool(hidden.any()))
    return np.where(hidden, vocabulary.mask_id, tail), np.where(hidden, tail, IGNORE)
