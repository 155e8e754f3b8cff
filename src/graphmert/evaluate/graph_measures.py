"""What is measured of a whole extracted graph, beside the ranks: one call for a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphmert.evaluate.frequency import count_entities, recall_by_frequency
from graphmert.evaluate.graph_qa import Question, Vocabulary, graph_qa, make_questions
from graphmert.evaluate.held_out import query_scores, top_one_scores
from graphmert.evaluate.ranks import QueryRow
from graphmert.evaluate.support import support_score
from graphmert.export import GraphTables
from graphmert.export.tables import rows_of
from graphmert.kg import Entity, Triple
from graphmert.query import Link
from graphmert.shards import Ledger
from graphmert.store import RunDir


def graph_measures(
    run: RunDir,
    *,
    threshold: float,
    systems: Mapping[str, Sequence[QueryRow]] | None = None,
    main: str = "graphmert",
    seed: int = 0,
    n_resamples: int = 1000,
    n_questions: int = 500,
) -> dict[str, Any]:
    """Return SupportScore, query F1, graph QA and recall by frequency of a finished run.

    The tables are those that extraction wrote; edits by hand play no part.

    Args:
        run: a run directory after its extract stage.
        threshold: the score from which triples were accepted.
        systems: ranks of held-out triples by each system.
        main: the system whose recall by frequency is wanted; None where it has no ranks.
        seed: of draws and resamples.
        n_resamples: bootstrap resamples.
        n_questions: questions of each length.

    Returns:
        {"support": …, "queries": …, "top_one": {system: …}, "graph_qa": …, "frequency": …}.
    """
    rows = (systems or {}).get(main, ())
    tables = GraphTables.read(run)
    parts = {name: triples_of_split(run, name) for name in ("train", "valid", "test")}
    links = links_of_tables(tables)
    accepted = [Triple(one.head_id, one.relation, one.tail_id) for one in links]
    questions, vocabulary, ledger = questions_of(run, tables, n_per_hop=n_questions, seed=seed)
    answered = graph_qa(
        questions, parts["train"], links, vocabulary, seed=seed, n_resamples=n_resamples
    )
    return {
        "support": support_score(tables, threshold=threshold, seed=GraphTables.from_seed(run)),
        "queries": query_scores(
            accepted,
            parts["test"],
            known=[*parts["train"], *parts["valid"]],
            seed=seed,
            n_resamples=n_resamples,
        ),
        "top_one": {
            name: top_one_scores(own, seed=seed, n_resamples=n_resamples)
            for name, own in (systems or {}).items()
        },
        "graph_qa": {**answered, "questions": ledger.to_dict()},
        "frequency": _frequency(run, tables, parts["train"], accepted, rows) if rows else None,
    }


def questions_of(
    run: RunDir, tables: GraphTables, *, n_per_hop: int, seed: int
) -> tuple[list[Question], Vocabulary, Ledger]:
    """Make the questions of a run from its held-out triples, in the words of its entities."""
    entities = {
        row["entity_id"]: Entity(row["entity_id"], row["name"], row["type"], tuple(row["synonyms"]))
        for row in rows_of(tables.entities)
    }
    vocabulary = Vocabulary.build(entities, tables.schema)
    test, train = triples_of_split(run, "test"), triples_of_split(run, "train")
    questions, ledger = make_questions(test, train, vocabulary, n_per_hop=n_per_hop, seed=seed)
    return questions, vocabulary, ledger


def triples_of_split(run: RunDir, part: str) -> list[Triple]:
    """Return the seed triples of one part."""
    table = run.read("seed/triples")
    columns = (table[one].to_pylist() for one in ("head_id", "relation", "tail_id", "split"))
    return [Triple(h, r, t) for h, r, t, found in zip(*columns, strict=True) if found == part]


def links_of_tables(tables: GraphTables) -> list[Link]:
    """Return the triples of a graph as links with their scores."""
    names = ("triple_id", "head_id", "relation", "tail_id", "score")
    columns = (tables.triples[name].to_pylist() for name in names)
    return [Link(*values) for values in zip(*columns, strict=True)]


def _frequency(
    run: RunDir,
    tables: GraphTables,
    train: Sequence[Triple],
    accepted: Sequence[Triple],
    rows: Sequence[QueryRow],
) -> dict[str, Any]:
    entities = run.read("seed/entities")["entity_id"].to_pylist()
    row_of = {entity_id: row for row, entity_id in enumerate(entities)}
    relation_of = {name: row for row, name in enumerate(tables.schema.relation_names)}
    indexed = [(row_of[h], relation_of[r], row_of[t]) for h, r, t in train]
    found = {
        (row_of[h], relation_of[r], row_of[t])
        for h, r, t in accepted
        if h in row_of and t in row_of and r in relation_of
    }
    heads, tails = count_entities(np.array(indexed, dtype=np.int64).reshape(-1, 3))
    return recall_by_frequency(rows, head_counts=heads, tail_counts=tails, accepted=found)
