"""The threshold sweep: drawn from metrics.json, the same points in figure, table and page."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from graphmert.errors import DataError, FormatError
from graphmert.report.blocks import SweepPlot, Table
from graphmert.report.charts import sweep_chart
from graphmert.report.content import sweep_blocks
from graphmert.report.markdown import render_blocks

ROOT = Path(__file__).parents[3]
SVG = "{http://www.w3.org/2000/svg}"


def metrics(n: int = 30, *, beta: bool = True) -> dict[str, Any]:
    points = [
        {
            "threshold": 1 - i / n,
            "precision": None if i == 0 else 1 - i / (2 * n),
            "recall": i / n,
            "f1": 0.5,
            "n_accepted": 10 * i,
            "n_true": 300,
            "target_reached": True,
        }
        for i in range(n)
    ]
    found: dict[str, Any] = {"sweep": points, "rule": {"threshold": 1 - 7 / n, "beta": 0.4}}
    if beta:
        found["beta_sweep"] = [
            {"beta": 0.0, "n_candidates": 100, "n_correct": 30},
            {"beta": 0.4, "n_candidates": 50, "n_correct": 25},
            {"beta": 0.9, "n_candidates": 0, "n_correct": 0},
        ]
    return found


def script() -> ModuleType:
    path = ROOT / "scripts" / "draw_thresholds.py"
    spec = importlib.util.spec_from_file_location("draw_thresholds", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_point_is_drawn_where_it_belongs() -> None:
    plot = next(block for block in sweep_blocks(metrics()) if isinstance(block, SweepPlot))
    figure = sweep_chart(plot).replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ', 1)
    root = ET.fromstring(figure)
    dots = root.findall(f"{SVG}circle")
    assert len(dots) == 30 + 29  # nothing is accepted at the highest threshold
    recall = [dot for dot in dots if dot.get("fill") != dots[0].get("fill")]
    xs = [float(str(dot.get("cx"))) for dot in recall]
    ys = [float(str(dot.get("cy"))) for dot in recall]
    assert xs == sorted(xs)
    assert ys == sorted(ys)  # recall falls with the threshold, so it is drawn lower
    assert any("chosen" in (text.text or "") for text in root.findall(f"{SVG}text"))


def test_the_table_holds_the_chosen_threshold_and_beta() -> None:
    blocks = sweep_blocks(metrics())
    text = render_blocks(blocks)
    (chosen,) = [line for line in text.splitlines() if "chosen" in line]
    assert f"{1 - 7 / 30:.3f}" in chosen
    table = next(block for block in blocks if isinstance(block, Table))
    assert table.strong == {1}
    assert table.rows[1] == ("0.40", "50", "25", "0.500")
    assert table.rows[2][3] == "–"
    assert len(sweep_blocks(metrics(beta=False))) == 2
    assert sweep_blocks({"rule": {}}) == ()
    with pytest.raises(FormatError):
        sweep_blocks({"sweep": [{"threshold": 1}], "rule": {"threshold": 1}})


def test_the_page_is_filled_between_its_markers() -> None:
    page = (ROOT / "docs" / "thresholds.md").read_text(encoding="utf-8")
    module = script()
    figure, text = module.drawn(metrics(), "pubmed", page)
    assert ET.fromstring(figure).tag == f"{SVG}svg"
    before, after = page.split(module.START)[0], page.split(module.END)[1]
    assert text.startswith(before)
    assert text.endswith(after)
    assert "results/pubmed" in text
    assert module.drawn(metrics(), "pubmed", text)[1] == text
    with pytest.raises(DataError, match="no sweep"):
        module.drawn({"rule": {"threshold": 1}}, "pubmed", page)
