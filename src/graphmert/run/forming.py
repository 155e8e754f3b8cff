"""Measure tails that are named by tokens alone: the true entity is no candidate."""

from __future__ import annotations

from typing import Any

from graphmert.extract import form_tails
from graphmert.progress import Progress
from graphmert.run.answers import Scorer, autocast, draw_evenly, head_queries


def form_test_tails(scorer: Scorer, n_queries: int, progress: Progress) -> dict[str, Any]:
    """Recall of exact names when tails are put together from tokens, on test queries.

    A query counts as answered at k if the name of one of its true tails is among the k best.

    Args:
        n_queries: queries drawn evenly over the relations in a fixed order; 0 leaves it out.
    """
    if not n_queries or scorer.model.vocab_head is None:
        return {}
    prepared = scorer.prepared
    true = prepared.known_tails("test")
    queries = [
        query
        for query in head_queries(prepared, "test", only_true=True)
        if any(
            len(prepared.name_tokens[tail]) <= prepared.max_tail_tokens
            for tail in true[query.head_entity, query.relation]
        )
    ]
    chosen = draw_evenly(queries, n_queries)
    special = frozenset(prepared.tokenizer.special_ids)
    found = {1: 0, 5: 0}
    progress.begin("form tails from tokens", total=len(chosen), unit="queries")
    for done, query in enumerate(chosen, start=1):
        with autocast(scorer.precision):
            tails = form_tails(
                scorer.model,
                prepared.chains[query.chain],
                query,
                asker=scorer.asker,
                max_tokens=prepared.max_tail_tokens,
                n_best=5,
                banned=special,
            )
        wanted = {prepared.name_tokens[tail] for tail in true[query.head_entity, query.relation]}
        hits = [tail.tokens in wanted for tail in tails]
        found[1] += any(hits[:1])
        found[5] += any(hits[:5])
        progress.update(done)
    progress.end()
    n = len(chosen)
    return {
        "formed_tails": {
            "n_queries": n,
            "recall@1": found[1] / n if n else None,
            "recall@5": found[5] / n if n else None,
        }
    }
