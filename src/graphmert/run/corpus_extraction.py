"""Extraction from a whole corpus: choose relations, propose tails, calibrate, filter, merge.

Everything is chosen on validation heads, asked in the same way as all others; test heads are
measured with what was chosen. Both count only where their document trained nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from graphmert.domains.text.embedding import Embedder
from graphmert.errors import DataError
from graphmert.evaluate import choose_threshold, summarise_calibration
from graphmert.evaluate.calibration import Calibrator, fit_calibrator, threshold_sweep
from graphmert.extract import Query
from graphmert.kg import Closure, SchemaGate, Triple
from graphmert.progress import Progress
from graphmert.run.answers import Scorer
from graphmert.run.corpus_rule import CorpusRule
from graphmert.run.evidence import TextEvidence, nearest_span
from graphmert.run.extraction import Rule, n_of_part
from graphmert.run.gathering import Columns, Gathered, Key, Offer, gather
from graphmert.run.graph_rows import GraphRows, entity_table
from graphmert.run.novel import NovelTypes, Phrases, Stand, find_phrases, stand_ins
from graphmert.run.places import (
    RelationRule,
    choose_places,
    choose_queries,
    choose_relation_rule,
    relation_log_p,
    trains,
)
from graphmert.run.prepared import HeadSpan, Prepared
from graphmert.run.settings import ExtractSettings
from graphmert.run.similarity import Similarity
from graphmert.shards import Ledger
from graphmert.store import make_table

BETAS = tuple(round(0.05 * step, 2) for step in range(20))
UNTRUSTED = "no calibration for tails beyond the seed"


@dataclass(frozen=True)
class CorpusExtracted:
    """The graph of a corpus, and what was measured on it."""

    tables: Mapping[str, pa.Table]
    ledgers: Sequence[Ledger]
    rule: dict[str, Any]
    calibration: dict[str, Any]
    fitted: dict[str, Any]
    summary: dict[str, Any]


def extract_corpus(
    scorer: Scorer,
    rule: Rule,
    settings: ExtractSettings,
    *,
    embedder: Callable[[], Embedder],
    model_hash: str,
    progress: Progress,
    also: Mapping[tuple[int, int], frozenset[int]] | None = None,
) -> CorpusExtracted:
    """Ask wherever the corpus names an entity, and build the graph.

    Args:
        scorer: the trained model.
        rule: weights of token scores and of relations, chosen on validation heads.
        settings: `extract` of the run.
        embedder: gives the embedding model; called only for the similarity filter.
        model_hash: of the model's weights.
        progress: is told how far it is.
        also: (head, relation) -> tails to score besides the best, such as a helper's.

    Raises:
        DataError: validation heads propose nothing to choose with.
        ConfigError: tails of the corpus are wanted where there are no candidates.
    """
    job = _Job(scorer, settings, model_hash, progress)
    job.ask(rule, also)
    if settings.corpus.beta is not None:
        job.similarity = Similarity(scorer.prepared, embedder(), job.columns.name_of, progress)
    chosen, fitted = job.choose()
    return job.build(chosen, fitted, rule)


class _Job:
    """One extraction, from places to tables."""

    def __init__(
        self, scorer: Scorer, settings: ExtractSettings, model_hash: str, progress: Progress
    ) -> None:
        self.prepared: Prepared = scorer.prepared
        self.scorer, self.settings = scorer, settings
        self.model_hash, self.progress = model_hash, progress
        self.text = TextEvidence(scorer.prepared)
        self.similarity: Similarity | None = None
        self.ledgers: list[Ledger] = []
        self.queries: list[Query] = []
        self.spans: list[HeadSpan] = []
        train = self._heads("train")
        # A head that training knows too is held out only as the mirror of another's triple.
        self.heads = {part: self._heads(part) - train for part in ("valid", "test")}
        self.labelled = train.union(*self.heads.values())
        self.n_places = 0
        self.relations = RelationRule(None, settings.corpus.relation_recall)

    def _heads(self, part: str) -> frozenset[int]:
        return frozenset(self.prepared.triples[part][:, 0].tolist())

    # --- asking ---------------------------------------------------------------------------------

    def ask(self, rule: Rule, also: Mapping[tuple[int, int], frozenset[int]] | None) -> None:
        """Choose places and relations, and gather proposals."""
        prepared, corpus = self.prepared, self.settings.corpus
        places, ledger = choose_places(prepared, per_head=corpus.places_per_head)
        self.ledgers.append(ledger)
        self.n_places = len(places)
        self.n_unlabelled = len({one.entity for one in places} - self.labelled)
        self.progress.begin("choose relations", total=1)
        log_p_PE = relation_log_p(self.scorer, places)
        self.progress.end()
        unseen = [place for place, one in enumerate(places) if self._is_measured(one)]
        self.measured_on = self._measured_on(places)
        self.relations = choose_relation_rule(
            [places[place] for place in unseen],
            None if log_p_PE is None else log_p_PE[unseen],
            set(prepared.known_tails("valid")),
            self.heads["valid"],
            recall=corpus.relation_recall,
        )
        self.queries, self.spans, ledger = choose_queries(
            prepared, places, log_p_PE, self.relations, max_relations=corpus.max_relations
        )
        self.ledgers.append(ledger)
        phrases, stand = Phrases(), Stand()
        measured = self.heads["valid"] | self.heads["test"]
        if corpus.tails != "entities":
            phrases, ledger = find_phrases(prepared, min_count=corpus.min_phrase_count)
            self.ledgers.append(ledger)
            chains = {places[place].chain for place in unseen}
            stand = stand_ins(prepared, chains, {k: v[0] for k, v in self.text.texts.items()})
        self.columns = Columns.build(self.scorer, phrases, stand)
        self.found: Gathered = gather(
            self.columns,
            self.queries,
            self.spans,
            rule,
            self.settings,
            measured=measured,
            progress=self.progress,
            also=also,
        )
        self.phrase_places = phrases.in_document(prepared)

    def _is_measured(self, span: HeadSpan) -> bool:
        """Whether a place counts: of a held-out head, in a document that trained nothing."""
        held = any(span.entity in heads for heads in self.heads.values())
        return held and not trains(self.prepared, span)

    def _measured_on(self, places: Sequence[HeadSpan]) -> dict[str, Any]:
        """How many heads and places of each held-out part count, and how many do not."""
        found: dict[str, Any] = {}
        for part, heads in self.heads.items():
            own = [one for one in places if one.entity in heads]
            unseen = [one for one in own if self._is_measured(one)]
            found[part] = {
                "n_heads": len({one.entity for one in unseen}),
                "n_places": len(unseen),
                "n_places_in_training_documents": len(own) - len(unseen),
                "n_documents": len({self.prepared.chain_documents[one.chain] for one in unseen}),
            }
        return found

    # --- choosing -------------------------------------------------------------------------------

    def choose(self) -> tuple[CorpusRule, dict[str, Any]]:
        """Fit calibrators and choose thresholds on validation heads.

        Returns: the rule, and the calibration measured on the heads it was fitted on.
        """
        n_true = len(self.prepared.triples["valid"])
        raw, correct = self._labelled(self.found.triples, "valid")
        if not raw:
            raise DataError(
                "no proposal at a validation head is left to choose with",
                where="extract.corpus",
                got=f"{len(self.queries)} queries",
                fix="Lower extract.corpus.beta, raise relation_recall or corpus.held_out_share, or "
                "hold out more heads.",
            )
        calibrator = fit_calibrator(self.settings.calibration, raw, correct)
        target = self.settings.target_precision
        p = calibrator.predict(raw)
        point = choose_threshold(p, correct, target_precision=target, n_true=n_true)
        threshold = float(point.threshold)
        phrases, phrase_threshold = None, threshold
        novel_raw, novel_correct = self._labelled(self.found.stand_ins, "valid")
        if sum(novel_correct) >= self.settings.corpus.min_novel_examples:
            phrases = fit_calibrator(self.settings.calibration, novel_raw, novel_correct)
            novel = choose_threshold(
                phrases.predict(novel_raw), novel_correct, target_precision=target
            )
            phrase_threshold = max(threshold, float(novel.threshold))
        chosen = CorpusRule(self.relations, calibrator, threshold, phrases, phrase_threshold)
        fitted = self._measure(calibrator, threshold, raw, correct, "valid")
        if self.settings.sweep:
            points = threshold_sweep(p, correct, n_true=n_true)
            fitted["sweep"] = [one.to_dict() for one in points]
            if self.similarity is not None:
                fitted["beta_sweep"] = self._beta_sweep()
        return chosen, fitted

    def _labelled(
        self, found: Mapping[Key, Sequence[Offer]], part: str
    ) -> tuple[list[float], list[bool]]:
        """Raw scores of the triples of a part's heads after the filter, and whether they are true.

        Tails beyond the seed are unlabelled and left aside, and so are places in documents that
        trained.
        """
        true = self.prepared.known_tails(part)
        own = self._of_heads(found, self.heads[part])
        kept = self._similar(own)
        keys = sorted(key for key, offers in kept.items() if offers)
        none: frozenset[int] = frozenset()
        raw = [max(offer.raw for offer in kept[key]) for key in keys]
        return raw, [key[2] in true.get(key[:2], none) for key in keys]

    def _of_heads(
        self, found: Mapping[Key, Sequence[Offer]], heads: frozenset[int]
    ) -> dict[Key, list[Offer]]:
        n_entities = self.columns.n_entities
        own: dict[Key, list[Offer]] = {}
        for key, offers in found.items():
            if key[0] in heads and key[2] < n_entities:
                unseen = [one for one in offers if self._is_measured(self.spans[one.query])]
                if unseen:
                    own[key] = unseen
        return own

    def _similar(self, found: Mapping[Key, Sequence[Offer]]) -> dict[Key, list[Offer]]:
        """Keep the offers whose sequence is near enough to the triple's words."""
        beta = self.settings.corpus.beta
        if self.similarity is None or beta is None:
            return {key: list(offers) for key, offers in found.items()}
        return {
            key: [one for one, cosine in own if cosine >= beta]
            for key, own in self._with_cosine(found).items()
        }

    def _with_cosine(
        self, found: Mapping[Key, Sequence[Offer]]
    ) -> dict[Key, list[tuple[Offer, float]]]:
        assert self.similarity is not None
        flat = [
            (key, offer, (*key, self.spans[offer.query].chain))
            for key, offers in found.items()
            for offer in offers
        ]
        cosines = self.similarity.of([row for _, _, row in flat]).tolist()
        result: dict[Key, list[tuple[Offer, float]]] = {key: [] for key in found}
        for (key, offer, _), cosine in zip(flat, cosines, strict=True):
            result[key].append((offer, cosine))
        return result

    def _beta_sweep(self) -> list[dict[str, float]]:
        """Candidates and correct ones of validation heads that each beta would leave."""
        true = self.prepared.known_tails("valid")
        own = self._of_heads(self.found.triples, self.heads["valid"])
        best = {
            key: max(cosine for _, cosine in offers)
            for key, offers in self._with_cosine(own).items()
        }
        none: frozenset[int] = frozenset()
        rows = []
        for beta in BETAS:
            left = [key for key, cosine in best.items() if cosine >= beta]
            n_correct = sum(key[2] in true.get(key[:2], none) for key in left)
            rows.append({"beta": beta, "n_candidates": len(left), "n_correct": n_correct})
        return rows

    def _measure(
        self,
        calibrator: Calibrator,
        threshold: float,
        raw: Sequence[float],
        correct: Sequence[bool],
        part: str,
    ) -> dict[str, Any]:
        return summarise_calibration(
            calibrator,
            raw,
            correct,
            threshold=threshold,
            n_true=len(self.prepared.triples[part]),
            fitted_on="valid",
            measured_on=part,
        )

    # --- building -------------------------------------------------------------------------------

    def build(self, chosen: CorpusRule, fitted: dict[str, Any], rule: Rule) -> CorpusExtracted:
        """Offer every triple, best first, and write down what becomes of it."""
        raw, correct = self._labelled(self.found.triples, "test")
        calibration: dict[str, Any] = {}
        if raw:
            calibration = self._measure(chosen.calibrator, chosen.threshold, raw, correct, "test")
        graph = _Graph(self, chosen, rule.method)
        names = self.prepared.relations
        scored = {
            key: [(chosen.probability(offer, names[key[1]]), offer) for offer in offers]
            for key, offers in self.found.triples.items()
        }
        strong = {
            key: [offer for p, offer in own if p >= graph.least(key)] for key, own in scored.items()
        }
        similar = self._similar({key: offers for key, offers in strong.items() if offers})
        entries = []
        for key, own in scored.items():
            left = {id(offer) for offer in similar.get(key, ())}
            kept = [(p, offer) for p, offer in own if id(offer) in left]
            best = max(((p, offer.raw) for p, offer in kept or own))
            entries.append((-best[0], -best[1], key, kept, own))
        for score, _, key, kept, own in sorted(entries, key=lambda one: one[:3]):
            graph.offer(key, -score, kept, own)
        tables, ledgers = graph.finish()
        summary = self._summary(graph, chosen)
        rules = {**rule.to_dict(), **chosen.to_dict(), "beta": self.settings.corpus.beta}
        return CorpusExtracted(
            tables, [*self.ledgers, *ledgers], rules, calibration, fitted, summary
        )

    def _summary(self, graph: _Graph, chosen: CorpusRule) -> dict[str, Any]:
        triples = graph.rows.triples
        in_text = {
            one
            for one, start in zip(
                graph.rows.evidence["triple_id"], graph.rows.evidence["tail_start"], strict=True
            )
            if start is not None
        }
        summary: dict[str, Any] = {
            "n_places": self.n_places,
            "n_heads_unlabelled": self.n_unlabelled,
            "measured_on": self.measured_on,
            "n_queries": len(self.queries),
            "n_proposals": self.found.n_offers,
            "n_candidates": len(self.found.triples),
            "n_accepted": len(triples["triple_id"]),
            "n_novel": int(sum(triples["novel"])),
            "n_accepted_held_out": n_of_part(triples, self.prepared, "test"),
            "n_rejected": len(graph.rows.rejected["reason"]),
            "n_evidence": len(graph.rows.evidence["triple_id"]),
            "n_tail_in_text": len(in_text),
            "n_novel_entities": len(graph.novel),
            "n_tail_novel_entity": sum(tail in graph.novel for tail in triples["tail_id"]),
        }
        if len(self.columns.phrases):
            raw, correct = self._labelled(self.found.stand_ins, "test")
            summary["stand_ins"] = {"n": len(raw), "n_correct": sum(correct)}
            if chosen.phrases is not None and raw:
                measured = summarise_calibration(
                    chosen.phrases,
                    raw,
                    correct,
                    threshold=chosen.phrase_threshold,
                    n_true=sum(correct),
                    fitted_on="valid",
                    measured_on="test",
                )
                kept = ("ece", "threshold", "precision", "recall", "n_accepted")
                summary["stand_ins"] |= {name: measured[name] for name in kept}
        return summary


class _Graph:
    """Accept triples, best first, with all their evidence; keep a reason for every other one."""

    def __init__(self, job: _Job, chosen: CorpusRule, method: str) -> None:
        self.job, self.chosen, self.method = job, chosen, method
        prepared = job.prepared
        ids, names = prepared.entity_ids, prepared.relations
        seed = [Triple(ids[h], names[r], ids[t]) for h, r, t in prepared.triples["train"].tolist()]
        self.closure = Closure(seed, prepared.schema)
        self.gate = SchemaGate(prepared.schema, seed)
        self.types = NovelTypes(prepared, job.columns.scorer.entity_vectors)
        self.rows = GraphRows(job.model_hash)
        self.novel: dict[str, int] = {}
        self.candidates = Ledger("extract: candidates")
        self.evidence = Ledger("extract: evidence")

    def least(self, key: Key) -> float:
        """Return the least probability with which a place speaks for a triple."""
        novel = key[2] >= self.job.columns.n_entities
        return self.chosen.least(self.job.prepared.relations[key[1]], novel=novel)

    def offer(
        self,
        key: Key,
        score: float,
        kept: Sequence[tuple[float, Offer]],
        own: Sequence[tuple[float, Offer]],
    ) -> None:
        """Accept a triple, or write down why not.

        Args:
            key: the triple.
            score: the best of `kept`, else of `own`.
            kept: probability and offer of every place that reaches the threshold and is similar
                enough: the evidence, if the triple is accepted.
            own: the same of all places.
        """
        columns, prepared = self.job.columns, self.job.prepared
        head, relation, tail = key
        ids = prepared.entity_ids
        triple = Triple(ids[head], prepared.relations[relation], columns.id_of(tail))
        phrase = tail - columns.n_entities
        kind = self.types.type_of(phrase, triple.relation) if phrase >= 0 else prepared.types[tail]
        self.candidates.offered()
        self.evidence.offered(len(own))
        n_weak = sum(p < self.least(key) for p, _ in own)
        reason = self._objection(triple, kind, phrase, kept, len(own) - n_weak)
        if reason is not None:
            short = reason.split(":")[0]
            self.candidates.leave_out(short, example=" ".join(triple))
            self.evidence.leave_out(f"its triple: {short}", len(own))
            best = max(own, key=lambda one: (one[0], one[1].raw, -one[1].query))
            self.rows.reject(triple, reason, score, self._row(best[1], tail))
            return
        self.candidates.keep()
        self.evidence.keep(len(kept))
        self.evidence.leave_out("below threshold", n_weak)
        self.evidence.leave_out("similarity below beta", len(own) - n_weak - len(kept))
        self.gate.add(triple)
        if phrase >= 0:
            self.types.fix(phrase, kind)
            self.novel[triple.tail_id] = phrase
        self.rows.accept(
            triple,
            (prepared.names[head], columns.name_of(tail)),
            score,
            novel=not self.closure.contains(*triple),
            method=self.method,
            evidence=[(self._row(offer, tail), p) for p, offer in kept],
            note="novel entity" if phrase >= 0 else "",
        )

    def _objection(
        self,
        triple: Triple,
        kind: str,
        phrase: int,
        kept: Sequence[tuple[float, Offer]],
        n_strong: int,
    ) -> str | None:
        if phrase >= 0 and self.chosen.phrases is None:
            return UNTRUSTED
        if not n_strong:
            return "below threshold"
        if not kept:
            return "similarity below beta"
        return self.gate.objection(triple, kind)

    def _row(self, offer: Offer, tail: int) -> dict[str, Any]:
        job = self.job
        span = job.spans[offer.query]
        document = job.prepared.chain_documents[span.chain]
        if tail < job.columns.n_entities:
            tail_span = job.text.nearest(document, tail, span.char_start)
        else:
            places = job.phrase_places.get((document, tail - job.columns.n_entities), ())
            apart = [s for s in places if s[1] <= span.char_start or span.char_end <= s[0]]
            tail_span = nearest_span(apart, span.char_start)
        return job.text.row(document, (span.char_start, span.char_end), tail_span)

    def finish(self) -> tuple[dict[str, pa.Table], list[Ledger]]:
        """The tables of `kg/`; the ledgers must balance."""
        columns, phrases = self.job.columns, self.job.columns.phrases
        found = sorted(self.novel.items())
        kinds = [self.types.fixed[phrase] for _, phrase in found]
        more = [
            (identity, columns.phrases.names[phrase], kind)
            for (identity, phrase), kind in zip(found, kinds, strict=True)
        ]
        tables = {
            "kg/entities": entity_table(self.job.prepared.run.read("seed/entities"), more),
            **self.rows.tables(),
        }
        if self.job.settings.corpus.tails != "entities":
            tables["kg/novel_entities"] = make_table(
                "kg/novel_entities",
                {
                    "entity_id": [one for one, _ in found],
                    "name": [phrases.names[phrase] for _, phrase in found],
                    "type": kinds,
                    "n_occurrences": [phrases.n_occurrences[phrase] for _, phrase in found],
                    "n_documents": [phrases.n_documents[phrase] for _, phrase in found],
                },
            )
        return tables, [self.candidates.check(), self.evidence.check()]


__all__ = ["CorpusExtracted", "extract_corpus"]
