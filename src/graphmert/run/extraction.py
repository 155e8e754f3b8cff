"""Turn scores into a knowledge graph: calibrate, check, and keep every reason and sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from graphmert.evaluate import choose_threshold, summarise_calibration
from graphmert.evaluate.calibration import Calibrator, fit_calibrator, threshold_sweep
from graphmert.extract import Answers, Query
from graphmert.kg import Closure, SchemaGate, Triple
from graphmert.progress import Progress
from graphmert.run.answers import (
    SYSTEMS,
    Ranker,
    Scorer,
    allowed_relations,
    asked_heads,
    choose_token_weight,
    head_queries,
)
from graphmert.run.evidence import TextEvidence
from graphmert.run.graph_rows import GraphRows, entity_table
from graphmert.run.prepared import Prepared
from graphmert.run.relation_choice import average_precision, relation_choice
from graphmert.run.settings import ExtractSettings
from graphmert.shards import Ledger

RELATION_WEIGHTS = (0.0, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Candidate:
    """One proposed triple.

    Attributes:
        query: index of the query.
        tail: row of the tail entity.
        fit: log softmax of the combined score over all entities.
        relation: log p(relation | head, text), 0 where the model has no relation output.
    """

    query: int
    tail: int
    fit: float
    relation: float

    def score(self, relation_weight: float) -> float:
        """fit + relation_weight * log p(relation)."""
        return self.fit + relation_weight * self.relation


@dataclass(frozen=True)
class Rule:
    """Everything chosen on validation heads; frozen before a test head is scored."""

    token_weight: float
    relation_weight: float
    calibrator: Calibrator
    threshold: float
    tried: Mapping[str, Any]

    @property
    def method(self) -> str:
        """What scores come from, as evidence says it."""
        return "mnm-entity+mnm-leaf" if self.token_weight else "mnm-entity"

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "token_weight": self.token_weight,
            "relation_weight": self.relation_weight,
            "calibrator": self.calibrator.to_dict(),
            "threshold": self.threshold,
            "tried": dict(self.tried),
        }


def log_fit(scores_QC: np.ndarray, n_entities: int | None = None) -> np.ndarray:
    """Log softmax over the first `n_entities` columns (all by default), for every column.

    What stands beyond them is measured on the same scale and changes nothing among them.
    """
    known_QE = scores_QC[:, :n_entities]
    peak_Q1 = known_QE.max(axis=1, keepdims=True)
    log_z = np.log(np.exp(known_QE - peak_Q1).sum(axis=1, keepdims=True))
    return scores_QC - peak_Q1 - log_z


def propose(
    scores_QE: np.ndarray,
    block: Answers,
    top_k: int,
    *,
    also: Mapping[int, frozenset[int]] | None = None,
) -> list[Candidate]:
    """The best tails of each query, ties by entity row.

    Args:
        also: tails that are proposed whatever their rank, by query.
    """
    return best_of(log_fit(scores_QE), block, top_k, also=also)


def best_of(
    fit_QE: np.ndarray,
    block: Answers,
    top_k: int,
    *,
    also: Mapping[int, frozenset[int]] | None = None,
) -> list[Candidate]:
    """The columns with the best fit, as candidates; see `propose`."""
    top_k = min(top_k, fit_QE.shape[1])
    candidates = []
    for row, index in enumerate(block.index_Q):
        best = np.argpartition(-fit_QE[row], top_k - 1)[:top_k]
        if also and int(index) in also:
            best = np.union1d(best, sorted(also[int(index)]))
        best = best[np.lexsort((best, -fit_QE[row, best]))]
        relation = 0.0 if block.relation_Q is None else float(block.relation_Q[row])
        candidates += [
            Candidate(int(index), int(tail), float(fit_QE[row, tail]), relation)
            for tail in best
            if np.isfinite(fit_QE[row, tail])
        ]
    return candidates


def choose_rule(
    scorer: Scorer, settings: ExtractSettings, progress: Progress
) -> tuple[Rule, dict[str, Any]]:
    """Choose token weight, relation weight, calibration and threshold on validation heads.

    Returns: the rule, and the calibration measured on the heads it was fitted on.
    """
    prepared = scorer.prepared
    token_weight, tried_tokens = choose_token_weight(scorer, settings.n_rule_queries, progress)
    queries = head_queries(prepared, "valid", only_true=False)
    candidates: list[Candidate] = []
    progress.begin("calibrate", total=len(queries), unit="queries")
    for block in scorer.answers(queries, tokens=token_weight > 0, progress=progress):
        candidates += propose(scorer.combine(block, token_weight), block, settings.top_k)
    progress.end()
    correct = _correct(candidates, queries, prepared, "valid")
    n_true = len(prepared.triples["valid"])
    tried_relations = {
        str(weight): average_precision([c.score(weight) for c in candidates], correct, n_true)
        for weight in RELATION_WEIGHTS
    }
    relation_weight = float(max(tried_relations, key=lambda w: (tried_relations[w], -float(w))))
    raw = [c.score(relation_weight) for c in candidates]
    calibrator = fit_calibrator(settings.calibration, raw, correct)
    chosen = choose_threshold(
        calibrator.predict(raw), correct, target_precision=settings.target_precision, n_true=n_true
    )
    rule = Rule(
        token_weight,
        relation_weight,
        calibrator,
        float(chosen.threshold),
        {"token_weight_macro_mrr": tried_tokens, "relation_weight_ap": tried_relations},
    )
    fitted = summarise_calibration(
        calibrator,
        raw,
        correct,
        threshold=rule.threshold,
        n_true=n_true,
        fitted_on="valid",
        measured_on="valid",
    )
    if settings.sweep:
        points = threshold_sweep(calibrator.predict(raw), correct, n_true=n_true)
        fitted["sweep"] = [point.to_dict() for point in points]
    return rule, fitted


def _correct(
    candidates: Sequence[Candidate], queries: Sequence[Query], prepared: Prepared, part: str
) -> list[bool]:
    true = prepared.known_tails(part)
    none: frozenset[int] = frozenset()
    return [
        c.tail in true.get((queries[c.query].head_entity, queries[c.query].relation), none)
        for c in candidates
    ]


@dataclass(frozen=True)
class Extracted:
    """What the extract stage writes."""

    tables: Mapping[str, pa.Table]
    ledger: Ledger
    query_ledger: Ledger
    ranks: Mapping[str, list[Any]]
    calibration: dict[str, Any]
    summary: dict[str, Any]


def extract_test(
    scorer: Scorer,
    rule: Rule,
    settings: ExtractSettings,
    *,
    model_hash: str,
    progress: Progress,
    also: Mapping[tuple[int, int], frozenset[int]] | None = None,
) -> Extracted:
    """Answer every query at the test heads with the frozen rule and build the graph.

    Args:
        also: (head, relation) -> tails to score besides the best, such as a helper's.
    """
    prepared = scorer.prepared
    queries = head_queries(prepared, "test", only_true=False)
    more = _by_query(queries, also or {})
    ranker = Ranker(prepared, queries, "test")
    candidates: list[Candidate] = []
    relation_scores: dict[int, float] = {}
    query_ledger = _query_ledger(prepared, len(queries))
    progress.begin("extract", total=len(queries), unit="queries")
    for block in scorer.answers(queries, tokens=rule.token_weight > 0, progress=progress):
        combined = scorer.combine(block, rule.token_weight)
        ranker.add(SYSTEMS[0], block.index_Q, combined)
        if block.token_QE is not None:
            ranker.add(SYSTEMS[1], block.index_Q, block.entity_QE)
            ranker.add(SYSTEMS[2], block.index_Q, block.token_QE)
        if block.relation_Q is not None:
            relation_scores.update(
                zip(block.index_Q.tolist(), block.relation_Q.tolist(), strict=True)
            )
        candidates += propose(combined, block, settings.top_k, also=more)
        query_ledger.keep(len(block.index_Q))
    progress.end()
    correct = _correct(candidates, queries, prepared, "test")
    raw = [c.score(rule.relation_weight) for c in candidates]
    calibration = summarise_calibration(
        rule.calibrator,
        raw,
        correct,
        threshold=rule.threshold,
        n_true=len(prepared.triples["test"]),
        fitted_on="valid",
        measured_on="test",
    )
    probability = rule.calibrator.predict(raw)
    builder = _GraphBuilder(prepared, queries, model_hash, rule.method)
    order = sorted(
        range(len(candidates)), key=lambda i: (-probability[i], -raw[i], candidates[i].query)
    )
    for i in order:
        builder.offer(candidates[i], float(probability[i]), rule.threshold)
    tables, ledger = builder.finish()
    summary = builder.summary(query_ledger) | relation_choice(relation_scores, queries, prepared)
    return Extracted(tables, ledger, query_ledger, ranker.rows, calibration, summary)


def _by_query(
    queries: Sequence[Query], also: Mapping[tuple[int, int], frozenset[int]]
) -> dict[int, frozenset[int]]:
    found = {i: also.get((query.head_entity, query.relation)) for i, query in enumerate(queries)}
    return {place: tails for place, tails in found.items() if tails}


def _query_ledger(prepared: Prepared, n_asked: int) -> Ledger:
    """Offer all queries of test heads; those of heads that are not asked about are left out."""
    ledger = Ledger("extract: queries")
    ledger.offered(n_asked)
    for reason, heads in asked_heads(prepared, "test")[1].items():
        for head in heads:
            n_queries = len(allowed_relations(prepared, head))
            ledger.offered(n_queries)
            ledger.leave_out(reason, n_queries, prepared.entity_ids[head])
    return ledger


class _GraphBuilder:
    """Accept candidates, best first, and keep a reason for every other one."""

    def __init__(
        self, prepared: Prepared, queries: Sequence[Query], model_hash: str, method: str
    ) -> None:
        self.prepared = prepared
        self.method = method
        self.queries = queries
        ids, names = prepared.entity_ids, prepared.relations
        self.seed = [
            Triple(ids[h], names[r], ids[t]) for h, r, t in prepared.triples["train"].tolist()
        ]
        self.closure = Closure(self.seed, prepared.schema)
        self.gate = SchemaGate(prepared.schema, self.seed)
        self.text = TextEvidence(prepared)
        self.ledger = Ledger("extract: candidates")
        self.rows = GraphRows(model_hash)

    def offer(self, candidate: Candidate, score: float, threshold: float) -> None:
        """Accept a candidate, or write down why not."""
        query = self.queries[candidate.query]
        ids = self.prepared.entity_ids
        triple = Triple(
            ids[query.head_entity], self.prepared.relations[query.relation], ids[candidate.tail]
        )
        self.ledger.offered()
        evidence = self._evidence(query, candidate.tail)
        reason = "below threshold"
        if score >= threshold:
            reason = self.gate.objection(triple, self.prepared.types[candidate.tail])
        if reason is not None:
            self.ledger.leave_out(reason.split(":")[0], example=" ".join(triple))
            self.rows.reject(triple, reason, score, evidence)
            return
        self.ledger.keep()
        self.gate.add(triple)
        names = self.prepared.names
        self.rows.accept(
            triple,
            (names[query.head_entity], names[candidate.tail]),
            score,
            novel=not self.closure.contains(*triple),
            method=self.method,
            evidence=[(evidence, score)],
        )

    def _evidence(self, query: Query, tail: int) -> dict[str, Any]:
        """The sentence of the head, widened to the tail's where the text names the tail."""
        document = self.prepared.chain_documents[query.chain]
        head = self.prepared.title_heads[query.head_entity]
        tail_span = self.text.nearest(document, tail, head.char_start)
        return self.text.row(document, (head.char_start, head.char_end), tail_span)

    def finish(self) -> tuple[dict[str, pa.Table], Ledger]:
        """The tables of `kg/`; the ledger must balance."""
        entities = entity_table(self.prepared.run.read("seed/entities"))
        tables = {"kg/entities": entities, **self.rows.tables()}
        return tables, self.ledger.check()

    def summary(self, query_ledger: Ledger) -> dict[str, Any]:
        """Counts for metrics.json."""
        triples, prepared = self.rows.triples, self.prepared
        return {
            "n_queries": query_ledger.n_kept,
            "n_accepted": len(triples["triple_id"]),
            "n_novel": int(sum(triples["novel"])),
            "n_accepted_held_out": n_of_part(triples, prepared, "test"),
            "n_rejected": len(self.rows.rejected["reason"]),
            "n_tail_in_text": sum(start is not None for start in self.rows.evidence["tail_start"]),
        }


def n_of_part(triples: Mapping[str, Sequence[str]], prepared: Prepared, part: str) -> int:
    """How many of some rows of kg/triples are seed triples of a part."""
    ids, names = prepared.entity_ids, prepared.relations
    known = {(ids[h], names[r], ids[t]) for h, r, t in prepared.triples[part].tolist()}
    rows = zip(triples["head_id"], triples["relation"], triples["tail_id"], strict=True)
    return sum(row in known for row in rows)
