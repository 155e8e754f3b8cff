"""Traced calls become targets of call sites."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graphmert.domains.code.traced_sites import traced_sites
from graphmert.errors import FormatError
from graphmert.store import RunDir


def end_of(run: RunDir, doc_id: str, text: str) -> list[int]:
    """[line, byte column behind the expression, byte column of its start]."""
    documents = run.read("corpus/documents")
    texts = dict(zip(documents["doc_id"].to_pylist(), documents["text"].to_pylist(), strict=True))
    place = texts[doc_id].index(text)
    line = texts[doc_id].count("\n", 0, place) + 1
    column = place - (texts[doc_id].rfind("\n", 0, place) + 1)
    return [line, column + len(text), column]


def line_of(run: RunDir, entity_id: str) -> int:
    symbols = run.read("code/symbols")
    ids = symbols["entity_id"].to_pylist()
    return symbols["start_line"].to_pylist()[ids.index(entity_id)]


def test_a_trace_names_the_targets(index: Path, tmp_path: Path) -> None:
    run = RunDir(index)
    scale = line_of(run, "alpha/alpha/core.py#scale")
    total = line_of(run, "alpha/alpha/shapes.py#alpha_total")
    site = {"file": "alpha/shapes.py", "line": total, "name": "alpha_total",
            "end": end_of(run, "alpha/alpha/shapes.py", "scale(shape, 2)")}  # fmt: skip
    chains = [
        {"callee": {"file": "alpha/core.py", "line": scale, "name": "scale"}, "sites": [site]}
    ]
    outside = {"file": "alpha/shapes.py", "line": 1, "name": "x",
               "end": end_of(run, "alpha/alpha/shapes.py", 'ValueError("no radius")')}  # fmt: skip
    trace = tmp_path / "trace.json"
    trace.write_text(json.dumps({"chains": chains, "elsewhere": [outside]}))
    rows, ledger = traced_sites(run, "alpha", trace)
    targets = {(row["doc_id"], row["target_id"]) for row in rows}
    assert ("alpha/alpha/shapes.py", "alpha/alpha/core.py#scale") in targets
    assert ("alpha/alpha/shapes.py", None) in targets
    assert ledger.to_dict()["offered"] == 2


def test_what_is_no_trace_is_refused(index: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(FormatError, match="not a trace"):
        traced_sites(RunDir(index), "alpha", tmp_path / "bad.json")
