"""Where a corpus is asked, and about which relations: choices with an abstention."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from graphmert.extract import Query, score_relations
from graphmert.run.answers import Scorer, allowed_relations, autocast
from graphmert.run.prepared import HeadSpan, Prepared
from graphmert.shards import Ledger


def choose_places(prepared: Prepared, *, per_head: int) -> tuple[list[HeadSpan], Ledger]:
    """Choose the mentions that are asked about.

    In a sequence an entity is asked about once: at its title, else at its first mention. Of an
    entity's sequences the first `per_head` stay: titles first, of a held-out head then those of
    documents that train nothing, then by SHA-256(sequence, entity). So another document changes
    the choice only where it takes a place.

    Args:
        prepared: the run.
        per_head: most sequences of an entity; 0 is no limit.

    Returns:
        Places in order of chain and character, and the ledger, which counts mentions.
    """
    ledger = Ledger("extract: places")
    ledger.offered(len(prepared.heads))
    relations = {one: bool(allowed_relations(prepared, one)) for one in _entities(prepared)}
    first: dict[tuple[int, int], HeadSpan] = {}
    for span in sorted(prepared.heads, key=lambda s: (s.chain, not s.is_title, s.char_start)):
        if not relations[span.entity]:
            example = prepared.entity_ids[span.entity]
            ledger.leave_out("schema: no relation begins at its type", example=example)
        elif first.setdefault((span.chain, span.entity), span) is not span:
            ledger.leave_out("entity mentioned again in the sequence")
    by_entity: dict[int, list[HeadSpan]] = defaultdict(list)
    for span in first.values():
        by_entity[span.entity].append(span)
    places: list[HeadSpan] = []
    for entity, spans in by_entity.items():
        if per_head:
            spans.sort(key=lambda span: _draw_key(prepared, span))
        kept = spans[: per_head or len(spans)]
        n_over = len(spans) - len(kept)
        example = prepared.entity_ids[entity]
        ledger.leave_out(f"asked in {per_head} other sequences", n_over, example)
        places += kept
    ledger.keep(len(places))
    places.sort(key=lambda span: (span.chain, span.char_start, span.char_end, span.entity))
    return places, ledger.check()


def _entities(prepared: Prepared) -> set[int]:
    return {span.entity for span in prepared.heads}


def _draw_key(prepared: Prepared, span: HeadSpan) -> tuple[bool, bool, bytes]:
    words = f"{prepared.chains[span.chain].chain_id} {prepared.entity_ids[span.entity]}"
    is_seen = span.entity in prepared.held_out_heads and trains(prepared, span)
    return not span.is_title, is_seen, hashlib.sha256(words.encode("utf-8")).digest()


def trains(prepared: Prepared, span: HeadSpan) -> bool:
    """Whether the document of a place is one that the model was trained on."""
    return prepared.document_part(span.chain) == "train"


def relation_log_p(scorer: Scorer, places: Sequence[HeadSpan]) -> np.ndarray | None:
    """Return log p(relation | place), float32 (places, E); None without that output.

    Relations that the schema does not let begin at the head's type have -inf.
    """
    if scorer.model.relation_head is None:
        return None
    prepared = scorer.prepared
    heads = [Query(one.chain, one.root_start, one.root_end, 0, one.entity) for one in places]
    with autocast(scorer.precision):
        log_p_PE = score_relations(scorer.model, prepared.chains, heads, asker=scorer.asker)
    for place, span in enumerate(places):
        admitted = allowed_relations(prepared, span.entity)
        log_p_PE[place, np.setdiff1d(np.arange(log_p_PE.shape[1]), admitted)] = -np.inf
    return log_p_PE


@dataclass(frozen=True)
class RelationRule:
    """Ask about relations of log p >= `threshold`; abstain from the others.

    It is chosen on (head, relation) pairs of validation heads that the seed knows, and on recall
    alone: a pair that the seed lacks is unlabelled, so it counts neither for nor against. What
    `share_known` says is a lower bound for the same reason.

    Attributes:
        threshold: least log p; None where the model does not choose relations.
        wanted_recall: the share of pairs it was to keep.
        n_pairs: known pairs of validation heads that have a place.
        recall: the share it keeps.
        share_asked: of all pairs of validation heads and admitted relations, those it keeps.
        share_known: of those it keeps, the known ones.
    """

    threshold: float | None
    wanted_recall: float
    n_pairs: int = 0
    recall: float = 1.0
    share_asked: float = 1.0
    share_known: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def choose_relation_rule(
    places: Sequence[HeadSpan],
    log_p_PE: np.ndarray | None,
    known: Collection[tuple[int, int]],
    heads: Collection[int],
    *,
    recall: float,
) -> RelationRule:
    """Choose the highest threshold that keeps the wanted share of known pairs.

    A pair's log p is the highest over the places of its head.

    Args:
        places: where heads are asked about.
        log_p_PE: log p of every relation at every place.
        known: (head, relation) pairs of the validation part.
        heads: the heads of the validation part.
        recall: the share to keep.
    """
    if log_p_PE is None:
        return RelationRule(None, recall)
    best: dict[int, np.ndarray] = {}
    for place, span in enumerate(places):
        if span.entity in heads:
            former = best.get(span.entity)
            own = log_p_PE[place]
            best[span.entity] = own if former is None else np.maximum(former, own)
    found = sorted(float(best[head][relation]) for head, relation in known if head in best)
    if not found:
        return RelationRule(None, recall)
    threshold = found[int((1 - recall) * len(found) + 1e-9)]
    n_kept = sum(value >= threshold for value in found)
    values = np.stack(list(best.values()))
    n_asked = int((values >= threshold).sum())
    return RelationRule(
        threshold=threshold,
        wanted_recall=recall,
        n_pairs=len(found),
        recall=n_kept / len(found),
        share_asked=n_asked / int(np.isfinite(values).sum()),
        share_known=n_kept / n_asked,
    )


def choose_queries(
    prepared: Prepared,
    places: Sequence[HeadSpan],
    log_p_PE: np.ndarray | None,
    rule: RelationRule,
    *,
    max_relations: int,
    own: Mapping[str, float | None] | None = None,
) -> tuple[list[Query], list[HeadSpan], Ledger]:
    """Ask at every place about the relations that schema and rule leave.

    Args:
        prepared: gives schema and types.
        places: where heads are asked about.
        log_p_PE: log p of every relation at every place, None where none is chosen.
        rule: the least log p.
        max_relations: most relations of a place; 0 is no limit.
        own: least log p of single relations in the rule's stead; None is no limit.

    Returns:
        Queries, the place of each, and the ledger, which counts pairs of place and relation.
    """
    ledger = Ledger("extract: relations")
    n_relations = len(prepared.relations)
    least_E = [(own or {}).get(name, rule.threshold) for name in prepared.relations]
    ledger.offered(len(places) * n_relations)
    queries: list[Query] = []
    spans: list[HeadSpan] = []
    for place, span in enumerate(places):
        admitted = allowed_relations(prepared, span.entity)
        ledger.leave_out(
            "schema: the relation does not begin at the head's type", n_relations - len(admitted)
        )
        chosen = admitted
        if log_p_PE is not None:
            log_p_E = log_p_PE[place]
            chosen = [
                one for one in admitted if (least := least_E[one]) is None or log_p_E[one] >= least
            ]
            reason = "abstained: the relation is not likely enough"
            ledger.leave_out(reason, len(admitted) - len(chosen))
            order = sorted(chosen, key=lambda one: (-log_p_E[one], one))
            limit = max_relations or len(order)
            ledger.leave_out(f"{max_relations} likelier relations of the place", len(order[limit:]))
            chosen = sorted(order[:limit])
        ledger.keep(len(chosen))
        for relation in chosen:
            queries.append(Query(span.chain, span.root_start, span.root_end, relation, span.entity))
            spans.append(span)
    return queries, spans, ledger.check()
