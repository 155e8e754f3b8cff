"""Comparison with traces and labels, on a project whose truth is known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from graphmert.domains.code.rows import make_rows
from graphmert.domains.code.truth import compare_labels, compare_trace
from graphmert.errors import FormatError
from graphmert.store import schema_of
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


SHIFTED = "\f\ndef f(n):\n    return n\n\n\ndef g():\n    x = '\u2028'; f(1)\n    return [f(2)]\n"


def trace_of(folder: Path, end_of: dict[str, list[int]], line: int) -> Path:
    """A trace in which g called f from each of some sites."""
    at = {"file": "a.py", "line": 6, "name": "g"}
    chains = [
        {
            "callee": {"file": "a.py", "line": line, "name": "f"},
            "sites": [{**at, "end": end}],
        }
        for end in end_of.values()
    ]
    (folder / "trace.json").write_text(json.dumps({"chains": chains, "elsewhere": []}))
    return folder / "trace.json"


def test_lines_are_those_of_python(tmp_path: Path) -> None:
    index(tmp_path, {"a.py": SHIFTED})
    ends = {"f(1)": [7, 19, 15], "f(2)": [8, 16, 12], "no call": [8, 17, 4]}
    result = compare_trace(tmp_path / "index", "p", trace_of(tmp_path, ends, 2))
    assert (result["sites"], result["recall"], result["sites_not_in_index"]) == (2, 1.0, 0)


def test_what_the_index_did_not_see_is_missed(tmp_path: Path) -> None:
    store = index(tmp_path, {"a.py": SHIFTED})
    rows = [one for one in references(store) if one["text"] != "f" or one["line"] != 8]
    names = schema_of("code/references").names
    store.run.write(
        "code/references", make_rows("code/references", [tuple(o[k] for k in names) for o in rows])
    )
    ends = {"f(1)": [7, 19, 15], "f(2)": [8, 16, 12]}
    trace = trace_of(tmp_path, ends, 2)
    result = compare_trace(tmp_path / "index", "p", trace)
    assert (result["sites"], result["sites_seen"], result["sites_not_in_index"]) == (2, 1, 1)
    assert (result["recall"], result["recall_of_seen"]) == (0.5, 1.0)
    assert (result["site_recall"], result["site_recall_of_seen"]) == (0.5, 1.0)
    assert result["misses"] == {"site not in index": 1}
    nowhere = compare_trace(tmp_path / "index", "p", trace_of(tmp_path, ends, 4))
    assert (nowhere["sites"], nowhere["pairs"], nowhere["recall"]) == (2, 2, 0.0)
    assert nowhere["misses"] == {"function not in index": 1, "site not in index": 1}


def test_a_labelled_site_that_is_no_reference_is_missed(tmp_path: Path) -> None:
    index(tmp_path, {"a.js": "function f() {}\nf();\n"})
    row = {"doc_id": "p/a.js", "line": 2, "start": 16, "end": 17, "name": "f", "label": "p/a.js#f"}
    unseen = {**row, "line": 1, "start": 9, "end": 10, "text": "a\u2028b"}
    labels = tmp_path / "labels.jsonl"
    labels.write_text("\n".join(json.dumps(o, ensure_ascii=False) for o in (row, unseen)))
    result = compare_labels(tmp_path / "index", labels)
    assert (result["recall"], result["recall_of_seen"]) == (0.5, 1.0)
    assert result["sites_not_in_index"] == 1
    assert result["misses"] == ["p/a.js:1 f: p/a.js#f, not in index"]


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
