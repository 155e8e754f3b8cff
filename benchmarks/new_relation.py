"""Add a relation to a model trained without it; rank its held-out triples.

Usage: python benchmarks/new_relation.py FULL WITHOUT [--relation negatively_regulates]
       [--triples 50 200] [--draws 3] [--steps 200] [--out FILE] [--work DIR]

FULL: run directory trained with the relation. WITHOUT: the same run with reduce.relations naming
it. Both need the stages up to train alone. What is measured: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench_train import machine

from graphmert.config import load_toml
from graphmert.errors import ConfigError, GraphMERTError
from graphmert.evaluate import clustered_interval, rank_metrics
from graphmert.kg import Triple
from graphmert.run.answers import SYSTEMS, Ranker, Scorer, head_queries
from graphmert.run.new_relation import FitSettings, add_relation
from graphmert.run.prepared import Prepared
from graphmert.run.settings import RunConfig
from graphmert.run.stages import load_model, set_threads
from graphmert.shards import atomic_write_json, sha256_file

ROOT = Path(__file__).parents[1]
DESCRIPTION = {
    "negatively_regulates": "stops, prevents, or reduces the frequency, rate or extent of a process"
}


def same_task(full: Prepared, other: Prepared, relation: str) -> None:
    """Refuse two runs that do not differ in the relation alone."""
    ours = [name for name in full.relations if name != relation]
    checks = {
        "entities": full.entity_ids == other.entity_ids,
        "tokens": full.tokenizer.fingerprint == other.tokenizer.fingerprint,
        "relations": ours == list(other.relations),
        "held-out heads": all(
            triples_of(full, part, without=relation) <= triples_of(other, part)
            for part in ("valid", "test")
        ),
    }
    wrong = [name for name, fits in checks.items() if not fits]
    if wrong:
        raise ConfigError(
            "the two runs differ in more than the relation",
            got=", ".join(wrong),
            fix=f'Run the same file twice, once with reduce.relations = ["{relation}"].',
        )


def triples_of(prepared: Prepared, part: str, *, without: str = "") -> set[tuple[str, str, str]]:
    ids, names = prepared.entity_ids, prepared.relations
    rows = {(ids[h], names[r], ids[t]) for h, r, t in prepared.triples[part].tolist()}
    return {row for row in rows if row[1] != without}


def draw(prepared: Prepared, relation: str, n: int, seed: int) -> list[Triple]:
    """The first n training triples of the relation by hash."""
    rows = [row for row in triples_of(prepared, "train") if row[1] == relation]

    def key(row: tuple[str, str, str]) -> bytes:
        return hashlib.sha256(f"{seed} {' '.join(row)}".encode()).digest()

    return [Triple(*row) for row in sorted(rows, key=key)[:n]]


def rank(full: Prepared, folder: Path, config: RunConfig, relation: str) -> dict[str, Any]:
    """Filtered ranks of the relation's test triples, by the entity score alone."""
    scorer = Scorer.build(
        load_model(folder / "model"),
        full,
        query_slots=config.masking.query_slots,
        token_scores=False,
        precision=config.train.precision,
    )
    place = full.relations.index(relation)
    queries = [one for one in head_queries(full, "test", only_true=True) if one.relation == place]
    ranker = Ranker(full, queries, "test")
    for block in scorer.answers(queries, tokens=False):
        ranker.add(SYSTEMS[1], block.index_Q, block.entity_QE)
    rows = ranker.rows[SYSTEMS[1]]
    metrics = rank_metrics(rows, full.relations)["per_relation"][relation]
    interval = clustered_interval(
        [1 / row.rank for row in rows],
        [row.head for row in rows],
        [row.relation for row in rows],
        average="micro",
        seed=0,
    )
    return {**metrics, "mrr_interval": interval.to_dict()}


def measure(options: Any) -> dict[str, Any]:
    """Every way to a model that knows the relation."""
    config = load_toml(options.full / "run.toml", RunConfig)
    set_threads(config.train.n_threads)
    limit = config.text.max_tail_tokens
    full, other = (
        Prepared.load(one, max_tail_tokens=limit) for one in (options.full, options.without)
    )
    same_task(full, other, options.relation)
    relation = full.schema.relations[options.relation]
    relation = replace(
        relation, description=DESCRIPTION.get(options.relation, relation.description)
    )
    found: list[dict[str, Any]] = []

    def note(way: str, folder: Path, **facts: Any) -> None:
        found.append({"way": way, **facts, **rank(full, folder, config, options.relation)})
        print(f"{way} {facts}: MRR {found[-1]['mrr']:.3f}", flush=True)

    note("trained with it from the start", options.full, n_triples=len(
        draw(full, options.relation, 10**9, 0)))  # fmt: skip
    for initial in ("nearest", "hidden"):
        for n_triples in (0, *options.triples):
            for seed in range(options.draws if n_triples else 1):
                folder = options.work / f"{initial}-{n_triples}-{seed}"
                added = add_relation(
                    options.without,
                    folder,
                    relation,
                    triples=draw(full, options.relation, n_triples, seed),
                    initial=initial,
                    fit=FitSettings(steps=options.steps, seed=seed, min_triples=1, held_apart=0.0),
                )
                way = "fitted alone" if n_triples else "from its name"
                facts = {"n_triples": n_triples, "n_used": added.n_triples, "draw": seed}
                note(way, folder, initial=initial, nearest=dict(added.nearest), **facts)
                shutil.rmtree(folder)
    models = {
        name: sha256_file(path / "model" / "model.safetensors")
        for name, path in (("full", options.full), ("without", options.without))
    }
    return {
        "relation": options.relation,
        "steps": options.steps,
        "models": models,
        "machine": machine(argparse.Namespace(threads=config.train.n_threads)),
        "results": found,
    }


def markdown(result: dict[str, Any]) -> str:
    """The results as a table, draws averaged."""
    groups: dict[tuple[str, str, int], list[float]] = {}
    for one in result["results"]:
        key = (one["way"], one.get("initial", ""), one["n_triples"])
        groups.setdefault(key, []).append(one["mrr"])
    lines = ["| way | begins from | triples | MRR | draws |", "| --- | --- | --: | --: | --: |"]
    for (way, initial, n), values in groups.items():
        mean = sum(values) / len(values)
        lines.append(f"| {way} | {initial} | {n:,} | {mean:.3f} | {len(values)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("full", type=Path)
    parser.add_argument("without", type=Path)
    parser.add_argument("--relation", default="negatively_regulates")
    parser.add_argument("--triples", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "new_relation.json")
    parser.add_argument("--work", type=Path, default=ROOT / "run-output" / "new_relation")
    options = parser.parse_args(arguments)
    result = measure(options)
    atomic_write_json(options.out, result)
    print(markdown(json.loads(options.out.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    try:
        main()
    except GraphMERTError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
