"""Ask a corpus and gather what is proposed: one entry a triple, with every place that proposes it.

Candidate columns: E known entities, then phrases beyond the seed, then stand-ins of phrases.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphmert.extract import Query
from graphmert.progress import Progress
from graphmert.run.answers import Scorer
from graphmert.run.extraction import Candidate, Rule, best_of, log_fit
from graphmert.run.novel import Phrases, Stand, beside, with_names
from graphmert.run.prepared import HeadSpan
from graphmert.run.settings import ExtractSettings

Key = tuple[int, int, int]
"""head, relation, tail: a candidate's column."""

ENTITY, PHRASE = 0, 1
"""How a score is calibrated: as that of a known entity, or of a phrase where it stands."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One place that proposes a triple: the query, the raw score, how it is calibrated."""

    query: int
    raw: float
    kind: int


@dataclass(frozen=True)
class Gathered:
    """What a corpus proposes.

    Attributes:
        triples: offers of every triple, tails known or novel.
        stand_ins: offers of triples whose known tail was scored as a phrase would be.
        n_offers: of `triples`, over all places.
    """

    triples: dict[Key, list[Offer]] = field(default_factory=lambda: defaultdict(list))
    stand_ins: dict[Key, list[Offer]] = field(default_factory=lambda: defaultdict(list))

    @property
    def n_offers(self) -> int:
        """Number of proposals over all places."""
        return sum(map(len, self.triples.values()))


@dataclass(frozen=True)
class Columns:
    """The candidates of a corpus: known entities, phrases and stand-ins side by side."""

    scorer: Scorer
    phrases: Phrases
    stand: Stand

    @classmethod
    def build(cls, scorer: Scorer, phrases: Phrases, stand: Stand) -> Columns:
        """Encode the names beyond the seed with the same encoder."""
        return cls(with_names(scorer, [*phrases.tokens, *stand.tokens]), phrases, stand)

    @property
    def n_entities(self) -> int:
        """Number of known entities, the first columns."""
        return len(self.scorer.prepared.names)

    @property
    def n_tails(self) -> int:
        """Number of columns that may be a tail: entities and phrases."""
        return self.n_entities + len(self.phrases)

    def name_of(self, column: int) -> str:
        """Return the name of an entity or a phrase."""
        if column < self.n_entities:
            return self.scorer.prepared.names[column]
        return self.phrases.names[column - self.n_entities]

    def id_of(self, column: int) -> str:
        """Return the id of an entity or a phrase."""
        if column < self.n_entities:
            return self.scorer.prepared.entity_ids[column]
        return self.phrases.ids[column - self.n_entities]


def gather(
    columns: Columns,
    queries: Sequence[Query],
    spans: Sequence[HeadSpan],
    rule: Rule,
    settings: ExtractSettings,
    *,
    measured: Collection[int],
    progress: Progress,
    also: Mapping[tuple[int, int], frozenset[int]] | None = None,
) -> Gathered:
    """Answer every query and merge the proposals by triple.

    A query proposes its `top_k` known entities, and its `top_k` phrases: those that stand in the
    sequence, with tails = "corpus" also any other. Phrases change nothing among known entities.

    Args:
        columns: the candidates.
        queries, spans: what is asked, and where.
        rule: gives the weights of token scores and of relations.
        settings: the limits.
        measured: heads whose mentions stand in for phrases.
        progress: is told how far it is.
        also: (head, relation) -> tails proposed whatever their rank.
    """
    wanted = also or {}
    more = {
        index: tails
        for index, query in enumerate(queries)
        if (tails := wanted.get((query.head_entity, query.relation)))
    }
    found = Gathered()
    tokens = rule.token_weight > 0
    progress.begin("extract from the corpus", total=len(queries), unit="queries")
    for block in columns.scorer.answers(queries, tokens=tokens, progress=progress):
        scores_QC = columns.scorer.combine(block, rule.token_weight)
        fit_QC = log_fit(scores_QC, columns.n_entities)
        for one in best_of(fit_QC[:, : columns.n_entities], block, settings.top_k, also=more):
            query = queries[one.query]
            key = (query.head_entity, query.relation, one.tail)
            found.triples[key].append(Offer(one.query, one.score(rule.relation_weight), ENTITY))
        for row, index in enumerate(block.index_Q.tolist()):
            relation = 0.0 if block.relation_Q is None else float(block.relation_Q[row])
            asked = _Asked(columns, queries[index], spans[index], index, fit_QC[row])
            asked.phrases(found, settings, rule, relation)
            if queries[index].head_entity in measured:
                asked.stand_ins(found, settings.top_k, rule, relation)
    progress.end()
    return found


@dataclass(frozen=True)
class _Asked:
    """One query with its fits of all columns."""

    columns: Columns
    query: Query
    span: HeadSpan
    index: int
    fit_C: np.ndarray

    def phrases(
        self, found: Gathered, settings: ExtractSettings, rule: Rule, relation: float
    ) -> None:
        """Propose the best phrases."""
        columns = self.columns
        if not len(columns.phrases):
            return
        first, top_k = columns.n_entities, settings.top_k
        here = {first + row for row, _, _ in beside(columns.phrases.standing, self.span)}
        chosen = dict.fromkeys(self._best(here, top_k), PHRASE)
        if settings.corpus.tails == "corpus":
            # What overlaps the head is no tail here, wherever else it stands.
            standing = columns.phrases.standing.get(self.span.chain, ())
            over = {first + row for row, _, _ in standing} - here
            own = self.fit_C[first : columns.n_tails]
            n_best = min(top_k + len(over), len(own))
            best = first + np.argpartition(-own, n_best - 1)[:n_best]
            for column in self._best(set(best.tolist()) - over, top_k):
                chosen.setdefault(column, PHRASE if column in here else ENTITY)
        for column, kind in chosen.items():
            key = (self.query.head_entity, self.query.relation, column)
            found.triples[key].append(self._offer(column, kind, rule, relation))

    def stand_ins(self, found: Gathered, top_k: int, rule: Rule, relation: float) -> None:
        """Score the entities that stand beside the head by their surfaces."""
        stand, first = self.columns.stand, self.columns.n_tails
        columns_of: dict[int, set[int]] = defaultdict(set)
        for row, start, end in beside(stand.standing, self.span):
            entity = stand.entity_of[self.span.chain, start, end]
            if entity != self.query.head_entity:
                columns_of[entity].add(first + row)
        best = [(self._best(own, 1)[0], entity) for entity, own in sorted(columns_of.items())]
        best.sort(key=lambda pair: (-float(self.fit_C[pair[0]]), pair[1]))
        for column, entity in best[:top_k]:
            key = (self.query.head_entity, self.query.relation, entity)
            found.stand_ins[key].append(self._offer(column, PHRASE, rule, relation))

    def _best(self, columns: Collection[int], top_k: int) -> list[int]:
        return sorted(columns, key=lambda one: (-float(self.fit_C[one]), one))[:top_k]

    def _offer(self, column: int, kind: int, rule: Rule, relation: float) -> Offer:
        one = Candidate(self.index, column, float(self.fit_C[column]), relation)
        return Offer(self.index, one.score(rule.relation_weight), kind)
