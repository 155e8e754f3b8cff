"""The pages are true: links lead somewhere, examples give what they show, names exist."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")] if path.is_file()
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def page_ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).strip().replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_examples_give_what_they_show(page: Path) -> None:
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    names: dict[str, object] = {}  # examples of a page build on one another
    for number, example in enumerate(EXAMPLE.findall(page.read_text(encoding="utf-8"))):
        if ">>>" not in example:
            compile(example, str(page), "exec")
            continue
        test = parser.get_doctest(example, names, f"{page.name}[{number}]", str(page), 0)
        assert runner.run(test, clear_globs=False).failed == 0
        names.update(test.globs)


def equation_rows() -> list[tuple[list[str], str]]:
    """Return (functions, test file) of every row of the equations table."""
    rows = []
    for line in (ROOT / "docs" / "equations.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3 and cells[0] != "equation":
            functions = re.findall(r"`(graphmert[\w.]+)`", cells[1])
            tests = re.findall(r"`(tests/[\w/.]+)`", cells[2])
            if functions or tests:
                rows.append((functions, tests[0]))
    return rows


def test_every_equation_has_a_function_and_a_test() -> None:
    rows = equation_rows()
    assert len(rows) >= 4
    for functions, test in rows:
        assert functions
        assert (ROOT / test).is_file(), test
        for function in functions:
            module_name, _, name = function.rpartition(".")
            assert hasattr(importlib.import_module(module_name), name), function


def test_run_directory_page_names_every_table_and_column() -> None:
    store = pytest.importorskip("graphmert.store")
    text = (ROOT / "docs" / "run-directory.md").read_text(encoding="utf-8")
    for table, schema in store.SCHEMAS.items():
        line = next((one for one in text.splitlines() if f"`{table}.parquet`" in one), None)
        assert line is not None, table
        columns = re.findall(r"\w+", line.split("|")[2])
        assert set(schema.names) <= set(columns), table


def kept_results() -> list[str]:
    folder = ROOT / "results"
    return sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []


@pytest.mark.parametrize("name", kept_results())
def test_tables_of_results_are_those_of_their_files(name: str) -> None:
    path = ROOT / "scripts" / "keep_results.py"
    spec = importlib.util.spec_from_file_location("keep_results", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert script.with_table(text, name) == text
