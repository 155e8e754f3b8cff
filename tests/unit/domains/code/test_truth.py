"""Comparison with traces and labels, on a project whose truth is known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from graphmert.domains.code.truth import compare_labels, compare_trace
from graphmert.errors import FormatError
from toy_code import index, references

PROJECT = {
    "pyproject.toml": '[project]\nname = "toy"\n',
    "toy/__init__.py": "",
    "toy/core.py": (
        "import functools\n\n\n"
        "def logged(f):\n"
        "    def wrapper(*args):\n"
        "        return f(*args)\n"
        "    return wrapper\n\n\n"
        "@logged\ndef work(n):\n    return helper(\n        n\n    ) + len(sorted([Box(1)],"
        " key=key))\n\n\n"
        "def helper(n):\n    return n\n\n\n"
        "def key(box):\n    return box.n\n\n\n"
        "class Box:\n    def __init__(self, n):\n        self.n = n\n\n\n"
        "def run(call):\n    work(1)\n    return call(2)\n"
    ),
    "tests/test_core.py": (
        "from toy.core import run, helper\n\n\ndef test_run():\n    assert run(helper) == 2\n"
    ),
}


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traced")
    index(folder, PROJECT)
    script = Path(__file__).parents[4] / "benchmarks" / "trace_calls.py"
    command = [sys.executable, str(script), "--root", ".", "--out", str(folder / "trace.json")]
    finished = subprocess.run(
        [*command, "--", "-q", "tests"],
        cwd=folder / "p",
        env={"PYTHONPATH": ".", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return folder


def test_a_trace_tells_recall_and_precision(traced: Path) -> None:
    result = compare_trace(traced / "index", "toy", traced / "trace.json")
    # work(1) through its wrapper, f(*args), helper(n), Box(1), call(2); key is a callback.
    assert result["sites"] == 5
    assert result["site_recall"] == pytest.approx(3 / 5)
    assert result["precision"] == 1.0
    missed = " ".join(" ".join(texts) for texts in result["examples"].values())
    assert "call" in missed


def test_tests_count_when_asked(traced: Path) -> None:
    result = compare_trace(traced / "index", "toy", traced / "trace.json", tests=True)
    assert result["sites"] == 6


def test_a_file_that_is_no_trace_is_refused(traced: Path) -> None:
    (traced / "wrong.json").write_text("{}")
    with pytest.raises(FormatError, match="not a trace"):
        compare_trace(traced / "index", "toy", traced / "wrong.json")


def test_labels_tell_recall_and_precision(tmp_path: Path) -> None:
    store = index(tmp_path, {"a.js": "function f() {}\nf();\ng();\nlet h = f; h();\n"})
    rows = [one for one in references(store) if one["relation"] == "calls"]
    wanted = {"f": "p/a.js#f", "g": "outside", "h": "dynamic"}
    labels = tmp_path / "labels.jsonl"
    kept = ("doc_id", "line", "start", "end")
    lines = [
        json.dumps(
            {**{key: one[key] for key in kept}, "name": one["text"], "label": wanted[one["text"]]}
        )
        for one in rows
    ]
    labels.write_text("\n".join(lines))
    result = compare_labels(tmp_path / "index", labels)
    assert result["recall"] == 1.0
    assert result["predicted_sites"] == 2
    assert result["precision"] == 0.5
    assert len(result["misses"]) == 1
