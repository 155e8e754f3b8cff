"""Compare next-vector models: ranking, sizes, intervals, cost, and a recommendation.

Every run is scored on the same test windows; runs whose test fingerprints differ are refused. Runs
of one system and size are its seeds: they have the same settings, and all systems of a size were
trained on the same documents; otherwise they are refused.
Choices (the best baseline, the recommendation) are made on validation windows; what is reported
about them is measured on test windows.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphmert import shards
from graphmert.errors import DataError, ProvenanceError
from graphmert.evaluate.forecasts import (
    EVALUATION_FORMAT,
    SAMPLES_SCHEMA,
    column,
    document_codes,
    document_interval,
)
from graphmert.report.forecasts import comparison_report
from graphmert.report.markdown import render_markdown
from graphmert.report.page import render_page
from graphmert.run.forecasting import baseline_facts, read_record

COMPARISON_FORMAT = "graphmert-vector-comparison-1"
MIN_SEEDS = 3
_PARTS = ("valid", "test")


@dataclass
class _Run:
    """One evaluated folder."""

    path: Path
    evaluation: dict[str, Any]
    history: list[dict[str, Any]]
    latency: dict[str, Any]
    train_s: float | None
    samples: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int]:
        """System and training size: runs of one key differ in seed only."""
        return self.evaluation["system"], int(self.evaluation["size"])

    @property
    def settings(self) -> str | None:
        """Hash of the settings without the seed; None for what is not trained."""
        return self.evaluation["config_hash"]

    @property
    def best(self) -> dict[str, Any] | None:
        """The best epoch by validation cosine."""
        return max(self.history, key=lambda one: one["val_cosine"], default=None)


def compare_runs(
    paths: Sequence[Path | str],
    out: Path | str,
    *,
    min_seeds: int = MIN_SEEDS,
    unranked: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Compare evaluated runs and write comparison.json, comparison.md and comparison.html.

    Args:
        paths: folders with an evaluation.json, or folders over such folders.
        out: where the three files go.
        min_seeds: trained systems with fewer seeds are shown, but not ranked.
        unranked: further systems that are not ranked.
        seed: of the resamples.

    Returns:
        The content of comparison.json.

    Raises:
        DataError: no evaluated run, a run twice, runs with different test windows, runs of one
            size with different training documents, or of one system and size with different
            settings.
    """
    runs = [_read_run(path) for path in find_runs(paths)]
    _check_fingerprints(runs)
    _check_training(runs)
    docs = _align(runs)
    groups: dict[tuple[str, int], list[_Run]] = {}
    for run in runs:
        groups.setdefault(run.key, []).append(run)
    _check_seeds(groups)
    systems = [
        _System(key, members, docs, min_seeds=min_seeds, unranked=unranked, seed=seed)
        for key, members in sorted(groups.items(), key=lambda item: (item[0][1], item[0][0]))
    ]
    sizes = sorted({system.size for system in systems})
    comparison: dict[str, Any] = {
        "format": COMPARISON_FORMAT,
        "fingerprint": runs[0].evaluation["parts"]["test"]["fingerprint"],
        "n_windows": runs[0].evaluation["parts"]["test"]["n_windows"],
        "n_documents": runs[0].evaluation["parts"]["test"]["n_documents"],
        "data": runs[0].evaluation["data"],
        "min_seeds": min_seeds,
        "sizes": [_compare_size(systems, size) for size in sizes],
        "growth": _growth(systems, sizes),
        "recommendation": _recommend(systems, sizes[-1]),
    }
    out = Path(out)
    report = comparison_report(comparison)
    shards.atomic_write_json(out / "comparison.json", comparison)
    shards.atomic_write_text(out / "comparison.md", render_markdown(report))
    shards.atomic_write_text(out / "comparison.html", render_page(report))
    return comparison


def find_runs(paths: Sequence[Path | str]) -> list[Path]:
    """Return the folders with an evaluation.json in or below the given ones.

    Raises:
        DataError: there is none in or below a path, or one is given twice.
    """
    found: list[Path] = []
    for path in (Path(one) for one in paths):
        below = sorted(one.parent for one in path.rglob("evaluation.json"))
        if not below:
            raise DataError(
                "run is not evaluated",
                where=str(path),
                expected="an evaluation.json in it or below",
                fix=f"Run: graphmert vectors evaluate {path} --data DATASET",
            )
        found.extend(below)
    if len({one.resolve() for one in found}) != len(found):
        raise DataError("a run is given twice", got=", ".join(map(str, found)))
    return found


def _read_run(path: Path) -> _Run:
    evaluation = read_record(path / "evaluation.json")
    if evaluation.get("format") != EVALUATION_FORMAT:
        raise DataError(
            "evaluation of another format",
            where=str(path / "evaluation.json"),
            got=evaluation.get("format"),
            expected=EVALUATION_FORMAT,
        )
    missing = [part for part in _PARTS if part not in evaluation["parts"]]
    if missing:
        raise DataError(
            "run is not evaluated on all parts", where=str(path), got=f"no {missing[0]}",
            expected=", ".join(_PARTS), fix="Evaluate it again, without --part.",
        )  # fmt: skip
    evaluation = _complete(path, evaluation)
    metrics = read_record(path / "metrics.json") if (path / "metrics.json").is_file() else {}
    latency = read_record(path / "latency.json") if (path / "latency.json").is_file() else {}
    timings = read_record(path / "timings.json") if (path / "timings.json").is_file() else {}
    return _Run(path, evaluation, metrics.get("history", []), latency, timings.get("train_s"))


def _complete(path: Path, evaluation: dict[str, Any]) -> dict[str, Any]:
    """Add what older evaluations do not say of their training; the run's manifest does."""
    if {"config_hash", "train_fingerprint"} <= set(evaluation):
        return evaluation
    from graphmert.domains.vectors.runs import run_facts

    manifest = read_record(path / "manifest.json") if (path / "manifest.json").is_file() else {}
    if "config" in manifest:
        facts = run_facts(manifest)
    elif "data" in manifest:
        facts = baseline_facts(manifest)
    else:
        raise DataError(
            "it is not known what the run was trained with",
            where=str(path / "evaluation.json"),
            expected="config_hash and train_fingerprint, or a manifest.json beside it",
            fix="Evaluate it again.",
        )
    return evaluation | {key: one for key, one in facts.items() if key != "size"}


def _check_training(runs: Sequence[_Run]) -> None:
    first: dict[int, _Run] = {}
    for run in runs:
        size, trained_on = run.key[1], run.evaluation["train_fingerprint"]
        if trained_on is None:
            continue
        other = first.setdefault(size, run)
        if other.evaluation["train_fingerprint"] != trained_on:
            raise DataError(
                "runs of one size were trained on different documents and cannot be ranked",
                where=f"{other.path} and {run.path}",
                got=f"fingerprints {other.evaluation['train_fingerprint'][:16]}… and "
                f"{trained_on[:16]}…, {size} vectors each",
                expected="one fingerprint for a size",
                fix="Compare them apart.",
            )


def _check_fingerprints(runs: Sequence[_Run]) -> None:
    for part in _PARTS:
        first = runs[0]
        for other in runs[1:]:
            ours, theirs = (one.evaluation["parts"][part]["fingerprint"] for one in (first, other))
            if ours != theirs:
                raise DataError(
                    f"runs were scored on different {part} windows and cannot be ranked",
                    where=f"{first.path} and {other.path}",
                    got=f"fingerprints {ours[:16]}… and {theirs[:16]}…",
                    expected="one fingerprint",
                    fix="Evaluate all runs with one data set, or compare them apart.",
                )


def _check_seeds(groups: Mapping[tuple[str, int], Sequence[_Run]]) -> None:
    for (system, size), members in groups.items():
        seeds = [one.evaluation["seed"] for one in members]
        if len(set(seeds)) != len(seeds):
            raise DataError(
                "two runs have the same system, size and seed",
                where=", ".join(str(one.path) for one in members),
                got=f"{system}, {size} vectors, seeds {seeds}",
                fix="Give one of them.",
            )
        other = next((one for one in members if one.settings != members[0].settings), None)
        if other is not None:
            raise DataError(
                "runs of one system and size have different settings and are no seeds of it",
                where=f"{members[0].path} and {other.path}",
                got=f"{system}, {size} vectors, settings {str(members[0].settings)[:16]}… and "
                f"{str(other.settings)[:16]}…",
                expected="runs that differ in seed only",
                fix="Compare one of the settings at a time; manifest.json shows both.",
            )


def _align(runs: Sequence[_Run]) -> dict[str, NDArray[np.int64]]:
    """Bring the samples of all runs into one order; return the documents of each part."""
    docs: dict[str, NDArray[np.int64]] = {}
    keys: dict[str, Any] = {}
    for run in runs:
        for part in _PARTS:
            path = run.path / f"samples-{part}.parquet"
            table = shards.read_table(path, SAMPLES_SCHEMA.names)
            table = table.sort_by([("doc_id", "ascending"), ("offset", "ascending")])
            key = table.select(["doc_id", "offset"]).combine_chunks()
            if part not in keys:
                keys[part], docs[part] = key, document_codes(table)
            if not key.equals(keys[part]):
                raise ProvenanceError(
                    "samples of two runs are of different windows",
                    where=f"{runs[0].path} and {run.path}",
                    fix="Evaluate both again with one data set.",
                )
            run.samples[part] = {
                name: column(table, name) for name in ("cosine", "rank_global", "rank_document")
            }
    return docs


class _System:
    """The runs of one system at one size, their samples averaged over seeds."""

    def __init__(
        self,
        key: tuple[str, int],
        runs: Sequence[_Run],
        docs: Mapping[str, NDArray[np.int64]],
        *,
        min_seeds: int,
        unranked: Sequence[str],
        seed: int,
    ) -> None:
        self.name, self.size = key
        self.runs = sorted(runs, key=lambda one: one.evaluation["seed"] or 0)
        self.trained = bool(runs[0].evaluation["trained"])
        self.n_parameters = int(runs[0].evaluation["n_parameters"])
        self._docs, self._seed = docs, seed
        self.cosine = {
            part: np.mean([one.samples[part]["cosine"] for one in self.runs], axis=0)
            for part in _PARTS
        }
        self.reason = ""
        if self.name in unranked:
            self.reason = "left out of the ranking by request"
        elif self.trained and len(self.runs) < min_seeds:
            seeds = "one seed" if len(self.runs) == 1 else f"{len(self.runs)} seeds"
            self.reason = f"{seeds}, {min_seeds} wanted"

    @property
    def ranked(self) -> bool:
        """Whether it takes part in the ranking."""
        return not self.reason

    def interval(self, values: NDArray[np.float64], part: str) -> dict[str, float]:
        """Return mean and interval of values of a part's windows."""
        return document_interval(values, self._docs[part], seed=self._seed).to_dict()

    def difference(self, other: _System, part: str = "test") -> dict[str, float]:
        """Return the paired difference of cosines to another system, ours minus theirs."""
        return self.interval(self.cosine[part] - other.cosine[part], part)

    def describe(self) -> dict[str, Any]:
        """Return everything but rank and gain."""
        values = [one.evaluation["parts"]["test"] for one in self.runs]
        best = [one.best for one in self.runs]
        times = [one.train_s for one in self.runs if one.train_s is not None]
        means = [one["cosine"]["value"] for one in values]
        retrieval = {
            scope: {
                name: round(
                    float(np.mean([one["retrieval"][scope][name]["value"] for one in values])), 6
                )
                for name in ("r@1", "r@5", "r@10", "mrr")
            }
            | {"chance": values[0]["retrieval"][scope]["chance"]}
            for scope in ("global", "document")
        }
        order = {
            name: round(
                float(np.mean([one["order"][name]["change"]["value"] for one in values])), 6
            )
            for name in ("shuffled", "reversed")
        }
        return {
            "system": self.name,
            "size": self.size,
            "trained": self.trained,
            "n_seeds": len(self.runs) if self.trained else None,
            "unranked": self.reason or None,
            "n_parameters": self.n_parameters,
            "cosine": self.interval(self.cosine["test"], "test"),
            "valid_cosine": self.interval(self.cosine["valid"], "valid"),
            "seed_spread": round(float(np.std(means, ddof=1)), 6) if len(means) > 1 else None,
            "best_epoch": [one["epoch"] if one else None for one in best],
            "retrieval": retrieval,
            "order_change": order,
            "latency": self.runs[0].latency.get("batches"),
            "train_s": round(float(np.mean(times)), 1) if times else None,
            "curves": [
                {"seed": one.evaluation["seed"],
                 "points": [[row["epoch"], row["val_cosine"]] for row in one.history]}
                for one in self.runs if one.history
            ],
        }  # fmt: skip


def _best_baseline(systems: Sequence[_System], size: int) -> _System | None:
    """Return the untrained system with the highest validation cosine at a size."""
    baselines = [one for one in systems if one.size == size and not one.trained]
    return max(baselines, key=lambda one: float(one.cosine["valid"].mean()), default=None)


def _compare_size(systems: Sequence[_System], size: int) -> dict[str, Any]:
    """Return the ranking at one training size, the best test cosine first."""
    here = [one for one in systems if one.size == size]
    here.sort(key=lambda one: (-float(one.cosine["test"].mean()), one.name))
    baseline = _best_baseline(systems, size)
    rows = []
    rank = 0
    for system in here:
        rank += system.ranked
        row = system.describe() | {"rank": rank if system.ranked else None}
        gain = None if baseline is None else system.difference(baseline)
        rows.append(row | {"gain": gain})
    return {
        "size": size,
        "best_baseline": None if baseline is None else baseline.name,
        "systems": rows,
    }


def _growth(systems: Sequence[_System], sizes: Sequence[int]) -> dict[str, Any]:
    """Return what each system gains from one size to the next; averages are of ranked ones."""
    steps = list(itertools.pairwise(sizes))
    if len(sizes) > 2:
        steps.append((sizes[0], sizes[-1]))
    by_key = {(one.name, one.size): one for one in systems}
    found = []
    for smaller, larger in steps:
        rows = []
        for name in sorted({one.name for one in systems}):
            small, large = by_key.get((name, smaller)), by_key.get((name, larger))
            if small is None or large is None:
                continue
            base = float(small.cosine["test"].mean())
            change = large.difference(small)
            rows.append(
                {
                    "system": name,
                    "trained": large.trained,
                    "ranked": small.ranked and large.ranked,
                    "change": change,
                    "percent": round(100 * change["value"] / base, 4) if base else None,
                }
            )
        trained = [one for one in rows if one["trained"] and one["ranked"]]
        percents = [one["percent"] for one in trained if one["percent"] is not None]
        found.append(
            {
                "from": smaller,
                "to": larger,
                "systems": rows,
                "average": {
                    "n_systems": len(trained),
                    "change": _mean([one["change"]["value"] for one in trained]),
                    "percent": _mean(percents),
                },
            }
        )
    return {"steps": found}


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 6) if values else None


def _recommend(systems: Sequence[_System], size: int) -> dict[str, Any]:
    """Choose on validation windows: the best, or a smaller one that is not clearly worse."""
    ranked = [one for one in systems if one.ranked and one.size == size]
    if not ranked:
        return {"system": None, "size": size, "reason": "No system is ranked at this size."}
    best = max(ranked, key=lambda one: float(one.cosine["valid"].mean()))
    equal = [one for one in ranked if one is best or best.difference(one, "valid")["low"] <= 0]
    chosen = min(equal, key=lambda one: (one.n_parameters, one.name))
    reason = (
        f"Of the systems ranked at {size:,} training vectors, {best.name} has the highest "
        f"validation cosine ({float(best.cosine['valid'].mean()):.4f})."
    )
    if chosen is not best:
        gap = best.difference(chosen, "valid")
        reason += (
            f" {chosen.name} has fewer parameters ({chosen.n_parameters:,} against "
            f"{best.n_parameters:,}) and is not clearly worse: the difference is "
            f"{gap['value']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]."
        )
    baseline = _best_baseline(systems, size)
    gain = None
    if baseline is not None and chosen is not baseline:
        gain = chosen.difference(baseline)
        verdict = (
            "exceeds"
            if gain["low"] > 0
            else "is below"
            if gain["high"] < 0
            else "does not differ from"
        )
        reason += (
            f" On test windows {chosen.name} {verdict} the best baseline, {baseline.name}: "
            f"{gain['value']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]."
        )
    elif baseline is chosen:
        reason += " It is a baseline: no trained model is worth its cost on these data."
    else:
        reason += " No baseline was given to compare with."
    return {"system": chosen.name, "size": size, "reason": reason, "gain": gain}
