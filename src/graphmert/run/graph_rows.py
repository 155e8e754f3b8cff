"""The rows of kg/triples, kg/evidence and kg/rejected while a graph is built."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from graphmert.kg import Triple, triple_id
from graphmert.store import SCHEMAS, make_table

IN_TEXT, INFERRED = "in text", "inferred"


class GraphRows:
    """Collect accepted and rejected triples as columns."""

    def __init__(self, model_hash: str) -> None:
        self.model_hash = model_hash
        self.triples: dict[str, list[Any]] = {name: [] for name in SCHEMAS["kg/triples"].names}
        self.evidence: dict[str, list[Any]] = {name: [] for name in SCHEMAS["kg/evidence"].names}
        self.rejected: dict[str, list[Any]] = {name: [] for name in SCHEMAS["kg/rejected"].names}

    def accept(
        self,
        triple: Triple,
        names: tuple[str, str],
        score: float,
        *,
        novel: bool,
        method: str,
        evidence: Sequence[tuple[Mapping[str, Any], float]],
        note: str = "",
    ) -> None:
        """Add an accepted triple.

        Args:
            triple: by ids.
            names: of head and tail.
            score: of the triple.
            novel: not in the closure of the training triples.
            method: how it was scored; whether the text names the tail is added to it.
            evidence: rows of `TextEvidence.row` with their scores.
            note: said after the method, if anything.
        """
        identity = triple_id(*triple)
        row = {
            "triple_id": identity,
            "head_id": triple.head_id,
            "head": names[0],
            "relation": triple.relation,
            "tail_id": triple.tail_id,
            "tail": names[1],
            "score": score,
            "novel": novel,
            "n_evidence": len(evidence),
        }
        for name, value in row.items():
            self.triples[name].append(value)
        for found, own_score in evidence:
            place = INFERRED if found["tail_start"] is None else IN_TEXT
            extra = {
                "triple_id": identity,
                "locator": None,
                "model_hash": self.model_hash,
                "method": ", ".join(one for one in (method, place, note) if one),
                "score": own_score,
            }
            for name, value in (dict(found) | extra).items():
                self.evidence[name].append(value)

    def reject(
        self, triple: Triple, reason: str, score: float, evidence: Mapping[str, Any]
    ) -> None:
        """Add a rejected triple with the place it was best seen at."""
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

    def tables(self) -> dict[str, pa.Table]:
        """The three tables."""
        return {
            "kg/triples": make_table("kg/triples", self.triples),
            "kg/evidence": make_table("kg/evidence", self.evidence),
            "kg/rejected": make_table("kg/rejected", self.rejected),
        }


def entity_table(seed: pa.Table, more: Sequence[tuple[str, str, str]] = ()) -> pa.Table:
    """Return kg/entities: those of the seed, and more as (id, name, type)."""
    columns = {name: seed[name].to_pylist() for name in seed.column_names}
    for name, values in zip(("entity_id", "name", "type"), zip(*more, strict=True), strict=False):
        columns[name] += values
    columns["synonyms"] += [[] for _ in more]
    columns["merged_from"] = [[] for _ in columns["entity_id"]]
    return make_table("kg/entities", columns)
