"""How well relations are chosen at test heads, beside what their frequency alone gives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphmert.extract import Query
from graphmert.run.prepared import Prepared


@dataclass(frozen=True)
class _Pair:
    """A head and a relation it may have: log p, and whether the seed has it."""

    head: int
    relation: int
    score: float
    prior: float
    true: bool


def relation_choice(
    scores: Mapping[int, float], queries: Sequence[Query], prepared: Prepared
) -> dict[str, Any]:
    """Measure the choice of relations: all of them, without the commonest, and one by one.

    Where nearly every head has the commonest relation, naming it is nearly always right: then only
    the numbers without it, and those by relation, say anything.

    Args:
        scores: log p(relation | place) of queries, by their index.
        queries: of test heads, one a head and admitted relation.
    """
    if not scores:
        return {}
    true = prepared.known_tails("test")
    n_relations = len(prepared.relations)
    frequency = np.bincount(prepared.triples["train"][:, 1], minlength=n_relations)
    pairs = []
    for index, score in scores.items():
        key = (queries[index].head_entity, queries[index].relation)
        pairs.append(_Pair(*key, score, float(frequency[key[1]]), key in true))
    commonest = int(frequency.argmax())
    heads = {one.head for one in pairs}
    plain = sum((head, commonest) in true for head in heads)
    return {
        "relation_choice": {
            **_measure(pairs),
            "top1_accuracy_commonest_relation": plain / len(heads),
            "commonest_relation": prepared.relations[commonest],
            "without_commonest": _without(pairs, commonest),
            "by_relation": _by_relation(pairs, prepared.relations),
        }
    }


def _measure(pairs: Sequence[_Pair]) -> dict[str, Any]:
    options: dict[int, list[_Pair]] = defaultdict(list)
    for one in pairs:
        options[one.head].append(one)
    hits = [one.true for one in pairs]
    right = sum(max(own, key=lambda o: (o.score, o.relation)).true for own in options.values())
    return {
        "n_heads": len(options),
        "top1_accuracy": right / len(options),
        "average_precision": average_precision([one.score for one in pairs], hits, sum(hits)),
        "average_precision_relation_frequency": average_precision(
            [one.prior for one in pairs], hits, sum(hits)
        ),
    }


def _without(pairs: Sequence[_Pair], commonest: int) -> dict[str, Any]:
    """The same among the other relations, of heads that have one of them."""
    others = [one for one in pairs if one.relation != commonest]
    having = {one.head for one in others if one.true}
    own = [one for one in others if one.head in having]
    if not own:
        return {"n_heads": 0}
    options: dict[int, list[_Pair]] = defaultdict(list)
    for one in own:
        options[one.head].append(one)
    prior = sum(max(some, key=lambda o: (o.prior, -o.relation)).true for some in options.values())
    return {**_measure(own), "top1_accuracy_relation_frequency": prior / len(options)}


def _by_relation(pairs: Sequence[_Pair], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How well log p of one relation orders the heads that may have it, and the share that has it.

    An order by chance has an average precision of about that share.
    """
    found = {}
    for place, name in enumerate(names):
        own = [one for one in pairs if one.relation == place]
        n_true = sum(one.true for one in own)
        if n_true:
            scores, hits = [one.score for one in own], [one.true for one in own]
            found[name] = {
                "n_true": n_true,
                "n_heads": len(own),
                "share": n_true / len(own),
                "average_precision": average_precision(scores, hits, n_true),
            }
    return found


def average_precision(scores: Sequence[float], correct: Sequence[bool], n_true: int) -> float:
    """Mean over all true triples of the precision at the rank where each is found."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    hits = np.asarray(correct, dtype=float)[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / max(1, n_true))
