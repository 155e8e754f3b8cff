"""What decides about a relation that came after training: fitted on triples held apart, or kept."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphmert.evaluate import choose_threshold, summarise_calibration
from graphmert.evaluate.calibration import TemperatureCalibrator
from graphmert.model import GraphMERT
from graphmert.progress import Progress
from graphmert.run.answers import Scorer
from graphmert.run.corpus_rule import AddedRelation
from graphmert.run.frozen import FrozenRun
from graphmert.run.gathering import Columns, Key, Offer, gather
from graphmert.run.novel import Phrases, Stand
from graphmert.run.places import (
    RelationRule,
    choose_places,
    choose_queries,
    choose_relation_rule,
    relation_log_p,
)
from graphmert.run.prepared import HeadSpan, Prepared
from graphmert.run.similarity import Similarity

APART = "triples held apart"
KEPT = "the run's, fitted on other relations: a score of this relation is an order, no probability"


@dataclass(frozen=True)
class Calibrated:
    """What decides about the new relation, and why.

    Attributes:
        rule: goes into the run's rule.
        text: says in words whether a score is a probability.
        measured: the calibration on the triples it was fitted on; empty where the run's is kept.
    """

    rule: AddedRelation
    text: str
    measured: Mapping[str, Any]


def kept(why: str) -> Calibrated:
    """Keep the run's calibration."""
    return Calibrated(AddedRelation(), f"{KEPT} ({why})", {})


def hold_apart(
    prepared: Prepared, place: int, *, share: float, least: int, least_fitted: int, seed: int
) -> frozenset[int]:
    """Choose heads of the new relation whose triples are not fitted on.

    Heads that no training document names cannot be fitted on, so they come first. Where their
    triples are too few, a share of the other heads joins them, by SHA-256(seed, id).

    Args:
        prepared: the run with the relation's triples.
        place: index of the relation.
        share: of the heads that training documents name.
        least: triples to calibrate on.
        least_fitted: triples to fit on.
        seed: another seed draws other heads.

    Returns: rows of entities; none where there are too few triples for both.
    """
    n_triples: dict[int, int] = defaultdict(int)
    for head, relation, _ in prepared.triples["train"].tolist():
        n_triples[head] += relation == place
    spans = [span for span in prepared.heads if n_triples.get(span.entity)]
    shown = {one.entity for one in spans if prepared.document_part(one.chain) == "train"}
    others = {one.entity for one in spans} - shown

    def n_of(heads: Collection[int]) -> int:
        return sum(n_triples[head] for head in heads)

    def key(head: int) -> bytes:
        return hashlib.sha256(f"{seed} {prepared.entity_ids[head]}".encode()).digest()

    drawn = sorted(shown, key=key)[: round(share * len(shown))]
    for more in ([], drawn):
        held = others.union(more)
        if share and n_of(held) >= least and n_of(shown - held) >= least_fitted:
            return frozenset(held)
    return frozenset()


def calibrate(
    source: FrozenRun,
    model: GraphMERT,
    prepared: Prepared,
    place: int,
    held: frozenset[int],
    *,
    least: int,
    progress: Progress,
) -> Calibrated:
    """Ask about the new relation at the heads held apart, as new documents are asked, and fit.

    The calibrator has two parameters, a temperature and a bias: examples are few. A tail that the
    given triples do not name counts as wrong.

    Args:
        source: the run before, with its rule.
        model: with the relation.
        prepared: the run with the relation's triples.
        place: index of the relation.
        held: heads whose triples were not fitted on.
        least: correct proposals needed; with fewer the run's calibration is kept.
        progress: is told how far it is.
    """
    asked = _Asked(source, model, prepared, place, held)
    relations = asked.relation_rule()
    found = asked.propose(relations, progress)
    keys = sorted(found)
    raw = [max(offer.raw for offer in found[key]) for key in keys]
    correct = [key[2] in asked.true[key[0]] for key in keys]
    if sum(correct) < least:
        return kept(f"{sum(correct)} correct proposals at heads held apart, {least} are needed")
    calibrator = TemperatureCalibrator.fit(raw, correct)
    n_true = sum(len(asked.true[head]) for head in asked.heads)
    target = source.extract.target_precision
    point = choose_threshold(
        calibrator.predict(raw), correct, target_precision=target, n_true=n_true
    )
    threshold = float(point.threshold)
    measured = summarise_calibration(
        calibrator,
        raw,
        correct,
        threshold=threshold,
        n_true=n_true,
        fitted_on=APART,
        measured_on=APART,
    )
    text = f"fitted on {len(raw)} proposals, {sum(correct)} of them correct, at "
    text += f"{len(asked.heads)} heads held apart"
    return Calibrated(AddedRelation(calibrator, threshold, relations), text, measured)


class _Asked:
    """The heads held apart, and what is proposed at them."""

    def __init__(
        self,
        source: FrozenRun,
        model: GraphMERT,
        prepared: Prepared,
        place: int,
        held: frozenset[int],
    ) -> None:
        self.source, self.prepared, self.place = source, prepared, place
        self.corpus, settings = source.rule.corpus, source.extract
        weights = source.rule.weights
        self.scorer = Scorer.build(
            model,
            prepared,
            query_slots=source.config.masking.query_slots,
            token_scores=settings.token_scores and weights.token_weight > 0,
            precision=source.config.train.precision,
            added=[*self.corpus.added_places(prepared.relations), place],
        )
        every, _ = choose_places(prepared, per_head=settings.corpus.places_per_head)
        self.places = [one for one in every if one.entity in held]
        self.heads = {one.entity for one in self.places}
        known = prepared.known_tails("train")
        self.true = {head: known.get((head, place), frozenset()) for head in self.heads}
        chooses = self.corpus.relations.threshold is not None or settings.corpus.max_relations
        self.log_p_PE: np.ndarray | None = None
        if self.places and chooses:
            self.log_p_PE = relation_log_p(self.scorer, self.places)

    def relation_rule(self) -> RelationRule:
        """Keep the share of the heads held apart that the run's rule was to keep of its pairs."""
        run = self.corpus.relations
        if self.log_p_PE is None or run.threshold is None:
            return RelationRule(None, run.wanted_recall)
        own_PE = np.full_like(self.log_p_PE, -np.inf)
        own_PE[:, self.place] = self.log_p_PE[:, self.place]
        pairs = {(head, self.place) for head in self.heads}
        return choose_relation_rule(
            self.places, own_PE, pairs, self.heads, recall=run.wanted_recall
        )

    def propose(self, relations: RelationRule, progress: Progress) -> dict[Key, list[Offer]]:
        """The proposals that the similarity filter leaves, by triple."""
        settings, name = self.source.extract, self.prepared.relations[self.place]
        queries, spans, _ = choose_queries(
            self.prepared,
            self.places,
            self.log_p_PE,
            self.corpus.relations,
            max_relations=settings.corpus.max_relations,
            own=self.corpus.asked_from | {name: relations.threshold},
        )
        own = [row for row, query in enumerate(queries) if query.relation == self.place]
        queries, spans = [queries[row] for row in own], [spans[row] for row in own]
        columns = Columns(self.scorer, Phrases(), Stand())
        found = gather(
            columns,
            queries,
            spans,
            self.source.rule.weights,
            settings,
            measured=frozenset(),
            progress=progress,
        ).triples
        if (beta := self.source.rule.beta) is None or not found:
            return dict(found)
        similarity = Similarity(self.prepared, self.source.embedder(), columns.name_of, progress)
        return _near(found, spans, similarity, beta)


def _near(
    found: Mapping[Key, Sequence[Offer]],
    spans: Sequence[HeadSpan],
    similarity: Similarity,
    beta: float,
) -> dict[Key, list[Offer]]:
    """Keep the offers whose sequence is near enough to the triple's words."""
    flat = [(key, offer) for key, offers in found.items() for offer in offers]
    cosines = similarity.of([(*key, spans[offer.query].chain) for key, offer in flat]).tolist()
    left: dict[Key, list[Offer]] = defaultdict(list)
    for (key, offer), cosine in zip(flat, cosines, strict=True):
        if cosine >= beta:
            left[key].append(offer)
    return dict(left)
