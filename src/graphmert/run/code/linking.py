"""Link prediction on held-out packages: filtered, type-constrained ranks beside baselines.

Legend: Q questions, C candidates, E relations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphmert.evaluate import (
    QueryRow,
    Targets,
    filtered_ranks,
    summarise_split,
)
from graphmert.evaluate.baselines import Bm25Names, Query, RelationFrequency
from graphmert.model import GraphMERT
from graphmert.run.code.asking import (
    Asking,
    HeldOut,
    Pool,
    Question,
    allowed_tails,
    ask,
    even_sample,
    tails_of,
)
from graphmert.run.code.prepared import CodePrepared
from graphmert.run.code.search import split_words

STRUCTURE = frozenset({"contains", "defines", "declares", "has_field", "has_parameter"})
"""Relations that names and files alone give away."""


def measure_links(
    prepared: CodePrepared, model: GraphMERT, held: HeldOut, pool: Pool, *, seed: int
) -> dict[str, Any]:
    """Rank the hidden tails among the part's entities by every system.

    Filtered by all known triples; candidates are the entities of the part's packages and those
    outside all packages whose type the relation's range allows, the head left out. Systems see
    the training packages and the visible triples of the part.

    Returns: a section as in metrics.json, with `per_relation`, and `without_structure`: the
        same over relations that names and files do not give away.
    """
    settings = prepared.config.evaluate
    questions = even_sample(held.questions, per_relation=settings.n_link_queries, seed=seed)
    questions = [q for q in questions if q.tail in pool.column_of]
    if not questions:
        return {"n_triples": 0}
    fits = allowed_tails(prepared, pool.rows)
    ranker = _Ranker(prepared, held, pool, questions, fits)
    systems: dict[str, list[QueryRow]] = {}
    for name, asking in (
        ("graphmert", Asking()),
        ("graphmert_without_leaves", Asking(leaves="none")),
    ):
        scores = ask(
            prepared, model, questions, pool, part=held.part, pairs=held.pairs, asking=asking
        )
        systems[name] = ranker.rows(scores)
    for name, scores in _baselines(prepared, held, pool, questions, seed=seed).items():
        systems[name] = ranker.rows(scores)
    trained = [n for n in systems if n.startswith("graphmert") or n in KGE_FORMS]
    return _sections(prepared, systems, trained, len(pool.rows), seed=seed)


def _sections(
    prepared: CodePrepared,
    systems: Mapping[str, Sequence[QueryRow]],
    trained: Sequence[str],
    n_entities: int,
    *,
    seed: int,
) -> dict[str, Any]:
    relations = prepared.vocabulary.relations
    others = [name for name in systems if name != "graphmert"]

    def section(chosen: Mapping[str, Sequence[QueryRow]]) -> dict[str, Any]:
        return summarise_split(
            chosen,
            relations,
            trained=trained,
            n_entities=n_entities,
            compare=[("graphmert", other) for other in others],
            seed=seed,
            n_resamples=prepared.config.evaluate.n_resamples,
        )

    free = {
        name: [row for row in rows if relations[row.relation] not in STRUCTURE]
        for name, rows in systems.items()
    }
    result = section(systems)
    result["without_structure"] = section(free) if free["graphmert"] else None
    return result


KGE_FORMS = ("transe", "complex", "rotate")


class _Ranker:
    """Ranks of the questions' tails under filtering and type constraints."""

    def __init__(
        self,
        prepared: CodePrepared,
        held: HeldOut,
        pool: Pool,
        questions: Sequence[Question],
        fits: np.ndarray,
    ) -> None:
        self.questions, self.pool, self.fits = questions, pool, fits
        known = tails_of(held.visible, held.hidden)
        columns = pool.column_of
        self.targets = Targets(
            query=np.arange(len(questions)),
            tail=np.array([columns[q.tail] for q in questions], dtype=np.int64),
            known=[
                np.array(
                    sorted(columns[t] for t in known[q.head, q.relation] if t in columns), np.int64
                )
                for q in questions
            ],
        )
        names = prepared.builder.name_tokens
        seen = set(prepared.triples("train")[:, 2].tolist())
        self.lengths = [len(names[q.tail]) for q in questions]
        self.seen = [q.head in seen for q in questions]

    def rows(self, scores_QC: np.ndarray) -> list[QueryRow]:
        """Rank with what a system scored; what may not answer is below everything."""
        scores_QC = scores_QC.astype(np.float64).copy()
        for i, question in enumerate(self.questions):
            scores_QC[i, ~self.fits[question.relation]] = -np.inf
            column = self.pool.column_of.get(question.head)
            if column is not None:
                scores_QC[i, column] = -np.inf
        ranks = filtered_ranks(scores_QC, self.targets)
        return [
            QueryRow(q.head, q.relation, q.tail, length, seen, float(rank))
            for q, length, seen, rank in zip(
                self.questions, self.lengths, self.seen, ranks, strict=True
            )
        ]


def _baselines(
    prepared: CodePrepared,
    held: HeldOut,
    pool: Pool,
    questions: Sequence[Question],
    *,
    seed: int,
) -> dict[str, np.ndarray]:
    """Scores (Q, C) of every baseline; all know the training triples and the visible ones."""
    known = np.concatenate([prepared.triples("train"), held.visible])
    n_entities = len(prepared.vocabulary.entities)
    n_relations = len(prepared.vocabulary.relations)
    queries = [Query(q.head, "", q.relation, "") for q in questions]
    frequency = RelationFrequency(
        known[:, 1], known[:, 2], n_relations=n_relations, n_entities=n_entities
    )
    scores = {"relation_frequency": frequency.score(queries)[:, pool.rows]}
    scores["seen_pair"] = _seen_pairs(known, questions, pool)
    scores["bm25_names"] = _name_overlap(prepared, held.part, questions, pool)
    settings = prepared.config.evaluate
    if settings.kge_steps:
        from graphmert.evaluate.kge import KGEBaseline

        for form in KGE_FORMS:
            baseline = KGEBaseline(
                form,
                known,
                n_entities=n_entities,
                n_relations=n_relations,
                width=settings.kge_width,
                steps=settings.kge_steps,
                seed=seed,
            )
            scores[form] = baseline.score(queries)[:, pool.rows]
    return scores


def _seen_pairs(known: np.ndarray, questions: Sequence[Question], pool: Pool) -> np.ndarray:
    """How often the head is tied to a candidate, either way round, by any relation."""
    tied: dict[int, list[int]] = {}
    for head, _, tail in known.tolist():
        tied.setdefault(head, []).append(tail)
        tied.setdefault(tail, []).append(head)
    scores = np.zeros((len(questions), len(pool.rows)), dtype=np.float32)
    for i, question in enumerate(questions):
        for other in tied.get(question.head, ()):
            if other in pool.column_of:
                scores[i, pool.column_of[other]] += 1
    return scores


def _name_overlap(
    prepared: CodePrepared, part: str, questions: Sequence[Question], pool: Pool
) -> np.ndarray:
    """BM25 of the head's name and code, the answer's places masked, against candidate names."""
    tables, entities = prepared.tables, prepared.vocabulary.entities
    ranker = Bm25Names([split_words(tables.full_label(entities[int(r)])) for r in pool.rows])
    queries = []
    for q in questions:
        roots = list(prepared.chains[part][q.chain].roots)
        for start, end in q.mentions:
            roots[start:end] = [prepared.tokenizer.mask_id] * (end - start)
        text = f"{tables.full_label(entities[q.head])} {prepared.tokenizer.decode(roots)}"
        queries.append(Query(-1, "", q.relation, split_words(text)))
    return ranker.score(queries)
