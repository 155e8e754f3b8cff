"""Ask a trained model about one document: every entity of every sequence, every fitting relation.

The queries of a document are answered by themselves, in portions of a fixed size, so that the
result does not depend on the documents beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from graphmert.extract import Query
from graphmert.run.answers import Scorer, allowed_relations
from graphmert.run.extraction import Candidate, Rule, propose_tails, rejection
from graphmert.run.prepared import HeadSpan, Prepared
from graphmert.run.proposing import Proposal, Proposer
from graphmert.run.reading import Reading
from graphmert.run.settings import ExtractSettings
from graphmert.shards import Ledger
from graphmert.store import make_table, schema_of

MAX_SCORES = 1 << 25  # queries times entities scored at once, 128 MiB


@dataclass(frozen=True)
class Asked:
    """What one document yields.

    Attributes:
        proposals: what nothing speaks against by itself, in the order of the queries.
        rejected: kg/rejected, everything else that was proposed.
        ledgers: of heads and candidates.
    """

    proposals: tuple[Proposal, ...]
    rejected: pa.Table
    ledgers: tuple[Ledger, ...]


def ask_document(
    scorer: Scorer,
    rule: Rule,
    settings: ExtractSettings,
    reading: Reading,
    document: pa.Table,
    *,
    model_hash: str,
) -> Asked:
    """Answer all queries of a document under the frozen rule.

    An entity is asked about once in each sequence, where it is named first, with every relation
    whose domain admits its type.

    Args:
        scorer: of the run's seed; its chains are not used.
        rule: thresholds and calibration.
        reading: of the document.
        document: its row of the documents table.
        model_hash: of the weights.
    """
    prepared = reading.prepared
    queries, spans, head_ledger = document_queries(prepared)
    here = replace(scorer, prepared=prepared)
    proposer = Proposer(
        prepared, document, queries, spans, model_hash=model_hash, method=rule.method
    )
    proposals: list[Proposal] = []
    rejected: list[Mapping[str, object]] = []
    ledger = Ledger("extract: candidates")
    portion = max(1, MAX_SCORES // max(1, len(prepared.names)))
    for first in range(0, len(queries), portion):
        part = queries[first : first + portion]
        candidates: list[Candidate] = []
        for _, _, found in propose_tails(here, rule, part, settings):
            candidates += found
        raws, scores = rule.judge(candidates)
        ledger.offered(len(candidates))
        for candidate, raw, score in zip(candidates, raws, scores.tolist(), strict=True):
            place = (first + candidate.query, candidate.tail, score)
            proposal = proposer.propose(*place, raw=raw)
            reason = proposer.objection(*place, rule.threshold)
            if reason is None:
                ledger.keep()
                proposals.append(proposal)
            else:
                example = " ".join(proposal.triple)
                ledger.leave_out(reason.split(":")[0], example=example)
                rejected.append(rejection(proposal, reason))
    columns = schema_of("kg/rejected").names
    table = make_table("kg/rejected", {name: [row[name] for row in rejected] for name in columns})
    return Asked(tuple(proposals), table, (head_ledger, ledger.check()))


def document_queries(prepared: Prepared) -> tuple[list[Query], list[HeadSpan], Ledger]:
    """Return the queries of a document, where their heads stand, and the ledger of mentions."""
    ledger = Ledger("extract: heads")
    ledger.offered(len(prepared.heads))
    queries: list[Query] = []
    spans: list[HeadSpan] = []
    seen: set[tuple[int, int]] = set()
    relations_of: dict[int, Sequence[int]] = {}
    for head in prepared.heads:
        name = prepared.names[head.entity]
        if (head.chain, head.entity) in seen:
            ledger.leave_out("named before in the sequence", example=name)
            continue
        seen.add((head.chain, head.entity))
        if head.entity not in relations_of:
            relations_of[head.entity] = allowed_relations(prepared, head.entity)
        if not relations_of[head.entity]:
            ledger.leave_out("no relation starts at its type", example=name)
            continue
        ledger.keep()
        for relation in relations_of[head.entity]:
            queries.append(
                Query(head.chain, head.root_start, head.root_end, relation, head.entity)
            )  # fmt: skip
            spans.append(head)
    return queries, spans, ledger.check()
