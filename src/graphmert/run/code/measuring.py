"""Evaluate a trained code encoder: every measure, beside its baselines, into metrics.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from graphmert.model import GraphMERT
from graphmert.progress import Progress
from graphmert.run.code.asking import hold_out, make_pool
from graphmert.run.code.calls import (
    file_dependencies,
    measure_call_graph,
    measure_dependencies,
    measure_disambiguation,
)
from graphmert.run.code.compliance import compliance_table
from graphmert.run.code.cost import measure_cost
from graphmert.run.code.linking import measure_links
from graphmert.run.code.masked import measure_masked
from graphmert.run.code.prepared import CodePrepared
from graphmert.run.code.search import measure_search
from graphmert.run.code.sites import Site, add_model_feature, collect_sites, read_truth
from graphmert.run.code.violations import measure_violations
from graphmert.run.manifest import StageOutput
from graphmert.shards import Ledger, atomic_write_json


def evaluate_code(
    prepared: CodePrepared,
    model: GraphMERT,
    searcher: GraphMERT | None,
    run_dir: Path,
    progress: Progress,
) -> StageOutput:
    """Measure everything the network can be asked, on packages it has not seen.

    Args:
        searcher: the encoder fine-tuned for code search; None where none was.
    """
    config = prepared.config
    settings, seed = config.evaluate, config.seed
    part = settings.part
    other = "valid" if part == "test" else "test"
    metrics: dict[str, Any] = {
        "part": part,
        "packages": sorted(p for p, one in prepared.split.part_of.items() if one == part),
        "preset": config.model.preset,
    }
    ledgers: list[Ledger] = []
    progress.begin("evaluate", total=6, unit="measures")
    metrics["masked"] = measure_masked(prepared, model, part, seed=seed)
    progress.update(1)
    if model.entity_head is not None:
        held = hold_out(prepared, part, share=settings.hidden_share, seed=seed)
        ledgers.append(held.ledger)
        pool = make_pool(prepared, model, part)
        metrics["links"] = measure_links(prepared, model, held, pool, seed=seed)
        progress.update(2)
        calls, more = _measure_calls(prepared, model, part, other)
        metrics |= calls
        ledgers += more
    progress.update(3)
    if model.constraint_head is not None:
        metrics["violations"] = measure_violations(prepared, model, part)
    progress.update(4)
    metrics["search"] = measure_search(
        prepared, searcher or model, part, n_queries=settings.n_search, seed=seed
    )
    metrics["search"]["fine_tuned"] = searcher is not None
    progress.update(5)
    metrics["compliance"] = compliance_table(metrics)
    path = run_dir / "metrics.json"
    atomic_write_json(path, metrics)
    cost = measure_cost(prepared, model, part)
    progress.end()
    counts = {row["measure"]: row["value"] for row in metrics["compliance"]}
    return StageOutput([path], counts, ledgers, {"inference": cost})


def _measure_calls(
    prepared: CodePrepared, model: GraphMERT, part: str, other: str
) -> tuple[dict[str, Any], list[Ledger]]:
    """Disambiguation, call graph and dependencies; what is fitted is fitted on the other part."""
    settings = prepared.config.evaluate
    truth = read_truth(settings.truth) if settings.truth else None
    by_part: dict[str, list[Site]] = {}
    ledgers = []
    for one in (other, part):
        sites, ledger = collect_sites(prepared, one, truth=truth if one == part else None)
        ledgers.append(ledger)
        chosen = _some_sources(sites, settings.n_functions, settings.n_call_sites)
        add_model_feature(prepared, model, chosen, make_pool(prepared, model, one), one)
        by_part[one] = chosen
    packages = {p for p, one in prepared.split.part_of.items() if one == part}
    measured = {
        "disambiguation": measure_disambiguation(
            by_part[other],
            by_part[part],
            truth=settings.truth or "sites the index resolved with confidence",
        ),
        "call_graph": measure_call_graph(by_part[other], by_part[part]),
        "dependencies": measure_dependencies(
            prepared.tables,
            by_part[other],
            by_part[part],
            {"test": file_dependencies(prepared.tables, packages)},
        ),
    }
    return measured, ledgers


def _some_sources(sites: list[Site], n_sources: int, n_sites: int) -> list[Site]:
    """The sites of some definitions, spread evenly; whole definitions, as a call graph needs."""
    sources = list(dict.fromkeys(site.reference.source_id for site in sites))
    step = max(1, len(sources) // n_sources)
    chosen = set(sources[::step][:n_sources])
    kept = [site for site in sites if site.reference.source_id in chosen]
    limit = max(n_sites, 1)
    if len(kept) <= limit:
        return kept
    last = kept[limit - 1].reference.source_id
    return [s for i, s in enumerate(kept) if i < limit or s.reference.source_id == last]


def read_metrics(run_dir: Path) -> dict[str, Any]:
    """Read what `evaluate_code` wrote."""
    return json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
