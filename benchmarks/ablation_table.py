"""Gather the trials of `ablate.py` into rows and a Markdown table."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphmert.evaluate import clustered_interval

SYSTEMS = ("entity", "tokens", "combined")
# Student's t, 97.5 %, by degrees of freedom.
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def seed_interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean over seeds and its 95 % interval by Student's t; no interval from one seed."""
    mean, n = float(np.mean(values)), len(values)
    half = None
    if n > 1:
        half = T_975.get(n - 1, 2.1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return {"mean": mean, "half_width": half, "n_seeds": n, "values": list(values)}


def aggregate(results: Mapping[str, Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row for each variant, over its seeds, with differences from the variant `base`."""
    rows = []
    for name, found in results.items():
        ranked = [r for r in found if not r["failed"] and r["parts"]["test"]["systems"]]
        row: dict[str, Any] = {
            **{key: found[0][key] for key in ("variant", "group", "note", "same_as")},
            "seeds": [r["seed"] for r in found],
            "failed": {str(r["seed"]): r["failed"] for r in found if r["failed"]},
            "n_updates": [r.get("n_updates") for r in found],
            "n_parameters": found[0].get("n_parameters"),
            "token_weight": [r.get("token_weight") for r in found],
            "valid": {},
            "test": {},
        }
        for part in ("valid", "test"):
            for system in SYSTEMS:
                measured = [r["parts"][part]["systems"].get(system) for r in ranked]
                if measured and all(measured):
                    row[part][system] = _over_seeds(measured)
        chosen = [r["relation_choice"] for r in found if r.get("relation_choice")]
        if chosen:
            row["relation_choice"] = seed_interval([c["top1_accuracy"] for c in chosen])
            row["commonest_relation"] = chosen[0]["top1_accuracy_commonest_relation"]
        if name != "base" and "base" in results:
            row["difference"] = difference(ranked, results["base"])
        rows.append(row)
    return rows


def _over_seeds(measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    relations = measured[0]["per_relation"]
    return {
        "mrr_macro": seed_interval([m["mrr_macro"] for m in measured]),
        "per_relation": {
            r: float(np.mean([m["per_relation"][r] for m in measured])) for r in relations
        },
        "hits@1_macro": float(np.mean([m["hits@1_macro"] for m in measured])),
        "hits@10_macro": float(np.mean([m["hits@10_macro"] for m in measured])),
    }


def difference(
    results: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]]
) -> dict[str, Any] | None:
    """Test macro MRR (combined) minus the base's: over seeds, and over heads at mean rank gain."""
    of_seed = {r["seed"]: r for r in base if not r["failed"]}
    pairs = [(r, of_seed[r["seed"]]) for r in results if r["seed"] in of_seed]
    if not pairs:
        return None
    gains: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for ours, theirs in pairs:
        mine, other = _reciprocal(ours), _reciprocal(theirs)
        for triple in mine.keys() & other.keys():
            gains[triple].append(mine[triple] - other[triple])
    triples = sorted(gains)
    heads = {head: i for i, head in enumerate(sorted({t[0] for t in triples}))}
    relations = {name: i for i, name in enumerate(sorted({t[1] for t in triples}))}
    interval = clustered_interval(
        [float(np.mean(gains[t])) for t in triples],
        [heads[t[0]] for t in triples],
        [relations[t[1]] for t in triples],
        average="macro",
        seed=0,
    )
    macro = [
        a["parts"]["test"]["systems"]["combined"]["mrr_macro"]
        - b["parts"]["test"]["systems"]["combined"]["mrr_macro"]
        for a, b in pairs
    ]
    return {"over_seeds": seed_interval(macro), "over_heads": interval.to_dict()}


def _reciprocal(result: Mapping[str, Any]) -> dict[tuple[str, ...], float]:
    part = result["parts"]["test"]
    return {
        tuple(triple): 1 / value
        for triple, value in zip(part["triples"], part["ranks"]["combined"], strict=True)
    }


def markdown(rows: Sequence[dict[str, Any]], header: str) -> str:
    """Two tables: every variant, and test MRR by relation."""
    head = (
        "variant", "what it is", "seeds", "updates", "valid", "test", "minus base, over seeds",
        "minus base, over heads", "entity alone", "tokens alone", "relation choice",
    )  # fmt: skip
    lines = [header, "", _line(head), _line(["---"] * len(head))]
    relations = sorted({r for row in rows for r in _relations(row)})
    by_relation = [_line(["variant", *relations]), _line(["---"] * (1 + len(relations)))]
    for row in rows:
        note = row["note"]
        if row["same_as"]:
            note += f" (same as {row['same_as']})"
        if row["failed"]:
            note += f" (failed: seeds {', '.join(row['failed'])})"
        updates = [n for n in row["n_updates"] if n is not None]
        gain = row.get("difference")
        lines.append(
            _line(
                [
                    row["variant"],
                    note,
                    str(len(row["seeds"])),
                    f"{np.mean(updates):.0f}" if updates else "–",
                    _macro(row, "valid", "combined"),
                    _macro(row, "test", "combined"),
                    _plus_minus(gain["over_seeds"], sign="+") if gain else "–",
                    f"[{gain['over_heads']['low']:+.3f}, {gain['over_heads']['high']:+.3f}]"
                    if gain
                    else "–",
                    _macro(row, "test", "entity"),
                    _macro(row, "test", "tokens"),
                    _plus_minus(row["relation_choice"]) if "relation_choice" in row else "–",
                ]
            )
        )
        mrr = _relations(row)
        cells = [f"{mrr[r]:.3f}" if r in mrr else "–" for r in relations]
        by_relation.append(_line([row["variant"], *cells]))
    return "\n".join([*lines, "", "Test MRR by relation, combined score:", "", *by_relation, ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _relations(row: Mapping[str, Any]) -> dict[str, float]:
    return row["test"].get("combined", {}).get("per_relation", {})


def _macro(row: Mapping[str, Any], part: str, system: str) -> str:
    found = row[part].get(system)
    return _plus_minus(found["mrr_macro"]) if found else "–"


def _plus_minus(value: Mapping[str, Any], *, sign: str = "") -> str:
    half = value["half_width"]
    return f"{value['mean']:{sign}.3f}" + ("" if half is None else f" ± {half:.3f}")
