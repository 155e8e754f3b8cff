"""SupportScore: how much of a graph its own text carries, without any judge.

A triple is supported when some sentence holds both of its surfaces at their offsets, its types
and relations keep the schema, and its score reaches the threshold. It says that the text names
both ends together, not that the text states the relation: that is what FActScore* asks a judge.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphmert.evaluate.proportions import share_of
from graphmert.export import GraphTables
from graphmert.export.tables import rows_of
from graphmert.kg import KG, Entity, Triple, validate
from graphmert.shards import Ledger


def support_score(
    tables: GraphTables, *, threshold: float, seed: GraphTables | None = None
) -> dict[str, Any]:
    """Return the SupportScore of an extracted graph.

    SupportScore = #{triples with score >= threshold, no violation of the schema, and a sentence
    that holds both surfaces} / #{triples}.

    Args:
        tables: the extracted graph.
        threshold: the score that a triple must reach.
        seed: the graph known before; with it, cycles and cardinalities count its triples too.

    Returns:
        n, n_supported, score with its Wilson interval, and the ledger of what is unsupported, by
        the first reason of: score, schema, sentence.

    Source: none.
    Checked by: tests/unit/evaluate/test_support.py
    """
    ledger = Ledger("SupportScore")
    broken = _violations(tables, seed)
    # Scores are stored as float32; one that equals the threshold must not fall below it.
    least = np.float32(threshold)
    supported = _with_both_surfaces(tables)
    for row in rows_of(tables.triples):
        ledger.offered()
        triple = Triple(row["head_id"], row["relation"], row["tail_id"])
        if np.float32(row["score"]) < least:
            reason = "score below the threshold"
        elif triple in broken:
            reason = f"schema: {broken[triple]}"
        elif row["triple_id"] not in supported:
            reason = "no sentence holds both surfaces"
        else:
            ledger.keep()
            continue
        ledger.leave_out(reason, example=" ".join(triple))
    ledger.check()
    return {
        "n": ledger.n_offered,
        "n_supported": ledger.n_kept,
        "threshold": threshold,
        "score": share_of(ledger.n_kept, ledger.n_offered),
        "unsupported": ledger.to_dict()["left_out"],
    }


def _with_both_surfaces(tables: GraphTables) -> set[str]:
    found: set[str] = set()
    for row in rows_of(tables.evidence):
        start, end, sentence = row["sent_start"], row["sent_end"], row["sentence"]
        if row["tail_start"] is None:
            continue
        spans = [
            (row[f"{side}_start"], row[f"{side}_end"], row[f"{side}_surface"])
            for side in ("head", "tail")
        ]
        if all(
            start <= first and last <= end and sentence[first - start : last - start] == surface
            for first, last, surface in spans
        ):
            found.add(row["triple_id"])
    return found


def _violations(tables: GraphTables, seed: GraphTables | None) -> Mapping[Triple, str]:
    """Kinds of violation by triple; none where there is no schema."""
    if not tables.schema.relations:
        return {}
    triples: set[Triple] = set()
    for part in (tables, seed):
        if part is not None:
            columns = (part.triples[one].to_pylist() for one in ("head_id", "relation", "tail_id"))
            triples |= {Triple(*one) for one in zip(*columns, strict=True)}
    entities: dict[str, Entity] = {}
    for part in (seed, tables):
        if part is not None:
            for row in rows_of(part.entities):
                entities[row["entity_id"]] = Entity(row["entity_id"], row["name"], row["type"])
    kinds: dict[Triple, set[str]] = defaultdict(set)
    for violation in validate(KG.build(entities.values(), triples), tables.schema):
        kinds[violation.triple].add(violation.kind)
    return {triple: ", ".join(sorted(found)) for triple, found in kinds.items()}
