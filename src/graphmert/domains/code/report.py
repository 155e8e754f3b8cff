"""The report of an index: what was read, found and resolved."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from graphmert.domains.code.columns import rows_in, rows_without
from graphmert.store import RunDir

_CALLS = ("calls", "invokes", "instantiates")
_STATES = ("resolved", "ambiguous", "external", "unresolved")
_CONTAINMENT = ("contains", "has_parameter")


def index_report(path: Path | str) -> dict[str, Any]:
    """Return the report of an index as plain values.

    `strict` counts triples and entities without what is cheap to have: names outside the index,
    parameters and locals, and what contains what (derived inverses are never stored).
    """
    run = RunDir(path)
    files = run.read("code/files")
    triples = run.read("kg/triples")
    manifest = json.loads(run.manifest.read_text(encoding="utf-8"))
    timings = json.loads(run.timings.read_text(encoding="utf-8"))
    ledger = json.loads(run.ledger.read_text(encoding="utf-8"))
    languages = dict(zip(files["doc_id"].to_pylist(), files["language"].to_pylist(), strict=True))
    by_relation: dict[str, Counter[str]] = defaultdict(Counter)
    strict, ends = Counter(), defaultdict(set)
    heads = triples["head_id"].to_pylist()
    for head, relation, tail in zip(
        heads, triples["relation"].to_pylist(), triples["tail_id"].to_pylist(), strict=True
    ):
        language = languages.get(head.partition("#")[0]) or languages.get(
            tail.partition("#")[0], "shared"
        )
        by_relation[relation][language] += 1
        outside = tail.startswith(("ext:", "lib:")) or head.startswith(("ext:", "lib:"))
        if relation not in _CONTAINMENT and not outside:
            strict[language] += 1
            ends[language] |= {head, tail}
    n_strict = max(sum(strict.values()), 1)
    return {
        "files": manifest["counts"]["files"],
        "languages": manifest["counts"]["languages"],
        "parse_failures": _failures(files),
        "left_out": ledger["files"]["left_out"],
        "duplicate_modules": len(ledger["duplicate_modules"]),
        "entities": manifest["counts"]["entities"],
        "symbols": _symbols(run, languages),
        "triples": manifest["counts"]["triples"],
        "triples_by_relation": {
            name: dict(sorted(counts.items())) for name, counts in sorted(by_relation.items())
        },
        "triples_by_language": dict(
            sorted(sum((Counter(one) for one in by_relation.values()), Counter()).items())
        ),
        "strict": {
            "triples": sum(strict.values()),
            "entities": len(set().union(*ends.values())) if ends else 0,
            "by_language": dict(sorted(strict.items())),
            "share_by_language": {
                name: round(n / n_strict, 4) for name, n in sorted(strict.items())
            },
        },
        "calls": _calls(run),
        "validation": manifest["validation"],
        "seconds": timings["seconds"],
        "peak_memory_mb": timings["peak_memory_mb"],
        "n_files_read": timings["n_files_read"],
        "n_files_linked": timings["n_files_linked"],
    }


def _failures(files: Any) -> list[dict[str, str]]:
    chosen = rows_without(files, "state", "parsed")
    return chosen.select(["doc_id", "state", "reason"]).to_pylist()


def _symbols(run: RunDir, languages: dict[str, str]) -> dict[str, Any]:
    table = run.read("code/symbols")
    functions: Counter[str] = Counter()
    documented: Counter[str] = Counter()
    for kind, language, doc in zip(
        table["kind"].to_pylist(),
        table["language"].to_pylist(),
        table["docstring_start"].to_pylist(),
        strict=True,
    ):
        if kind in ("Function", "Method", "Test"):
            functions[language] += 1
            documented[language] += doc is not None
    total = max(sum(functions.values()), 1)
    return {
        "all": table.num_rows,
        "functions": dict(sorted(functions.items())),
        "functions_share": {
            name: round(count / total, 4) for name, count in sorted(functions.items())
        },
        "functions_with_docstring": dict(sorted(documented.items())),
    }


def _calls(run: RunDir) -> dict[str, Any]:
    table = rows_in(run.read("code/references"), "relation", _CALLS)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for language, state, resolver in zip(
        table["language"].to_pylist(),
        table["state"].to_pylist(),
        table["resolver"].to_pylist(),
        strict=True,
    ):
        for name in (language, "all"):
            counts[name][state] += 1
            counts[name]["by name alone"] += resolver == "syntactic"
    found = {}
    for name, one in sorted(counts.items()):
        total = sum(one[state] for state in _STATES)
        shares = {state: round(one[state] / max(total, 1), 4) for state in _STATES}
        found[name] = {"calls": total, **shares, "by_name_alone": one["by name alone"]}
    return found


def report_text(report: dict[str, Any]) -> str:
    """Return the report as lines for people."""
    lines = ["files"]
    lines += [f"  {state}: {n}" for state, n in report["files"].items()]
    lines += [f"  left out, {reason}: {n}" for reason, n in report["left_out"].items()]
    for one in report["parse_failures"][:10]:
        lines.append(f"  {one['state']} {one['doc_id']}: {one['reason']}")
    if len(report["parse_failures"]) > 10:
        lines.append(f"  … {len(report['parse_failures']) - 10} more in code/files.parquet")
    lines.append(f"entities {report['entities']}, triples {report['triples']}")
    strict = report["strict"]
    lines.append(
        f"  without names outside, parameters and containment: {strict['triples']} triples, "
        f"{strict['entities']} entities"
    )
    lines.append("triples by relation")
    for name, counts in report["triples_by_relation"].items():
        shown = ", ".join(f"{language} {n}" for language, n in counts.items())
        lines.append(f"  {name}: {sum(counts.values())} ({shown})")
    lines.append("calls")
    for name, one in report["calls"].items():
        shares = ", ".join(f"{state} {one[state]:.1%}" for state in _STATES)
        lines.append(f"  {name}: {one['calls']} ({shares}; by name alone {one['by_name_alone']})")
    lines.append("validation")
    check = report["validation"]
    for name, share in check["shares"].items():
        word = "kept" if check["passed"][name] else "BELOW"
        lines.append(f"  {name}: {share:.4f}, threshold {check['thresholds'][name]}: {word}")
    lines.append(
        f"{report['seconds']['total']:.1f} s, peak memory {report['peak_memory_mb']:.0f} MB, "
        f"{report['n_files_read']} files read, {report['n_files_linked']} linked"
    )
    return "\n".join(lines)
