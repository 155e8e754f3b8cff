"""Turn scores into a knowledge graph: calibrate, check, and keep every reason and sentence."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from graphmert.domains.text.sequences import sentences
from graphmert.evaluate import IsotonicCalibrator, choose_threshold, summarise_calibration
from graphmert.extract import Answers, Query
from graphmert.kg import Closure, Triple, triple_id
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
from graphmert.run.prepared import Prepared
from graphmert.run.settings import ExtractSettings
from graphmert.shards import Ledger
from graphmert.store import SCHEMAS, make_table

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
    calibrator: IsotonicCalibrator
    threshold: float
    tried: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "token_weight": self.token_weight,
            "relation_weight": self.relation_weight,
            "calibrator": self.calibrator.to_dict(),
            "threshold": self.threshold,
            "tried": dict(self.tried),
        }


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
    shifted = scores_QE - scores_QE.max(axis=1, keepdims=True)
    log_z = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    fit_QE = shifted - log_z
    top_k = min(top_k, scores_QE.shape[1])
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
    calibrator = IsotonicCalibrator.fit(raw, correct)
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
    return rule, fitted


def average_precision(scores: Sequence[float], correct: Sequence[bool], n_true: int) -> float:
    """Mean over all true triples of the precision at the rank where each is found."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    hits = np.asarray(correct, dtype=float)[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / max(1, n_true))


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
    method = "mnm-entity+mnm-leaf" if rule.token_weight else "mnm-entity"
    builder = _GraphBuilder(prepared, queries, model_hash, method)
    order = sorted(
        range(len(candidates)), key=lambda i: (-probability[i], -raw[i], candidates[i].query)
    )
    for i in order:
        builder.offer(candidates[i], float(probability[i]), rule.threshold)
    tables, ledger = builder.finish()
    summary = builder.summary(query_ledger) | _relation_choice(relation_scores, queries, prepared)
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


def _relation_choice(
    scores: Mapping[int, float], queries: Sequence[Query], prepared: Prepared
) -> dict[str, Any]:
    """How often the likeliest relation of a test head is one it has, beside the commonest."""
    if not scores:
        return {}
    true = prepared.known_tails("test")
    by_head: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for index, score in scores.items():
        by_head[queries[index].head_entity].append((score, queries[index].relation))
    commonest = int(np.bincount(prepared.triples["train"][:, 1]).argmax())
    right = sum((head, max(options)[1]) in true for head, options in by_head.items())
    plain = sum((head, commonest) in true for head in by_head)
    flat = [(score, (head, r) in true) for head, options in by_head.items() for score, r in options]
    frequency = np.bincount(prepared.triples["train"][:, 1], minlength=len(prepared.relations))
    prior = [float(frequency[relation]) for options in by_head.values() for _, relation in options]
    hits = [hit for _, hit in flat]
    return {
        "relation_choice": {
            "n_heads": len(by_head),
            "top1_accuracy": right / len(by_head),
            "top1_accuracy_commonest_relation": plain / len(by_head),
            "average_precision": average_precision([s for s, _ in flat], hits, sum(hits)),
            "average_precision_relation_frequency": average_precision(prior, hits, sum(hits)),
        }
    }


class _GraphBuilder:
    """Accept candidates, best first, and keep a reason for every other one."""

    def __init__(
        self, prepared: Prepared, queries: Sequence[Query], model_hash: str, method: str
    ) -> None:
        self.prepared = prepared
        self.method = method
        self.queries = queries
        self.model_hash = model_hash
        ids, names = prepared.entity_ids, prepared.relations
        self.seed = [
            Triple(ids[h], names[r], ids[t]) for h, r, t in prepared.triples["train"].tolist()
        ]
        self.closure = Closure(self.seed, prepared.schema)
        self.parents: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for head, relation, tail in self.seed:
            self.parents[relation][head].add(tail)
        documents = prepared.run.read("corpus/documents")
        self.texts = dict(
            zip(
                documents.column("doc_id").to_pylist(),
                zip(
                    documents.column("text").to_pylist(),
                    documents.column("sha256").to_pylist(),
                    strict=True,
                ),
                strict=True,
            )
        )
        self.mentions: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        for span in prepared.heads:
            document = prepared.chain_documents[span.chain]
            self.mentions[document, span.entity].append((span.char_start, span.char_end))
        self.ledger = Ledger("extract: candidates")
        self.triples: dict[str, list[Any]] = {name: [] for name in SCHEMAS["kg/triples"].names}
        self.evidence: dict[str, list[Any]] = {name: [] for name in SCHEMAS["kg/evidence"].names}
        self.rejected: dict[str, list[Any]] = {name: [] for name in SCHEMAS["kg/rejected"].names}

    def offer(self, candidate: Candidate, score: float, threshold: float) -> None:
        """Accept a candidate, or write down why not."""
        query = self.queries[candidate.query]
        ids = self.prepared.entity_ids
        triple = Triple(
            ids[query.head_entity], self.prepared.relations[query.relation], ids[candidate.tail]
        )
        self.ledger.offered()
        evidence = self._evidence(query, candidate.tail)
        reason = self._objection(triple, candidate, score, threshold)
        if reason is not None:
            self.ledger.leave_out(reason.split(":")[0], example=" ".join(triple))
            self._reject(triple, reason, score, evidence)
            return
        self.ledger.keep()
        self.parents[triple.relation][triple.head_id].add(triple.tail_id)
        self._accept(triple, candidate, score, evidence)

    def _objection(
        self, triple: Triple, candidate: Candidate, score: float, threshold: float
    ) -> str | None:
        schema = self.prepared.schema.relations[triple.relation]
        tail_type = self.prepared.types[candidate.tail]
        if score < threshold:
            return "below threshold"
        if schema.range and tail_type not in schema.range:
            return f"schema, range: {triple.relation} does not end in {tail_type}"
        parents = self.parents[triple.relation]
        n_tails = len(parents[triple.head_id])
        if schema.cardinality is not None and n_tails >= schema.cardinality:
            return f"schema, cardinality: at most {schema.cardinality} tails"
        if schema.antisymmetric and triple.head_id in parents[triple.tail_id]:
            return "schema, antisymmetric: the reverse triple is known"
        if schema.acyclic and self._reaches(triple.relation, triple.tail_id, triple.head_id):
            return "schema, cycle: the tail already leads to the head"
        return None

    def _reaches(self, relation: str, start: str, goal: str) -> bool:
        todo, seen = [start], {start}
        while todo:
            here = todo.pop()
            if here == goal:
                return True
            for parent in self.parents[relation].get(here, ()):
                if parent not in seen:
                    seen.add(parent)
                    todo.append(parent)
        return False

    def _evidence(self, query: Query, tail: int) -> dict[str, Any]:
        """The sentence of the head, widened to the tail's where the text names the tail."""
        document = self.prepared.chain_documents[query.chain]
        text, sha256 = self.texts[document]
        head = self.prepared.title_heads[query.head_entity]
        spans = sentences(text)
        start, end = _containing(spans, head.char_start, head.char_end)
        tail_span = _nearest(self.mentions.get((document, tail), ()), head.char_start)
        if tail_span is not None:
            other = _containing(spans, *tail_span)
            start, end = min(start, other[0]), max(end, other[1])
        return {
            "domain": "text",
            "doc_id": document,
            "sha256": sha256,
            "sent_start": start,
            "sent_end": end,
            "sentence": text[start:end],
            "head_start": head.char_start,
            "head_end": head.char_end,
            "head_surface": text[head.char_start : head.char_end],
            "tail_start": None if tail_span is None else tail_span[0],
            "tail_end": None if tail_span is None else tail_span[1],
            "tail_surface": None if tail_span is None else text[slice(*tail_span)],
        }

    def _accept(
        self, triple: Triple, candidate: Candidate, score: float, evidence: Mapping[str, Any]
    ) -> None:
        identity = triple_id(*triple)
        head = self.queries[candidate.query].head_entity
        row = {
            "triple_id": identity,
            "head_id": triple.head_id,
            "head": self.prepared.names[head],
            "relation": triple.relation,
            "tail_id": triple.tail_id,
            "tail": self.prepared.names[candidate.tail],
            "score": score,
            "novel": not self.closure.contains(*triple),
            "n_evidence": 1,
        }
        for name, value in row.items():
            self.triples[name].append(value)
        place = "inferred" if evidence["tail_start"] is None else "in text"
        extra = {
            "triple_id": identity,
            "locator": None,
            "model_hash": self.model_hash,
            "method": f"{self.method}, {place}",
            "score": score,
        }
        for name, value in (dict(evidence) | extra).items():
            self.evidence[name].append(value)

    def _reject(
        self, triple: Triple, reason: str, score: float, evidence: Mapping[str, Any]
    ) -> None:
        row = {
            "candidate": json.dumps(list(triple)),
            "reason": reason,
            "score": score,
            "doc_id": evidence["doc_id"],
            "sent_start": evidence["sent_start"],
            "sent_end": evidence["sent_end"],
        }
        for name, value in row.items():
            self.rejected[name].append(value)

    def finish(self) -> tuple[dict[str, pa.Table], Ledger]:
        """The tables of `kg/`; the ledger must balance."""
        entities = self.prepared.run.read("seed/entities")
        columns = {name: entities[name].to_pylist() for name in entities.column_names}
        columns["merged_from"] = [[] for _ in range(len(entities))]
        tables = {
            "kg/entities": make_table("kg/entities", columns),
            "kg/triples": make_table("kg/triples", self.triples),
            "kg/evidence": make_table("kg/evidence", self.evidence),
            "kg/rejected": make_table("kg/rejected", self.rejected),
        }
        return tables, self.ledger.check()

    def summary(self, query_ledger: Ledger) -> dict[str, Any]:
        """Counts for metrics.json."""
        known = {
            (head, relation, tail)
            for head, relation, tail in self.prepared.triples["test"].tolist()
        }
        row_of = {entity_id: row for row, entity_id in enumerate(self.prepared.entity_ids)}
        relation_of = {name: i for i, name in enumerate(self.prepared.relations)}
        held_out = sum(
            (row_of[h], relation_of[r], row_of[t]) in known
            for h, r, t in zip(
                self.triples["head_id"], self.triples["relation"], self.triples["tail_id"],
                strict=True,
            )
        )  # fmt: skip
        return {
            "n_queries": query_ledger.n_kept,
            "n_accepted": len(self.triples["triple_id"]),
            "n_novel": int(sum(self.triples["novel"])),
            "n_accepted_held_out": held_out,
            "n_rejected": len(self.rejected["reason"]),
            "n_tail_in_text": sum(start is not None for start in self.evidence["tail_start"]),
        }


def _containing(spans: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """The smallest run of sentences that covers a span."""
    touched = [s for s in spans if s[0] < end and s[1] > start]
    if not touched:
        return start, end
    return min(start, touched[0][0]), max(end, touched[-1][1])


def _nearest(spans: Sequence[tuple[int, int]], place: int) -> tuple[int, int] | None:
    return min(spans, key=lambda s: (abs(s[0] - place), s), default=None)
