"""Hold the tables of an index against the thresholds of the ontology."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from graphmert.domains.code.columns import kinds_of, pairs_of, rows_in_column, rows_where
from graphmert.domains.code.ontology import (
    ACYCLICITY_THRESHOLD,
    DERIVED,
    PROVENANCE_THRESHOLD,
    TYPE_THRESHOLD,
    load_ontology,
)


def validate_index(tables: Mapping[str, pa.Table], ledger: Mapping[str, Any]) -> dict[str, Any]:
    """Return shares and whether each is high enough.

    - type: of all triples proposed, those whose ends have types that the ontology allows; what
      is not allowed is not stored, so that `type_stored` is 1 unless there is a defect.
    - acyclicity: triples of acyclic relations that lie on no cycle.
    - provenance: triples with evidence.
    """
    triples = tables["kg/triples"]
    ontology = load_ontology().relations
    kinds = kinds_of(tables["kg/entities"], triples)
    relations = triples["relation"].to_pylist()
    counts = Counter(zip(kinds["head_id"], relations, kinds["tail_id"], strict=True))
    wrong: dict[str, int] = {}
    for (head, relation, tail), count in counts.items():
        rule = ontology[relation]
        if head not in rule.domain or tail not in rule.range:
            wrong[f"{head} {relation} {tail}"] = count
    n_valid = len(relations) - sum(wrong.values())
    edges = {
        name: rows_where(triples, "relation", name).select(["head_id", "tail_id"])
        for name, rule in ontology.items()
        if rule.acyclic
    }
    n = max(len(relations), 1)
    n_refused = ledger["triples"]["left_out"].get("outside domain or range", 0)
    n_offered = max(ledger["triples"]["offered"], 1)
    n_acyclic = sum(one.num_rows for one in edges.values())
    n_cyclic = sum(_on_cycles(pairs_of(one)) for one in edges.values())
    n_known = rows_in_column(triples, "triple_id", tables["kg/evidence"], "triple_id")
    shares = {
        "type": 1 - n_refused / n_offered if not wrong else n_valid / n,
        "acyclicity": 1 - n_cyclic / max(n_acyclic, 1),
        "provenance": n_known / n,
    }
    limits = {
        "type": TYPE_THRESHOLD,
        "acyclicity": ACYCLICITY_THRESHOLD,
        "provenance": PROVENANCE_THRESHOLD,
    }
    return {
        "shares": shares,
        "thresholds": limits,
        "passed": {name: shares[name] >= limit for name, limit in limits.items()},
        "type_stored": n_valid / n,
        "wrong_types": dict(sorted(wrong.items())[:10]),
        "derived_stored": sum(one in DERIVED for one in relations),
    }


def _on_cycles(edges: list[tuple[int, int]]) -> int:
    """Return how many edges lie on cycles: those within a strongly connected component."""
    graph: dict[int, list[int]] = defaultdict(list)
    for head, tail in edges:
        graph[head].append(tail)
    component: dict[int, int] = {}
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    n_components = 0
    for start in graph:
        if start in index:
            continue
        work = [(start, iter(graph[start]))]
        index[start] = low[start] = len(index)
        stack.append(start)
        while work:
            node, steps = work[-1]
            step = next(steps, None)
            if step is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    while True:
                        one = stack.pop()
                        component[one] = n_components
                        if one == node:
                            break
                    n_components += 1
            elif step not in index:
                index[step] = low[step] = len(index)
                stack.append(step)
                work.append((step, iter(graph.get(step, ()))))
            elif step not in component:
                low[node] = min(low[node], index[step])
    return sum(component[head] == component[tail] for head, tail in edges)
