"""Run variants of a run file and lay their results side by side.

Usage: python benchmarks/grid.py RUN.toml --variants runs/grid/NAME.toml [--out DIR]
       [--results DIR] [--only NAME ...] [--set A.B=C] [--minutes M] [--list] [--table]

Each variant is a whole run in DIR/NAME; what is finished is not done again. A variant that differs
from another in `extract` and `evaluate` alone takes over its preparation and training. What is
measured: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from graphmert.config import Settings, config_hash, load_toml
from graphmert.errors import ConfigError, GraphMERTError
from graphmert.progress import Silent
from graphmert.run import execute, load
from graphmert.run.manifest import fingerprint
from graphmert.run.settings import RunConfig
from graphmert.shards import atomic_write_json, atomic_write_text

ROOT = Path(__file__).parents[1]
LATER = ("out", "n_workers", "extract", "evaluate")  # decide nothing of preparation and training
SHARED = ("manifest.json", "ledger.json", "timings.json")
FOLDERS = ("corpus", "seed", "chains", "model")


class Variant(Settings):
    """What differs from the base run."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    group: str
    set: tuple[str, ...] = ()


class Variants(Settings):
    """A file of variants."""

    variant: tuple[Variant, ...]


@dataclass(frozen=True)
class Planned:
    """A variant with its whole configuration; equal keys mean equal training."""

    variant: Variant
    config: RunConfig
    key: str

    @property
    def folder(self) -> Path:
        return Path(self.config.out)


def plan(run_file: Path, variants: Variants, base: Sequence[str], out: Path) -> list[Planned]:
    """Every variant's configuration; names occur once."""
    names = [one.name for one in variants.variant]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError("two variants have one name", got=", ".join(twice))
    planned = []
    for one in variants.variant:
        config = load(run_file, [*base, *one.set])
        config = config.model_copy(update={"out": str(out / one.name)})
        tree = config.model_dump(mode="json", exclude=set(LATER))
        planned.append(Planned(one, config, fingerprint(tree)))
    return planned


def take_over(one: Planned, planned: Sequence[Planned]) -> str | None:
    """Link the preparation and training of a trained sibling; return its name.

    Files are only ever replaced, never written into, so that links are safe.
    """
    if (one.folder / "manifest.json").is_file():
        return None
    for other in planned:
        if other.key != one.key or other is one or not is_trained(other.folder):
            continue
        shutil.rmtree(one.folder, ignore_errors=True)
        for name in FOLDERS:
            shutil.copytree(
                other.folder / name,
                one.folder / name,
                copy_function=_link,
                ignore=shutil.ignore_patterns("checkpoints", ".*"),
            )
        for name in SHARED:
            shutil.copyfile(other.folder / name, one.folder / name)
        return other.variant.name
    return None


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def is_trained(folder: Path) -> bool:
    path = folder / "manifest.json"
    return path.is_file() and "train" in json.loads(path.read_text(encoding="utf-8"))["stages"]


def result_of(one: Planned) -> dict[str, Any]:
    """What the table shows of a finished run."""
    metrics = json.loads((one.folder / "metrics.json").read_text(encoding="utf-8"))
    manifest = json.loads((one.folder / "manifest.json").read_text(encoding="utf-8"))
    calibration, graph = metrics["calibration"], metrics["graph"]
    system = metrics["test"]["systems"][metrics["system"]]
    kept = ("n_queries", "n_accepted", "n_novel", "n_accepted_held_out", "n_evidence")
    return {
        "variant": one.variant.name,
        "group": one.variant.group,
        "set": list(one.variant.set),
        "config_hash": config_hash(one.config),
        "mrr_macro": system["mrr_macro"],
        "mrr_micro": system["mrr_micro"],
        "ece": calibration.get("ece"),
        "threshold": calibration.get("threshold"),
        "test_precision": calibration.get("precision"),
        "test_recall": calibration.get("recall"),
        "support": graph["support"]["score"],
        "queries": {name: graph["queries"][name] for name in ("precision", "recall", "f1")},
        "counts": {k: metrics["extraction"][k] for k in kept if k in metrics["extraction"]},
        "injected": manifest["stages"]["prepare"]["counts"].get("injected"),
        "triples": manifest["stages"]["prepare"]["counts"].get("triples"),
    }


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The results as Markdown, a table for each group."""
    columns = ("variant", "MRR, macro", "accepted", "novel", "test precision", "recall", "F1",
               "SupportScore", "ECE")  # fmt: skip
    parts = []
    for group in dict.fromkeys(one["group"] for one in results):
        lines = [
            f"## {group}",
            "",
            "| " + " | ".join(columns) + " |",
            "|" + " --- |" * len(columns),
        ]
        for one in results:
            if one["group"] == group:
                lines.append("| " + " | ".join(_cells(one)) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _cells(one: Mapping[str, Any]) -> list[str]:
    mrr, f1, counts = one["mrr_macro"], one["queries"]["f1"], one["counts"]
    support = one["support"]
    return [
        one["variant"].replace("_", " "),
        f"{mrr['value']:.3f} [{mrr['low']:.3f}, {mrr['high']:.3f}]",
        f"{counts['n_accepted']:,}",
        f"{counts['n_novel']:,}",
        _share(one["test_precision"]),
        _share(one["test_recall"]),
        "–" if f1 is None else f"{f1['value']:.3f} [{f1['low']:.3f}, {f1['high']:.3f}]",
        "–" if support is None else f"{support['value']:.3f}",
        _share(one["ece"]),
    ]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def finished(planned: Sequence[Planned], results: Path) -> list[dict[str, Any]]:
    """The kept results that belong to the present configuration."""
    found = []
    for one in planned:
        path = results / f"{one.variant.name}.json"
        if path.is_file():
            result = json.loads(path.read_text(encoding="utf-8"))
            if result["config_hash"] == config_hash(one.config):
                found.append(result)
            else:
                print(f"{one.variant.name}: result of another configuration, left out")
    return found


def work(planned: Sequence[Planned], every: Sequence[Planned], options: Any) -> None:
    """Run what is missing, as long as there is time."""
    begun = time.monotonic()
    for one in planned:
        if options.minutes is not None and time.monotonic() - begun > 60 * options.minutes:
            print("out of time; the same command goes on")
            return
        source = take_over(one, every)
        note = f" (preparation and training of {source})" if source else ""
        print(f"{one.variant.name}{note}", flush=True)
        execute(one.config, progress=Silent())
        atomic_write_json(options.results / f"{one.variant.name}.json", result_of(one))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--variants", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    name = options.variants.stem
    options.out = options.out or ROOT / "run-output" / "grid" / name
    options.results = options.results or ROOT / "results" / "grid" / name
    every = plan(options.run, load_toml(options.variants, Variants), options.set, options.out)
    wanted = [one for one in every if not options.only or one.variant.name in options.only]
    if options.only and len(wanted) < len(set(options.only)):
        known = ", ".join(one.variant.name for one in every)
        raise ConfigError("no such variant", got=", ".join(options.only), expected=known)
    if options.list:
        for one in wanted:
            print(f"{one.variant.name}\t{one.key[:12]}\t{' '.join(one.variant.set)}")
        return
    if not options.table:
        work(wanted, every, options)
    results = finished(every, options.results)
    if results:
        atomic_write_text(options.results / "table.md", table(results))
        print(table(results))


if __name__ == "__main__":
    try:
        main()
    except GraphMERTError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
