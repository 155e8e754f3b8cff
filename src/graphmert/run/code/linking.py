"""Link prediction on held-out packages: filtered, type-constrained ranks beside baselines.

Legend: Q questions, C candidates, E relations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from graphmert.evaluate import (
    QueryRow,
    Targets,
    filtered_ranks,
    summarise_split,
)
from graphmert.evaluate.baselines import Bm25Names, Query, RelationFrequency
from graphmert.evaluate.kge import Form, KGEBaseline, choose_kge
from graphmert.model import GraphMERT
from graphmert.run.code.asking import (
    Asking,
    HeldOut,
    Pool,
    Question,
    allowed_tails,
    ask,
    candidate_rows,
    even_sample,
    hold_out,
    tails_of,
)
from graphmert.run.code.prepared import CodePrepared
from graphmert.run.code.search import split_words

KGE_FORMS: tuple[Form, ...] = ("transe", "complex", "rotate")
MAX_CHOOSING = 50
"""Questions of each relation, at most, that embeddings are chosen on after every epoch."""
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
    ranker = _Ranker(prepared, held, pool.rows, questions)
    systems: dict[str, list[QueryRow]] = {}
    for name, asking in (
        ("graphmert", Asking()),
        ("graphmert_without_leaves", Asking(leaves="none")),
    ):
        scores = ask(
            prepared, model, questions, pool, part=held.part, pairs=held.pairs, asking=asking
        )
        systems[name] = ranker.rows(scores)
    for name, scores in _baselines(prepared, held, pool, questions).items():
        systems[name] = ranker.rows(scores)
    chosen: dict[str, Any] = {}
    if settings.kge_epochs:
        other = "valid" if held.part == "test" else "test"
        aside = hold_out(prepared, other, share=settings.hidden_share, seed=seed)
        embeddings = _Embeddings.of(prepared, held, aside, model.device, seed=seed)
        for form in KGE_FORMS:
            scores, chosen[form] = embeddings.score(form, questions, pool.rows)
            systems[form] = ranker.rows(scores)
    trained = [n for n in systems if n.startswith("graphmert") or n in KGE_FORMS]
    sections = _sections(prepared, systems, trained, len(pool.rows), seed=seed)
    return sections | {"embeddings": chosen}


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


class _Ranker:
    """Ranks of the questions' tails under filtering and type constraints."""

    def __init__(
        self,
        prepared: CodePrepared,
        held: HeldOut,
        rows: np.ndarray,
        questions: Sequence[Question],
    ) -> None:
        self.questions, self.fits = questions, allowed_tails(prepared, rows)
        known = tails_of(held.visible, held.hidden)
        columns = self.columns = {int(row): i for i, row in enumerate(rows)}
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
            column = self.columns.get(question.head)
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
) -> dict[str, np.ndarray]:
    """Scores (Q, C) of what is counted; it knows the training triples and the visible ones."""
    known = np.concatenate([prepared.triples("train"), held.visible])
    n_entities = len(prepared.vocabulary.entities)
    n_relations = len(prepared.vocabulary.relations)
    queries = _queries(questions)
    frequency = RelationFrequency(
        known[:, 1], known[:, 2], n_relations=n_relations, n_entities=n_entities
    )
    scores = {"relation_frequency": frequency.score(queries)[:, pool.rows]}
    scores["seen_pair"] = _seen_pairs(known, questions, pool)
    scores["bm25_names"] = _name_overlap(prepared, held.part, questions, pool)
    return scores


@dataclass(frozen=True)
class _Embeddings:
    """Graph embeddings of all that is known, chosen on hidden triples of other packages.

    Attributes:
        known: training triples and the visible ones of both held-out parts.
        ranker: of questions about the other part; None where it holds nothing to ask.
        rows: the candidates of those questions.
        options: what all fits share.
    """

    prepared: CodePrepared
    known: np.ndarray
    ranker: _Ranker | None
    rows: np.ndarray
    options: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        prepared: CodePrepared,
        held: HeldOut,
        aside: HeldOut,
        device: torch.device,
        *,
        seed: int,
    ) -> _Embeddings:
        """Gather what is known and what is asked for the choice."""
        settings = prepared.config.evaluate
        rows = candidate_rows(prepared, aside.part)
        per_relation = min(settings.n_link_queries, MAX_CHOOSING)
        questions = even_sample(aside.questions, per_relation=per_relation, seed=seed)
        inside = set(rows.tolist())
        questions = [q for q in questions if q.tail in inside]
        return cls(
            prepared,
            np.concatenate([prepared.triples("train"), held.visible, aside.visible]),
            _Ranker(prepared, aside, rows, questions) if questions else None,
            rows,
            {
                "n_entities": len(prepared.vocabulary.entities),
                "n_relations": len(prepared.vocabulary.relations),
                "epochs": settings.kge_epochs,
                "patience": settings.kge_patience,
                "widths": settings.kge_widths,
                "learning_rates": settings.kge_learning_rates,
                "seed": seed,
                "device": device,
            },
        )

    def score(
        self, form: Form, questions: Sequence[Question], rows: np.ndarray
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Train a form; its scores (Q, C) and how it was chosen."""
        ranker = self.ranker

        def validate(made: KGEBaseline) -> float:
            assert ranker is not None
            found = ranker.rows(made.score(_queries(ranker.questions), self.rows))
            return float(np.mean([1 / row.rank for row in found]))

        made, record = choose_kge(
            form, self.known, validate=None if ranker is None else validate, **self.options
        )
        asked = 0 if ranker is None else len(ranker.questions)
        return made.score(_queries(questions), rows), record | {"n_valid_questions": asked}


def _queries(questions: Sequence[Question]) -> list[Query]:
    return [Query(q.head, "", q.relation, "") for q in questions]


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
