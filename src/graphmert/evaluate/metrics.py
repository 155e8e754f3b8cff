"""From rows and probabilities to the plain values of metrics.json."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from graphmert.errors import DataError
from graphmert.evaluate.bootstrap import Average, paired_difference, rank_interval
from graphmert.evaluate.calibration import Calibrator, operating_point, reliability
from graphmert.evaluate.ranks import HITS_AT, QueryRow, rank_metrics

COMPARED = ("mrr_micro", "mrr_macro")


def summarise_system(
    rows: Sequence[QueryRow],
    relation_names: Sequence[str],
    *,
    trained: bool,
    seed: int,
    n_resamples: int = 1000,
) -> dict[str, Any]:
    """Return the metrics.json entry of one system: means, intervals and groups.

    Args:
        rows: one row per held-out triple.
        relation_names: names by relation index.
        trained: whether the system was trained; untrained baselines are the floor.
        seed: seed of the bootstrap.
        n_resamples: number of bootstrap resamples.
    """
    metrics = rank_metrics(rows, relation_names)
    entry: dict[str, Any] = {"trained": trained, "n": len(rows)}
    averages: tuple[Average, Average] = ("micro", "macro")
    for average in averages:
        for statistic in ("mrr", *(f"hits@{k}" for k in HITS_AT)):
            name = f"mrr_{average}" if statistic == "mrr" else statistic
            name += "_macro" if average == "macro" and statistic != "mrr" else ""
            interval = rank_interval(
                rows, statistic=statistic, average=average, seed=seed, n_resamples=n_resamples
            )
            entry[name] = interval.to_dict()
    for group in ("per_relation", "per_tail_length", "heads_seen_as_tails", "unseen_heads"):
        entry[group] = _rounded(metrics[group])
    return entry


def summarise_split(
    systems: Mapping[str, Sequence[QueryRow]],
    relation_names: Sequence[str],
    *,
    n_entities: int,
    trained: Collection[str],
    compare: Sequence[tuple[str, str]] = (),
    seed: int,
    n_resamples: int = 1000,
) -> dict[str, Any]:
    """Return the metrics.json section of one split: every system on the same triples.

    Args:
        systems: rows by system name, in reporting order.
        relation_names: names by relation index.
        n_entities: number of ranked entities.
        trained: names of the trained systems.
        compare: pairs (a, b) whose difference a - b gets a paired interval.
        seed: seed of the bootstrap, shared so that intervals are comparable.
        n_resamples: number of bootstrap resamples.

    Raises:
        DataError: the systems did not rank the same triples, or a name is unknown.
    """
    triples: set[tuple[int, int, int]] | None = None
    for name, rows in systems.items():
        keys = {row.key for row in rows}
        if len(keys) != len(rows) or (triples is not None and keys != triples):
            raise DataError(
                "a system did not rank the same triples as the others, each once", where=name
            )
        triples = keys
    unknown = ({name for pair in compare for name in pair} | set(trained)) - set(systems)
    if unknown or triples is None:
        raise DataError(
            "unknown system to report", got=sorted(unknown), expected=sorted(systems) or "any"
        )
    return {
        "n_triples": len(triples),
        "n_heads": len({head for head, _, _ in triples}),
        "n_entities": n_entities,
        "systems": {
            name: summarise_system(
                rows, relation_names, trained=name in trained, seed=seed, n_resamples=n_resamples
            )
            for name, rows in systems.items()
        },
        "differences": [
            _difference(systems, a, b, statistic, seed=seed, n_resamples=n_resamples)
            for a, b in compare
            for statistic in COMPARED
        ],
    }


def exceeds_untrained(
    section: Mapping[str, Any], system: str, *, statistic: str = "mrr_macro"
) -> bool:
    """Return whether a system is above every untrained baseline by its paired interval.

    Args:
        section: a section made by `summarise_split`.
        system: name of the system, compared as (system, baseline) in the section.
        statistic: mrr_micro or mrr_macro.

    Raises:
        DataError: the section lacks a comparison with an untrained baseline.
    """
    lows = {
        row["b"]: row["low"]
        for row in section["differences"]
        if row["a"] == system and row["statistic"] == statistic
    }
    untrained = [name for name, entry in section["systems"].items() if not entry["trained"]]
    missing = [name for name in untrained if name not in lows]
    if missing:
        raise DataError("no comparison with a baseline", where=system, got=missing)
    return all(lows[name] > 0 for name in untrained)


def summarise_calibration(
    calibrator: Calibrator,
    scores: ArrayLike,
    correct: ArrayLike,
    *,
    threshold: float,
    n_true: int,
    fitted_on: str,
    measured_on: str,
) -> dict[str, Any]:
    """Return the metrics.json section on calibration: curve, bins, error, operating point.

    Args:
        calibrator: the frozen calibrator.
        scores: raw candidate scores of the split measured.
        correct: whether each candidate is true.
        threshold: the frozen probability from which candidates are accepted.
        n_true: true triples in all, found as candidates or not.
        fitted_on: name of the split the calibrator and threshold come from.
        measured_on: name of the split measured here.
    """
    probabilities = calibrator.predict(scores)
    point = operating_point(probabilities, correct, threshold, n_true=n_true)
    return {
        "calibrator": calibrator.to_dict(),
        "fitted_on": fitted_on,
        "measured_on": measured_on,
        **reliability(probabilities, correct).to_dict(),
        **point.to_dict(),
    }


def _difference(
    systems: Mapping[str, Sequence[QueryRow]],
    a: str,
    b: str,
    statistic: str,
    *,
    seed: int,
    n_resamples: int,
) -> dict[str, Any]:
    name, _, average = statistic.partition("_")
    interval = paired_difference(
        systems[a],
        systems[b],
        statistic=name,
        average="macro" if average == "macro" else "micro",
        seed=seed,
        n_resamples=n_resamples,
    )
    return {"a": a, "b": b, "statistic": statistic, **interval.to_dict()}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return value
