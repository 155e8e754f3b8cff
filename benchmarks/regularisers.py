"""Does each regulariser lower the share of held-out triples that break its constraint?

    python benchmarks/regularisers.py RUN.toml OUT.json [--steps 300] [--seeds 0 1 2]

Trains a small encoder of entity names on the triples of the training packages: with the
contrastive loss alone (every other weight 0, its parts present but untrained), and with each
regulariser added. Violations are counted on the triples of the held-out packages. The run's
prepare stage must be done.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch

from graphmert.constraints import REGULARISERS
from graphmert.domains.code.rules import entity_types
from graphmert.model import GraphMERT
from graphmert.presets import preset_config
from graphmert.run.code import load_code
from graphmert.run.code.prepared import CodePrepared
from graphmert.run.code.violations import measure_violations
from graphmert.shards import atomic_write_json

WEIGHTS = {"type": 0.5, "antisymmetry": 2.0, "acyclicity": 0.5, "inheritance": 5.0}


def train(prepared: CodePrepared, weights: dict[str, float], *, steps: int, seed: int) -> GraphMERT:
    torch.manual_seed(seed)
    model = GraphMERT(
        preset_config(
            "tiny",
            vocab_size=prepared.tokenizer.vocab_size,
            pad_token_id=prepared.tokenizer.pad_id,
            n_layers=1,
            n_relations=len(prepared.vocabulary.relations),
            n_entity_types=len(entity_types()),
            objectives=REGULARISERS,
            dropout=0.0,
        )
    )
    facts = dataclasses.replace(prepared.facts("train"), n_triples=48)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    head = model.constraint_head
    assert head is not None
    for _ in range(steps):
        batch = facts.draw(rng)
        losses = head(model.encode_names(batch.names), batch)
        total = sum(weights[k] * s / n.clamp(min=1) for k, (s, n) in losses.items() if k in weights)
        optimizer.zero_grad()
        total.backward()  # type: ignore[union-attr]
        optimizer.step()
        schedule.step()
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = load_code(options.run)
    prepared = CodePrepared.load(config, Path(config.out) / "chains")
    variants = {"contrastive alone": {"contrastive": 1.0}}
    variants |= {name: {"contrastive": 1.0, name: w} for name, w in WEIGHTS.items()}
    rows = []
    for seed in options.seeds:
        for name, weights in variants.items():
            model = train(prepared, weights, steps=options.steps, seed=seed)
            broken = measure_violations(prepared, model, config.evaluate.part)
            rows.append({"trained": name, "weights": weights, "seed": seed, "violations": broken})
            print(json.dumps(rows[-1]), flush=True)
            atomic_write_json(options.out, {"steps": options.steps, "rows": rows})


if __name__ == "__main__":
    main()
