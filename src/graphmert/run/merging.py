"""Put the proposals of many documents together: one entry a triple, with every place as evidence.

The schema is asked here, best triple first, because what one triple breaks may be another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from graphmert.kg import Closure, SchemaGate, Triple
from graphmert.run.asking import Proposal
from graphmert.run.frozen import FrozenRun
from graphmert.run.graph_rows import GraphRows, entity_table
from graphmert.run.novel import NovelTypes, novel_id
from graphmert.run.prepared import Prepared
from graphmert.run.results import PROPOSALS, ResultFile
from graphmert.shards import Ledger
from graphmert.store import make_table

Counts = Mapping[str, tuple[int, int]]
"""Id of a name beyond the seed -> its occurrences, and the documents with one."""

_IDS = ("head_id", "relation", "tail_id")
_OWN = (*_IDS, "head", "tail", "phrase", "exact_score", "raw")


def proposal_rows(proposals: Sequence[Proposal]) -> pa.Table:
    """Lay proposals out as rows."""
    columns: dict[str, list[Any]] = {name: [] for name in PROPOSALS.names}
    for one in proposals:
        own = (*one.triple, *one.names, one.phrase, one.score, one.raw)
        row = dict(zip(_OWN, own, strict=True)) | one.evidence
        for name in PROPOSALS.names:
            columns[name].append(row[name])
    return pa.table(columns, schema=PROPOSALS)


def groups_of(files: Iterable[ResultFile]) -> list[list[Proposal]]:
    """Return the proposals of each triple, best first; the best triple first.

    A triple is as good as the best place that speaks for it.
    """
    groups: dict[Triple, list[Proposal]] = defaultdict(list)
    for file in files:
        for row in file.table("proposals").to_pylist():
            head_id, relation, tail_id, head, tail, phrase, score, raw = (
                row.pop(name) for name in _OWN
            )
            triple = Triple(head_id, relation, tail_id)
            groups[triple].append(Proposal(triple, (head, tail), phrase, score, raw, row))
    for found in groups.values():
        found.sort(key=lambda one: (*_worth(one), *_place(one)))
    return sorted(groups.values(), key=lambda found: (*_worth(found[0]), found[0].triple))


def _worth(proposal: Proposal) -> tuple[float, float]:
    return -proposal.score, -proposal.raw


def _place(proposal: Proposal) -> tuple[str, int, int]:
    evidence = proposal.evidence
    return evidence["doc_id"], evidence["head_start"], evidence["head_end"]


@dataclass(frozen=True)
class Merged:
    """A graph of many documents.

    Attributes:
        rows: accepted triples with their evidence, and what the schema rejected.
        novel: id of each accepted tail beyond the seed -> name and type.
        ledger: counts triples.
        seed: kg/entities begins with its entities.
    """

    rows: GraphRows
    novel: Mapping[str, tuple[str, str]]
    ledger: Ledger
    seed: Prepared

    def tables(self, counts: Counts) -> dict[str, pa.Table]:
        """The tables of kg/, what was rejected document by document apart."""
        found = sorted(self.novel.items())
        more = [(identity, name, kind) for identity, (name, kind) in found]
        return {
            "kg/entities": entity_table(self.seed.run.read("seed/entities"), more),
            "kg/novel_entities": make_table(
                "kg/novel_entities",
                {
                    "entity_id": [identity for identity, _, _ in more],
                    "name": [name for _, name, _ in more],
                    "type": [kind for _, _, kind in more],
                    "n_occurrences": [counts[identity][0] for identity, _, _ in more],
                    "n_documents": [counts[identity][1] for identity, _, _ in more],
                },
            ),
            **self.rows.tables(),
        }


def merge_proposals(
    seed: Prepared,
    vectors_CD: torch.Tensor,
    run: FrozenRun,
    groups: Iterable[Sequence[Proposal]],
) -> Merged:
    """Accept triples, best first, with all that speaks for them, or keep the schema's reason.

    Args:
        seed: entities, schema and training triples of the run.
        vectors_CD: of entities and phrases, for the types of novel entities.
        run: gives the rule.
        groups: as `groups_of` returns them.
    """
    ids, names = seed.entity_ids, seed.relations
    known = [Triple(ids[h], names[r], ids[t]) for h, r, t in seed.triples["train"].tolist()]
    closure, gate = Closure(known, seed.schema), SchemaGate(seed.schema, known)
    types = NovelTypes(seed, vectors_CD)
    type_of = dict(zip(ids, seed.types, strict=True))
    rows = GraphRows(run.model_hash)
    novel: dict[str, tuple[str, str]] = {}
    ledger = Ledger("extract: triples")
    for proposals in groups:
        best = proposals[0]
        triple, phrase = best.triple, best.phrase
        is_novel = phrase >= 0
        kind = types.type_of(phrase, triple.relation) if is_novel else type_of[triple.tail_id]
        ledger.offered()
        reason = gate.objection(triple, kind)
        if reason is not None:
            ledger.leave_out(reason.split(":")[0], example=" ".join(triple))
            for one in proposals:
                rows.reject(triple, reason, one.score, one.evidence)
            continue
        ledger.keep()
        gate.add(triple)
        if is_novel:
            types.fix(phrase, kind)
            novel[triple.tail_id] = (best.names[1], kind)
        rows.accept(
            triple,
            best.names,
            best.score,
            novel=not closure.contains(*triple),
            method=run.rule.weights.method,
            evidence=[(one.evidence, one.score) for one in proposals],
            note="novel entity" if is_novel else "",
        )
    return Merged(rows, novel, ledger, seed)


def count_names(files: Iterable[ResultFile], wanted: Mapping[str, object]) -> Counts:
    """Count where the documents hold names beyond the seed, a stretch of text that is unlinked."""
    spans = dict.fromkeys(wanted, 0)
    documents: dict[str, set[str]] = {one: set() for one in wanted}
    for file in files if wanted else ():
        table = file.table("corpus/candidates")
        free = table.filter(pc.field("entity_id").is_null())
        columns = (free[name].to_pylist() for name in ("surface", "doc_id"))
        for surface, doc_id in zip(*columns, strict=True):
            if (identity := novel_id(surface)) in spans:
                spans[identity] += 1
                documents[identity].add(doc_id)
    return {one: (spans[one], len(documents[one])) for one in wanted}
