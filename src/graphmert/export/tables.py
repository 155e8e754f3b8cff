"""The three tables of a graph, together with its schema."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graphmert.errors import FormatError
from graphmert.kg import Schema, read_schema, triple_id
from graphmert.shards import Ledger
from graphmert.store import RunDir, check_table, empty_table, make_table

_BATCH_ROWS = 4_096


@dataclass(frozen=True)
class GraphTables:
    """Entities, triples and evidence as the run directory declares them.

    Attributes:
        entities: columns of kg/entities.
        triples: columns of kg/triples.
        evidence: columns of kg/evidence.
        schema: what is known of the relations; empty where there is no schema file.
    """

    entities: pa.Table
    triples: pa.Table
    evidence: pa.Table
    schema: Schema = field(default_factory=Schema)

    def __post_init__(self) -> None:
        for name in ("entities", "triples", "evidence"):
            check_table(f"kg/{name}", getattr(self, name))

    @classmethod
    def read(cls, run: RunDir) -> GraphTables:
        """Read the extracted graph of a run directory.

        Raises:
            FormatError: the folder holds no extracted graph, or a table is not as declared.
        """
        if not run.has("kg/triples"):
            raise FormatError(
                "the folder holds no extracted graph",
                where=str(run.path),
                expected="kg/triples.parquet",
                fix="Give the run directory of a finished extract stage.",
            )
        schema = read_schema(run.seed_schema) if run.seed_schema.is_file() else Schema()
        return cls(run.read("kg/entities"), run.read("kg/triples"), run.read("kg/evidence"), schema)

    @classmethod
    def from_seed(cls, run: RunDir, *, split: str = "train") -> GraphTables:
        """Read one part of a run's seed graph in the same form: score 1, nothing novel.

        Raises:
            FormatError: the folder holds no seed graph.
        """
        entities = run.read("seed/entities")
        nothing = pa.array([[] for _ in range(len(entities))], pa.list_(pa.string()))
        entities = entities.append_column(
            pa.field("merged_from", pa.list_(pa.string()), nullable=False), nothing
        )
        schema = read_schema(run.seed_schema) if run.seed_schema.is_file() else Schema()
        rows = run.read("seed/triples")
        rows = rows.filter(pc.field("split") == split)
        triples = _triples_of_seed(entities, rows)
        return cls(entities, triples, empty_table("kg/evidence"), schema)

    @cached_property
    def evidence_rows(self) -> dict[str, np.ndarray]:
        """Rows of the evidence table by triple id, in their order."""
        ids = np.array(self.evidence["triple_id"].to_pylist(), dtype=object)
        order = np.argsort(ids.astype(str), kind="stable") if len(ids) else np.array([], int)
        ordered = ids[order]
        borders = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1 if len(ids) else []
        groups = np.split(order, borders) if len(ids) else []
        return {str(ids[group[0]]): group for group in groups}

    def evidence_of(self, triple_id: str) -> list[dict[str, Any]]:
        """Return every evidence row of a triple."""
        rows = self.evidence_rows.get(triple_id)
        return [] if rows is None else self.evidence.take(pa.array(rows)).to_pylist()

    def select(
        self, *, min_score: float = 0.0, novel_only: bool = False, linked_only: bool = False
    ) -> tuple[GraphTables, Ledger]:
        """Return the part of the graph asked for, and the ledger of triples.

        Args:
            min_score: triples below are left out.
            novel_only: leave out triples that follow from the seed.
            linked_only: leave out entities that no remaining triple names.
        """
        ledger = Ledger("export: triples")
        ledger.offered(len(self.triples))
        score = np.asarray(self.triples["score"], dtype=np.float32)
        low = score < np.float32(min_score)
        novel = np.asarray(self.triples["novel"].to_pylist(), dtype=bool)
        known = ~low & ~novel if novel_only else np.zeros_like(low)
        keep = ~low & ~known
        ids = self.triples["triple_id"].to_pylist()
        for reason, mask in (("below the score asked for", low), ("follows from the seed", known)):
            for row in np.flatnonzero(mask):
                ledger.leave_out(reason, example=ids[row])
        ledger.keep(int(keep.sum()))
        if keep.all() and not linked_only:
            return self, ledger.check()
        triples = self.triples.filter(pa.array(keep))
        evidence = having(self.evidence, "triple_id", triples["triple_id"].to_pylist())
        entities = self.entities
        if linked_only:
            ends = {*triples["head_id"].to_pylist(), *triples["tail_id"].to_pylist()}
            entities = having(entities, "entity_id", ends)
        part = replace(self, entities=entities, triples=triples, evidence=evidence)
        return part, ledger.check()


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield a table's rows as dicts while only a few exist at a time."""
    for batch in table.to_batches(_BATCH_ROWS):
        yield from batch.to_pylist()


def having(table: pa.Table, column: str, values: Iterable[str]) -> pa.Table:
    """Return the rows whose column holds one of the values, in their order."""
    return table.filter(pc.field(column).isin(pa.array(sorted(values), pa.string())))


def short_float(value: float) -> float:
    """Return the float with the fewest digits that is the same float32."""
    return float(str(np.float32(value)))


def _triples_of_seed(entities: pa.Table, rows: pa.Table) -> pa.Table:
    ids, all_names = entities["entity_id"].to_pylist(), entities["name"].to_pylist()
    names = dict(zip(ids, all_names, strict=True))
    columns = (rows[one].to_pylist() for one in ("head_id", "relation", "tail_id"))
    triples = list(zip(*columns, strict=True))
    return make_table(
        "kg/triples",
        {
            "triple_id": [triple_id(*one) for one in triples],
            "head_id": [head for head, _, _ in triples],
            "head": [names.get(head, head) for head, _, _ in triples],
            "relation": [relation for _, relation, _ in triples],
            "tail_id": [tail for _, _, tail in triples],
            "tail": [names.get(tail, tail) for _, _, tail in triples],
            "score": np.ones(len(triples), np.float32),
            "novel": np.zeros(len(triples), bool),
            "n_evidence": np.zeros(len(triples), np.int32),
        },
    )
