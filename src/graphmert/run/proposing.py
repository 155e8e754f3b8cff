"""What one place in a text speaks for: a triple, its score, and the sentence as evidence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from graphmert.extract import Query
from graphmert.kg import Triple
from graphmert.run.prepared import HeadSpan, Prepared
from graphmert.sentences import Span, sentences


@dataclass(frozen=True)
class Proposal:
    """A triple that one place in a text speaks for.

    Attributes:
        head, tail: names of its entities.
        score: calibrated probability.
        raw: the score before calibration; it puts equal probabilities in order.
        evidence: the columns of kg/evidence but the triple's id.
    """

    triple: Triple
    head: str
    tail: str
    score: float
    raw: float
    evidence: Mapping[str, Any]


class Proposer:
    """Turn answers to queries into proposals.

    Args:
        prepared: entities, relations, schema, and the chains and mentions of the documents.
        documents: their texts, columns doc_id, text, sha256.
        queries: what was asked.
        spans: where the head of each query stands.
        model_hash: of the weights.
        method: how scores came about.
    """

    def __init__(
        self,
        prepared: Prepared,
        documents: pa.Table,
        queries: Sequence[Query],
        spans: Sequence[HeadSpan],
        *,
        model_hash: str,
        method: str,
    ) -> None:
        self.prepared = prepared
        self.queries = queries
        self.spans = spans
        self.model_hash = model_hash
        self.method = method
        columns = (documents[name].to_pylist() for name in ("doc_id", "text", "sha256"))
        self.texts = {doc_id: (text, digest) for doc_id, text, digest in zip(*columns, strict=True)}
        self.mentions: dict[tuple[str, int], list[Span]] = defaultdict(list)
        for span in prepared.heads:
            document = prepared.chain_documents[span.chain]
            self.mentions[document, span.entity].append((span.char_start, span.char_end))
        self._sentences: dict[str, list[Span]] = {}

    def triple(self, query: int, tail: int) -> Triple:
        """Return the triple of a query and a tail, by ids."""
        ids, asked = self.prepared.entity_ids, self.queries[query]
        return Triple(
            ids[asked.head_entity], self.prepared.relations[asked.relation], ids[tail]
        )  # fmt: skip

    def propose(self, query: int, tail: int, score: float, *, raw: float = 0.0) -> Proposal:
        """Return the proposal of a tail (a row of the entities) for a query."""
        names = self.prepared.names
        head = names[self.queries[query].head_entity]
        evidence = self.evidence(query, tail, score)
        return Proposal(self.triple(query, tail), head, names[tail], score, raw, evidence)

    def objection(self, query: int, tail: int, score: float, threshold: float) -> str | None:
        """Say what speaks against a proposal by itself, if anything does."""
        relation = self.prepared.relations[self.queries[query].relation]
        allowed = self.prepared.schema.relations[relation].range
        tail_type = self.prepared.types[tail]
        if score < threshold:
            return "below threshold"
        if allowed and tail_type not in allowed:
            return f"schema, range: {relation} does not end in {tail_type}"
        return None

    def evidence(self, query: int, tail: int, score: float) -> dict[str, Any]:
        """The sentence of the head, widened to the tail's where the text names the tail."""
        document = self.prepared.chain_documents[self.queries[query].chain]
        text, sha256 = self.texts[document]
        head = self.spans[query]
        spans = self._sentences.get(document)
        if spans is None:
            spans = self._sentences[document] = sentences(text)
        start, end = _containing(spans, head.char_start, head.char_end)
        tail_span = _nearest(self.mentions.get((document, tail), ()), head.char_start)
        if tail_span is not None:
            other = _containing(spans, *tail_span)
            start, end = min(start, other[0]), max(end, other[1])
        place = "inferred" if tail_span is None else "in text"
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
            "locator": None,
            "model_hash": self.model_hash,
            "method": f"{self.method}, {place}",
            "score": score,
        }


def _containing(spans: Sequence[Span], start: int, end: int) -> Span:
    """The smallest run of sentences that covers a span."""
    touched = [s for s in spans if s[0] < end and s[1] > start]
    if not touched:
        return start, end
    return min(start, touched[0][0]), max(end, touched[-1][1])


def _nearest(spans: Sequence[Span], place: int) -> Span | None:
    return min(spans, key=lambda s: (abs(s[0] - place), s), default=None)
