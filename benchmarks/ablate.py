"""Train variants of a run at equal budgets and rank the same held-out triples with each.

Usage: python benchmarks/ablate.py RUN.toml [--variants FILE] [--out DIR] [--seeds 0 1 2]
       [--budget SECONDS | --steps N] [--only NAME ...] [--minutes M] [--measure] [--table]

Work done is kept: the same command goes on where it was stopped. What is measured and how to
read the table: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ablation_plan import (
    MEASURED_UPDATES,
    SECTIONS,
    WARM_UPDATES,
    Limits,
    Trial,
    Variants,
    plan,
    read_times,
    times_path,
)
from ablation_table import aggregate, markdown
from bench_train import machine
from safetensors import safe_open
from transformers.utils import logging

from graphmert.config import load_toml
from graphmert.errors import ConfigError, DataError, GraphMERTError
from graphmert.evaluate import QueryRow, rank_metrics
from graphmert.extract import Asker, Query, TokenCandidates
from graphmert.objectives import EntityHead
from graphmert.progress import Silent
from graphmert.run import execute
from graphmert.run.answers import TOKEN_WEIGHTS, Ranker, Scorer, head_queries
from graphmert.run.prepared import Prepared
from graphmert.run.settings import ModelSettings, RunConfig
from graphmert.run.stages import load_model, set_threads
from graphmert.run.training import objectives, relation_names, train_run
from graphmert.shards import atomic_write_json, atomic_write_text

ROOT = Path(__file__).parents[1]


def result_path(out: Path, trial: Trial) -> Path:
    return out / "results" / f"{trial.name}.json"


def read_result(path: Path, key: str) -> dict[str, Any] | None:
    """A finished result, or None where there is none for the same configuration."""
    if not path.is_file():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    return result if result["config_hash"] == key else None


def copy_twin(out: Path, trial: Trial, trials: Sequence[Trial]) -> bool:
    """Take over the result of another variant whose configuration is the same."""
    for other in trials:
        if other.key == trial.key and other.name != trial.name:
            result = read_result(result_path(out, other), trial.key)
            if result is not None:
                label = _label(trial) | {"same_as": result["same_as"] or other.variant.name}
                atomic_write_json(result_path(out, trial), result | label)
                return True
    return False


def _label(trial: Trial) -> dict[str, Any]:
    return {
        "variant": trial.variant.name,
        "group": trial.variant.group,
        "note": trial.variant.note,
        "set": list(trial.variant.set),
        "seed": trial.seed,
        "same_as": None,
    }


def measure(trials: Sequence[Trial], out: Path, scratch: Path) -> None:
    """Time an update of every kind of trial that has no time yet: CPU seconds of one thread.

    The difference between a short and a longer training leaves out what surrounds the updates.
    """
    done = read_times(out)
    set_threads(1)
    for trial in {t.speed: t for t in reversed(trials) if t.speed not in done}.values():
        short, long = (_cpu_seconds(trial, scratch, n) for n in (WARM_UPDATES, MEASURED_UPDATES))
        seconds = (long - short) / (MEASURED_UPDATES - WARM_UPDATES)
        path = times_path(out)
        kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        entry = {
            "variant": trial.variant.name,
            "cpu_seconds": round(seconds, 4),
            "machine": machine(argparse.Namespace(threads=1)),
        }
        atomic_write_json(path, kept | {trial.speed: entry})
        print(f"{trial.variant.name}: {seconds:.3f} s of one CPU an update", flush=True)


def _cpu_seconds(trial: Trial, scratch: Path, n_updates: int) -> float:
    """CPU time of a whole training with so many updates."""
    prepared = Prepared.load(prepare(trial, scratch), max_tail_tokens=_longest_tail(trial))
    work = scratch / "work" / "measure"
    shutil.rmtree(work, ignore_errors=True)
    config = _with_train(trial.config, total_steps=n_updates, n_threads=1)
    begun = time.process_time()
    train_run(config, prepared, work, fingerprint=trial.prepared, progress=Silent())
    took = time.process_time() - begun
    shutil.rmtree(work)
    return took


def _with_train(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"train": config.train.model_copy(update=changes)})


def _longest_tail(trial: Trial) -> int:
    return trial.config.text.max_tail_tokens


# --- a trial -------------------------------------------------------------------------------------


def prepare(trial: Trial, scratch: Path) -> Path:
    """Documents, split and chains, shared by all trials with the same text settings."""
    folder = scratch / f"prepared-{trial.prepared}"
    config = trial.config
    shared = RunConfig(
        out=str(folder),
        data=config.data,
        split=config.split,
        text=config.text,
        model=ModelSettings(preset=config.model.preset, vocab_size=config.model.vocab_size),
    )
    execute(shared, stage="prepare")
    return folder


def run_trial(
    trial: Trial,
    out: Path,
    scratch: Path,
    limits: Limits,
    *,
    keep_model: bool,
    n_threads: int | None = None,
) -> dict[str, Any]:
    """Train and evaluate; a trial that diverges has that as its result."""
    config = trial.config
    if n_threads is not None:
        config = _with_train(config, n_threads=n_threads)
    prepared = Prepared.load(prepare(trial, scratch), max_tail_tokens=_longest_tail(trial))
    work = scratch / "work" / trial.key[:16]
    set_threads(config.train.n_threads)
    load = [list(os.getloadavg())]
    result = _label(trial) | {
        "config_hash": trial.key,
        "config": trial.config.model_dump(mode="json", include=set(SECTIONS)),
        "objectives": list(objectives(trial.config)),
        "machine": machine(argparse.Namespace(threads=torch.get_num_threads())),
        "failed": None,
    }
    try:
        trained = train_run(config, prepared, work, fingerprint=trial.prepared, progress=Silent())
    except DataError as error:
        result["failed"] = str(error)
    else:
        load.append(list(os.getloadavg()))
        begun = time.perf_counter()
        result |= {
            "n_updates": trained.n_steps,
            "train": trained.timings,
            "valid_loss": trained.best_value,
        }
        result["n_parameters"] = _n_parameters(work)
        result |= evaluate(trial.config, prepared, work, limits)
        _keep_triples(result, out)
        result["evaluate_s"] = time.perf_counter() - begun
    result["load"] = [*load, list(os.getloadavg())]
    atomic_write_json(result_path(out, trial), result)
    if not keep_model:
        shutil.rmtree(work)
    return result


def _keep_triples(result: dict[str, Any], out: Path) -> None:
    """Write the ranked triples once for all trials; the result names their file."""
    for part in result["parts"].values():
        triples = part.pop("triples")
        digest = hashlib.sha256(json.dumps(triples).encode()).hexdigest()[:12]
        part["triples"] = f"triples-{digest}.json"
        if not (out / part["triples"]).is_file():
            atomic_write_json(out / part["triples"], triples)


def _n_parameters(folder: Path) -> int:
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118


def evaluate(config: RunConfig, prepared: Prepared, folder: Path, limits: Limits) -> dict[str, Any]:
    """Ranks by entity score, token score and both; the weight of tokens comes from validation."""
    scorer, has_entities = build_scorer(config, prepared, folder)
    ranked: dict[str, dict[str, list[QueryRow]]] = {}
    weight, tried = None, {}
    n_test = limits.max_queries
    for part, limit in (("valid", limits.max_valid_queries), ("test", n_test)):
        queries = choose_queries(prepared, part, limit)
        weights = TOKEN_WEIGHTS if weight is None else (weight,)
        rows = rank(scorer, part, queries, weights, has_entities=has_entities)
        by_weight = {w: rows.pop(str(w)) for w in weights if str(w) in rows}
        if weight is None and by_weight:
            tried = {
                w: rank_metrics(found, prepared.relations)["mrr_macro"]
                for w, found in by_weight.items()
            }
            weight = max(tried, key=lambda w: (tried[w], -w))
        if by_weight:
            rows["combined"] = by_weight[weight]
        elif rows:
            rows["combined"] = next(iter(rows.values()))
        ranked[part] = rows
    return {
        "token_weight": weight,
        "token_weight_macro_mrr": {str(w): value for w, value in tried.items()},
        "parts": {part: _summary(rows, prepared) for part, rows in ranked.items()},
        "relation_choice": relation_choice(scorer, choose_queries(prepared, "test", n_test)),
    }


def build_scorer(config: RunConfig, prepared: Prepared, folder: Path) -> tuple[Scorer, bool]:
    """A scorer; without MNM-entity its entity scores are all zero and not to be looked at."""
    model = load_model(folder)
    if torch.cuda.is_available():
        model.cuda()
    asked = objectives(config)
    if "entity" in asked:
        scorer = Scorer.build(
            model,
            prepared,
            query_slots=config.masking.query_slots,
            token_scores="leaf" in asked,
            precision=config.train.precision,
        )
        return scorer, True
    model.entity_head = EntityHead(model.config.hidden_size, pooled=False).to(model.device)
    asker = Asker(
        mask_id=prepared.tokenizer.mask_id,
        pad_id=prepared.tokenizer.pad_id,
        relation_names=relation_names(prepared, model.config),
        query_slots=config.masking.query_slots,
    )
    tokens = None
    if model.vocab_head is not None:
        tokens = TokenCandidates.build(prepared.name_tokens, max_tokens=prepared.max_tail_tokens)
    zeros = torch.zeros(len(prepared.names), model.config.hidden_size)
    return Scorer(model, prepared, asker, zeros, tokens, 0.0, config.train.precision), False


def choose_queries(prepared: Prepared, part: str, limit: int) -> list[Query]:
    """At most `limit` queries, even over the relations; the same whatever the tokenizer."""
    by_relation: dict[int, list[tuple[str, Query]]] = defaultdict(list)
    for query in head_queries(prepared, part, only_true=True):
        words = f"{prepared.entity_ids[query.head_entity]} {prepared.relations[query.relation]}"
        digest = hashlib.sha256(words.encode()).hexdigest()
        by_relation[query.relation].append((digest, query))
    chosen: list[Query] = []
    left = limit
    # The scarcest relation first: what it cannot use goes to the others.
    order = sorted(by_relation, key=lambda relation: len(by_relation[relation]))
    for place, relation in enumerate(order):
        share = left // (len(order) - place)
        found = sorted(by_relation[relation], key=lambda pair: pair[0])[:share]
        chosen += [query for _, query in found]
        left -= len(found)
    return chosen


def rank(
    scorer: Scorer,
    part: str,
    queries: Sequence[Query],
    weights: Sequence[float],
    *,
    has_entities: bool,
) -> dict[str, list[QueryRow]]:
    """Ranks of the true tails by each score, and by both together for each weight."""
    ranker = Ranker(scorer.prepared, queries, part)
    for block in scorer.answers(queries, tokens=scorer.tokens is not None):
        if has_entities:
            ranker.add("entity", block.index_Q, block.entity_QE)
        if block.token_QE is not None:
            ranker.add("tokens", block.index_Q, block.token_QE)
        if has_entities and block.token_QE is not None:
            for weight in weights:
                ranker.add(str(weight), block.index_Q, scorer.combine(block, weight))
    return dict(ranker.rows)


def _summary(rows: Mapping[str, Sequence[QueryRow]], prepared: Prepared) -> dict[str, Any]:
    """Measures of each system, and the rank of every triple (the same order in each)."""
    found: dict[str, Any] = {"systems": {}, "triples": [], "ranks": {}}
    for name, ranked in rows.items():
        metrics = rank_metrics(ranked, prepared.relations)
        kept = ("n", "mrr_macro", "hits@1_macro", "hits@10_macro", "per_tail_length")
        found["systems"][name] = {measure: metrics[measure] for measure in kept} | {
            "per_relation": {r: group["mrr"] for r, group in metrics["per_relation"].items()}
        }
        ordered = sorted(ranked, key=lambda row: row.key)
        ids = prepared.entity_ids
        found["triples"] = [
            [ids[row.head], prepared.relations[row.relation], ids[row.tail]] for row in ordered
        ]
        found["ranks"][name] = [row.rank for row in ordered]
    return found


def relation_choice(scorer: Scorer, asked: Sequence[Query]) -> dict[str, Any] | None:
    """How often the likeliest relation of a head is one it has; tails play no part."""
    if scorer.model.relation_head is None:
        return None
    prepared = scorer.prepared
    heads = {query.head_entity for query in asked}
    queries = [
        query
        for query in head_queries(prepared, "test", only_true=False)
        if query.head_entity in heads
    ]
    scores: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for block in scorer.answers(queries, tokens=False):
        assert block.relation_Q is not None
        for index, score in zip(block.index_Q, block.relation_Q, strict=True):
            query = queries[int(index)]
            scores[query.head_entity].append((float(score), query.relation))
    true = prepared.known_tails("test")
    commonest = int(np.bincount(prepared.triples["train"][:, 1]).argmax())
    return {
        "n_heads": len(scores),
        "top1_accuracy": float(np.mean([(h, max(s)[1]) in true for h, s in scores.items()])),
        "top1_accuracy_commonest_relation": float(
            np.mean([(h, commonest) in true for h in scores])
        ),
    }


# --- the table -----------------------------------------------------------------------------------


def write_table(out: Path, trials: Sequence[Trial], limits: Limits) -> Path:
    """Gather the results that fit the present configuration; say which ones do not."""
    results: dict[str, list[dict[str, Any]]] = defaultdict(list)
    stale = []
    for trial in trials:
        path = result_path(out, trial)
        found = read_result(path, trial.key)
        if found is not None:
            for part in found.get("parts", {}).values():
                part["triples"] = json.loads((out / part["triples"]).read_text(encoding="utf-8"))
            results[trial.variant.name].append(found)
        elif path.is_file():
            stale.append(trial.name)
    if stale:
        print(f"left out, made with another configuration: {', '.join(stale)}")
    rows = aggregate(results)
    budget = f"{limits.n_steps} updates"
    if limits.n_steps is None:
        budget = f"as many updates as take {limits.budget_s:g} s of CPU time"
    header = (
        f"Macro MRR on at most {limits.max_queries} test and {limits.max_valid_queries} validation "
        f"queries; {budget} each; mean ± 95 % interval over seeds."
    )
    found_on = {tuple(_machine(r).items()) for found in results.values() for r in found}
    machines = [dict(one) for one in sorted(found_on)]
    atomic_write_json(out / "table.json", {"header": header, "machines": machines, "rows": rows})
    atomic_write_text(out / "table.md", markdown(rows, header))
    return out / "table.md"


def _machine(result: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in result["machine"].items()}


# --- command line --------------------------------------------------------------------------------


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Variants of a run at equal budgets.")
    parser.add_argument("run_file", type=Path)
    parser.add_argument("--variants", type=Path, default=ROOT / "runs/ablations/variants.toml")
    parser.add_argument("--out", type=Path, default=ROOT / "results/ablations")
    parser.add_argument("--scratch", type=Path, default=ROOT / "run-output/ablations")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget", type=float, default=300.0, help="CPU seconds of training")
    parser.add_argument("--steps", type=int, help="updates of training instead")
    parser.add_argument("--max-queries", type=int, default=600, help="test queries ranked")
    parser.add_argument("--max-valid-queries", type=int, default=300)
    parser.add_argument("--only", nargs="+", default=[], help="variants to run (the table has all)")
    parser.add_argument("--minutes", type=float, help="begin no trial after so many minutes")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time; they share the CPU")
    parser.add_argument("--threads", type=int, help="of a trial, in place of the run file's")
    parser.add_argument("--set", dest="base", action="append", default=[], help="for all: a.b=c")
    parser.add_argument("--keep-models", action="store_true")
    parser.add_argument("--measure", action="store_true", help="only time an update of each")
    parser.add_argument("--list", action="store_true", help="say what is done and to do, and stop")
    parser.add_argument("--table", action="store_true", help="only write the table")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if words is None else words)
    args = parse(words)
    logging.disable_progress_bar()
    limits = Limits(args.budget, args.steps, args.max_queries, args.max_valid_queries)
    variants = load_toml(args.variants, Variants).variant
    unknown = set(args.only) - {variant.name for variant in variants}
    if unknown:
        raise ConfigError(
            "no such variant",
            where="--only",
            got=", ".join(sorted(unknown)),
            expected=", ".join(variant.name for variant in variants),
        )
    # Seeds outside: every variant has its first result before any has its second.
    times = read_times(args.out)
    trials = [
        plan(args.run_file, variant, seed, limits, args.base, times)
        for seed in args.seeds
        for variant in variants
    ]
    wanted = [t for t in trials if not args.only or t.variant.name in args.only]
    if args.measure:
        measure(wanted, args.out, args.scratch)
        return
    todo = {
        t.key: t
        for t in reversed(wanted)
        if read_result(result_path(args.out, t), t.key) is None
        and not copy_twin(args.out, t, trials)
    }
    todo_list = list(reversed(todo.values()))
    print(f"{len(wanted)} trials asked for, {len(todo_list)} to train")
    if args.list:
        for trial in wanted:
            done = read_result(result_path(args.out, trial), trial.key) is not None
            same = todo.get(trial.key, trial)
            state = "done" if done else "to do" if same is trial else f"as {same.name}"
            print(f"{trial.name:<28}{trial.key[:12]}  {state}")
        return
    if unmeasured := sorted({t.variant.name for t in todo_list if t.n_steps is None}):
        raise ConfigError(
            "a budget in seconds needs the time of an update",
            where=str(times_path(args.out)),
            got=f"none for {', '.join(unmeasured)}",
            fix="Give --measure once, or --steps.",
        )
    if not args.table:
        _run_all(todo_list, args, limits, words)
    for trial in wanted:
        if read_result(result_path(args.out, trial), trial.key) is None:
            copy_twin(args.out, trial, trials)
    print(write_table(args.out, trials, limits).read_text(encoding="utf-8"))


def _run_all(
    todo: Sequence[Trial], args: argparse.Namespace, limits: Limits, words: Sequence[str]
) -> None:
    """One after another in this process, or `jobs` at a time in processes of their own."""
    begun = time.perf_counter()
    for first in {trial.prepared: trial for trial in todo}.values():
        print(f"prepare {first.prepared}", flush=True)
        prepare(first, args.scratch)

    def run_one(trial: Trial) -> None:
        if args.minutes is not None and time.perf_counter() - begun > 60 * args.minutes:
            print(f"{trial.name}: left for another time")
            return
        started = time.perf_counter()
        if args.jobs == 1:
            run_trial(
                trial,
                args.out,
                args.scratch,
                limits,
                keep_model=args.keep_models,
                n_threads=args.threads,
            )
        else:
            command = [sys.executable, __file__, *words, "--jobs", "1"]
            command += ["--only", trial.variant.name, "--seeds", str(trial.seed)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        result = read_result(result_path(args.out, trial), trial.key)
        assert result is not None
        print(f"{trial.name}: {_said(result)}, {time.perf_counter() - started:.0f} s", flush=True)

    if args.jobs == 1:
        for trial in todo:
            run_one(trial)
    else:
        with ThreadPoolExecutor(args.jobs) as pool:
            list(pool.map(run_one, todo))


def _said(result: Mapping[str, Any]) -> str:
    if result["failed"]:
        return f"failed: {result['failed']}"
    combined = result["parts"]["test"]["systems"].get("combined")
    mrr = f"test macro MRR {combined['mrr_macro']:.3f}" if combined else "no tail scores"
    return f"{result['n_updates']} updates, {mrr}"


if __name__ == "__main__":
    try:
        main()
    except GraphMERTError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
