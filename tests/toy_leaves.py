"""Links over the small DATASET of vectors, where leaves tell something."""

from __future__ import annotations

import numpy as np

from graphmert.domains.vectors.data import VectorData
from graphmert.domains.vectors.links import Leaves

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
    )
