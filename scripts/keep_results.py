"""Keep the small files of a finished run in results/, and show its table in the README.

    python scripts/keep_results.py demo-run demo

Copies manifest, metrics, ledger, timings, report.md and training.jsonl to results/NAME and
writes the table of metrics.json between the README's markers of that name, if it has them.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from graphmert.report.content import metric_table
from graphmert.shards import atomic_write_text

ROOT = Path(__file__).parents[1]
PAGES = ("model_card.md", "deployment.md")  # of code runs
FILES = ("manifest.json", "metrics.json", "ledger.json", "timings.json", "report.md")


def main() -> None:
    """Copy the files and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    options = parser.parse_args()
    target = ROOT / "results" / options.name
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(options.run / name, target / name)
    shutil.copyfile(options.run / "model" / "training.jsonl", target / "training.jsonl")
    for name in PAGES:
        if (options.run / name).is_file():
            shutil.copyfile(options.run / name, target / name)
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    atomic_write_text(readme, with_table(text, options.name))


def with_table(text: str, name: str) -> str:
    """Return the page with the table of results/NAME between its markers."""
    start, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    if start not in text:
        return text
    before, rest = text.split(start, 1)
    return f"{before}{start}\n{table_of(name)}\n{end}{rest.split(end, 1)[1]}"


def table_of(name: str) -> str:
    """Return the systems of a kept run beside each other, as Markdown."""
    path = ROOT / "results" / name / "metrics.json"
    metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    table = metric_table(metrics, "test")
    rows = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    test = metrics["test"]
    lines += [
        "",
        (
            f"{test['n_triples']:,} triples of {test['n_heads']:,} unseen heads, ranked among "
            f"{test['n_entities']:,} entities; 95 % bootstrap intervals by head."
        ),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
