"""Links over the small DATASET of vectors, where leaves tell something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from graphmert.domains.vectors.data import VectorData, write_vectors
from graphmert.domains.vectors.links import LINKED_SCHEMA, LINKS_FORMAT, Leaves
from graphmert.shards import atomic_write_json, sha256_file, write_table

N_ENTITIES, RELATIONS = 12, ("part of", "near")


def toy_leaves(data: VectorData, *, seed: int = 0) -> Leaves:
    """Every row has 0 to 3 leaves; the tail is a function of head entity and relation."""
    rng = np.random.default_rng(seed)
    n_rows = len(data.vectors)
    n_leaves = rng.integers(0, 4, n_rows)
    total = int(n_leaves.sum())
    head = rng.integers(0, N_ENTITIES, total)
    relation = rng.integers(0, len(RELATIONS), total)
    tail = (head * 5 + relation * 3 + 1) % N_ENTITIES
    return Leaves(
        entities=rng.normal(size=(N_ENTITIES, data.dim)).astype(np.float32),
        entity_ids=tuple(f"e{i}" for i in range(N_ENTITIES)),
        relations=RELATIONS,
        offsets=np.concatenate([[0], np.cumsum(n_leaves)]).astype(np.int64),
        head=head.astype(np.int32),
        relation=relation.astype(np.int32),
        tail=tail.astype(np.int32),
        score=np.ones(total, np.float32),
        usable=np.ones(N_ENTITIES, bool),
    )


def write_links(folder: Path, data: VectorData, leaves: Leaves | None = None) -> Path:
    """Write leaves made in memory, or toy leaves, as a LINKS folder."""
    leaves = toy_leaves(data) if leaves is None else leaves
    rows = pa.table(
        {
            "doc_id": list(leaves.entity_ids),
            "position": pa.array([0] * N_ENTITIES, pa.int32()),
            "text": list(leaves.entity_ids),
        }
    )
    entities = write_vectors(folder / "entities", [leaves.entities], rows, {"model": "toy"})
    row = np.repeat(np.arange(len(data.vectors)), np.diff(leaves.offsets))
    ids, relations = np.array(leaves.entity_ids), np.array(RELATIONS)
    table = pa.table(
        {
            "row": row,
            "entity_id": ids[leaves.head].tolist(),
            "relation": relations[leaves.relation].tolist(),
            "tail_id": ids[leaves.tail].tolist(),
            "score": leaves.score,
            "entity": leaves.head,
            "relation_number": leaves.relation,
            "tail": leaves.tail,
            "rank": (np.arange(len(row)) - leaves.offsets[row]).astype(np.int32),
        }
    )
    write_table(folder / "linked.parquet", table.cast(LINKED_SCHEMA))
    info = {
        "format": LINKS_FORMAT,
        "relations": list(RELATIONS),
        "unusable": np.flatnonzero(~leaves.usable).tolist(),
        "vectors_sha256": data.info["vectors"]["sha256"],
        "entities_sha256": entities.sha256,
        "linked_sha256": sha256_file(folder / "linked.parquet"),
    }
    atomic_write_json(folder / "links.json", info)
    return folder
