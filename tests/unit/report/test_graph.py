from __future__ import annotations

import json
from pathlib import Path

from graphmert.evaluate.graph_measures import graph_measures
from graphmert.evaluate.ranks import QueryRow
from graphmert.report import render_report
from graphmert.report.blocks import Table
from graphmert.report.graph import graph_blocks, judged_blocks
from toy_graph import make_run

ROWS = [QueryRow(2, 3, 0, 2, False, 1.0), QueryRow(5, 2, 4, 2, False, 20.0)]
SYSTEMS = {"other_one": ROWS[::-1], "graphmert": ROWS}


def test_every_measure_is_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    measures = graph_measures(run, threshold=0.5, systems=SYSTEMS, n_resamples=20)
    blocks = graph_blocks(measures)
    tables = [block for block in blocks if isinstance(block, Table)]
    assert [table.columns[0] for table in tables] == [
        "not supported because",
        "accepted triples",
        "best tail of each query",
        "graph asked",
        "head in training triples",
        "tail in training triples",
    ]
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)
    assert tables[0].rows == (("score below the threshold", "1"),)
    assert tables[1].rows[0][1].startswith("0.667 [")
    assert [row[0] for row in tables[2].rows] == ["graphmert", "other one"]
    assert tables[2].rows[0][1].startswith("0.500 [")
    both = next(row for row in tables[3].rows if row[0] == "both")
    assert both[1].startswith("0.667 [")


def test_the_report_holds_the_section(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    measures = graph_measures(run, threshold=0.5, systems=SYSTEMS, n_resamples=20)
    run.metrics.write_text(json.dumps({"graph": measures}))
    page, markdown = render_report(run.path)
    assert "The graph itself" in page.read_text(encoding="utf-8")
    assert "SupportScore 0.667" in markdown.read_text(encoding="utf-8")
    run.metrics.write_text("{}")
    assert "SupportScore" not in render_report(run.path)[1].read_text(encoding="utf-8")


def test_what_a_judge_said_is_shown_with_the_judge() -> None:
    interval = {"value": 0.5, "low": 0.25, "high": 0.75}
    entry = {"judge": "stub", "n_judged": 1000, "n_unjudged": 3, "score": interval}
    (table,) = judged_blocks({"factscore": entry, "validity": {**entry, "score": None}})
    assert isinstance(table, Table)
    assert table.rows == (
        ("FActScore*, the text alone", "stub", "0.500 [0.250, 0.750]", "1,000", "3"),
        ("ValidityScore", "stub", "–", "1,000", "3"),
    )
    assert judged_blocks({}) == ()


def test_measures_of_nothing_are_dashes(tmp_path: Path) -> None:
    from graphmert.store import empty_table

    run = make_run(tmp_path)
    for name in ("kg/triples", "kg/evidence"):
        run.write(name, empty_table(name))
    blocks = graph_blocks(graph_measures(run, threshold=0.5, n_resamples=5))
    cells = [
        cell for block in blocks if isinstance(block, Table) for row in block.rows for cell in row
    ]
    assert "–" in cells
