"""Ask a trained model about one document: every entity of every sequence, as a run asks a corpus.

The queries of a document are answered by themselves, in portions of a fixed size, so that the
result does not depend on the documents beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from graphmert.domains.text.embedding import Embedder
from graphmert.domains.text.selection import texts_of
from graphmert.extract import Query
from graphmert.kg import SchemaGate, Triple
from graphmert.progress import Silent
from graphmert.run.answers import Scorer
from graphmert.run.corpus_extraction import UNTRUSTED
from graphmert.run.evidence import TextEvidence, nearest_span
from graphmert.run.gathering import Columns, Key, Offer, gather
from graphmert.run.graph_rows import GraphRows
from graphmert.run.novel import Phrases, Stand, novel_id
from graphmert.run.places import choose_places, choose_queries, relation_log_p
from graphmert.run.prepared import HeadSpan, Prepared
from graphmert.run.reading import Reading
from graphmert.run.rules import FrozenRule
from graphmert.run.settings import ExtractSettings
from graphmert.run.similarity import Similarity
from graphmert.shards import Ledger

MAX_SCORES = 1 << 25  # queries times candidates scored at once, 128 MiB
LOW_SIMILARITY = "similarity below beta"


@dataclass(frozen=True)
class Proposal:
    """A triple that one place in a text speaks for.

    Attributes:
        triple, names: of its entities, by ids and by names.
        phrase: row of a tail beyond the seed, -1 where the tail is an entity of the seed.
        score: calibrated probability.
        raw: the score before calibration; it puts equal probabilities in order.
        evidence: the columns of `TextEvidence.row`.
    """

    triple: Triple
    names: tuple[str, str]
    phrase: int
    score: float
    raw: float
    evidence: dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What one document yields.

    Attributes:
        proposals: what nothing speaks against by itself, in the order of places.
        rejected: kg/rejected, everything else that was proposed.
        ledgers: of places, relations and candidates.
    """

    proposals: tuple[Proposal, ...]
    rejected: pa.Table
    ledgers: tuple[Ledger, ...]


@dataclass(frozen=True)
class Asker:
    """A frozen model, ready to be asked about documents.

    Attributes:
        scorer: of the seed's entities and of the phrases behind them.
        phrases: names beyond the seed that the run knows; where they stand is not used.
        rule: thresholds and calibration.
        settings: limits.
        embedder: gives the embedding model; called only for the similarity filter.
    """

    scorer: Scorer
    phrases: Phrases
    rule: FrozenRule
    settings: ExtractSettings
    embedder: Callable[[], Embedder]

    def ask(self, reading: Reading, document: pa.Table) -> Asked:
        """Answer all queries of a document under the frozen rule.

        An entity is asked about once in each sequence, where it is named first, with the
        relations that the schema admits and the rule does not abstain from. A place whose own
        score is below the threshold is no evidence, whatever other places say.

        Args:
            reading: of the document.
            document: its row of the documents table.
        """
        prepared = reading.prepared
        here = replace(self.scorer, prepared=prepared)
        queries, spans, ledgers = self._queries(here)
        phrases = self._standing(reading)
        columns = Columns(here, phrases, Stand())
        found: list[tuple[Key, Offer]] = []
        portion = max(1, MAX_SCORES // columns.n_tails)
        for first in range(0, len(queries), portion):
            gathered = gather(
                columns,
                queries[first : first + portion],
                spans[first : first + portion],
                self.rule.weights,
                self.settings,
                measured=frozenset(),
                progress=Silent(),
            )
            for key, offers in gathered.triples.items():
                found += [(key, replace(one, query=first + one.query)) for one in offers]
        found.sort(key=lambda one: (one[1].query, one[0][2]))
        texts = texts_of(reading.tables["corpus/sequences"], document)
        job = _Document(self, columns, TextEvidence(prepared, document), spans, texts)
        proposals, rejected, ledger = job.judge(found)
        return Asked(tuple(proposals), rejected, (*ledgers, ledger))

    def _queries(self, scorer: Scorer) -> tuple[list[Query], list[HeadSpan], list[Ledger]]:
        prepared, relations = scorer.prepared, self.rule.corpus.relations
        own = self.rule.corpus.asked_from
        chooses = any(one is not None for one in (relations.threshold, *own.values()))
        places, place_ledger = choose_places(prepared, per_head=0)
        log_p_PE = None
        if places and (chooses or self.settings.corpus.max_relations):
            log_p_PE = relation_log_p(scorer, places)
        queries, spans, ledger = choose_queries(
            prepared,
            places,
            log_p_PE,
            relations,
            max_relations=self.settings.corpus.max_relations,
            own=own,
        )
        return queries, spans, [place_ledger, ledger]

    def _standing(self, reading: Reading) -> Phrases:
        """The phrases with the places where they stand in the document."""
        if not len(self.phrases):
            return self.phrases
        row_of = {one: row for row, one in enumerate(self.phrases.ids)}
        chain_of = {one.chain_id: row for row, one in enumerate(reading.prepared.chains)}
        standing: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        table = reading.tables["corpus/candidates"]
        names = ("seq_id", "start", "end", "surface", "entity_id")
        for seq_id, start, end, surface, linked in zip(
            *(table[name].to_pylist() for name in names), strict=True
        ):
            if linked is None and (row := row_of.get(novel_id(surface))) is not None:
                standing[chain_of[seq_id]].append((row, start, end))
        return replace(self.phrases, standing=standing)


class _Document:
    """The judgement about what one document proposes."""

    def __init__(
        self,
        asker: Asker,
        columns: Columns,
        text: TextEvidence,
        spans: Sequence[HeadSpan],
        texts: Sequence[str],
    ) -> None:
        self.asker, self.columns, self.text, self.spans = asker, columns, text, spans
        self.texts = texts
        self.prepared: Prepared = columns.scorer.prepared
        # Nothing is known beside a place: only what a triple breaks by itself is found.
        self.gate = SchemaGate(self.prepared.schema, ())
        self.phrase_places = columns.phrases.in_document(self.prepared)

    def judge(self, found: Sequence[tuple[Key, Offer]]) -> tuple[list[Proposal], pa.Table, Ledger]:
        """Return what nothing speaks against, the rows of the rest, and the ledger."""
        corpus = self.asker.rule.corpus
        relations = self.prepared.relations
        scores = [corpus.probability(offer, relations[key[1]]) for key, offer in found]
        reasons = [
            self._objection(key, score) for (key, _), score in zip(found, scores, strict=True)
        ]
        alive = [place for place, reason in enumerate(reasons) if reason is None]
        for place in self._unlike(found, alive):
            reasons[place] = LOW_SIMILARITY
        ledger = Ledger("extract: candidates")
        ledger.offered(len(found))
        rows = GraphRows("")
        proposals: list[Proposal] = []
        for (key, offer), score, reason in zip(found, scores, reasons, strict=True):
            triple, evidence = self._triple(key), self._row(offer, key[2])
            if reason is None:
                ledger.keep()
                names = (self.prepared.names[key[0]], self.columns.name_of(key[2]))
                phrase = max(-1, key[2] - self.columns.n_entities)
                proposals.append(Proposal(triple, names, phrase, score, offer.raw, evidence))
            else:
                ledger.leave_out(reason.split(":")[0], example=" ".join(triple))
                rows.reject(triple, reason, score, evidence)
        return proposals, rows.tables()["kg/rejected"], ledger.check()

    def _triple(self, key: Key) -> Triple:
        head, relation, tail = key
        prepared = self.prepared
        return Triple(
            prepared.entity_ids[head], prepared.relations[relation], self.columns.id_of(tail)
        )  # fmt: skip

    def _objection(self, key: Key, score: float) -> str | None:
        corpus = self.asker.rule.corpus
        is_phrase = key[2] >= self.columns.n_entities
        if is_phrase and corpus.phrases is None:
            return UNTRUSTED
        if score < corpus.least(self.prepared.relations[key[1]], novel=is_phrase):
            return "below threshold"
        if is_phrase:
            return None
        return self.gate.objection(self._triple(key), self.prepared.types[key[2]])

    def _unlike(self, found: Sequence[tuple[Key, Offer]], alive: Sequence[int]) -> list[int]:
        """Return which of the proposals that are left are too far from their sequences."""
        beta = self.asker.rule.beta
        if beta is None or not alive:
            return []
        similarity = Similarity(
            self.prepared, self.asker.embedder(), self.columns.name_of, Silent(), texts=self.texts
        )
        rows = [(*found[one][0], self.spans[found[one][1].query].chain) for one in alive]
        cosines = similarity.of(rows).tolist()
        return [one for one, cosine in zip(alive, cosines, strict=True) if cosine < beta]

    def _row(self, offer: Offer, tail: int) -> dict[str, Any]:
        span = self.spans[offer.query]
        document = self.prepared.chain_documents[span.chain]
        if tail < self.columns.n_entities:
            tail_span = self.text.nearest(document, tail, span.char_start)
        else:
            places = self.phrase_places.get((document, tail - self.columns.n_entities), ())
            apart = [s for s in places if s[1] <= span.char_start or span.char_end <= s[0]]
            tail_span = nearest_span(apart, span.char_start)
        return self.text.row(document, (span.char_start, span.char_end), tail_span)
