"""Ask the same queries with and without other triples of the head visible in the chain.

Usage: python benchmarks/visible_leaves.py RUN.toml [--variants FILE] [--only NAME ...]
       [--seeds 0 1 2] [--out DIR] [--max-queries N]

Needs trials of `ablate.py --keep-models` with the same options. What is measured:
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ablate
import numpy as np
from ablation_plan import Limits, Trial, Variants, plan, read_times
from ablation_table import seed_interval
from bench_train import machine
from transformers.utils import logging

from graphmert.chain import LeafTriple
from graphmert.config import load_toml
from graphmert.errors import DataError, GraphMERTError
from graphmert.evaluate import QueryRow, paired_difference, rank_metrics
from graphmert.extract import Query, score_queries
from graphmert.run.answers import Ranker, Scorer, autocast
from graphmert.run.prepared import Prepared
from graphmert.run.stages import set_threads
from graphmert.shards import atomic_write_json

CONTEXTS = ("none", "own", "strange")
Fact = tuple[int, int]


def other_facts(prepared: Prepared, part: str) -> dict[int, list[Fact]]:
    """Held-out (relation, tail) pairs of every head, tails short enough to be leaves."""
    found: dict[int, list[Fact]] = defaultdict(list)
    for head, relation, tail in sorted(prepared.triples[part].tolist()):
        if len(prepared.name_tokens[tail]) <= prepared.max_tail_tokens:
            found[head].append((relation, tail))
    return found


def queries_with_others(prepared: Prepared, limit: int) -> list[tuple[Query, list[Fact]]]:
    """Queries of test heads that have a triple with another relation and other tails."""
    facts = other_facts(prepared, "test")
    true = prepared.known_tails("test")
    kept = []
    for query in ablate.choose_queries(prepared, "test", sys.maxsize):
        asked = true[query.head_entity, query.relation]
        shown = [
            (relation, tail)
            for relation, tail in facts[query.head_entity]
            if relation != query.relation and tail not in asked
        ]
        if shown:
            kept.append((query, shown))
    chosen = {id(query) for query in evenly([query for query, _ in kept], limit)}
    return [(query, shown) for query, shown in kept if id(query) in chosen]


def evenly(queries: Sequence[Query], limit: int) -> list[Query]:
    """The first queries of every relation in turn, at most `limit`."""
    by_relation: dict[int, list[Query]] = defaultdict(list)
    for query in queries:
        by_relation[query.relation].append(query)
    longest = max((len(found) for found in by_relation.values()), default=0)
    turns = (found[i] for i in range(longest) for found in by_relation.values() if i < len(found))
    return [query for query, _ in zip(turns, range(limit), strict=False)]


def strangers(asked: Sequence[tuple[Query, list[Fact]]]) -> list[list[Fact]]:
    """For every query the shown facts of another head: the next one asked for its relation."""
    places: dict[int, list[int]] = defaultdict(list)
    for index, (query, _) in enumerate(asked):
        places[query.relation].append(index)
    shown: list[list[Fact]] = [[] for _ in asked]
    for group in places.values():
        for place, index in enumerate(group):
            head = asked[index][0].head_entity
            turn = [group[(place + k) % len(group)] for k in range(1, len(group))]
            others = (asked[i][1] for i in turn if asked[i][0].head_entity != head)
            shown[index] = next(others, [])
    return shown


def rank_in_context(
    scorer: Scorer, asked: Sequence[tuple[Query, list[Fact]]], context: str
) -> list[QueryRow]:
    """Ranks of the true tails by the entity score, each query in a row of its own."""
    prepared = scorer.prepared
    strange = strangers(asked) if context == "strange" else []
    chains, queries = [], []
    for index, (query, own) in enumerate(asked):
        facts = {"none": [], "own": own, "strange": strange[index] if strange else []}[context]
        chains.append(
            replace(
                prepared.chains[query.chain],
                triples=tuple(
                    LeafTriple(
                        relation=relation,
                        head_start=query.head_start,
                        head_end=query.head_end,
                        tail=prepared.name_tokens[tail],
                        tail_entity=tail,
                        head_entity=query.head_entity,
                    )
                    for relation, tail in facts
                ),
            )
        )
        queries.append(replace(query, chain=index))
    ranker = Ranker(prepared, queries, "test")
    with autocast(scorer.precision):
        for block in score_queries(
            scorer.model,
            chains,
            queries,
            asker=scorer.asker,
            entity_vectors=scorer.entity_vectors,
            relations=False,
            together=False,
        ):
            for row, index in enumerate(block.index_Q):
                block.entity_QE[row, queries[int(index)].head_entity] = -np.inf
            ranker.add(context, block.index_Q, block.entity_QE)
    return ranker.rows[context]


def measure(trial: Trial, scratch: Path, limit: int) -> dict[str, Any]:
    """Macro MRR of one trained trial in every context, and paired differences from `none`."""
    prepared = Prepared.load(
        ablate.prepare(trial, scratch), max_tail_tokens=trial.config.text.max_tail_tokens
    )
    folder = scratch / "work" / trial.key[:16]
    if not (folder / "model.safetensors").is_file():
        raise DataError(
            "this trial has no trained model",
            where=str(folder),
            fix=f"python benchmarks/ablate.py … --only {trial.variant.name} --keep-models",
        )
    scorer, _ = ablate.build_scorer(trial.config, prepared, folder)
    asked = queries_with_others(prepared, limit)
    rows = {context: rank_in_context(scorer, asked, context) for context in CONTEXTS}
    return {
        "variant": trial.variant.name,
        "seed": trial.seed,
        "config_hash": trial.key,
        "n_updates": trial.n_steps,
        "n_queries": len(asked),
        "n_shown": float(np.mean([len(shown) for _, shown in asked])),
        "contexts": {
            context: {
                "mrr_macro": (found := rank_metrics(ranked, prepared.relations))["mrr_macro"],
                "per_relation": {r: g["mrr"] for r, g in found["per_relation"].items()},
            }
            for context, ranked in rows.items()
        },
        "differences": {
            context: paired_difference(
                rows[context], rows["none"], statistic="mrr", average="macro", seed=0
            ).to_dict()
            for context in CONTEXTS[1:]
        },
    }


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds for each variant."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(result["variant"] for result in results):
        own = [result for result in results if result["variant"] == name]
        found[name] = {
            context: seed_interval([r["contexts"][context]["mrr_macro"] for r in own])
            for context in CONTEXTS
        }
    return found


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What visible leaves add to an answer.")
    parser.add_argument("run_file", type=Path)
    parser.add_argument(
        "--variants", type=Path, default=ablate.ROOT / "runs/ablations/variants.toml"
    )
    parser.add_argument("--only", nargs="+", default=["base", "visibility_open"])
    parser.add_argument("--out", type=Path, default=ablate.ROOT / "results/ablations")
    parser.add_argument("--scratch", type=Path, default=ablate.ROOT / "run-output/ablations")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget", type=float, default=300.0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--max-queries", type=int, default=600, help="of the trials")
    parser.add_argument("--max-valid-queries", type=int, default=300, help="of the trials")
    parser.add_argument("--queries", type=int, default=1000, help="at most so many are asked here")
    args = parser.parse_args(words)
    logging.disable_progress_bar()
    set_threads(1)
    limits = Limits(args.budget, args.steps, args.max_queries, args.max_valid_queries)
    variants = [v for v in load_toml(args.variants, Variants).variant if v.name in args.only]
    times = read_times(args.out)
    results = []
    for variant in variants:
        for seed in args.seeds:
            trial = plan(args.run_file, variant, seed, limits, [], times)
            found = measure(trial, args.scratch, args.queries)
            results.append(found)
            said = {name: round(value["mrr_macro"], 3) for name, value in found["contexts"].items()}
            print(f"{trial.name}: {said}", flush=True)
    document = {
        "machine": machine(argparse.Namespace(threads=1)),
        "summary": summary(results),
        "trials": results,
    }
    atomic_write_json(args.out / "visible_leaves.json", document)


if __name__ == "__main__":
    try:
        main()
    except GraphMERTError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
