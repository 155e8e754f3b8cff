"""How often a trained encoder breaks the schema on triples of packages it has not seen."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from graphmert.extract import encode_entities
from graphmert.feed import NameTable
from graphmert.model import GraphMERT
from graphmert.run.code.prepared import CodePrepared


@torch.no_grad()
def measure_violations(
    prepared: CodePrepared, model: GraphMERT, part: str, *, limit: int = 4000, seed: int = 0
) -> dict[str, Any]:
    """Share of a part's triples that break each constraint, as far as the network has its parts.

    type: the likeliest type of head or tail is not in the relation's domain or range.
    antisymmetry: the reverse scores at least as high. acyclicity: the tail's potential is not
    above the head's. inheritance: a subclass scores lower than its parent for the parent's
    member. contrastive: some other entity of the sample scores higher than the true tail.
    """
    head = model.constraint_head
    source = prepared.facts(part)
    triples, rules = source.triples, source.rules
    if head is None or not len(triples):
        return {}
    rng = np.random.default_rng(seed)
    if len(triples) > limit:
        triples = triples[np.sort(rng.choice(len(triples), size=limit, replace=False))]
    inherited = source.inherited[:limit]
    members = source.triples[inherited[:, 1]] if len(inherited) else np.zeros((0, 3), np.int64)
    rows = np.unique(np.concatenate([triples[:, [0, 2]].ravel(), members[:, [0, 2]].ravel(),
                                     inherited[:, 0]]))  # fmt: skip
    names = NameTable(tuple(prepared.names.roots[int(row)] for row in rows))
    x_CD = encode_entities(model, names, pad_id=prepared.tokenizer.pad_id).to(model.device)
    there = partial(torch.as_tensor, device=model.device)
    h, t = (there(np.searchsorted(rows, triples[:, i])) for i in (0, 2))
    r = there(triples[:, 1])
    found: dict[str, Any] = {"n_triples": len(triples), "n_inherited": len(inherited)}

    def share(name: str, broken: torch.Tensor) -> None:
        found[name] = round(float(broken.float().mean()), 4) if len(broken) else None

    if head.entity_type is not None:
        likely = head.entity_type(x_CD).argmax(-1)
        fits = there(rules.domain_EY)[r, likely[h]]
        fits = fits & there(rules.range_EY)[r, likely[t]]
        share("type", ~fits)
    if head.potential is not None:
        chosen = there(rules.acyclic_E)[r]
        share("acyclicity", (head.rises(x_CD[h], r, x_CD[t]) <= 0)[chosen])
    if head.scorer is not None:
        forward = head.scorer(x_CD[h], r, x_CD[t])
        chosen = there(rules.antisymmetric_E)[r]
        share("antisymmetry", (head.scorer(x_CD[t], r, x_CD[h]) >= forward)[chosen])
        heir, parent, member = (
            there(np.searchsorted(rows, column))
            for column in (inherited[:, 0], members[:, 0], members[:, 2])
        )
        relation = there(members[:, 1])
        up = head.scorer(x_CD[parent], relation, x_CD[member])
        down = head.scorer(x_CD[heir], relation, x_CD[member])
        share("inheritance", down < up - 1e-6)
        if head.log_scale is not None:
            picked = there(rng.permutation(len(triples))[:500])
            every = head.scorer.heads(x_CD[h[picked]], r[picked]) @ head.scorer.tails(x_CD).T
            true = every[torch.arange(len(picked), device=model.device), t[picked]]
            share("contrastive", every.max(-1).values > true)
    return found
