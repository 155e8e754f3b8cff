"""Choose triples to show and cut their sentences at the ends of head and tail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa

from graphmert.errors import ProvenanceError
from graphmert.report.blocks import Sample, Segment
from graphmert.report.source import RunFiles


def best_samples(files: RunFiles, n: int) -> tuple[Sample, ...]:
    """Return the triples with the highest scores, relations in turn, one per head, novel first."""
    rows = sorted(
        _triples(files), key=lambda row: (not row["novel"], -row["score"], row["triple_id"])
    )
    by_relation: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_relation.setdefault(row["relation"], []).append(row)
    queues = [iter(by_relation[relation]) for relation in sorted(by_relation)]
    chosen: list[Mapping[str, Any]] = []
    heads: set[str] = set()
    while queues and len(chosen) < n:
        for queue in list(queues):
            row = next((row for row in queue if row["head_id"] not in heads), None)
            if row is None:
                queues.remove(queue)
            elif len(chosen) < n:
                heads.add(row["head_id"])
                chosen.append(row)
    return _with_evidence(files, chosen)


def drawn_samples(files: RunFiles, n: int) -> tuple[Sample, ...]:
    """Return the triples whose ids come first: ids are hashes, so this is a fair draw."""
    rows = sorted(_triples(files), key=lambda row: row["triple_id"])
    return _with_evidence(files, rows[:n])


def cut_sentence(
    sentence: str, head: tuple[int, int] | None, tail: tuple[int, int] | None
) -> tuple[Segment, ...]:
    """Cut a sentence at the ends of two spans, which may overlap.

    Args:
        sentence: the text.
        head: half-open span within the sentence, or None.
        tail: half-open span within the sentence, or None.
    """
    cuts = sorted({0, len(sentence), *(head or ()), *(tail or ())})
    return tuple(
        Segment(
            text=sentence[start:stop],
            in_head=head is not None and head[0] <= start < head[1],
            in_tail=tail is not None and tail[0] <= start < tail[1],
        )
        for start, stop in pairwise(cuts)
    )


def _triples(files: RunFiles) -> list[Mapping[str, Any]]:
    return [] if files.triples is None else files.triples.to_pylist()


def _with_evidence(files: RunFiles, rows: Sequence[Mapping[str, Any]]) -> tuple[Sample, ...]:
    evidence = _best_evidence(files, [row["triple_id"] for row in rows])
    return tuple(_sample(row, evidence.get(row["triple_id"]), files.held_out) for row in rows)


def _best_evidence(files: RunFiles, triple_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The best row per triple: tail in the text before inferred, then the highest score."""
    if files.evidence is None or not triple_ids:
        return {}
    wanted = set(triple_ids)
    keep = [triple_id in wanted for triple_id in files.evidence["triple_id"].to_pylist()]
    rows = files.evidence.filter(pa.array(keep, pa.bool_())).to_pylist()
    best: dict[str, Mapping[str, Any]] = {}
    for row in sorted(rows, key=_evidence_order):
        best.setdefault(row["triple_id"], row)
    return best


def _evidence_order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    score = row["score"] if row["score"] is not None else float("-inf")
    return (row["tail_start"] is None, -score, row["doc_id"], row["sent_start"], row["head_start"])


def _sample(
    triple: Mapping[str, Any],
    evidence: Mapping[str, Any] | None,
    held_out: frozenset[tuple[str, str, str]],
) -> Sample:
    segments: tuple[Segment, ...] = ()
    if evidence is not None:
        segments = cut_sentence(
            evidence["sentence"], _span(evidence, "head"), _span(evidence, "tail")
        )
    return Sample(
        head=triple["head"],
        relation=triple["relation"],
        tail=triple["tail"],
        score=triple["score"],
        novel=triple["novel"],
        held_out=(triple["head_id"], triple["relation"], triple["tail_id"]) in held_out,
        inferred=evidence is not None and evidence["tail_start"] is None,
        n_evidence=triple["n_evidence"],
        document="" if evidence is None else evidence["doc_id"],
        segments=segments,
    )


def _span(evidence: Mapping[str, Any], end: str) -> tuple[int, int] | None:
    """The span of the head or the tail within its sentence, checked against its surface."""
    if evidence[f"{end}_start"] is None:
        return None
    start = evidence[f"{end}_start"] - evidence["sent_start"]
    stop = evidence[f"{end}_end"] - evidence["sent_start"]
    sentence, surface = evidence["sentence"], evidence[f"{end}_surface"]
    if start < 0 or stop > len(sentence):
        return None  # the mention lies in another sentence of the sequence
    if sentence[start:stop] != surface:
        raise ProvenanceError(
            f"the {end} is not where the evidence says",
            where=f"document {evidence['doc_id']}, sentence at {evidence['sent_start']}",
            got=repr(sentence[start:stop]),
            expected=repr(surface),
        )
    return start, stop
