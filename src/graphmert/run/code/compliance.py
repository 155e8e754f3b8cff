"""The targets of the source system, and what was measured: pass, fail, or not measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TARGETS: dict[str, tuple[float, tuple[str, ...]]] = {
    "link prediction MRR": (0.52, ("links", "systems", "graphmert", "mrr_micro", "value")),
    "link prediction Hits@10": (0.78, ("links", "systems", "graphmert", "hits@10", "value")),
    "disambiguation top-1": (0.92, ("disambiguation", "systems", "graphmert", "accuracy")),
    "code search MRR@10": (0.44, ("search", "systems", "graph", "mrr@10")),
    "call graph F1": (0.63, ("call_graph", "systems", "graphmert", "f1")),
    "dependency F1": (0.70, ("dependencies", "systems", "graphmert", "f1")),
}
"""Measure -> (target, where it stands in metrics.json)."""


def compliance_table(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compare every measure with its target and with the best other system.

    Returns: rows of measure, target, value, passes, reason, best_other and other; value and
        passes are None where nothing was measured, which is neither pass nor fail, and reason
        says why.
    """
    rows = []
    for measure, (target, path) in TARGETS.items():
        value = _find(metrics, path)
        other, best = _best_other(metrics, path)
        rows.append(
            {
                "measure": measure,
                "target": target,
                "value": value,
                "passes": None if value is None else value >= target,
                "reason": _why_not(metrics, path[0]) if value is None else "",
                "other": other,
                "best_other": best,
            }
        )
    return rows


def _why_not(metrics: Mapping[str, Any], section: str) -> str:
    """Why a section holds no value."""
    if section not in metrics:
        return "the network was trained without the objective entity and ranks no entities"
    return "the packages measured hold nothing to ask"


def _find(metrics: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    place: Any = metrics
    for key in path:
        if not isinstance(place, Mapping) or key not in place:
            return None
        place = place[key]
    return None if place is None else float(place)


def _best_other(metrics: Mapping[str, Any], path: tuple[str, ...]) -> tuple[str, float | None]:
    section, _, own, *rest = path
    systems = metrics.get(section, {}).get("systems", {})
    found = {
        name: _find(metrics, (section, "systems", name, *rest)) for name in systems if name != own
    }
    scored = {name: value for name, value in found.items() if value is not None}
    if not scored:
        return "", None
    name = max(scored, key=lambda one: scored[one])
    return name, scored[name]
