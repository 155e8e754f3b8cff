"""Index the fixed sets of source code; measure size, time, memory, updates and calls.

    graphmert data fetch code-python   (and code-javascript, code-java)
    python benchmarks/bench_code_index.py --out results/code_index/summary.json [--traces DIR]

Traces are what `trace_calls.py` wrote, one `NAME.json` for each Python package.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from graphmert import datasets
from graphmert.domains.code.index import build_index
from graphmert.domains.code.queries import CodeStore
from graphmert.domains.code.report import index_report
from graphmert.domains.code.search import search
from graphmert.domains.code.truth import compare_labels, compare_trace

SETS = ("code-python", "code-javascript", "code-java")
EDITED = (
    "code-python/requests/src/requests/sessions.py",
    "code-javascript/express/lib/router/index.js",
    "code-java/react-native/ReactAndroid/src/main/java/com/facebook/react/bridge/ReactContext.java",
)
NETWORKX = "networkx"
LABELS = Path(__file__).with_name("labels")


def timed(work: Any) -> tuple[float, float, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def added(name: str, text: str) -> str:
    """Add a function that calls one of the file's own."""
    if name.endswith(".py"):
        return text + "\n\ndef added_for_timing(value):\n    return session().get(value)\n"
    if name.endswith(".js"):
        return text + "\nfunction addedForTiming(value) { return getPathname(value); }\n"
    head, _, tail = text.rpartition("}")
    return head + "  public Object addedForTiming() { return getCatalystInstance(); }\n}" + tail


def updates(roots: list[Path], folder: Path, index: Path, full_cpu: float) -> dict[str, Any]:
    rows = []
    for name in EDITED:
        path = folder / name
        text = path.read_text(encoding="utf-8")
        mark = "#" if name.endswith(".py") else "//"
        for kind, changed in (
            ("comment", f"{mark} edited\n{text}"),
            ("function added", added(name, text)),
            ("syntax error", text.replace("(", "((", 1)),
        ):
            path.write_text(changed, encoding="utf-8")
            wall, cpu, result = timed(lambda: build_index(roots, index))
            rows.append(
                {
                    "file": name,
                    "edit": kind,
                    "wall_s": round(wall, 3),
                    "cpu_s": round(cpu, 3),
                    "files_linked": result.n_linked,
                    "steps": {key: round(value, 3) for key, value in result.seconds.items()},
                    "times_faster_cpu": round(full_cpu / cpu, 1),
                }
            )
        path.write_text(text, encoding="utf-8")
        build_index(roots, index)
    faster = [one["times_faster_cpu"] for one in rows]
    return {"edits": rows, "median_times_faster": statistics.median(faster), "least": min(faster)}


def traced(index: Path, traces: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    packages = {one.lower(): one for one in CodeStore(index).manifest["packages"]}
    for path in sorted(traces.glob("*.json")):
        result = compare_trace(index, packages[path.stem], path)
        result["examples"] = {key: texts[:5] for key, texts in result["examples"].items()}
        found[path.stem] = result
    return found


def queries(index: Path) -> dict[str, float]:
    load, _, store = timed(lambda: CodeStore(index))
    first, _, _ = timed(lambda: search(store, "read the cookies of a response"))
    again, _, _ = timed(lambda: search(store, "shortest path between two nodes"))
    callers, _, _ = timed(lambda: store.callers("Session.request", depth=3))
    impact, _, _ = timed(lambda: store.impact("Session.request"))
    seconds = {"open": load, "first_search": first, "search": again}
    return {
        key: round(value, 4)
        for key, value in {**seconds, "callers": callers, "impact": impact}.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--index", type=Path, help="keep the index here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for one in SETS:
            shutil.copytree(datasets.fetch(one), folder / one)
        roots = [folder / one for one in SETS]
        index = given.index or folder / "index"
        wall, cpu, _ = timed(lambda: build_index(roots, index, full=True))
        report = index_report(index)
        for key in ("parse_failures", "n_files_read", "n_files_linked"):
            report[key] = len(report[key]) if isinstance(report[key], list) else report[key]
        result: dict[str, Any] = {
            "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
            "load_before": [round(one, 2) for one in os.getloadavg()],
            "full": {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2)},
            "report": report,
            "labels": {
                path.stem: compare_labels(index, path) for path in sorted(LABELS.glob("*.jsonl"))
            },
        }
        if given.traces:
            result["traces"] = traced(index, given.traces)
        result["queries_s"] = queries(index)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        result["updates"] = updates(roots, folder, index, cpu)
        given.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        print(json.dumps({key: result[key] for key in ("full", "updates")}, indent=2))


if __name__ == "__main__":
    main()
