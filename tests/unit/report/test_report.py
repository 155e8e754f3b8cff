from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest

from graphmert.errors import FormatError, ProvenanceError
from graphmert.report import console_summary, render_report
from graphmert.report.blocks import Segment
from graphmert.report.markdown import escape_markdown, mark_segments
from graphmert.report.samples import best_samples, cut_sentence, drawn_samples
from graphmert.report.source import read_run
from graphmert.shards import read_table, write_table


class Page(HTMLParser):
    """Collect tags, links to elsewhere and the text of a page; check that tags balance."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.outside: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.stack.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "data", "action"} and not (value or "").startswith("#"):
                self.outside.append(f"{name}={value}")
            assert not name.startswith("on")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_page_is_whole_and_loads_nothing(run_dir: Path) -> None:
    page_path, _ = render_report(run_dir)
    text = page_path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.outside == []
    assert "script" not in page.tags
    assert "url(" not in text
    assert "@import" not in text
    assert "<script" not in text
    assert "&lt;script&gt;" in text  # the hostile name is there, as text
    assert "<script>alert('x')</script> | *cell*" in page.texts
    for title in ("Funnel", "Link prediction", "Calibration", "Sample triples", "Configuration"):
        assert title in page.texts
    for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        ET.fromstring(svg)
    assert text.count("<svg") == 1 + 4 + 1


def test_numbers_come_from_the_run_files(run_dir: Path) -> None:
    page_path, markdown_path = render_report(run_dir)
    entry = json.loads((run_dir / "metrics.json").read_text())["test"]["systems"]["bm25_names"]
    macro = entry["mrr_macro"]
    shown = f"{macro['value']:.3f} [{macro['low']:.3f}, {macro['high']:.3f}]"
    assert shown in page_path.read_text(encoding="utf-8")
    assert escape_markdown(shown) in markdown_path.read_text(encoding="utf-8")


def test_markdown_holds_the_same_tables(run_dir: Path) -> None:
    _, path = render_report(run_dir)
    text = path.read_text(encoding="utf-8")
    assert "| triples into chains | 86,549 | 78,010 | 8,539 |" in text
    assert "<script" not in text.replace("\\<script", "")
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(tables) >= 10
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1  # a pipe in a name does not make a column


def test_reports_are_the_same_bytes_whatever_the_timings(run_dir: Path, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in render_report(run_dir)]
    other = tmp_path / "elsewhere" / "copy"
    shutil.copytree(run_dir, other)
    (other / "timings.json").write_text('{"train": 1.23}')
    assert [path.read_bytes() for path in render_report(other)] == first


def test_a_run_that_has_only_begun_is_reported_too(tmp_path: Path) -> None:
    page, _ = render_report(tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "This run holds no metrics" in text
    summary = console_summary(tmp_path)
    assert summary["triples"] == []
    assert summary["text"].startswith("Report: ")


def test_console_summary(run_dir: Path) -> None:
    summary = console_summary(run_dir)
    assert (summary["system"], summary["best_untrained"]) == ("graphmert", "bm25_names")
    assert len(summary["triples"]) == 10
    assert summary["funnel"][1] == {
        "stage": "triples into chains", "offered": 86_549, "kept": 78_010, "left_out": 8_539
    }  # fmt: skip
    for part in ("Funnel", "MRR, macro", "bm25 names", "⟦", "report.html", "untrained"):
        assert part in summary["text"]
    json.dumps(summary)


def test_samples_are_spread_and_the_draw_follows_the_hash(run_dir: Path) -> None:
    files = read_run(run_dir)
    best = best_samples(files, 8)
    assert sorted({s.relation for s in best[:4]}) == sorted({s.relation for s in best})
    assert all(sample.novel for sample in best)
    assert len({sample.head for sample in best}) == 8
    ids = sorted(files.triples["triple_id"].to_pylist())[:3]
    by_id = {row["triple_id"]: row["head"] for row in files.triples.to_pylist()}
    assert [s.head for s in drawn_samples(files, 3)] == [by_id[i] for i in ids]
    everything = best_samples(files, 100)
    assert len(everything) == 40
    assert {s.held_out for s in everything} == {True, False}


def test_sentences_are_cut_at_head_and_tail() -> None:
    pieces = cut_sentence("red cell is a cell", (0, 8), (4, 8))
    assert pieces == (
        Segment("red ", True, False),
        Segment("cell", True, True),
        Segment(" is a cell", False, False),
    )
    assert mark_segments(pieces) == "⟦red ⟨cell⟩⟧ is a cell"
    assert mark_segments(cut_sentence("a b", (0, 1), (2, 3))) == "⟦a⟧ ⟨b⟩"
    assert mark_segments(cut_sentence("a", None, None)) == "a"


def test_wrong_offsets_are_not_shown_but_refused(run_dir: Path) -> None:
    path = run_dir / "kg" / "evidence.parquet"
    table = read_table(path)
    shifted = pa.array([start + 1 for start in table["head_start"].to_pylist()], pa.int64())
    column = table.schema.get_field_index("head_start")
    write_table(path, table.set_column(column, "head_start", shifted))
    with pytest.raises(ProvenanceError, match="head is not where"):
        render_report(run_dir)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", "{"),
        ("metrics.json", "[]"),
        ("metrics.json", '{"test": {"systems": {"a": {}}}}'),
        ("ledger.json", '{"stages": {}}'),
        ("ledger.json", '{"stages": [{"stage": "x"}]}'),
        ("model/training.jsonl", '{"step": 1'),
        ("model/training.jsonl", '{"loss": 1}\n'),
        ("kg/triples.parquet", "not parquet"),
    ],
)
def test_broken_files_are_format_errors(run_dir: Path, name: str, content: str) -> None:
    (run_dir / name).write_text(content)
    with pytest.raises(FormatError):
        render_report(run_dir)


def test_missing_folder_is_a_format_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not found"):
        render_report(tmp_path / "absent")


def test_markdown_escapes() -> None:
    assert escape_markdown("a|b\n<i>*x*</i>") == r"a\|b \<i\>\*x\*\</i\>"


def test_report_needs_no_torch() -> None:
    code = "import sys, graphmert.report; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
