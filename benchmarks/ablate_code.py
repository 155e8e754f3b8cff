"""Train a code run with one feature at a time and measure what each is worth, and what it costs.

    python benchmarks/ablate_code.py RUN.toml OUT [--variants FILE] [--only NAME ...]
        [--seeds 0 1 2] [--set A.B=C ...]

Every variant starts from the run file with all features off, on the same split, tokenizer and
batches. Work done is kept: the same command goes on where it was stopped. Writes OUT/ablation.json
and OUT/ablation.md. Violations of a constraint that a variant does not train are measured with its
parts left at their random start, and say so.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

from graphmert.constraints import REGULARISERS
from graphmert.run.code import execute_code, load_code
from graphmert.run.code.pages import table
from graphmert.shards import atomic_write_json, atomic_write_text

ROOT = Path(__file__).parents[1]
OFF = (
    "model.changes.hgat=none",
    "model.changes.decay=none",
    "model.changes.relation_bias=false",
    "model.changes.graph_depth=0",
    "model.changes.n_hops=0",
    *(f"train.weights.{name}=0.0" for name in REGULARISERS),
    "tune.steps=0",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--variants", type=Path, default=ROOT / "runs" / "ablations" / "code_variants.toml"
    )
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--set", dest="overrides", nargs="*", default=[])
    options = parser.parse_args()
    variants = tomllib.loads(options.variants.read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = []
    for name, variant in variants.items():
        if options.only and name not in options.only:
            continue
        for seed in options.seeds:
            out = options.out / f"{name}-{seed}"
            changes = [*OFF, *options.overrides, *variant["set"], f"seed={seed}", f"out={out}"]
            execute_code(load_code(options.run, changes), last="evaluate")
            rows.append({"variant": name, "seed": seed, **measured(out)})
            atomic_write_json(options.out / "ablation.json", {"rows": rows})
            atomic_write_text(options.out / "ablation.md", page(rows))


def measured(out: Path) -> dict[str, Any]:
    """The numbers of one run that the table shows."""
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    timings = json.loads((out / "timings.json").read_text(encoding="utf-8"))
    masked, cost = metrics["masked"], timings["evaluate"]["inference"]
    links = (metrics.get("links") or {}).get("systems", {}).get("graphmert")
    updates = len((out / "model" / "training.jsonl").read_text(encoding="utf-8").splitlines())
    return {
        "link_mrr": None if links is None else links["mrr_micro"]["value"],
        "mlm": masked["mlm"]["graphmert"]["cross_entropy"],
        "leaf": masked["leaf"]["graphmert"]["cross_entropy"],
        "relation": masked["relation"]["graphmert"]["cross_entropy"],
        "search_mrr": metrics["search"]["systems"].get("graph", {}).get("mrr@10"),
        "violations": metrics.get("violations", {}),
        "train_s": timings["train"]["train_s"],
        "train_peak_mb": timings["train"]["peak_memory_bytes"] // 2**20,
        "ms_per_chain": cost["ms_per_chain_in_16"],
        "n_log_lines": updates,
    }


def page(rows: list[dict[str, Any]]) -> str:
    """A table of the runs so far."""
    columns = ("variant", "seed", "link_mrr", "mlm", "leaf", "relation", "search_mrr",
               "train_s", "ms_per_chain")  # fmt: skip
    broken = [
        (r["variant"], r["seed"], *(r["violations"].get(name) for name in REGULARISERS))
        for r in rows
        if r["violations"]
    ]
    return "\n".join(
        [
            "Cross-entropies of masked tokens, tails and relations, and ranks: held-out packages.",
            "",
            table(columns, [[row[name] for name in columns] for row in rows]),
            "",
            "Share of held-out triples that break a constraint:",
            "",
            table(("variant", "seed", *REGULARISERS), broken),
            "",
        ]
    )


if __name__ == "__main__":
    main()
