"""Draw the threshold sweep of a kept run into docs/thresholds.md.

    python scripts/draw_thresholds.py pubmed

Reads results/NAME/metrics.json, which a run with extract.sweep = true has written, draws
docs/thresholds.svg and fills the page's part between its markers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphmert.errors import DataError
from graphmert.report.blocks import SweepPlot
from graphmert.report.charts import sweep_chart
from graphmert.report.content import sweep_blocks
from graphmert.report.markdown import render_blocks
from graphmert.shards import atomic_write_text

ROOT = Path(__file__).parents[1]
START, END = "<!-- sweep -->", "<!-- /sweep -->"


def main() -> None:
    """Write figure and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    name = parser.parse_args().name
    metrics = json.loads((ROOT / "results" / name / "metrics.json").read_text(encoding="utf-8"))
    page = ROOT / "docs" / "thresholds.md"
    figure, text = drawn(metrics, name, page.read_text(encoding="utf-8"))
    atomic_write_text(page.with_suffix(".svg"), figure)
    atomic_write_text(page, text)


def drawn(metrics: Mapping[str, Any], name: str, page: str) -> tuple[str, str]:
    """Return the figure, and the page with it.

    Raises:
        DataError: the run kept no sweep.
    """
    blocks = sweep_blocks(metrics)
    plots = [block for block in blocks if isinstance(block, SweepPlot)]
    if not plots:
        raise DataError(
            "the run kept no sweep", where=name, fix="Run it with extract.sweep = true."
        )
    chart = sweep_chart(plots[0]).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    before, rest = page.split(START, 1)
    words = (
        "![Precision and recall of validation heads by threshold](thresholds.svg)\n\n"
        f"From the validation heads of [results/{name}](../results/{name}/report.md).\n\n"
        f"{render_blocks(blocks)}"
    )
    return chart + "\n", f"{before}{START}\n{words}\n{END}{rest.split(END, 1)[1]}"


if __name__ == "__main__":
    main()
